"""How far a sound gradient may be from the derivative of its forward step beyond its own rounding.

The derivative is calculated in float64; the backward pass may need several operations for it, whose intermediate
numbers underflow or overflow (`range_of`), and a normalization's uses the mean and the rate as the forward pass rounded
them (`moved_by_statistics`). Uses traces, precision and the reference.
"""

from typing import NamedTuple

import numpy as np

from convscope.expr.precision import Precision
from convscope.proof.recomputation import arguments_of, recomputed
from convscope.reference.backward_normalization import moved
from convscope.traces.step import BackwardNode, Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array


class GradientRange(NamedTuple):
    """The numbers that a node of the backward pass calculates with."""

    largest: float
    """The largest magnitude of the finite ones."""
    special: bool
    """Whether an infinity or nan is among them."""
    precision: Precision
    """The precision of the gradient's type."""
    operations: int
    """The number of operations in the node."""

    @property
    def lost(self) -> float:
        """How much a gradient loses where a number between two operations underflows.

        Such a number loses at most the smallest normal one, and is multiplied by one of the node's numbers after it, or
        by two where there are three operations or more.
        """
        factors = min(self.operations - 1, 2)
        return self.operations * self.precision.tiny * _power(self.largest, factors)

    @property
    def overflows(self) -> bool:
        """Whether a number on the way may be infinite: the node multiplies three of its numbers at most."""
        return self.special or _power(self.largest, 3) >= self.precision.largest


def _power(largest: float, factors: int) -> float:
    with np.errstate(over="ignore"):
        return float(np.float64(max(1.0, largest)) ** factors)


def range_of(trace: Trace, node: BackwardNode, gradient: Ref) -> GradientRange:
    """The range of one gradient that a node gave: what it received, and what its forward operation read and made."""
    refs = [*(ref for pair in node.received for ref in pair), *(operand for operand, _ in node.gave)]
    arrays = [numbers_of_ref(trace, ref) for ref in refs]
    finite = [np.isfinite(array) for array in arrays]
    largest = max(
        (float(np.abs(array[mask]).max(initial=0.0)) for array, mask in zip(arrays, finite, strict=True)), default=0.0
    )
    special = not all(bool(mask.all()) for mask in finite)
    return GradientRange(largest, special, Precision.of(gradient.dtype), max(1, node.operations))


def numbers_of_ref(trace: Trace, ref: Ref) -> Array:
    """The numbers of a step, parameter or input, in float64."""
    if ref.kind == "step":
        return trace.all_steps[ref.id].outputs[ref.output].astype(np.float64)
    numbers = trace.parameters[ref.name] if ref.kind == "parameter" else trace.inputs[ref.name]
    return np.asarray(numbers, np.float64)


SAVED = {
    "native_batch_norm_backward": ("save_mean", "save_invstd"),
    "native_layer_norm_backward": ("mean", "rstd"),
    "native_group_norm_backward": ("mean", "rstd"),
}
"""Operation -> its arguments with the mean and the rate of the forward pass."""


def moved_by_statistics(trace: Trace, step: Step, output: int) -> Array | None:
    """How far the rounding of its saved statistics moves a gradient of a normalization; None for everything else.

    Each statistic contributes its error, up to the bound of the forward step; a wrong statistic contributes no more.
    """
    refs = {name: ref for name, _, ref in step.refs() if name in SAVED.get(step.op, ()) and ref.kind == "step"}
    arguments = arguments_of(trace, step) if len(refs) == 2 else {}
    if not arguments.get("train", bool(arguments)):
        return None
    exact, errors = list[Array](), list[Array]()
    for name in SAVED[step.op]:
        witness = recomputed(trace, trace.all_steps[refs[name].id], refs[name].output)
        if witness is None:
            return None
        exact.append(witness.values)
        errors.append(np.minimum(np.abs(arguments[name] - witness.values), witness.bounds))
    gradients = moved(step.op, arguments, (exact[0], exact[1]), (errors[0], errors[1]))
    requested = [
        gradient for gradient, is_requested in zip(gradients, arguments["output_mask"], strict=True) if is_requested
    ]
    return requested[output].reshape(step.results[output].shape)
