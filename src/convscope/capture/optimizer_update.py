"""Optimizer updates: one step of a copy of an optimizer, as one call for each parameter it moves.

PyTorch computes an update by many small operations, some of them in Python (Adam's bias corrections) and some for all
parameters at once. Here an update is one operation, `convscope::adam(param, grad, ...)`, from the numbers before the
step to those after it, without the intermediate results. Uses torch's optimizers; no steps, no names.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._C import FunctionSchema
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer, RMSprop

from convscope.capture.tape import Call
from convscope.errors import UsageError
from convscope.training.objectives import kind_of_optimizer

Group: TypeAlias = Mapping[str, Any]
"""Settings or state of parameters by name, each setting of its own type, as `torch.optim` has them."""


@dataclass(frozen=True, slots=True)
class UpdateFunction:
    """A stand-in for an ATen function in the recording; it is never called."""

    schema: str
    _schema: FunctionSchema = field(init=False)
    is_view: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_schema", torch._C.parse_schema(self.schema))


@dataclass(frozen=True, slots=True)
class OptimizerKind:
    """One optimizer: its operation, the state it keeps for each parameter, and the settings that matter."""

    function: UpdateFunction
    state: tuple[str, ...]
    settings: tuple[str, ...]


_ADAM = "float lr, float beta1, float beta2, float eps, float weight_decay, bool maximize, int step"
_MEANS = "Tensor param, Tensor grad, Tensor exp_avg, Tensor exp_avg_sq"
KINDS: Mapping[type[Optimizer], OptimizerKind] = {
    SGD: OptimizerKind(
        UpdateFunction(
            "convscope::sgd(Tensor param, Tensor grad, Tensor? momentum_buffer, *, float lr, float momentum, "
            "float dampening, float weight_decay, bool nesterov, bool maximize) -> (Tensor, Tensor)"
        ),
        ("momentum_buffer",),
        ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
    ),
    Adam: OptimizerKind(
        UpdateFunction(f"convscope::adam({_MEANS}, *, {_ADAM}) -> (Tensor, Tensor, Tensor)"),
        ("exp_avg", "exp_avg_sq"),
        ("lr", "eps", "weight_decay", "maximize"),
    ),
    AdamW: OptimizerKind(
        UpdateFunction(f"convscope::adamw({_MEANS}, *, {_ADAM}) -> (Tensor, Tensor, Tensor)"),
        ("exp_avg", "exp_avg_sq"),
        ("lr", "eps", "weight_decay", "maximize"),
    ),
    Adadelta: OptimizerKind(
        UpdateFunction(
            "convscope::adadelta(Tensor param, Tensor grad, Tensor square_avg, Tensor acc_delta, *, float lr, "
            "float rho, float eps, float weight_decay, bool maximize) -> (Tensor, Tensor, Tensor)"
        ),
        ("square_avg", "acc_delta"),
        ("lr", "rho", "eps", "weight_decay", "maximize"),
    ),
    RMSprop: OptimizerKind(
        UpdateFunction(
            "convscope::rmsprop(Tensor param, Tensor grad, Tensor square_avg, Tensor? momentum_buffer, "
            "Tensor? grad_avg, *, float lr, float alpha, float eps, float weight_decay, float momentum, "
            "bool centered, bool maximize) -> (Tensor, Tensor, Tensor, Tensor)"
        ),
        ("square_avg", "momentum_buffer", "grad_avg"),
        ("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "maximize"),
    ),
}
"""The optimizers whose updates are explained."""


@dataclass(slots=True, eq=False)
class Update:
    """The update of one parameter."""

    parameter: str
    call: Call
    before: Mapping[str, Tensor]
    """The optimizer's state before the step, by name: `conv1.weight.exp_avg`."""
    results: tuple[str, ...]
    """The names of the call's results, including missing ones: `conv1.weight.updated`, then those of the state."""
    time: int = -1


def check_optimizer(optimizer: Optimizer) -> OptimizerKind:
    """The kind of an optimizer.

    Raises:
        UsageError: no formula explains it, or one of its settings.
    """
    kind = KINDS.get(kind_of_optimizer(optimizer))
    if kind is None:
        names = ", ".join(kind_class.__name__ for kind_class in KINDS)
        closure = "calls the model several times, and " if isinstance(optimizer, torch.optim.LBFGS) else ""
        raise UsageError(
            f"the update of {type(optimizer).__name__} is not explained: it {closure}has no formula here; "
            f"updates are explained for {names}. Leave the optimizer out to explain the gradients alone."
        )
    if (
        optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    ):  # a copy takes the step, without them
        raise UsageError(
            f"the update of {type(optimizer).__name__} with hooks on its steps is not explained: they may change the "
            "weights; remove them, or leave the optimizer out to explain the gradients alone."
        )
    step = optimizer.__dict__.get("step")
    if step is not None and not getattr(step, "_wrapped_by_lr_sched", False):
        raise UsageError(
            f"the update of {type(optimizer).__name__} is not explained: its step was replaced by another function, "
            "which may change the gradients (to clip them, for example); leave the optimizer out to explain the "
            "gradients alone."
        )
    for group in optimizer.param_groups:
        for setting in ("amsgrad", "capturable", "differentiable"):
            if group.get(setting):
                raise UsageError(
                    f"the update of {type(optimizer).__name__} with {setting}=True is not explained; leave it off, or "
                    "leave the optimizer out to explain the gradients alone."
                )
    return kind


def updates_of(
    optimizer: Optimizer,
    names: Mapping[int, str],
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> Iterator[Update]:
    """Run one step of a copy of an optimizer on copies of the parameters.

    Args:
        optimizer: The user's; it is only read.
        names: id of a parameter that the optimizer holds -> its name.
        parameters: The parameters before the step, by name.
        gradients: Their gradients, by name; those without one do not move.

    Raises:
        UsageError: no formula explains the optimizer, or none of its parameters has a gradient.
    """
    kind = check_optimizer(optimizer)
    with torch._C._DisableTorchDispatch():
        copies = {name: parameters[name].detach().clone() for name in gradients if name in parameters}
        twin, groups = _twin(optimizer, names, copies)
        if not groups and any(id(p) in names for group in optimizer.param_groups for p in group["params"]):
            raise UsageError(
                "the loss does not depend on any parameter of the optimizer, so its step changes nothing; leave the "
                "optimizer out to explain the gradients alone."
            )
        if not groups:
            raise UsageError("the optimizer holds none of the model's parameters; make it from model.parameters().")
        before = {name: _state(kind, twin, copies[name], group) for name, group in groups.items()}
        for name in groups:
            copies[name].grad = torch.empty_like(copies[name]).copy_(gradients[name].detach())  # in its memory layout
        with torch.no_grad():
            twin.step()
    for name, group in groups.items():
        state, after = before[name], twin.state[copies[name]]
        arguments = (parameters[name], gradients[name], *state.values())
        results = (copies[name], *(after.get(part) for part in kind.state))
        call = (kind.function, arguments, _settings(kind, group, after), results, 0)
        result_names = (f"{name}.updated", *(f"{name}.{part}.updated" for part in kind.state))
        state_tensors = {f"{name}.{part}": tensor for part, tensor in state.items() if tensor is not None}
        yield Update(name, call, state_tensors, result_names)


def _twin(
    optimizer: Optimizer, names: Mapping[int, str], copies: Mapping[str, Tensor]
) -> tuple[Optimizer, dict[str, Group]]:
    """The same optimizer over other tensors, with a copy of its state; and the group of each parameter, by name."""
    state: defaultdict[Tensor, dict[str, object]] = defaultdict(dict)
    param_groups: list[Group] = []
    groups: dict[str, Group] = {}
    for group in optimizer.param_groups:
        members = [(names[id(p)], p) for p in group["params"] if names.get(id(p)) in copies]
        param_groups.append({**group, "params": [copies[name] for name, _ in members]})
        groups.update(dict.fromkeys((name for name, _ in members), group))
        for name, p in members:
            parameter_state = optimizer.state.get(p)
            if parameter_state:
                state[copies[name]] = {
                    k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in parameter_state.items()
                }
    twin = type(optimizer).__new__(type(optimizer))
    twin.__setstate__({"defaults": dict(optimizer.defaults), "state": state, "param_groups": param_groups})
    return twin, groups


def _state(kind: OptimizerKind, optimizer: Optimizer, parameter: Tensor, group: Group) -> dict[str, Tensor | None]:
    """The state of a parameter before the step; for a new optimizer zero, or None for the momentum of SGD."""
    unused = {"momentum_buffer": isinstance(optimizer, SGD) or not group["momentum"]} if "momentum" in group else {}
    unused["grad_avg"] = not group.get("centered")
    parameter_state = optimizer.state.get(parameter, {})
    state: dict[str, Tensor | None] = {}
    for part in kind.state:
        tensor = parameter_state.get(part)
        if tensor is None and not unused.get(part):
            tensor = torch.zeros_like(parameter)
        state[part] = None if tensor is None else tensor.clone()
    return state


def _settings(kind: OptimizerKind, group: Group, after: Group) -> dict[str, object]:
    settings = {name: _number(group[name]) for name in kind.settings}
    if "exp_avg" in kind.state:
        settings["beta1"], settings["beta2"] = map(_number, group["betas"])
        settings["step"] = int(after["step"])
    return settings


def _number(setting: object) -> object:
    return setting.item() if isinstance(setting, Tensor) else setting
