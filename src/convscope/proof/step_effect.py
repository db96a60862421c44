"""Step effect: what a recorded update does to the loss of its own batch, also with another learning rate.

The update is repeated by the reference in float64, and then the forward pass with the new weights and the recorded
random numbers. Uses traces and the reference; no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convscope.errors import UsageError
from convscope.proof.recomputation import arguments_of
from convscope.proof.repeated_forward import Forward
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Step
from convscope.traces.trace import Trace
from convscope.type_checks import takes
from convscope.typing import Array

LARGE = 2.0**20
"""The learning rate at which a direction is read off: next to so large a change, the weight's rounding is small."""
SAME = 1e-5
"""Images' losses are shown only if their mean is the recorded loss, to this relative difference."""


@dataclass(frozen=True, slots=True, eq=False)
class StepEffect:
    """A loss before and after an update, on the same batch with the same masks."""

    times: float
    """The learning rate of the update, as a multiple of the recorded one."""
    before: float
    """The recorded loss."""
    after: float
    """The loss with the updated parameters, in float64; nan where it overflows."""

    @property
    def helped(self) -> bool:
        """Whether the loss fell."""
        return self.after < self.before


@takes(trace="Trace")
def step_effect(trace: Trace, times: float = 1.0) -> StepEffect:
    """The loss of the same batch after a recorded update, or after the same update with another learning rate.

    >>> import torch, convscope as cs
    >>> _ = torch.manual_seed(0)  # weights that are not at their optimum by chance
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> step = cs.trace(net, torch.ones(4, 1, 2, 2), target=[0, 0, 0, 1], optimizer="sgd", lr=0.1)
    >>> step_effect(step).helped, step_effect(step, times=1e4).helped
    (True, False)

    Args:
        trace: Of a training step with an optimizer.
        times: The learning rate as a multiple of the recorded one.

    Raises:
        UsageError: the trace has no update, or a step of its forward pass has no reference.
    """
    training_step = trace.training_step
    if training_step is None or not training_step.updated:
        raise UsageError(
            "this trace has no update; record one with cs.trace(model, images, target=..., optimizer=...)."
        )
    if not math.isfinite(times):
        raise UsageError(f"times is a multiple of the learning rate, not {times}.")
    parameters = {ref.name: ref for ref in trace.outside.values() if ref.kind == "parameter"}
    changed = {parameters[name]: updated(trace, name, times) for name in training_step.updated if name in parameters}
    with np.errstate(all="ignore"):  # a huge step may overflow: that is the answer
        after = Forward(trace, changed).loss()
    return StepEffect(times, _loss(trace), after)


def updated(trace: Trace, parameter: str, times: float = 1.0) -> Array:
    """A parameter after the update, or after the same update with `times` its learning rate; float64, its own shape."""
    step = _update(trace, parameter)
    if times == 1.0:
        return step.output.astype(np.float64)
    arguments = arguments_of(trace, step)
    return _stepped(step, {**arguments, "lr": arguments["lr"] * times})


@takes(trace="Trace")
def update_direction(trace: Trace, parameter: str) -> tuple[Array, float]:
    """What the optimizer multiplies by the learning rate and subtracts, and the learning rate.

    For plain SGD it is the gradient itself, for Adam the mean gradient over its root mean square. Decoupled weight
    decay (AdamW) is part of it.

    >>> import torch, convscope as cs
    >>> step = cs.trace(torch.nn.Linear(2, 2), torch.ones(3, 2), target=[0, 1, 1], optimizer="adam", lr=0.1)
    >>> along, rate = update_direction(step, "bias")
    >>> rate, np.abs(along).round(3).tolist()
    (0.1, [1.0, 1.0])

    Returns:
        The direction in float64, in the shape of the parameter, and the learning rate.
    """
    step = _update(trace, parameter)
    arguments = arguments_of(trace, step)
    along = (np.asarray(arguments["param"], np.float64) - _stepped(step, {**arguments, "lr": LARGE})) / LARGE
    return along, float(arguments["lr"])


@takes(trace="Trace")
def image_losses(trace: Trace) -> Array | None:
    """The loss of each image of a training step, shape (N,); None where the loss is not a mean over images.

    >>> import torch, convscope as cs
    >>> step = cs.trace(torch.nn.Linear(2, 2), torch.rand(3, 2), target=[0, 1, 1])
    >>> bool(np.isclose(image_losses(step).mean(), step["loss"].output))
    True
    """
    training_step = trace.training_step
    if training_step is None:
        raise UsageError("this trace has no loss; record one with cs.trace(model, images, target=labels).")
    step = trace.all_steps[training_step.loss.id]
    arguments = arguments_of(trace, step)
    losses = None
    if step.op == "nll_loss_forward" and arguments.get("weight") is None:
        scores, target = np.asarray(arguments["self"], np.float64), np.asarray(arguments["target"])
        is_counted = target != arguments["ignore_index"]
        if scores.ndim == 2 and is_counted.all():
            losses = -scores[np.arange(len(target)), target]
    elif step.op == "mse_loss":
        squares = (np.asarray(arguments["self"], np.float64) - np.asarray(arguments["target"], np.float64)) ** 2
        losses = squares.reshape(len(squares), -1).mean(axis=1) if squares.ndim else None
    if losses is None or not math.isclose(float(losses.mean()), _loss(trace), rel_tol=SAME, abs_tol=1e-9):
        return None
    result: Array = losses
    return result


def _update(trace: Trace, parameter: str) -> Step:
    training_step = trace.training_step
    if training_step is None or parameter not in training_step.updated:
        names = ", ".join(training_step.updated) if training_step is not None and training_step.updated else "none"
        raise UsageError(f"this trace has no update of {parameter!r}; updated parameters: {names}.")
    return trace.all_steps[training_step.updated[parameter].id]


def _stepped(step: Step, arguments: Mapping[str, object]) -> Array:
    with np.errstate(all="ignore"):
        result = OPERATIONS[step.op].compute(**arguments)
    return np.asarray(result[0] if isinstance(result, tuple) else result, np.float64)


def _loss(trace: Trace) -> float:
    training_step = trace.training_step
    assert training_step is not None
    return float(trace.all_steps[training_step.loss.id].outputs[training_step.loss.output])
