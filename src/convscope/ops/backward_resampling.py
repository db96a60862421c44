"""Resampling and padding backward: the gradients of all outputs that a cell contributes to, each times its weight.

Each spatial axis is resampled or padded separately, so these outputs are at all combinations of the positions that read
the cell on each axis, and the weights are products.
"""

from collections.abc import Callable

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import outer
from convscope.expr.expr import Cells, Dot
from convscope.ops.padding import BORDERS
from convscope.ops.resampling import FILTERS, Taps, antialiased_taps, cubic_taps, linear_taps, nearest_taps

NEAR = 5
"""No position reads a cell farther than this from its own place, in cells of the input, nor from its filter's end."""


def resampling_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of the resampled cells around this one, each times this one's interpolation weight.

    Source: PyTorch, aten/src/ATen/native/cpu/UpSampleMoreKernel.cpp.

    Raises:
        UsageError: interpolated gradients are not all finite, so that products with 0 count.
    """
    forward = _forward(call)
    smooth = cubic_taps if "cubic" in call.op else linear_taps if "linear" in call.op else nearest_taps
    taps = antialiased_taps if forward.op in FILTERS else smooth
    axes = len(call["output_size"])
    readers = [_readers(forward, taps, axis, index) for axis, index in enumerate(cell[-axes:])]
    grads = outer(call["grad_output"], [*cell[:-axes], *(positions for positions, _, _ in readers)])
    if taps is nearest_taps:
        return Dot(grads, note=f"the gradients of the {len(grads)} cells that copy this one")
    if not np.isfinite(call["grad_output"].array[tuple(cell[:-axes])]).all():
        raise UsageError("which cells a kernel multiplies by 0 is not known, and not all of them are finite.")
    weights, errors = np.ones(1), np.zeros(1)
    for _, weight, error in readers:
        errors = np.outer(np.abs(weights) + errors, error).ravel() + np.outer(errors, np.abs(weight)).ravel()
        weights = np.outer(weights, weight).ravel()
    source = Source("nearness", "computed", weights.shape)
    nearness = Cells(weights, source, np.arange(len(weights))[:, None], grads.grid, errors=errors)
    note = f"the gradients of {len(weights)} cells around it, each times this cell's interpolation weight"
    return Dot(grads, nearness, note=note, extra=2, narrow=len(weights))


def padding_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of the cell itself and of its mirror images, or its repetitions, in the border.

    Source: PyTorch documentation, torch.nn.ReflectionPad2d and ReplicationPad2d.
    """
    grad: Operand = call["grad_output"]
    axes = len(call["padding"]) // 2
    border = BORDERS[call.op.partition("_")[0]]
    positions = []
    for axis in range(axes):
        before, length = call["padding"][2 * (axes - 1 - axis)], call["self"].shape[axis - axes]
        inside = np.arange(grad.shape[axis - axes]) - before
        positions.append(np.flatnonzero(border(inside, length) == cell[axis - axes]))
    gradients = outer(grad, [*cell[:-axes], *positions])
    copies = "itself alone" if len(gradients) == 1 else f"its {len(gradients)} copies, itself among them"
    return Dot(gradients, note=f"the gradient of {copies}" if len(gradients) == 1 else f"the gradients of {copies}")


def _forward(call: Call) -> Call:
    """The forward resampling, for an input of which only the shape is known."""
    shape = tuple(call["input_size"])
    unknown = Operand.of(np.broadcast_to(np.zeros((), np.float32), shape), "input", dtype=call.dtype)
    settings = {name: value for name, value in call.arguments.items() if name not in {"grad_output", "input_size"}}
    grad: Operand = call["grad_output"]
    return Call(
        call.op.removesuffix("_backward"), {"self": unknown, **settings}, grad.shape, call.dtype, rounding=call.rounding
    )


def _readers(forward: Call, taps: Callable[..., Taps], axis: int, index: int) -> Taps:
    """On one axis: the outputs that read a cell, its weight in each, and the error of the kernel's weight."""
    axes = len(forward["output_size"])
    length, out_length = forward["self"].shape[axis - axes], forward.shape[axis - axes]
    ratio = out_length / length
    support, _ = FILTERS.get(forward.op, (0.0, None))
    near = NEAR + int(support / min(ratio, 1.0))  # a filter is stretched where the result is coarser
    first, last = max(0, int((index - near) * ratio) - NEAR), min(out_length, int((index + near) * ratio) + NEAR + 1)
    positions, shares, errors = [], [], []
    for position in range(first, last):
        cells, weights, spread = taps(forward, axis, position)
        own_taps = np.flatnonzero(cells == index)
        if len(own_taps):
            positions.append(position)
            shares.append(float(weights[own_taps].sum()))
            errors.append(float(np.broadcast_to(spread, weights.shape)[own_taps].sum()))
    return np.array(positions, np.int64), np.array(shares), np.array(errors)
