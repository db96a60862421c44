"""Backward of what selects by indices: bags of embeddings, segments, fractional max pooling, masked scatter."""

from collections.abc import Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import leaf, outer, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import widened
from convscope.ops.dependencies import everything
from convscope.ops.indexing import MAX, MEAN
from convscope.ops.op import Op
from convscope.ops.reductions import run_of
from convscope.ops.titles import backward, named
from convscope.typing import Array


def embedding_bag_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradients of the bags that hold this row of the table, each as often as its indices select it.

    A mean divides each gradient by the size of its bag; a maximum passes it to the recorded row alone.
    Source: PyTorch, aten/src/ATen/native/EmbeddingBag.cpp.

    Raises:
        UsageError: gradients are scaled by the row's frequency.
    """
    if call["scale_grad_by_freq"]:
        raise UsageError("no rule explains gradients of an embedding that are scaled by frequency.")
    table_row, unit = cell
    if table_row == call["padding_idx"]:
        return number(0, "the padding row")
    bags = _bags(call)
    sizes = np.bincount(bags[bags >= 0], minlength=call["grad"].shape[0])
    if call["mode"] == MAX:
        chosen = np.flatnonzero((call["maximum_indices"].array[:, unit] == table_row) & (sizes > 0))
        return Dot(_column(call["grad"], chosen, unit), note=f"the gradients of {len(chosen)} bags with this maximum")
    places = np.flatnonzero((call["indices"].array == table_row) & (bags >= 0))
    gradients = _column(call["grad"], bags[places], unit)
    note = f"the gradients of the bags of {len(places)} indices that select this row"
    if call["mode"] == MEAN:
        shares = 1 / sizes[bags[places]]
        return Dot(gradients, _computed("share", shares, call.precision.sum * shares), note=note, extra=1)
    scales: Operand | None = call.get("per_sample_weights")
    return Dot(gradients, None if scales is None else outer(scales, [places]), note=note)


def bag_weights_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradient of the weight of one index: the gradient of its bag times the row that it selects, added up."""
    index = cell[0]
    bag, selected = int(_bags(call)[index]), int(call["indices"].array[index])
    if bag < 0:
        return number(0, "a padding index")
    gradients, numbers = row(call["grad"], (bag, 0), [1]), row(call["weight"], (selected, 0), [1])
    return Dot(gradients, numbers, note=f"the gradient of the bag × the row, over {len(gradients)} units")


def _bags(call: Call) -> Array:
    """The bag of each index; −1 for the padding index."""
    indices, padding = call["indices"].array, call["padding_idx"]
    bags: Array = np.searchsorted(call["offsets"].array, np.arange(len(indices)), side="right") - 1
    return np.where(indices == padding, -1, bags) if padding >= 0 else bags


def _column(operand: Operand, rows: Array, column: int) -> Cells:
    """Some rows of one column, in any order and repeated."""
    cells = np.stack([rows, np.full_like(rows, column)], 1).astype(np.int64)
    return Cells(widened(np.asarray(operand.array[rows, column])), operand.source, cells, (len(rows),))


def _computed(name: str, values: Array, errors: Array) -> Cells:
    """Numbers that the kernel calculates on its way."""
    source = Source(name, "computed", values.shape)
    return Cells(values, source, np.arange(len(values))[:, None], values.shape, errors=errors)


def fractional_max_pool_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of the windows whose recorded maximum is this cell."""
    axes = len(call["kernel_size"])
    plane: tuple[int, ...] = tuple(cell[:-axes])
    index = np.ravel_multi_index(cell[-axes:], call["self"].shape[-axes:])
    won = np.argwhere(call["indices"].array[plane] == index)
    cells = np.column_stack([np.tile(np.array(plane, np.int64), (len(won), 1)), won]).astype(np.int64)
    grad: Operand = call["grad_output"]
    numbers = widened(np.asarray(grad.array[tuple(cells.T)]))
    note = f"the gradients of {len(won)} windows whose maximum is this cell"
    return Dot(Cells(numbers, grad.source, cells, (len(won),)), note=note)


def segment_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the segment that holds this cell, times the slope of the reduction.

    Of a maximum, the cells that are equal to it share its gradient. Source: PyTorch, native/SegmentReduce.cpp.

    Raises:
        UsageError: the gradient of a product by a factor of 0, or a negative gradient of several equal cells.
    """
    axis, reduce = call["axis"] % len(cell), call["reduce"]
    lead, index = cell[:axis], int(cell[axis])
    held = [s for s in range(call["output"].shape[axis]) if index in run_of(call, lead, s)]
    if not held:
        return number(0, "outside every segment")
    at = (*lead, held[0], *cell[axis + 1 :])
    run = run_of(call, lead, held[0])
    grad, x, result = leaf(call["grad"], at), leaf(call["data"], cell), leaf(call["output"], at)
    if reduce == "sum":
        return grad
    if reduce == "mean":
        return Apply("div", {"x": grad, "y": number(len(run), "count")})
    if reduce == "prod":
        if x.scalar == 0 or np.isnan(x.scalar):
            raise UsageError("no rule explains the gradient of a product by a factor of 0.")
        product = Apply("mul", {"x": grad, "y": result}, note="the gradient × the product")
        return Apply("div", {"x": product, "y": x})
    numbers = outer(call["data"], [run if a == axis else i for a, i in enumerate(cell)]).values
    equal = (numbers == result.scalar) | (np.isnan(numbers) & np.isnan(result.scalar))
    if not equal[index - run.start]:
        return number(0, f"this cell is not the {reduce}imum")
    count = int(equal.sum())
    if count > 1 and not grad.scalar > 0:
        raise UsageError("PyTorch shares only positive gradients among equal cells of a segment.")
    note = "this cell alone is selected" if count == 1 else f"{count} equal cells share the gradient"
    return Apply("div", {"x": grad, "y": number(count, "count")}, note=note)


def masked_scatter_backward(call: Call, cell: Cell) -> Leaf:
    """The gradient at the place that took this number of the source; 0 for numbers that were left over."""
    shape = tuple(call["sizes"])
    grad: Operand = call["grad_output"]
    places = np.flatnonzero(np.broadcast_to(call["mask"].array, grad.shape))
    index = int(np.ravel_multi_index(cell, shape)) if shape else 0
    if index >= len(places):
        return number(0, "not used")
    return leaf(grad, tuple(map(int, np.unravel_index(places[index], grad.shape))))


_POOL = Op(
    fractional_max_pool_backward,
    everything,
    title=backward(named("fractional max pooling")),
    rounding="narrow",
    selected_by=("indices",),
)
BACKWARD_INDEXING: Mapping[str, Op] = {
    "_embedding_bag_backward": Op(
        embedding_bag_backward,
        everything,
        title=backward(named("embedding bag")),
        rounding="narrow",
        selected_by=("indices", "offsets", "maximum_indices"),
    ),
    "_embedding_bag_per_sample_weights_backward": Op(
        bag_weights_backward,
        everything,
        title=backward(named("embedding bag")),
        rounding="narrow",
        selected_by=("indices", "offsets"),
    ),
    "fractional_max_pool2d_backward": _POOL,
    "fractional_max_pool3d_backward": _POOL,
    "_segment_reduce_backward": Op(segment_backward, everything, title=backward(named("segments")), rounding="narrow"),
    "masked_scatter_backward": Op(masked_scatter_backward, everything, role="index", selected_by=("mask",)),
}
"""Rows of the table of operations."""
