"""How far a sound gradient may be from the derivative of its forward step beyond its own rounding.

The derivative is calculated in float64; the backward pass may need several operations for it, whose intermediate
numbers underflow or overflow (`range_of`), and a normalization's uses the mean and the rate as the forward pass rounded
them (`moved_by_statistics`). Uses traces, precision and the reference.
"""

from collections.abc import Iterator
from types import EllipsisType
from typing import NamedTuple

import numpy as np

from convscope.expr.precision import Precision
from convscope.proof.final_numbers import final
from convscope.proof.recomputation import arguments_of, is_large, recomputed_result
from convscope.reference.backward_normalization import moved
from convscope.reference.operation import Arguments
from convscope.reference.parts import Box, boxes
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
    largest, special = 0.0, False
    for array in (numbers_of_ref(trace, ref) for ref in refs):
        for box in boxes(array.shape, range(array.ndim)):
            finite = np.isfinite(array[box])
            largest = max(largest, float(np.abs(array[box][finite]).max(initial=0.0)))
            special = special or not finite.all()
    return GradientRange(largest, special, Precision.of(gradient.dtype), max(1, node.operations))


def numbers_of_ref(trace: Trace, ref: Ref) -> Array:
    """The numbers of a step, parameter or input, in the type that they have."""
    if ref.kind == "step":
        numbers = final(trace, ref) if ref.rewritten else None
        return trace.all_steps[ref.id].outputs[ref.output] if numbers is None else numbers
    return trace.parameters[ref.name] if ref.kind == "parameter" else trace.inputs[ref.name]


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
        witness = recomputed_result(trace, trace.all_steps[refs[name].id], refs[name].output)
        if witness is None:
            return None
        exact.append(witness.values)
        errors.append(np.minimum(np.abs(arguments[name] - witness.values), witness.bounds))
    requested = [index for index, is_requested in enumerate(arguments["output_mask"]) if is_requested]
    gradient, shape = requested[output], step.results[output].shape
    if not is_large(step):
        return moved(step.op, arguments, (exact[0], exact[1]), (errors[0], errors[1]))[gradient].reshape(shape)
    result = np.zeros(shape)
    for box, learnt, sliced, statistics in _slices(step.op, arguments):
        both = ((values[0][statistics], values[1][statistics]) for values in (exact, errors))
        part = moved(step.op, sliced, *both)[gradient]
        if gradient == 0:
            result[box] = part.reshape(result[box].shape)
        else:
            result[learnt] += part.reshape(result[learnt].shape)
    return result


def _slices(op: str, arguments: Arguments) -> Iterator[tuple[Box, Box | EllipsisType, Arguments, Box]]:
    """Cells that share no mean and rate with others: which they are, which of the weights, arguments and statistics.

    The gradient of the weights adds up over the rows of a layer norm; channels and groups have their own.
    """
    x, weight = arguments["input"], arguments["weight"]
    names = ("input", "grad_out")
    if op == "native_layer_norm_backward":
        for box in boxes(x.shape, range(x.ndim - len(arguments["normalized_shape"]))):
            lead = box[: x.ndim - len(arguments["normalized_shape"])]
            yield box, ..., {**arguments, **{name: arguments[name][box] for name in names}}, lead
        return
    groups = arguments["group"] if op == "native_group_norm_backward" else x.shape[1]
    for cut in boxes((groups, x.size // groups), (0,)):
        first, end, _ = cut[0].indices(groups)
        channels = slice(first * (x.shape[1] // groups), end * (x.shape[1] // groups))
        box = (slice(None), channels, *[slice(None)] * (x.ndim - 2))
        sliced = {**{name: arguments[name][box] for name in names}, "group": end - first}
        sliced["weight"] = None if weight is None else weight[channels]
        statistics = (cut[0],) if op == "native_batch_norm_backward" else (slice(None), cut[0])
        yield box, (channels,), {**arguments, **sliced}, statistics
