"""Indexed writes: scatter, index_put, slice_scatter and select_scatter."""

import numpy as np

from convscope.expr.call import Call, Cell, Operand, broadcast_cell
from convscope.expr.cells import leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import widened
from convscope.ops.dependencies import as_mask, everything
from convscope.ops.movement import as_type
from convscope.ops.vjp import VJP, Varies, fitted, only, wide
from convscope.ops.writing import written, written_dependencies, written_vjp
from convscope.typing import Array


def scattered_slice(call: Call, cell: Cell) -> Leaf | Apply:
    """slice_scatter and select_scatter: a part of a tensor replaced by another tensor."""
    whole, part = call["self"], call["src"]
    axis = call["dim"] % len(cell)
    if call.op == "select_scatter":
        if cell[axis] != call["index"] % whole.shape[axis]:
            return leaf(whole, cell)
        return as_type(leaf(part, cell[:axis] + cell[axis + 1 :]), call.dtype)
    length, step = whole.shape[axis], call["step"]
    start = call.get("start") or 0
    start = max(start + length, 0) if start < 0 else min(start, length)
    at, rest = divmod(cell[axis] - start, step)
    if rest or not 0 <= at < part.shape[axis]:
        return leaf(whole, cell)
    return as_type(leaf(part, tuple(at if a == axis else i for a, i in enumerate(cell))), call.dtype)


def scatter(call: Call, cell: Cell) -> Expr:
    """scatter and scatter_add: along one axis, numbers put where a tensor says, the last one, or all added."""
    whole, index = call["self"], call["index"]
    if call.get("reduce") is not None:
        return written(call, cell)
    full = cell or (0,)  # a number counts as a vector of one
    named: Array = index.array if index.shape else index.array.reshape(1)
    axis = call["dim"] % len(full)
    line = tuple(slice(None) if a == axis else i for a, i in enumerate(full))
    reached = all(i < n for a, (i, n) in enumerate(zip(full, named.shape, strict=True)) if a != axis)
    hits = np.flatnonzero(named[line] == full[axis]) if reached else np.empty(0, np.int64)
    if not len(hits):
        return leaf(whole, cell)
    source = call.get("src", call.get("value"))
    if call.op == "scatter_add":
        added = outer(source, [hits if a == axis else i for a, i in enumerate(full)] if source.shape else [])
        note = f"what was here, plus the {len(hits)} numbers sent here"
        return Dot(added, bias=leaf(whole, cell), note=note, kind=call.kind)
    if not isinstance(source, Operand):
        return number(int(source) if call.kind else source, "value")
    last = tuple(int(hits[-1]) if a == axis else i for a, i in enumerate(full))
    return leaf(source, last if source.shape else ())


def index_put(call: Call, cell: Cell) -> Expr:
    """Values written to the cells that indices name, the last one where several are; or all of them added."""
    whole, values = call["self"], call["values"]
    hits = _written_here(call, cell)
    if not len(hits):
        return leaf(whole, cell)
    places = [broadcast_cell(tuple(map(int, hit)), values.shape) for hit in hits]
    if not call["accumulate"]:
        return as_type(leaf(values, places[-1]), call.dtype)
    cells = np.array(places, np.int64).reshape(len(places), len(values.shape))
    numbers = widened(np.asarray(values.array[tuple(cells.T)])).reshape(len(places))
    note = f"what was here, plus the {len(places)} numbers written here"
    return Dot(Cells(numbers, values.source, cells, (len(places),)), bias=leaf(whole, cell), note=note, kind=call.kind)


def _written_here(call: Call, cell: Cell) -> Array:
    """Where in the values, before these are broadcast, is what index_put writes to a cell: shape (T, axes)."""
    indices: list[Array | None] = []
    for operand in call["indices"]:
        array = None if operand is None else operand.array
        indices += array.nonzero() if array is not None and array.dtype == bool else (array,)
    used = [axis for axis, index in enumerate(indices) if index is not None]
    equal = [i % n == at for i, n, at in zip(indices, call["self"].shape, cell, strict=False) if i is not None]
    hits = np.argwhere(np.logical_and.reduce(np.broadcast_arrays(*equal)))
    kept = [i for axis, i in enumerate(cell) if axis not in used]
    apart = used != list(range(used[0], used[-1] + 1))  # then the axes of the index come first
    before = 0 if apart else used[0]
    rest = np.tile(np.array(kept, np.int64), (len(hits), 1))
    return np.hstack([rest[:, :before], hits, rest[:, before:]])


def scattered_slice_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """slice_scatter and select_scatter: the replaced part to the one, the rest to the other."""
    axis = call["dim"] % weights.ndim
    at: list[slice | int] = [slice(None)] * weights.ndim
    at[axis] = call["index"] if call.op == "select_scatter" else slice(call.get("start"), call.get("end"), call["step"])
    rest = weights.copy()
    rest[tuple(at)] = 0.0
    return _split(call, varies, {"self": rest, "src": weights[tuple(at)]})


def scatter_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Cells that were sent somewhere take that weight; written cells lose theirs."""
    if call.get("reduce") is not None:
        return written_vjp(call, weights, varies)
    axis, at = call["dim"] % max(weights.ndim, 1), call["index"].array
    rest = weights.copy()
    sent = np.take_along_axis(
        weights[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(at.shape))], at, axis
    )
    if call.op == "scatter":
        np.put_along_axis(
            rest[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(at.shape))], at, 0.0, axis
        )
        only(call, varies, "self")
        value = call.get("src", call.get("value"))
        given = wide(value)[tuple(map(slice, at.shape))] if isinstance(value, Operand) else float(value)
        return VJP({"self": rest}, float(np.sum(sent * given)))
    whole = np.zeros(call["src"].shape)
    whole[tuple(map(slice, at.shape))] = sent
    return _split(call, varies, {"self": rest, "src": whole})


def index_put_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Written cells to the values, the others to the tensor."""
    only(call, varies, "self")
    at = tuple(slice(None) if i is None else i.array for i in call["indices"])
    rest = weights.copy()
    if not call["accumulate"]:
        rest[at] = 0.0
    constant = float(np.sum(weights[at] * wide(call["values"])))
    return VJP({"self": rest}, constant)


def _split(call: Call, varies: Varies, parts: dict[str, Array]) -> VJP:
    constant = sum(float(np.sum(part * wide(call[name]))) for name, part in parts.items() if name not in varies)
    return VJP({name: part for name, part in parts.items() if name in varies}, constant)


def scatter_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The cell itself where nothing overwrites it, and every number sent to it."""
    if not mask.ndim:
        return everything(call, mask, varies)
    if call.get("reduce") is not None:
        return written_dependencies(call, mask, varies)
    mask, at, axis = as_mask(mask), call["index"].array, call["dim"] % mask.ndim
    reached = tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(at.shape))
    result: dict[str, Array] = {}
    if "self" in varies:
        kept = mask.copy()
        if call.op == "scatter":
            np.put_along_axis(kept[reached], at, 0.0, axis)
        result["self"] = kept
    if "src" in varies:
        sent = np.zeros(call["src"].shape, np.float32)
        sent[tuple(map(slice, at.shape))] = np.take_along_axis(mask[reached], at, axis)
        result["src"] = sent
    return result


def index_put_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The cell itself where nothing overwrites it, and every value written to it."""
    mask = as_mask(mask)
    at = tuple(slice(None) if i is None else i.array for i in call["indices"])
    result: dict[str, Array] = {}
    if "self" in varies:
        kept = mask.copy()
        if not call["accumulate"]:
            kept[at] = 0.0
        result["self"] = kept
    if "values" in varies:
        result["values"] = as_mask(fitted(mask[at], call["values"].shape))
    return result
