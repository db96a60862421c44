"""Sampling at the positions of a grid, backward: to the cells around each position, and to its coordinates."""

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import outer
from convscope.expr.expr import Cells, Dot, Leaf, number
from convscope.expr.precision import widened
from convscope.ops.dependencies import everything
from convscope.ops.op import Op
from convscope.ops.sampling import NEAREST, AxisTaps, taps_of
from convscope.ops.titles import backward, named
from convscope.ops.vjp import wide
from convscope.typing import Array

OPEN = "which cells the kernel reads depends on its rounding, and not all numbers are finite."


def grid_sample_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradient of a cell of the input, or of one coordinate of the grid.

    Source: PyTorch, aten/src/ATen/native/GridSampler.h and cpu/GridSamplerKernel.cpp.

    Raises:
        UsageError: a coordinate is not finite, or rounding decides which cells the kernel reads.
    """
    is_first = call.output == 0 and call["output_mask"][0]  # the grid's is calculated whether it is requested or not
    return _of_cell(call, cell) if is_first else _of_coordinate(call, cell)


def _of_cell(call: Call, cell: Cell) -> Dot:
    """The gradients of the positions around a cell, each times the cell's interpolation weight there."""
    image, channel, *place = cell
    taps = taps_of(call, wide(call["grid"])[image])
    _check(taps)
    shares, errors, read = np.ones(()), np.zeros(()), np.ones((), bool)
    for axis, index in zip(taps, place, strict=True):
        here = axis.positions == index
        share, error = (axis.weights * here).sum(-1), (axis.errors * here).sum(-1)
        errors = (np.abs(shares) + errors) * error + errors * np.abs(share)
        shares, read = shares * share, read & (here & (axis.core | (axis.errors > 0))).any(-1)
    grad: Operand = call["grad_output"]
    positions = np.argwhere(read)
    chosen = tuple(positions.T)
    values = widened(np.asarray(grad.array[image, channel][chosen]))
    if not np.isfinite(values).all() and (errors[chosen] > 0).any() and (shares[chosen] == 0).any():
        raise UsageError(OPEN)
    lead = np.broadcast_to(np.array([image, channel]), (len(positions), 2))
    gradients = Cells(values, grad.source, np.concatenate([lead, positions], 1), (len(positions),))
    source = Source("nearness", "computed", (len(positions),))
    nearness = Cells(
        shares[chosen], source, np.arange(len(positions))[:, None], (len(positions),), errors=errors[chosen]
    )
    note = f"the gradients of {len(positions)} positions around it × this cell's weight"
    return Dot(gradients, nearness, note=note, extra=3)


def _of_coordinate(call: Call, cell: Cell) -> Dot | Leaf:
    """The cells around a position, each times the slope of its weight and the gradient of its channel there."""
    if call["interpolation_mode"] == NEAREST:
        return number(0, "the slope of the nearest cell")
    image, *place, column = cell
    taps = taps_of(call, wide(call["grid"])[(image, *place)])
    _check(taps)
    source: Operand = call["input"]
    along = len(taps) - 1 - column
    factors = [(t.slopes, t.slope_errors) if a == along else (t.weights, t.errors) for a, t in enumerate(taps)]
    used = [(values != 0) | (errors > 0) | t.core for (values, errors), t in zip(factors, taps, strict=True)]
    channels = range(source.shape[1])
    window = outer(source, [image, channels, *(t.positions[k] for t, k in zip(taps, used, strict=True))])
    grads = widened(np.asarray(call["grad_output"].array[(image, slice(None), *place)]))
    if not (np.isfinite(window.values).all() and np.isfinite(grads).all()) and _uncertain(factors, taps):
        raise UsageError(OPEN)
    weights, errors = np.ones(1), np.zeros(1)
    for (value, error), k in zip(factors, used, strict=True):
        errors = np.outer(np.abs(weights) + errors, error[k]).ravel() + np.outer(errors, np.abs(value[k])).ravel()
        weights = np.outer(weights, value[k]).ravel()
    weights, errors = np.outer(grads, weights).ravel(), np.outer(np.abs(grads), errors).ravel()
    slopes = Cells(
        weights,
        Source("slope", "computed", weights.shape),
        np.arange(len(weights))[:, None],
        window.grid,
        errors=errors,
    )
    note = f"{len(weights)} cells around it, each × the slope of its weight × the gradient of its channel"
    return Dot(window, slopes, note=note, skips=len(taps) == 3, extra=6)  # the kernel of images multiplies padding


def _check(taps: Sequence[AxisTaps]) -> None:
    """Raise UsageError where a position is known only to half a cell."""
    if any((t.doubt > 0.5).any() for t in taps):
        raise UsageError("no rule explains this gradient: its type holds a position only to half a cell.")


def _uncertain(factors: Sequence[tuple[Array, Array]], taps: Sequence[AxisTaps]) -> bool:
    """Whether rounding decides if the kernel reads a cell."""
    return any(np.any(errors[~t.core] > 0) for (_, errors), t in zip(factors, taps, strict=True))


_GRID = Op(
    grid_sample_backward,
    everything,
    title=backward(named("samples of a grid")),
    rounding="narrow",
    selected_by=("grid",),
)
BACKWARD_SAMPLING: Mapping[str, Op] = {"grid_sampler_2d_backward": _GRID, "grid_sampler_3d_backward": _GRID}
"""Rows of the table of operations."""
