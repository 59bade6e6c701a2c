"""Muon with the arguments of torch.optim.Muon."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Optional

import torch

from ._functions import settings, suggest_roles, to_text
from ._optimizer import Optimizer, ParamsT

_SCALES = {None: "torch_muon", "original": "torch_muon", "match_rms_adamw": "torch_muon_match_rms",
           "spectral_unclamped": "torch_muon_spectral"}
# The coefficients (a, b, c) of an iteration that the library has under a name.
_COEFFICIENTS = {(3.4445, -4.775, 2.0315): "keller", (1.5, -0.5, 0.0): "cubic"}


class Muon(Optimizer):
    r"""In the place of ``torch.optim.Muon``: the same arguments, defaults, param_groups and names of state.

    .. math::
        M \leftarrow \mu M + (1 - \mu) G, \quad U = (1 - \mu) G + \mu M, \quad
        W \leftarrow (1 - \text{lr} \lambda) W - \text{lr}\, s\, \text{NS}(U)

    A state dict of ``torch.optim.Muon`` can be loaded, and the other way round. Products are computed in float32 on the
    CPU and in float16 on a GPU, where ``torch.optim.Muon`` has bfloat16.

    Args:
        params: parameters of shape ``(m, n)``: fan-out x fan-in, as in ``torch.nn.Linear``.
        lr: learning rate (default: 1e-3).
        weight_decay: decoupled; the weight is multiplied by ``1 - lr * weight_decay`` (default: 0.1).
        momentum: at least 0 and below 1 (default: 0.95).
        nesterov: whether the update looks ahead (default: True).
        ns_coefficients: of x, x^3 and x^5 (default: ``(3.4445, -4.775, 2.0315)``). Those that make a singular value 0,
            negative or larger than 1.5 are refused. Sets that change from step to step have names:
            ``Optimizer(rule="torch_muon", ns_coefficients="polar_express")``.
        eps: the smallest norm that the update is divided by (default: 1e-7).
        ns_steps: the number of Newton-Schulz iterations, below 100 (default: 5).
        adjust_lr_fn: the factor s of an update of shape ``(m, n)``: ``None`` or ``"original"`` for
            ``sqrt(max(1, m / n))``, ``"match_rms_adamw"`` for ``0.2 sqrt(max(m, n))``, ``"spectral_unclamped"`` for
            ``sqrt(m / n)`` (default: None).
    """

    _always_confirmed = True  # a warning instead, because torch.optim.Muon takes them
    _state_names = {"momentum": "momentum_buffer"}

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: Optional[str] = None,
    ) -> None:
        self._build(params, lr, {"weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                                 "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
                                 "adjust_lr_fn": adjust_lr_fn})

    def _complete(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            p = p[1] if isinstance(p, tuple) else p
            if isinstance(p, torch.Tensor) and p.ndim != 2:
                raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter with size: {p.size()}")
        for i, p in enumerate(group["params"]):
            name, p = p if isinstance(p, tuple) else (f"number {i} of a group", p)
            if isinstance(p, torch.Tensor) and (role := suggest_roles([name], [p.shape])[0]) in ("embedding", "head"):
                warnings.warn(f"matopt: the parameter {name} of {tuple(p.shape)} looks like an embedding or an output "
                              f"head ({role}); these train better with AdamW", stacklevel=2)

    def _rule_of(self, group: dict[str, Any]) -> str:
        if group["adjust_lr_fn"] not in _SCALES:
            raise ValueError(f"Adjust learning rate function {group['adjust_lr_fn']} is not supported")
        return _SCALES[group["adjust_lr_fn"]] + ("" if group["nesterov"] else "_plain")

    def _settings_of(self, group: dict[str, Any]) -> dict[str, object]:
        try:
            a, b, c = (float(x) for x in group["ns_coefficients"])
        except (TypeError, ValueError):
            raise ValueError(f"matopt: ns_coefficients is {group['ns_coefficients']!r}; legal: three numbers") from None
        return {"momentum": group["momentum"], "decay": group["weight_decay"], "ns_eps": group["eps"],
                "ns_steps": group["ns_steps"], **_iteration((a, b, c), group["ns_steps"])}


@lru_cache(maxsize=64)
def _iteration(coefficients: tuple[float, float, float], steps: int) -> dict[str, str]:
    """The settings that say these coefficients. Under a name they may take less products."""
    name = _COEFFICIENTS.get(coefficients)
    if name is not None:
        return {"ns_coefficients": name, "ns_rows": ""}
    own = {"ns_coefficients": "keller", "ns_rows": to_text("ns_coefficients", coefficients)}
    try:
        settings("torch_muon", ns_steps=steps, **own)
    except ValueError as why:
        raise ValueError(str(why).replace("ns_rows", "ns_coefficients")) from None
    return own
