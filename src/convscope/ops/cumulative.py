"""Running results along an axis: cumprod, cummax, cummin, logcumsumexp."""

import numpy as np

from convscope.expr.call import Call, Cell
from convscope.expr.cells import outer
from convscope.expr.expr import Apply, Cells
from convscope.ops.vjp import VJP, Varies, first_result, only, tangent, wide
from convscope.typing import Array


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
    rows, kept = _rows(call, wide(call["self"])), _rows(call, weights)
    gradient = np.zeros(rows.shape)
    for at in range(rows.shape[-1]):
        others = rows.copy()
        others[..., at] = 1.0
        gradient[..., at] = (kept * np.cumprod(others, -1))[..., at:].sum(-1)
    return tangent({"self": _back(call, gradient)}, call, float(np.sum(kept * np.cumprod(rows, -1))))


def cumulative_extreme_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the maximum or minimum so far, the last of equal ones."""
    first_result(call)
    only(call, varies, "self")
    rows, kept = _rows(call, wide(call["self"])), _rows(call, weights)
    best = (np.maximum if call.op == "cummax" else np.minimum).accumulate(rows, -1)
    last = np.maximum.accumulate(np.where(rows == best, np.arange(rows.shape[-1]), 0), -1)
    gradient = np.zeros(rows.shape)
    lead = np.indices(rows.shape)[:-1]
    np.add.at(gradient, (*lead, last), kept)
    return VJP({"self": _back(call, gradient)})


def logcumsumexp_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The softmax of the cells so far, for every later one."""
    only(call, varies, "self")
    rows, kept = _rows(call, wide(call["self"])), _rows(call, weights)
    result = np.logaddexp.accumulate(rows, -1)
    count = rows.shape[-1]
    shares = np.exp(rows[..., :, None] - result[..., None, :]) * np.triu(np.ones((count, count)))
    gradient = (shares * kept[..., None, :]).sum(-1)
    return tangent({"self": _back(call, gradient)}, call, float(np.sum(kept * result)))


def _rows(call: Call, array: Array) -> Array:
    """Move the axis to the end."""
    return np.moveaxis(array, call["dim"], -1) if array.ndim else array.reshape(1)


def _back(call: Call, rows: Array) -> Array:
    return np.moveaxis(rows, -1, call["dim"]) if call["self"].shape else rows.reshape(())
