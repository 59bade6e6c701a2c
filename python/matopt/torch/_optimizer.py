"""Every rule of matopt as a torch.optim.Optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar, Union

import torch

from ._functions import Setting, lr_of, native, number_from, setting_names, settings, to_native
from ._state import StateCopy

ParamsT = Union[Iterable[torch.Tensor], Iterable[dict[str, Any]], Iterable[tuple[str, torch.Tensor]]]

# What a group may have besides the settings of its rule: PyTorch's own keys, and those of its schedulers and timm's.
_OTHER_KEYS = {"params", "param_names", "name", "lr", "rule", "master_weights", "stacked", "confirmed", "initial_lr", "max_lr",
               "min_lr", "swa_lr", "base_momentum", "max_momentum", "lr_scale"}


# Names of state of torch.optim, where a class of ours does not have them as well.
_OF_PYTORCH = {"exp_avg", "exp_avg_sq", "momentum_buffer"}


class _Sent(NamedTuple):
    """What the library knows of a group."""

    rule: str
    settings: dict[str, str]
    params: tuple[torch.Tensor, ...]
    form: tuple[bool, bool]  #: master_weights, stacked


F = TypeVar("F", bound=Callable[..., Any])


def _not_traced(f: F) -> F:
    """Within a function that torch.compile traces it is a call of its own, as the steps of PyTorch's optimizers are."""
    return getattr(torch, "_disable_dynamo", lambda same: same)(f)  # type: ignore[no-any-return]


class Status(NamedTuple):
    """What Optimizer.poll_status() says of the steps since the last call."""

    skipped: int
    parameters: list[str]  #: whose gradients were not finite


class Optimizer(torch.optim.Optimizer):
    """One of matopt's rules, or several, for the parameters of a model.

    >>> optimizer = matopt.torch.Optimizer(model.parameters(), rule="adamw", lr=3e-3, weight_decay=0.01)
    >>> optimizer = matopt.torch.Optimizer([
    ...     {"params": hidden_matrices, "rule": "muown", "lr": 0.02},
    ...     {"params": everything_else, "rule": "adamw", "lr": 3e-3, "beta2": 0.95},
    ... ])

    Rows are fan-out and columns fan-in, as in ``torch.nn.Linear``. A convolution ``(out, in, kh, kw)`` is the matrix
    ``out x (in kh kw)``. Vectors and scalars are for rules that step them (``adamw``, ``lion``, ``scion_vector``, ...);
    a rule for matrices refuses them. Embeddings and heads are matrices, too, and usually belong to ``adamw``: the shape
    does not tell, so you say it by groups.

    A parameter of two dimensions that looks like an embedding or a head, by its name (if it has one here) and its
    shape, is refused in a group with a rule for matrices, unless the group says ``"confirmed": True``.
    ``matopt.torch.suggest_roles`` proposes who belongs where.

    Gradients that are None leave a parameter out of that step. A gradient that is not finite skips the step of all
    parameters of its device and compute type. float64 is computed in float64, everything else in float32, with state
    in float32. State of a parameter begins with the first step in which it requires a gradient or has one.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or groups of them, each a dict with a ``rule`` and settings of its
            own.
        rule: one of ``matopt.torch.rules()`` (default: ``"muon"``).
        lr: learning rate; by default what the authors of the rule publish, ``matopt.torch.lr_of(rule)``.
        master_weights: keep a float32 copy of bfloat16 and float16 parameters, so that small steps are not lost when
            they are rounded (default: False). It is part of the state.
        stacked: parameters are ``(count, m, n)``, stacks of matrices such as experts (default: False).
        confirmed: parameters are meant for their rule, also those that look like embeddings or heads (default: False).
        nonfinite: ``"skip"`` (default), or ``"ignore"``, which does not look whether gradients are finite.
        **settings: those of the rule, by the names and with the defaults of ``matopt.torch.settings(rule)``;
            ``weight_decay`` stands for ``decay``. All of them are in ``param_groups`` and may be changed between steps.
    """

    _always_confirmed = False  # if groups have no such key
    _state_names: dict[str, str] = {}  # the library's names of state -> those in state dicts

    def __init__(
        self,
        params: ParamsT,
        rule: str = "muon",
        lr: float | torch.Tensor | None = None,
        *,
        master_weights: bool = False,
        stacked: bool = False,
        confirmed: bool = False,
        nonfinite: str = "skip",
        **settings_of_rule: Setting,
    ) -> None:
        self._lr_given = lr is not None
        defaults: dict[str, Any] = {"lr": lr if lr is not None else lr_of(rule), "rule": rule,
                                    "master_weights": master_weights, "stacked": stacked, "confirmed": confirmed}
        self._build(params, None, {**defaults, **settings(rule, **settings_of_rule)}, nonfinite)

    def _build(self, params: ParamsT, lr: float | torch.Tensor | None, defaults: dict[str, Any],
               nonfinite: str = "skip") -> None:
        if lr is not None:
            defaults = {"lr": lr, **defaults}
        if isinstance(defaults["lr"], torch.Tensor) and defaults["lr"].numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        self._nonfinite = nonfinite
        self._native = native.Optimizer(nonfinite)
        self._sent: list[_Sent] = []
        super().__init__(params, defaults)

    # --- what a subclass may see otherwise ---
    def _complete(self, group: dict[str, Any]) -> None:
        """Checks a new group, and gives it what it does not say."""
        rule = group.setdefault("rule", self.defaults["rule"])
        same = rule == self.defaults["rule"]
        if not same and "lr" not in group and not self._lr_given:
            group["lr"] = lr_of(rule)
        own = {k: v for k, v in group.items() if k not in _OTHER_KEYS}
        if same:
            own = {**{k: v for k, v in self.defaults.items() if k not in _OTHER_KEYS}, **own}
        for name, value in settings(rule, **own).items():
            group[name] = value

    def _rule_of(self, group: dict[str, Any]) -> str:
        return group["rule"]

    def _settings_of(self, group: dict[str, Any]) -> dict[str, object]:
        return {name: group[name] for name in setting_names(group["rule"])}

    # --- torch.optim.Optimizer ---
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, at any time, with the keys of the class's arguments. An error leaves the optimizer as it was."""
        if isinstance(param_group, dict):
            params = param_group.get("params")
            if isinstance(params, torch.Tensor):
                param_group["params"] = [params]
            elif not isinstance(params, (set, type(None))):  # which PyTorch refuses
                param_group["params"] = list(params)
            self._complete(param_group)
        everything = self.defaults
        # Settings of one rule are no defaults of another one's groups.
        if "rule" in everything:
            self.defaults = {k: v for k, v in everything.items() if k in param_group or k in _OTHER_KEYS}
        try:
            super().add_param_group(param_group)
        finally:
            self.defaults = everything
        try:
            self._sent.append(self._hand_over(self._native, self.param_groups[-1]))
        except BaseException:
            self.param_groups.pop()
            raise

    def _hand_over(self, to: Any, group: dict[str, Any]) -> _Sent:
        rule, own, form = self._rule_of(group), dict(to_native(self._settings_of(group))), self._form_of(group)
        to.add_param_group(group["params"], list(group.get("param_names", [])), rule, number_from("lr", group["lr"]), list(own.items()),
                           *form, bool(group.get("confirmed", self._always_confirmed)))
        return _Sent(rule, own, tuple(group["params"]), form)

    def _form_of(self, group: dict[str, Any]) -> tuple[bool, bool]:
        return bool(group.get("master_weights", False)), bool(group.get("stacked", False))

    def _sync(self) -> None:
        """Tells the library what has changed in param_groups. Everything else there must be as it was added."""
        if len(self.param_groups) != len(self._sent):
            raise ValueError(f"matopt: number of groups is {len(self.param_groups)}; legal: {len(self._sent)}, as many as were "
                             "added: use add_param_group, or make a new optimizer")
        for i, (group, sent) in enumerate(zip(self.param_groups, self._sent)):
            if self._rule_of(group) != sent.rule:
                raise ValueError(f'matopt: rule of group {i} is "{self._rule_of(group)}"; legal: "{sent.rule}", of which it has '
                                 'state')
            params = group["params"]
            if len(params) != len(sent.params) or any(p is not q for p, q in zip(params, sent.params)):
                raise ValueError(f"matopt: params of group {i} are not those that were added; legal: the same tensors. New ones "
                                 "come by add_param_group or with a new optimizer")
            for key, now, added in zip(("master_weights", "stacked"), self._form_of(group), sent.form):
                if now != added:
                    raise ValueError(f"matopt: {key} of group {i} is {now}; legal: {added}, as when the group was added")
        for i, (group, sent) in enumerate(zip(self.param_groups, self._sent)):
            self._native.set_lr(i, number_from("lr", group["lr"]))
            for name, value in to_native(self._settings_of(group)):
                if sent.settings[name] != value:
                    self._native.set(i, name, value)
                    sent.settings[name] = value

    @_not_traced
    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        reference_grads: Mapping[torch.Tensor, torch.Tensor] | Iterable[torch.Tensor | None] | None = None,
    ) -> Any:
        """One step.

        Args:
            closure: computes the loss and the gradients; what it returns is returned.
            reference_grads: for rules that estimate from two gradients (``mars_m_exact``, ``muon_mvr2``, ...): the
                second one of each parameter, by parameter or in their order. Not needed in the first step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._sync()
        if reference_grads is not None:
            pairs = reference_grads.items() if isinstance(reference_grads, Mapping) else zip(self._tensors(), reference_grads)
            for p, g in pairs:
                if g is not None:
                    self._native.set_reference(p, g)
        self._native.step()
        return loss

    # --- more than PyTorch asks for ---
    def poll_status(self) -> Status:
        """How many steps were skipped since the last call because a gradient was not finite, and whose. It waits for
        the device."""
        return Status(*self._native.poll_status())

    def resync(self) -> None:
        """Call it after weights were written past PyTorch's version counter, as ``p.data.mul_(2)`` does. Rules such as
        ``muown`` keep norms of the weight, and ``master_weights`` a copy; other writes are noticed."""
        self._native.resync()

    # --- state ---
    def _state_to_save(self, group: dict[str, Any], state: dict[str, torch.Tensor],
                       steps: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Of a parameter: its ``step``, and the rest; by what the library has after so many steps."""
        return torch.tensor(steps, device="cpu"), state

    def _state_to_load(self, group: dict[str, Any], state: dict[str, Any], steps: int) -> dict[str, Any]:
        """Of a parameter: what the library gets."""
        return state

    def _tensors(self) -> list[torch.Tensor]:
        return list(dict.fromkeys(p for group in self.param_groups for p in group["params"]))

    def _group_of(self) -> dict[torch.Tensor, dict[str, Any]]:
        return {p: group for group in self.param_groups for p in group["params"]}

    def _read_state(self) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
        steps = self._native.steps()
        group_of = self._group_of()
        out = {}
        for p, state in zip(self._tensors(), self._native.state(), strict=True):
            if state:
                step, state = self._state_to_save(group_of[p], state, steps)
                out[p] = {"step": step}
                for name, t in state.items():
                    out[p][self._state_names.get(name, name)] = t.view(p.shape) if t.numel() == p.numel() else t
        return out

    @property  # type: ignore[override]
    def state(self) -> StateCopy:
        """The state of each parameter that has some: ``step``, and what the rule keeps, in the type that it has it in;
        tensors of the parameter's size have its shape. It is a copy on the CPU, made at each access, so that a tensor
        in it may be changed without effect. Assign to change the state: ``optimizer.state[p] = {...}``, or all of it;
        ``optimizer.state = {}`` begins anew."""
        return StateCopy(self)

    @state.setter
    def state(self, state: Mapping[torch.Tensor, Mapping[str, Any]]) -> None:
        if "param_groups" in self.__dict__:  # PyTorch's constructor assigns to it before there are any
            self._take(state, self.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """All of it is compared with this optimizer before anything changes; what does not fit is a ValueError."""
        before = self.param_groups, self._native, self._sent
        given: dict[str, Any] = {}
        # The last of the hooks: it sees what they have made of the dict, and state that is not rounded to 16 bits yet.
        handle = self.register_load_state_dict_pre_hook(lambda _, d: given.update(d))
        self._loading = given
        try:
            super().load_state_dict(state_dict)
        except BaseException:
            self.param_groups, self._native, self._sent = before
            raise
        finally:
            handle.remove()
            del self._loading

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{k: v for k, v in self.__dict__.items() if k in ("_nonfinite", "_lr_given")}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called by load_state_dict(), and when a copy or a pickled optimizer is made."""
        old_groups = self.__dict__.get("param_groups")
        super().__setstate__(state)
        tensors = self.__dict__.pop("state")  # past the property
        if "_loading" in self.__dict__:
            ids = (i for group in self._loading["param_groups"] for i in group["params"])
            by_id = dict(zip(ids, (p for group in self.param_groups for p in group["params"]), strict=True))
            tensors = {by_id[i]: s for i, s in self._loading["state"].items() if i in by_id}
        self._take(tensors, old_groups)

    def _take(self, tensors: Mapping[torch.Tensor, Mapping[str, Any]], old_groups: list[dict[str, Any]] | None) -> None:
        """The state of parameters in the place of what there is. ``old_groups`` had what ``param_groups`` has now."""
        ours = {theirs: name for name, theirs in self._state_names.items()}
        for state in tensors.values():
            for name, saved in state.items():
                if name in _OF_PYTORCH and name not in ours:
                    raise ValueError(f'matopt: the state dict has "{name}", which is of an optimizer of torch.optim; legal: the '
                                     "state of this one. matopt.torch.AdamW and matopt.torch.Muon load those of PyTorch")
                if not isinstance(saved, torch.Tensor) and name != "step":
                    raise ValueError(f'matopt: "{name}" in the state dict is {saved!r}; legal: a tensor')
        saved_of = {p: {ours.get(name, name): t for name, t in state.items()} for p, state in tensors.items()}
        if old_groups is not None:
            here, saved = ([name for g in groups for name in g.get("param_names", [])]
                           for groups in (old_groups, self.param_groups))
            for name, wanted in zip(saved, here):
                if name != wanted and name in here:  # other names may be the same parameters, renamed
                    raise ValueError(f'matopt: the state dict has "{name}" in the place of "{wanted}"; legal: parameters in the '
                                     "order that they have here")
        fresh = native.Optimizer(self._nonfinite)
        sent = []
        for i, group in enumerate(self.param_groups):
            if old_groups is not None:
                for key, value in old_groups[i].items():
                    group.setdefault(key, value)
                if self._rule_of(group) != self._rule_of(old_groups[i]):
                    raise ValueError(f'matopt: the state dict has rule "{self._rule_of(group)}" in group {i}, and the '
                                     f'optimizer "{self._rule_of(old_groups[i])}"')
            sent.append(self._hand_over(fresh, group))
        given, most, group_of = [], 0, self._group_of()
        for p in self._tensors():
            state = saved_of.get(p, {})
            steps = number_from('"step" in the state dict', state.pop("step", 0))
            if not (steps >= 0 and steps.is_integer()):
                raise ValueError(f'matopt: "step" in the state dict is {steps}; legal: a number of steps')
            most = max(most, int(steps))
            given.append(self._state_to_load(group_of[p], state, int(steps)) if state else {})
        fresh.load_state(given, most)
        self._native, self._sent = fresh, sent
