"""Segments: the sum, mean, product or extreme of each of several runs of an axis."""

from collections.abc import Iterator

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell
from convscope.expr.cells import outer
from convscope.expr.expr import Apply, Dot, Expr, number
from convscope.ops.dependencies import as_mask
from convscope.ops.vjp import VJP, Varies, only, tangent, wide
from convscope.typing import Array

EMPTY = {"sum": 0.0, "mean": np.nan, "prod": 1.0, "max": -np.inf, "min": np.inf}
"""The result for an empty segment."""


def _run(call: Call, lead: Cell, segment: int) -> range:
    """The indices of one segment, from its lengths or offsets.

    Raises:
        UsageError: segments that are named cell by cell.
    """
    if call.get("lengths") is not None:
        ends = np.cumsum(call["lengths"].array[lead])
        return range(int(ends[segment - 1]) if segment else 0, int(ends[segment]))
    if call.get("offsets") is None:
        raise UsageError("segment_reduce is explained for lengths and offsets.")
    starts = call["offsets"].array[lead]
    return range(int(starts[segment]), int(starts[segment + 1]))


def segment(call: Call, cell: Cell) -> Expr:
    """All cells of one segment, and the initial value."""
    axis, how, initial = call["axis"] % len(cell), call["reduce"], call.get("initial")
    run = _run(call, cell[:axis], cell[axis])
    if not len(run):
        return number(EMPTY[how] if initial is None else initial, "initial")
    cells = outer(call["data"], [run if a == axis else i for a, i in enumerate(cell)])
    first = None if initial is None else number(initial, "initial")
    note = f"of the {len(cells):,} cells of this segment"
    if how in {"sum", "mean"}:
        total = Dot(cells, bias=first, note=f"the sum {note}")
        return total if how == "sum" else Apply("div", {"x": total, "y": number(len(cells), "count")})
    function, pair = {"prod": ("product", "mul"), "max": ("max", "maximum"), "min": ("min", "minimum")}[how]
    inner = Apply(function, {"cells": cells}, note)
    return Apply(pair, {"x": first, "y": inner}) if first else inner


def _segments(call: Call, weights: Array) -> Iterator[tuple[Cell, tuple[slice | int, ...]]]:
    """Each cell with a weight, and the cells of its segment."""
    axis = call["axis"] % weights.ndim
    for cell in map(tuple, np.argwhere(weights)):
        run = _run(call, tuple(map(int, cell[:axis])), int(cell[axis]))
        yield cell, tuple(slice(run.start, run.stop) if a == axis else int(i) for a, i in enumerate(cell))


def segment_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the cells of the segment, times the slope of the reduction."""
    only(call, varies, "data")
    data, how, initial = wide(call["data"]), call["reduce"], call.get("initial")
    gradient, value = np.zeros(data.shape), 0.0
    for cell, run in _segments(call, weights):
        row = data[run]
        gradient[run] += weights[cell] * _slopes(how, row, initial)
        value += weights[cell] * segment(call, tuple(map(int, cell))).value()
    return tangent({"data": gradient}, call, value)


def _slopes(how: str, row: Array, initial: float | None) -> Array:
    if how in {"sum", "mean"}:
        return np.full(len(row), 1.0 if how == "sum" else 1 / max(len(row), 1))
    if how == "prod":
        return np.array([np.delete(row, i).prod() for i in range(len(row))]) * (1 if initial is None else initial)
    every = row if initial is None else np.append(row, initial)
    best = every == (every.max(initial=-np.inf) if how == "max" else every.min(initial=np.inf))
    return np.asarray(best / max(int(best.sum()), 1))[: len(row)]


def segment_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The cells of the segment."""
    if "data" not in varies:
        return {}
    result = np.zeros(call["data"].shape, np.float32)
    for _, run in _segments(call, as_mask(mask)):
        result[run] = 1.0
    return {"data": result}
