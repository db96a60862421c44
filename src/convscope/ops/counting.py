"""Counts, ranks and running results: nonzero, unique, searchsorted, histogram; median, mode; cumprod, cummax."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import broadcast, leaf, outer, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, number
from convscope.expr.precision import rounded
from convscope.expr.primitives import PRIMITIVES
from convscope.ops.dependencies import as_mask
from convscope.ops.reductions import kept_weights, reduced
from convscope.ops.vjp import VJP, Varies, first_result, only, tangent, wide
from convscope.typing import Array


def count_nonzero(call: Call, cell: Cell) -> Apply:
    """How many of the cells along the axes are not 0."""
    cells = reduced(call, cell)
    return Apply("count_nonzero", {"cells": cells}, f"how many of {len(cells):,} cells are not 0")


def nonzero(call: Call, cell: Cell) -> Apply:
    """nonzero and nonzero_static: the index, on one axis, of the first, second ... cell that is not 0."""
    operand: Operand = call["self"]
    cells = _all(operand)
    if cell[0] >= np.count_nonzero(cells.values):
        return Apply("identity", {"x": number(call["fill_value"], "fill_value")})
    positions = cells.placed(cells.cells[:, cell[1]])
    return Apply("nonzero", {"cells": cells, "positions": positions, "rank": number(cell[0], "rank")})


def searched(call: Call, cell: Cell) -> Apply:
    """searchsorted and bucketize: how many numbers of a sorted row are less, or at most as large."""
    operand: Operand = call["boundaries"] if call.op == "bucketize" else call["sorted_sequence"]
    one_row = len(operand.shape) == 1
    cells = _all(operand) if one_row else row(operand, (*cell[:-1], 0), [len(operand.shape) - 1])
    sorter: Operand | None = call.get("sorter")
    if sorter is not None:
        order = sorter.array if one_row else sorter.array[tuple(cell[:-1])]
        cells = replace(cells, values=cells.values[order], places=cells.cells[order])
    value = call["self"]
    x = broadcast(value if isinstance(value, Operand) else rounded(float(value), operand.source.dtype), cell, "x")
    right = call.get("right") or call.get("side") == "right"
    return Apply("count_not_above" if right else "count_below", {"cells": cells, "x": x})


def is_among(call: Call, cell: Cell) -> Apply:
    """isin: whether a number is among others.

    Raises:
        UsageError: an argument is a Python number, which is compared in its own type.
    """
    element, candidates = (call.get(name) for name in ("elements", "test_elements"))
    if not (isinstance(element, Operand) and isinstance(candidates, Operand)):
        raise UsageError("isin is explained for two tensors.")
    result = Apply("is_among", {"x": leaf(element, cell), "cells": _all(candidates)})
    return Apply("logical_not", {"x": result}) if call.get("invert") else result


def unique(call: Call, cell: Cell) -> Expr:
    """_unique2, unique_dim, unique_consecutive: a distinct number, its index, or its count.

    Raises:
        UsageError: a result that was not requested, or the index of one of several nan, whose order is the kernel's.
    """
    slices, axis = _slices(call)
    kinds = _kinds(slices, in_turn=call.op == "unique_consecutive")
    if call.output == 0:
        first = int(np.flatnonzero(kinds == cell[axis or 0])[0])
        return _first_met(call, cell, axis, first)
    if not call["return_inverse" if call.output == 1 else "return_counts"]:
        raise UsageError(f"result {call.output} of {call.op} was not requested.")
    if call.output == 2:
        return _tally(kinds == cell[0], "is the same", f"how many are the same as number {cell[0]:,}")
    flat = int(np.ravel_multi_index(cell, call.shape)) if cell else 0
    if call.op == "_unique2" and np.isnan(slices[flat]).any() and np.isnan(slices).sum() > 1:
        raise UsageError("the order of several nan depends on the kernel.")
    first_indices = np.unique(kinds, return_index=True)[1]
    smaller = np.isin(np.arange(len(kinds)), first_indices[: kinds[flat]])
    return _tally(smaller, "is another, before it", "how many different ones come before it")


def repeated(call: Call, cell: Cell) -> Dot:
    """repeat_interleave of counts: how many of the repeated ones end before this place."""
    ends = np.cumsum(call["repeats"].array)
    return _tally(ends <= cell[0], "ends before this place", "how many end before this place")


def _slices(call: Call) -> tuple[Array, int | None]:
    """The compared items, one row each: the slices of an axis, or single numbers."""
    array, dim = call["self"].array, call.get("dim")
    if dim is None:
        return array.reshape(-1, 1), None
    axis = dim % max(array.ndim, 1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1), axis


def _kinds(slices: Array, *, in_turn: bool) -> Array:
    """For each slice, the index of its distinct value: in sorted order, or incremented at each change."""
    if in_turn:
        changes = (slices[1:] != slices[:-1]).any(1)
        return np.concatenate([[0], np.cumsum(changes)]).astype(np.int64)[: len(slices)]
    order = np.lexsort(slices.T[::-1]) if slices.shape[1] else np.arange(len(slices))
    ranks = np.empty(len(slices), np.int64)
    ranks[order] = _kinds(slices[order], in_turn=True)
    return ranks


def _first_met(call: Call, cell: Cell, axis: int | None, first: int) -> Expr:
    operand: Operand = call["self"]
    if axis is None:
        return leaf(operand, tuple(map(int, np.unravel_index(first, operand.shape or (1,))))[: len(operand.shape)])
    return leaf(operand, tuple(first if a == axis else i for a, i in enumerate(cell)))


def _tally(truths: Array, criterion: str, note: str) -> Dot:
    """A count, as the sum of a 1 for each slice."""
    places = np.arange(len(truths), dtype=np.int64)[:, None]
    source = Source(f"slice {criterion}", "computed", (len(truths),), "int64")
    return Dot(Cells(truths.astype(np.float64), source, places, (len(truths),)), note=note, kind="int64")


def histogram(call: Call, cell: Cell) -> Expr:
    """histc and histogram: how many numbers are in a bin, or the sum of their weights; then the edges.

    Raises:
        UsageError: edges that are not sorted, or a range so wide that a kernel's number of bins times it overflows.
    """
    cells, edges = _all(call["self"]), Edges(call)
    if call.op == "histc" and not edges.width() * (call.shape[0] + 1) < call.precision.largest:
        raise UsageError("a histogram is explained for ranges whose product with the number of bins does not overflow.")
    if call.output == 1:
        return edges(cell[0])
    count = call.shape[0]
    last = number(cell[0] == count - 1, "last")
    parts: Mapping[str, Cells | Expr] = {
        "cells": cells,
        "low": edges(cell[0]),
        "high": edges(cell[0] + 1),
        "last": last,
    }
    weight = call.get("weight")
    name = "between" if weight is None else "weight_between"
    arguments = parts if weight is None else {**parts, "weights": _all(weight)}
    inside = Apply(name, arguments, f"bin {cell[0] + 1:,} of {count:,}")
    if not call.get("density"):
        return inside
    all_bins = Apply(
        name, {**arguments, "low": edges(0), "high": edges(count), "last": number(1, "last")}, "in all bins"
    )
    width = Apply("sub", {"x": parts["high"], "y": parts["low"]}, "the width of the bin")
    return Apply("div", {"x": Apply("div", {"x": inside, "y": all_bins}), "y": width})


class Edges:
    """The edges of the bins: given, or evenly spaced over a range or over the data."""

    def __init__(self, call: Call) -> None:
        self.call, self.bins = call, call["bins"]
        if isinstance(self.bins, Operand) and (np.diff(self.bins.array) < 0).any():
            raise UsageError("a histogram is explained for edges that are sorted.")

    def __call__(self, edge: int) -> Expr:
        """The edge before bin `edge`."""
        if isinstance(self.bins, Operand):
            return leaf(self.bins, (edge,))
        ends = dict(zip(("start", "end"), self._range(), strict=True))
        if edge in {0, self.bins}:
            return ends["end" if edge else "start"]
        return Apply("evenly", {**ends, "index": number(edge, "index"), "last": number(self.bins, "last")})

    def width(self) -> float:
        """How far the range goes."""
        low, high = self._range()
        return high.value() - low.value()

    def _range(self) -> tuple[Expr, Expr]:
        """The given range (for histc: if min and max differ); otherwise that of the data, widened if it is empty."""
        call, operand = self.call, self.call["self"]
        dtype = operand.source.dtype
        limits = (call["min"], call["max"]) if call.op == "histc" else call.get("range")
        if call.op == "histc" and limits[0] == limits[1]:
            limits = None
        low: Expr
        high: Expr
        if limits is not None:
            low, high = (
                number(rounded(float(v), dtype), n, dtype) for n, v in zip(("min", "max"), limits, strict=True)
            )
        elif operand.array.size:
            cells = _all(operand)
            low, high = Apply("min", {"cells": cells}), Apply("max", {"cells": cells})
        else:
            low, high = number(0, "min"), number(float(call.op != "histc"), "max")
        if low.value() != high.value():
            return low, high
        more = number(1.0 if call.op == "histc" else 0.5, "more")
        return Apply("sub", {"x": low, "y": more}), Apply("add", {"x": high, "y": more})


def _all(operand: Operand) -> Cells:
    return outer(operand, [range(n) for n in operand.shape])


def searched_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The number that is looked up, and the whole row it is looked up in."""
    mask, operands = as_mask(mask), call.operands()
    result = {"self": np.broadcast_to(mask, operands["self"].shape).copy()} if "self" in varies else {}
    for name in {"boundaries", "sorted_sequence"} & varies:
        shape = operands[name].shape
        reached = mask.max(initial=0.0) if len(shape) == 1 else mask.max(axis=-1, keepdims=True, initial=0.0)
        result[name] = np.broadcast_to(reached, shape).copy()
    return result


# Ranks: median, nanmedian, kthvalue, mode, each with the index of the number that was chosen


def ranked_one(call: Call, cell: Cell) -> Apply:
    """The number of that rank among all cells along the axis, or its index.

    Raises:
        UsageError: the mode of numbers with nan, which depends on their order in PyTorch.
    """
    cells = reduced(call, cell)
    if call.op == "mode" and np.isnan(cells.values.astype(np.float64)).any():
        raise UsageError("no rule explains the mode of numbers with nan.")
    if call.op == "kthvalue":
        rank, order = number(call["k"] - 1, "rank"), number(0, "descending")
        value = Apply(
            "ranked",
            {"cells": cells, "rank": rank, "descending": order},
            f"number {call['k']:,} of {len(cells):,}, from the smallest",
        )
    else:
        word = {"median": "median", "nanmedian": "median", "mode": "most frequent"}[call.op]
        value = Apply(call.op, {"cells": cells}, f"the {word} of {len(cells):,} cells")
    return Apply("index_of", {"cells": cells, "x": value}, "its index") if call.output else value


def ranked_one_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the selected cell; the median of a whole tensor splits them among equal cells."""
    first_result(call)
    only(call, varies, "self")
    image = wide(call["self"])
    if call.get("dim") is None:
        same = image == PRIMITIVES[call.op].value(image.reshape(-1))
        return VJP({"self": weights * same / max(int(same.sum()), 1)})
    axis, row_weights = call["dim"] % max(image.ndim, 1), kept_weights(call, weights)
    if not image.ndim:
        return VJP({"self": weights})
    recorded = call.extra.get("selected")  # of equal numbers the kernel takes any
    if recorded is not None:
        at = recorded if recorded.ndim == image.ndim else np.expand_dims(recorded, axis)
        result = np.zeros(image.shape)
        np.put_along_axis(result, at, row_weights, axis)
        return VJP({"self": result})
    k = call.get("k", 1) - 1
    choose = PRIMITIVES["ranked" if call.op == "kthvalue" else call.op].value
    settings = (k, 0) if call.op == "kthvalue" else ()
    chosen = np.apply_along_axis(lambda row: choose(row, *settings), axis, image)
    first = np.argmax(image == np.expand_dims(chosen, axis), axis=axis, keepdims=True)
    result = np.zeros(image.shape)
    np.put_along_axis(result, first, row_weights, axis)
    return VJP({"self": result})


# Running results along an axis: cumprod, cummax, cummin, logcumsumexp


def _so_far(call: Call, cell: Cell) -> Cells:
    """This cell and all before it on the axis."""
    axis = call["dim"] % max(len(cell), 1)
    return outer(call["self"], [range(i + 1) if a == axis else i for a, i in enumerate(cell)])


def cumprod(call: Call, cell: Cell) -> Apply:
    """The product of this cell and all before it."""
    cells = _so_far(call, cell)
    return Apply("product", {"cells": cells}, f"the product of the first {len(cells):,} cells", call.kind)


def cumulative_extreme(call: Call, cell: Cell) -> Apply:
    """cummax and cummin: the maximum or minimum so far, and its last index."""
    cells = _so_far(call, cell)
    best = Apply(call.op.removeprefix("cum"), {"cells": cells}, f"the {_word(call)} of the first {len(cells):,} cells")
    return Apply("last_index_of", {"cells": cells, "x": best}, "its last index") if call.output else best


def logcumsumexp(call: Call, cell: Cell) -> Apply:
    """The logarithm of the sum of the exponentials so far."""
    return Apply("running_logsumexp", {"cells": _so_far(call, cell)})


def _word(call: Call) -> str:
    return "largest" if call.op == "cummax" else "smallest"


def cumprod_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The derivative by each cell: the product of all others up to every later one."""
    only(call, varies, "self")
    rows, row_weights = _rows(call, wide(call["self"])), _rows(call, weights)
    gradient = np.zeros(rows.shape)
    for index in range(rows.shape[-1]):
        other_factors = rows.copy()
        other_factors[..., index] = 1.0
        gradient[..., index] = (row_weights * np.cumprod(other_factors, -1))[..., index:].sum(-1)
    return tangent({"self": _back(call, gradient)}, call, float(np.sum(row_weights * np.cumprod(rows, -1))))


def cumulative_extreme_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the maximum or minimum so far, the last of equal ones."""
    first_result(call)
    only(call, varies, "self")
    rows, row_weights = _rows(call, wide(call["self"])), _rows(call, weights)
    best = (np.maximum if call.op == "cummax" else np.minimum).accumulate(rows, -1)
    last = np.maximum.accumulate(np.where(rows == best, np.arange(rows.shape[-1]), 0), -1)
    gradient = np.zeros(rows.shape)
    lead = np.indices(rows.shape)[:-1]
    np.add.at(gradient, (*lead, last), row_weights)
    return VJP({"self": _back(call, gradient)})


def logcumsumexp_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The softmax of the cells so far, for every later one."""
    only(call, varies, "self")
    rows, row_weights = _rows(call, wide(call["self"])), _rows(call, weights)
    result = np.logaddexp.accumulate(rows, -1)
    count = rows.shape[-1]
    shares = np.exp(rows[..., :, None] - result[..., None, :]) * np.triu(np.ones((count, count)))
    gradient = (shares * row_weights[..., None, :]).sum(-1)
    return tangent({"self": _back(call, gradient)}, call, float(np.sum(row_weights * result)))


def _rows(call: Call, array: Array) -> Array:
    """Move the axis to the end."""
    return np.moveaxis(array, call["dim"], -1) if array.ndim else array.reshape(1)


def _back(call: Call, rows: Array) -> Array:
    return np.moveaxis(rows, -1, call["dim"]) if call["self"].shape else rows.reshape(())
