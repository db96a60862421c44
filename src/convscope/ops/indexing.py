"""Indexing: scatter, index_put and writes to slices; bags of embeddings; backward of select, slice, embedding."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, broadcast_cell
from convscope.expr.cells import leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import widened
from convscope.ops.dependencies import as_mask, everything
from convscope.ops.movement import as_type
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Varies, first_result, fitted, kept_for_backward, only, wide
from convscope.ops.writing import written, written_dependencies, written_vjp
from convscope.typing import Array


def scattered_slice(call: Call, cell: Cell) -> Leaf | Apply:
    """slice_scatter and select_scatter: a part of a tensor replaced by another tensor."""
    target, part = call["self"], call["src"]
    axis = call["dim"] % len(cell)
    if call.op == "select_scatter":
        if cell[axis] != call["index"] % target.shape[axis]:
            return leaf(target, cell)
        return as_type(leaf(part, cell[:axis] + cell[axis + 1 :]), call.dtype)
    length, step = target.shape[axis], call["step"]
    start = call.get("start") or 0
    start = max(start + length, 0) if start < 0 else min(start, length)
    index, remainder = divmod(cell[axis] - start, step)
    if remainder or not 0 <= index < part.shape[axis]:
        return leaf(target, cell)
    return as_type(leaf(part, tuple(index if a == axis else i for a, i in enumerate(cell))), call.dtype)


def scatter(call: Call, cell: Cell) -> Expr:
    """scatter and scatter_add: along one axis, numbers put where a tensor says, the last one, or all added."""
    target, index = call["self"], call["index"]
    if call.get("reduce") is not None:
        return written(call, cell)
    if not index.array.size:  # of any shape
        return leaf(target, cell)
    full = cell or (0,)  # a number counts as a vector of one
    index_array: Array = index.array if cell else index.array.reshape(-1)
    axis = call["dim"] % len(full)
    line = tuple(slice(None) if a == axis else i for a, i in enumerate(full))
    reached = all(i < n for a, (i, n) in enumerate(zip(full, index_array.shape, strict=True)) if a != axis)
    hits = np.flatnonzero(index_array[line] == full[axis]) if reached else np.empty(0, np.int64)
    if not len(hits):
        return leaf(target, cell)
    source = call.get("src", call.get("value"))
    if call.op == "scatter_add":
        added = outer(source, [hits if a == axis else i for a, i in enumerate(full)] if source.shape else [])
        note = f"what was here, plus the {len(hits)} numbers sent here"
        return Dot(added, bias=leaf(target, cell), note=note, kind=call.kind)
    if not isinstance(source, Operand):
        return number(int(source) if call.kind else source, "value")
    last = tuple(int(hits[-1]) if a == axis else i for a, i in enumerate(full))
    return leaf(source, last if source.shape else ())


def index_put(call: Call, cell: Cell) -> Expr:
    """Values written to the cells that indices name, the last one where several are; or all of them added."""
    target, values = call["self"], call["values"]
    hits = _written_here(call, cell)
    if not len(hits):
        return leaf(target, cell)
    places = [broadcast_cell(tuple(map(int, hit)), values.shape) for hit in hits]
    if not call["accumulate"]:
        return as_type(leaf(values, places[-1]), call.dtype)
    cells = np.array(places, np.int64).reshape(len(places), len(values.shape))
    numbers = widened(np.asarray(values.array[tuple(cells.T)])).reshape(len(places))
    note = f"what was here, plus the {len(places)} numbers written here"
    return Dot(Cells(numbers, values.source, cells, (len(places),)), bias=leaf(target, cell), note=note, kind=call.kind)


def _written_here(call: Call, cell: Cell) -> Array:
    """Where in the values, before these are broadcast, is what index_put writes to a cell: shape (T, axes)."""
    indices: list[Array | None] = []
    for operand in call["indices"]:
        array = None if operand is None else operand.array
        indices += array.nonzero() if array is not None and array.dtype == bool else (array,)
    used = [axis for axis, index in enumerate(indices) if index is not None]
    equal = [
        i % n == coordinate
        for i, n, coordinate in zip(indices, call["self"].shape, cell, strict=False)
        if i is not None
    ]
    hits = np.argwhere(np.logical_and.reduce(np.broadcast_arrays(*equal)))
    unindexed = [i for axis, i in enumerate(cell) if axis not in used]
    separated = used != list(range(used[0], used[-1] + 1))  # then the axes of the index come first
    before = 0 if separated else used[0]
    unindexed_rows = np.tile(np.array(unindexed, np.int64), (len(hits), 1))
    return np.hstack([unindexed_rows[:, :before], hits, unindexed_rows[:, before:]])


def scattered_slice_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """slice_scatter and select_scatter: the replaced part to the one, the rest to the other."""
    axis = call["dim"] % weights.ndim
    part: list[slice | int] = [slice(None)] * weights.ndim
    part[axis] = (
        call["index"] if call.op == "select_scatter" else slice(call.get("start"), call.get("end"), call["step"])
    )
    target_weights = weights.copy()
    target_weights[tuple(part)] = 0.0
    return _split(call, varies, {"self": target_weights, "src": weights[tuple(part)]})


def scatter_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Cells that were sent somewhere take that weight; written cells lose theirs."""
    if call.get("reduce") is not None:
        return written_vjp(call, weights, varies)
    if not weights.ndim:  # the rules know tensors of one axis at least
        line = scatter_vjp(_as_line(call), weights.reshape(1), varies)
        shaped = {name: gradient.reshape(call[name].shape) for name, gradient in line.gradients.items()}
        return VJP(shaped, line.constant)
    axis, index = call["dim"] % weights.ndim, call["index"].array
    index = index if index.size else np.zeros((0,) * weights.ndim, np.int64)
    target_weights = weights.copy()
    sent_weights = np.take_along_axis(
        weights[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(index.shape))], index, axis
    )
    if call.op == "scatter":
        np.put_along_axis(
            target_weights[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(index.shape))],
            index,
            0.0,
            axis,
        )
        if "src" not in call.arguments:
            only(call, varies, "self")
            return VJP({"self": target_weights}, float(call["value"]) * float(weights.sum() - target_weights.sum()))
        places = list(np.indices(index.shape, sparse=True))
        places[axis] = index
        if _hit_twice(weights.shape, tuple(places)):
            raise UsageError("scatter writes several numbers to one cell, of which PyTorch keeps any.")
    source_weights = np.zeros(call["src"].shape)
    source_weights[tuple(map(slice, index.shape))] = sent_weights
    return _split(call, varies, {"self": target_weights, "src": source_weights})


def _as_line(call: Call) -> Call:
    """The same with tensors of one axis, where they have none."""
    lines = {
        name: replace(operand, array=operand.array.reshape(1)) if not operand.shape else operand
        for name, operand in call.operands().items()
    }
    return replace(call, arguments={**call.arguments, **lines}, shape=(1,))


def index_put_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Written cells to the values, the others to the tensor.

    Raises:
        UsageError: the values are followed, and several of them are written to one cell.
    """
    only(call, varies, "self", "values")
    index = tuple(slice(None) if i is None else i.array for i in call["indices"])
    target_weights, written_weights = weights.copy(), weights[index]
    if not call["accumulate"]:
        target_weights[index] = 0.0
        if "values" in varies and _hit_twice(weights.shape, index):
            raise UsageError("index_put writes several numbers to one cell, of which PyTorch keeps any.")
    values_weights = fitted(written_weights, call["values"].shape)
    return _split(call, varies, {"self": target_weights, "values": values_weights})


def _hit_twice(shape: tuple[int, ...], index: tuple[slice | Array, ...]) -> bool:
    """Whether an index names a cell more than once."""
    cells = np.arange(math.prod(shape)).reshape(shape)[index]
    return len(np.unique(cells)) < cells.size


def _split(call: Call, varies: Varies, parts: dict[str, Array]) -> VJP:
    constant = sum(float(np.sum(part * wide(call[name]))) for name, part in parts.items() if name not in varies)
    return VJP({name: part for name, part in parts.items() if name in varies}, constant)


def scatter_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The cell itself where nothing overwrites it, and every number sent to it."""
    if not mask.ndim:
        return everything(call, mask, varies)
    if call.get("reduce") is not None:
        return written_dependencies(call, mask, varies)
    mask, index, axis = as_mask(mask), call["index"].array, call["dim"] % mask.ndim
    index = index if index.size else np.zeros((0,) * mask.ndim, np.int64)
    reached = tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(index.shape))
    result: dict[str, Array] = {}
    if "self" in varies:
        target_mask = mask.copy()
        if call.op == "scatter":
            np.put_along_axis(target_mask[reached], index, 0.0, axis)
        result["self"] = target_mask
    if "src" in varies:
        source_mask = np.zeros(call["src"].shape, np.float32)
        source_mask[tuple(map(slice, index.shape))] = np.take_along_axis(mask[reached], index, axis)
        result["src"] = source_mask
    return result


def index_put_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The cell itself where nothing overwrites it, and every value written to it."""
    mask = as_mask(mask)
    index = tuple(slice(None) if i is None else i.array for i in call["indices"])
    result: dict[str, Array] = {}
    if "self" in varies:
        target_mask = mask.copy()
        if not call["accumulate"]:
            target_mask[index] = 0.0
        result["self"] = target_mask
    if "values" in varies:
        result["values"] = as_mask(fitted(mask[index], call["values"].shape))
    return result


# Backward: the gradient goes to the cell that was read; cells that were not read get 0


def part_backward(call: Call, cell: Cell) -> Leaf:
    """select_backward and slice_backward: the gradient inside the selected part, 0 outside it.

    >>> grad = Operand.of(np.array([0.5, 0.25]), "slice.grad")
    >>> settings = dict(grad_output=grad, input_sizes=[4], dim=0, start=1, end=4, step=2)
    >>> [part_backward(Call("slice_backward", settings, (4,)), (at,)).value() for at in range(4)]
    [0.0, 0.5, 0.0, 0.25]
    """
    grad: Operand = call["grad_output"]
    axis = call["dim"] % len(cell)
    length = call.shape[axis]
    if call.op == "select_backward":
        selected = cell[axis] == call["index"] % length
        return leaf(grad, cell[:axis] + cell[axis + 1 :]) if selected else number(0, "outside the selected part")
    index, remainder = divmod(cell[axis] - slice(call["start"], call["end"]).indices(length)[0], call["step"])
    if remainder or not 0 <= index < grad.shape[axis]:
        return number(0, "outside the selected part")
    return leaf(grad, (*cell[:axis], index, *cell[axis + 1 :]))


def diagonal_backward(call: Call, cell: Cell) -> Leaf:
    """The gradient on the diagonal, 0 beside it."""
    first, second = (call[name] % len(cell) for name in ("dim1", "dim2"))
    row, column = cell[first] + min(0, call["offset"]), cell[second] - max(0, call["offset"])
    if row != column or row < 0:
        return number(0, "beside the diagonal")
    return leaf(call["grad_output"], (*(i for axis, i in enumerate(cell) if axis not in {first, second}), row))


def unfold_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of all overlapping slices that contain this cell."""
    grad: Operand = call["grad_in"]
    axis, size, step = call["dim"] % len(cell), call["size"], call["step"]
    pieces = np.arange(grad.shape[axis])
    holding = pieces[(pieces * step <= cell[axis]) & (cell[axis] < pieces * step + size)]
    places = [(*cell[:axis], int(piece), *cell[axis + 1 :], cell[axis] - int(piece) * step) for piece in holding]
    return _added(grad, places, f"the gradients of the {len(places)} slices that contain this cell")


def embedding_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradients at all indices that read this row of the table, their mean with `scale_grad_by_freq`."""
    row, unit = cell
    if row == call["padding_idx"]:
        return number(0, "the padding row")
    reads = np.argwhere(call["indices"].array == row)
    places = [(*map(int, index), unit) for index in reads]
    total = _added(call["grad_output"], places, f"the gradients at the {len(places)} indices that read this row")
    if call["scale_grad_by_freq"] and places:
        return replace(total, divisor=len(places), note=f"the mean of {total.note}", extra=1)
    return total


def _added(operand: Operand, places: list[Cell], note: str) -> Dot:
    """The sum of some cells."""
    cells = np.array(places, np.int64).reshape(len(places), len(operand.shape))
    values = operand.array[tuple(cells.T)].astype(np.float64)
    return Dot(Cells(values, operand.source, cells, (len(places),)), note=note)


# Bags of embeddings: the sum, mean or cell-wise maximum of rows of a table, for each bag

SUM, MEAN, MAX = range(3)
"""ATen's numbers for the modes of reduction."""


def embedding_bag(call: Call, cell: Cell) -> Expr:
    """One unit of a bag: the weighted sum, mean or maximum of the rows that its indices select.

    An empty bag is 0; `padding_idx` does not count. Source: PyTorch documentation, torch.nn.EmbeddingBag.

    Raises:
        UsageError: another result, which only a backward pass reads.
    """
    kept_for_backward(call)
    bag, unit = cell
    places = np.flatnonzero(_bags(call) == bag)
    if not len(places):
        return number(0, "an empty bag")
    rows = call["indices"].array[places].astype(np.int64)
    cells = outer(call["weight"], [rows, [unit]])
    words = f"{len(places)} row{'s' if len(places) != 1 else ''} of the table"
    if call["mode"] == MAX:
        return Apply("max", {"cells": cells}, note=f"the largest of {words}")
    scales: Operand | None = call.get("per_sample_weights")
    weights: Cells | None = None if scales is None else outer(scales, [places])
    if call["mode"] == MEAN:
        return Dot(cells, weights, divisor=len(places), note=f"the mean of {words}", extra=2)
    return Dot(cells, weights, note=f"the sum of {words}")


def _bags(call: Call) -> Array:
    """The bag of each index, shape (L,); −1 where it does not count."""
    indices, offsets = call["indices"].array, call["offsets"].array
    if call["include_last_offset"] and len(offsets) and int(offsets[-1]) != len(indices):
        raise UsageError("an embedding bag is explained where the last offset is the number of indices.")
    starts = offsets[:-1] if call["include_last_offset"] else offsets
    result: Array = np.searchsorted(starts, np.arange(len(indices)), side="right") - 1
    padding = call["padding_idx"]
    return np.where(indices == padding, -1, result) if padding >= 0 else result


def embedding_bag_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the rows of each bag, and to the weights of its rows.

    With `scale_grad_by_freq` a row's are divided by how often it is read, as those of an embedding are.
    """
    first_result(call)
    only(call, varies, "weight", "per_sample_weights")
    table, bags = wide(call["weight"]), _bags(call)
    rows = call["indices"].array.astype(np.int64)
    places = np.flatnonzero(bags >= 0)
    rows, bags = rows[places], bags[places]
    scales = np.ones(len(places))
    if call.get("per_sample_weights") is not None:
        scales = wide(call["per_sample_weights"])[places]
    if call["mode"] == MEAN:
        scales = scales / np.bincount(bags, minlength=len(weights))[bags]
    shares = np.repeat(scales[:, None], table.shape[1], axis=1)
    if call["mode"] == MAX:
        shares = _winners(table[rows], bags)
    gradients: dict[str, Array] = {}
    if "weight" in varies:
        gradients["weight"] = np.zeros_like(table)
        np.add.at(gradients["weight"], rows, shares * weights[bags])
    value = float(np.sum(shares * weights[bags] * table[rows]))
    if "per_sample_weights" in varies:
        by_scale: Array = np.zeros(call["per_sample_weights"].shape)
        by_scale[places] = (weights[bags] * table[rows]).sum(axis=1)
        gradients["per_sample_weights"] = by_scale
    constant = value * (1 - len(gradients))
    if call["scale_grad_by_freq"] and "weight" in gradients:
        gradients["weight"] /= np.maximum(np.bincount(rows, minlength=len(table)), 1)[:, None]
        constant += value - float(np.sum(gradients["weight"] * table))
    return VJP(gradients, constant, linear=len(gradients) < 2)


def _winners(rows: Array, bags: Array) -> Array:
    """1 at the first largest cell of each bag and unit."""
    result = np.zeros_like(rows)
    for bag in np.unique(bags):
        places = np.flatnonzero(bags == bag)
        result[places[np.argmax(rows[places], axis=0)], np.arange(rows.shape[1])] = 1.0
    return result


def embedding_bag_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same unit of the rows in the bag, their weights, and all indices."""
    mask = as_mask(mask)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if call.output:
        return masks
    bags = _bags(call)
    places = np.flatnonzero(bags >= 0)
    if "weight" in varies:
        masks["weight"] = np.zeros(call["weight"].shape, np.float32)
        np.maximum.at(masks["weight"], call["indices"].array[places].astype(np.int64), mask[bags[places]])
    if "per_sample_weights" in varies:
        masks["per_sample_weights"] = np.zeros(call["per_sample_weights"].shape, np.float32)
        masks["per_sample_weights"][places] = mask[bags[places]].max(axis=1, initial=0.0)
    return masks


_BAG = Op(
    embedding_bag,
    embedding_bag_dependencies,
    embedding_bag_vjp,
    rounding="narrow",
    selected_by=("indices", "offsets"),
)
EMBEDDING_BAG: Mapping[str, Op] = {"_embedding_bag": _BAG, "_embedding_bag_forward_only": _BAG}
