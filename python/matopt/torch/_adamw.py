"""AdamW with the arguments of torch.optim.AdamW."""

from __future__ import annotations

import math
from typing import Any, Optional

import torch

from ._optimizer import Optimizer, ParamsT

_CORRECTIONS = ("first_correction", "second_correction")


class AdamW(Optimizer):
    r"""In the place of ``torch.optim.AdamW``: the same arguments, defaults, param_groups and names of state.

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) G, \quad v \leftarrow \beta_2 v + (1 - \beta_2) G^2, \quad
        W \leftarrow (1 - \text{lr} \lambda) W
            - \text{lr} \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    A state dict of ``torch.optim.AdamW`` can be loaded, and the other way round. Parameters may have any shape.

    Args:
        params: parameters, ``(name, parameter)`` pairs, or groups of them.
        lr: learning rate (default: 1e-3).
        betas: of the two moments, each at least 0 and below 1 (default: (0.9, 0.999)).
        eps: is added to the root; above 0 (default: 1e-8).
        weight_decay: decoupled; the weight is multiplied by ``1 - lr * weight_decay`` (default: 1e-2).
        amsgrad: divide by the largest second moment so far (default: False).
        maximize, capturable, differentiable: have to be False.
        foreach, fused: are taken and change nothing; there is one implementation, which steps all parameters together.
    """

    _always_confirmed = True
    _state_names = {"first_moment": "exp_avg", "second_moment": "exp_avg_sq", "largest_second_moment": "max_exp_avg_sq"}

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: Optional[bool] = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: Optional[bool] = None,
    ) -> None:
        self._build(params, lr, {"betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                                 "maximize": maximize, "foreach": foreach, "capturable": capturable,
                                 "differentiable": differentiable, "fused": fused, "decoupled_weight_decay": True})

    def _complete(self, group: dict[str, Any]) -> None:
        pass

    def _rule_of(self, group: dict[str, Any]) -> str:
        return "adamw"

    def _settings_of(self, group: dict[str, Any]) -> dict[str, object]:
        for name in ("maximize", "capturable", "differentiable"):
            if group[name]:
                raise ValueError(f"matopt: {name} is {group[name]}; legal: False")
        if not group["decoupled_weight_decay"] and group["weight_decay"]:
            raise ValueError("matopt: decoupled_weight_decay is False; legal: True, or no weight_decay: this is AdamW, and "
                             "not Adam")
        try:
            beta1, beta2 = group["betas"]
        except (TypeError, ValueError):
            raise ValueError(f"matopt: betas is {group['betas']!r}; legal: two numbers") from None
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"], "decay": group["weight_decay"],
                "amsgrad": bool(group["amsgrad"])}

    # PyTorch counts the steps of a parameter, and the library keeps what follows from the count. Both are in the state, so
    # that a run goes on with the same bits; "corrections" says for which count it holds, because PyTorch's optimizer leaves
    # it as it is.
    def _state_to_save(self, group: dict[str, Any], state: dict[str, torch.Tensor],
                       steps: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        c1, c2 = (float(state.pop(name)) for name in _CORRECTIONS)
        taken = _steps_behind(c2, float(group["betas"][1]), steps)
        corrections = torch.tensor([c1, c2, taken], dtype=torch.float64, device="cpu")
        counts = torch.promote_types(torch.get_default_dtype(), torch.float32)  # 16 bits do not count
        return torch.tensor(taken, dtype=counts, device="cpu"), {**state, "corrections": corrections}

    def _state_to_load(self, group: dict[str, Any], state: dict[str, Any], steps: int) -> dict[str, Any]:
        corrections = [1 - float(beta) ** steps for beta in group["betas"]]
        known = state.pop("corrections", None)
        if known is not None and known.dtype == torch.float64 and known.numel() == 3 and known.flatten()[2] == steps:
            corrections = known.flatten()[:2].tolist()
        return {**state, **{name: torch.tensor(c, dtype=torch.float64, device="cpu") for name, c in zip(_CORRECTIONS, corrections)}}


def _steps_behind(correction: float, beta: float, steps: int) -> int:
    """How many steps make this correction, 1 - beta^t: fewer than ``steps`` for a parameter that was left out of some. Where
    it has become 1 nothing tells, and it makes no difference."""
    if correction == 0:
        return 0
    left = 1 - correction
    if left < 1e-3 or beta <= 0 or abs(correction - (1 - beta**steps)) < 1e-4:
        return max(steps, 1)
    return max(round(math.log(left) / math.log(beta)), 1)
