"""Selection: maxima and minima along axes and where they are, sorting, the largest few."""

from collections.abc import Mapping

import numpy as np

from convscope.expr.call import Call, Cell
from convscope.expr.cells import dims_of, row
from convscope.expr.expr import Apply, Cells, Expr, number
from convscope.ops.reductions import kept_weights, reduced
from convscope.ops.vjp import VJP, Varies, first_result, only, wide
from convscope.typing import Array


def largest(call: Call, cell: Cell) -> Apply:
    """amax, amin, max, min, argmax, argmin along axes: the candidates and the winner, or its position."""
    cells = reduced(call, cell)
    name = "max" if "max" in call.op else "min"
    if call.output == 0 and not call.op.startswith("arg"):
        return Apply(
            name, {"cells": cells}, note=f"the {'largest' if name == 'max' else 'smallest'} of {len(cells):,} cells"
        )
    dims = dims_of(call, call["self"])
    axis = (
        np.broadcast_to(np.arange(len(cells)), cells.values.shape)
        if call.get("dim") is None or not dims
        else cells.cells[..., dims[0]]
    )
    return Apply(
        f"arg{name}",
        {"cells": cells, "positions": cells.placed(axis)},
        note=f"the position of the {'largest' if name == 'max' else 'smallest'} of {len(cells):,} cells",
    )


def least_and_largest(call: Call, cell: Cell) -> Apply:
    """aminmax: the smallest as the first result, the largest as the second."""
    cells = reduced(call, cell)
    name, word = ("max", "largest") if call.output else ("min", "smallest")
    return Apply(name, {"cells": cells}, note=f"the {word} of {len(cells):,} cells")


def ranked(call: Call, cell: Cell) -> Apply:
    """sort and topk: the number of this rank, and its position."""
    operand = call["self"]
    axis = call["dim"] % max(len(cell), 1)
    cells = row(operand, cell, [axis])
    down = bool(call.get("descending", call.get("largest", False)))
    rank, order = number(cell[axis] if cell else 0, "rank"), number(down, "descending")
    parts: Mapping[str, Cells | Expr] = {"cells": cells, "rank": rank, "descending": order}
    word = "largest" if down else "smallest"
    place = cell[axis] + 1 if cell else 1
    note = (
        f"the {word} of {len(cells):,} cells"
        if place == 1
        else f"number {place:,} of {len(cells):,} cells, the {word} first"
    )
    return Apply("rank_of" if call.output else "ranked", parts, note=note)


def extreme_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """amax and amin share a weight among equal winners; max and min along an axis give it to the one they name."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    if not image.ndim:
        return VJP({"self": weights})
    sign = 1.0 if "max" in call.op else -1.0
    best = (sign * image).max(axis=dims, keepdims=True)
    wins = sign * image == best
    if call.op in {"max", "min"} and call.get("dim") is not None:
        first = np.argmax(wins, axis=dims[0], keepdims=True)
        order = _recorded_order(call, image, np.take_along_axis(image, first, dims[0]), dims[0])
        wins = np.arange(image.shape[dims[0]]).reshape([-1 if a == dims[0] else 1 for a in range(image.ndim)])
        wins = wins == (first if order is None else order)
    return VJP({"self": kept_weights(call, weights) * wins / wins.sum(axis=dims, keepdims=True)})


def least_and_largest_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """aminmax: shared among equal winners."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    best = (np.max if call.output else np.min)(image, axis=dims, keepdims=True)
    wins = image == best
    return VJP({"self": kept_weights(call, weights) * wins / wins.sum(axis=dims, keepdims=True)})


def ranked_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """sort and topk: to the cell that came in each place, of equal ones as recorded."""
    first_result(call)
    only(call, varies, "self")
    image = wide(call["self"])
    if not image.ndim:
        return VJP({"self": weights})
    axis = call["dim"] % image.ndim
    down = call.get("descending", call.get("largest", False))
    order = np.argsort(-image if down else image, axis=axis, kind="stable")
    order = np.take(order, range(weights.shape[axis]), axis=axis)
    recorded = _recorded_order(call, image, np.take_along_axis(image, order, axis), axis)
    order = order if recorded is None else recorded
    result = np.zeros(image.shape)
    np.put_along_axis(result, order, weights, axis=axis)
    return VJP({"self": result})


def _recorded_order(call: Call, image: Array, selected: Array, axis: int) -> Array | None:
    """Where the kernel found the selected numbers, of which some may be equal; None where it is not recorded so."""
    recorded = call.extra.get("selected")
    if recorded is None:
        return None
    order = np.asarray(recorded).reshape(selected.shape)
    if order.size and not (order.min() >= 0 and order.max() < image.shape[axis]):
        return None
    return order if np.array_equal(np.take_along_axis(image, order, axis), selected, equal_nan=True) else None
