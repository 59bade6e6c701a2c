"""Functions beside the optimizers, and how settings become text and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Union

import torch

from ._extension import load

native = load()

Setting = Union[bool, int, float, str]


def to_text(name: str, value: object) -> str:
    """A setting as the library reads it."""
    if getattr(value, "ndim", None) == 0:  # a number of NumPy or of PyTorch
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)):
        return ",".join(to_text(name, v) for v in value)
    if isinstance(value, int):
        return str(value)
    return repr(number_from(name, value))


def number_from(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"matopt: {name} is {value!r}; legal: a number") from None


def from_text(value: str) -> Setting:
    if value in ("true", "false"):
        return value == "true"
    try:
        return int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError:
        return value


def rules(device: str = "cpu") -> list[str]:
    """The names of the rules on ``device``: ``"cpu"`` (all that are published) or ``"cuda"`` (a selection; none if
    the extension was built without CUDA)."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f'matopt: device is "{device}"; legal: "cpu" or "cuda"')
    return native.rule_names(device == "cuda")


def settings(rule: str, **values: Setting) -> dict[str, Setting]:
    """The settings of a rule, with its defaults; ``values`` replaces some, and then all of them are checked: unknown
    names and illegal values are a ValueError that says what is legal."""
    return from_native(native.rule_facts(str(rule), to_native(values))[0] if values else native.rule_defaults(str(rule))[1])


@lru_cache(maxsize=None)
def setting_names(rule: str) -> tuple[str, ...]:
    return tuple(settings(rule))


def lr_of(rule: str) -> float:
    """The learning rate that the authors of a rule publish; 0 if they name none."""
    return native.rule_defaults(str(rule))[0]


def to_native(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """``weight_decay``, PyTorch's name, is ``decay`` here."""
    return [("decay" if name == "weight_decay" else name, to_text(name, v)) for name, v in values.items()]


def from_native(values: list[tuple[str, str]]) -> dict[str, Setting]:
    return {"weight_decay" if name == "decay" else name: from_text(v) for name, v in values}


def suggest_roles(names: Iterable[str], shapes: Iterable[Sequence[int]]) -> list[str]:
    """What each parameter seems to be, by its name and shape: ``"hidden"`` (a matrix for rules such as Muon),
    ``"embedding"``, ``"head"`` or ``"vector"`` (for AdamW). A proposal: print it, look at it, correct it.

    >>> names, params = zip(*model.named_parameters())
    >>> roles = matopt.torch.suggest_roles(names, [p.shape for p in params])
    >>> matrices = [(n, p) for n, p, role in zip(names, params, roles) if role == "hidden"]

    Args:
        names: of the parameters, such as ``"transformer.wte.weight"``; parts are told apart by dots, slashes and
            underscores.
        shapes: as many; rows (fan-out) first.
    """
    return [native.suggest_role(name, list(shape)) for name, shape in zip(names, shapes, strict=True)]


def orthogonalize(x: torch.Tensor, coefficients: str = "keller", steps: int | None = None) -> torch.Tensor:
    """About ``U @ V.T`` of each matrix ``x = U @ diag(S) @ V.T``, by Newton-Schulz iterations: Muon's update.

    Args:
        x: of shape ``(..., m, n)``; float32, float64, bfloat16 or float16. It is only read.
        coefficients: the set of coefficients; ``"keller"`` brings singular values into [0.68, 1.21],
            ``"polar_express"`` and ``"deepseek"`` near 1.
        steps: the number of iterations; by default what the set is meant for, 5 for ``"keller"``.

    Returns:
        a new tensor of the shape and type of ``x``. Types of 16 bits are computed in float32.
    """
    return native.orthogonalize(x, coefficients, steps)
