"""What Optimizer.state gives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ._optimizer import Optimizer


class StateCopy(MutableMapping[torch.Tensor, dict[str, Any]]):
    """A copy of an optimizer's state, by parameter; empty for those without. What is assigned to a parameter, or taken from
    it, goes to the optimizer as well: programs expect that, which load or clear the state of others."""

    def __init__(self, of: Optimizer) -> None:
        self._of, self._copy = of, defaultdict(dict, of._read_state())

    def __setitem__(self, p: torch.Tensor, state: dict[str, Any]) -> None:
        now = self._of._read_state()
        if not _same(now.get(p, {}), state):
            self._of.state = {**now, p: state}
        self._copy[p] = state

    def __delitem__(self, p: torch.Tensor) -> None:
        del self._copy[p]
        self._of.state = {q: state for q, state in self._of._read_state().items() if q is not p}

    def clear(self) -> None:
        self._copy.clear()
        self._of.state = {}

    def pop(self, p: torch.Tensor, *default: Any) -> Any:
        state = self._copy.get(p)
        if state is None:
            return self._copy.pop(p, *default)
        del self[p]
        return state

    def get(self, p: torch.Tensor, default: Any = None) -> Any:
        return self._copy.get(p, default)

    def __getitem__(self, p: torch.Tensor) -> dict[str, Any]:
        return self._copy[p]

    def __contains__(self, p: object) -> bool:
        return p in self._copy

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._copy)

    def __len__(self) -> int:
        return len(self._copy)

    def __repr__(self) -> str:
        return repr(dict(self._copy))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self._copy),)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    def equal(x: Any, y: Any) -> bool:
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            return x.dtype == y.dtype and x.equal(y.to(x.device))
        return bool(x == y)

    return a.keys() == b.keys() and all(equal(x, b[name]) for name, x in a.items())
