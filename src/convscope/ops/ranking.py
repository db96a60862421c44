"""Ranks: median, nanmedian, kthvalue, mode, each with the index of the number that was chosen."""

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell
from convscope.expr.expr import Apply, number
from convscope.expr.primitives import PRIMITIVES
from convscope.ops.reductions import kept_weights, reduced
from convscope.ops.vjp import VJP, Varies, first_result, only, wide
from convscope.typing import Array


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
    axis, kept = call["dim"] % max(image.ndim, 1), kept_weights(call, weights)
    if not image.ndim:
        return VJP({"self": weights})
    k = call.get("k", 1) - 1
    choose = PRIMITIVES["ranked" if call.op == "kthvalue" else call.op].value
    settings = (k, 0) if call.op == "kthvalue" else ()
    chosen = np.apply_along_axis(lambda row: choose(row, *settings), axis, image)
    first = np.argmax(image == np.expand_dims(chosen, axis), axis=axis, keepdims=True)
    result = np.zeros(image.shape)
    np.put_along_axis(result, first, kept, axis)
    return VJP({"self": result})
