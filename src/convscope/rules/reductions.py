"""Reductions: the sum, mean, variance, norm or largest number along some axes."""

from collections.abc import Mapping

import numpy as np

from convscope.rules.call import Call, Cell, Operand
from convscope.rules.expr import Apply, Cells, Dot, Expr, number
from convscope.rules.functions.moments import mean_roundings
from convscope.rules.gather import before_reduction, dims_of, outer, row


def total(call: Call, cell: Cell) -> Dot:
    """The sum of all cells along the reduced axes.

    >>> x = Operand.of(np.arange(6.0).reshape(2, 3), "x")
    >>> total(Call("sum", {"self": x, "dim": [1], "keepdim": False, "dtype": None}, (2,)), (1,)).value()
    12.0
    """
    cells = reduced(call, cell)
    return Dot(cells, note=f"the sum of {len(cells):,} cells", kind=call.kind)


def mean(call: Call, cell: Cell) -> Dot:
    """Their sum, divided by their number."""
    cells = reduced(call, cell)
    return Dot(cells, divisor=len(cells), note=f"the mean of {len(cells):,} cells", extra=2)


def mean_of(cells: Cells, kernel: str = "variance") -> Dot:
    """The mean of the given cells, as a kernel of `KERNELS` finds it; it may carry means along instead of sums."""
    counted = int(np.count_nonzero(cells.values)) - 1 + (len(cells) != 1)
    extra = mean_roundings(cells.values, kernel) - counted
    return Dot(cells, divisor=len(cells), note=f"the mean of {len(cells):,} cells", extra=extra)


def variance_of(cells: Cells, correction: float = 0, kernel: str = "variance") -> Apply:
    """The mean square distance of the given cells from their mean, as a kernel of `KERNELS` finds it."""
    mean, less = mean_of(cells, kernel), number(correction, "correction")
    parts: Mapping[str, Cells | Expr] = {"cells": cells, "mean": mean, "correction": less}
    return Apply(kernel, parts, note=f"the variance of {len(cells):,} cells")


def variance(call: Call, cell: Cell) -> Apply | Dot:
    """var and std, with their mean as second result where asked: var_mean, std_mean."""
    cells = reduced(call, cell)
    kernel = "variance" if call.dtype == "float32" else "variance_in_turn"
    if call.output == 1:
        return mean_of(cells, kernel)
    found = variance_of(cells, _correction(call), kernel)
    return Apply("sqrt", {"x": found}, note="the standard deviation") if call.op.startswith("std") else found


def largest(call: Call, cell: Cell) -> Apply:
    """amax, amin, max, min, argmax, argmin along axes: the candidates and the winner, or where it stands."""
    cells = reduced(call, cell)
    name = "max" if "max" in call.op else "min"
    if call.output == 0 and not call.op.startswith("arg"):
        return Apply(
            name, {"cells": cells}, note=f"the {'largest' if name == 'max' else 'smallest'} of {len(cells):,} cells"
        )
    dims = dims_of(call, call["self"])
    axis = np.arange(len(cells)) if call.get("dim") is None or not dims else cells.cells[:, dims[0]]
    return Apply(
        f"arg{name}",
        {"cells": cells, "positions": cells.placed(axis)},
        note=f"where the {'largest' if name == 'max' else 'smallest'} of {len(cells):,} cells stands",
    )


def least_and_largest(call: Call, cell: Cell) -> Apply:
    """aminmax: the smallest as the first result, the largest as the second."""
    cells = reduced(call, cell)
    name, word = ("max", "largest") if call.output else ("min", "smallest")
    return Apply(name, {"cells": cells}, note=f"the {word} of {len(cells):,} cells")


def ranked(call: Call, cell: Cell) -> Apply:
    """sort and topk: the number that comes in this place, and where it stood."""
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


def whole(call: Call, cell: Cell) -> Apply:
    """prod, any, all: one function of all cells along the reduced axes."""
    cells = reduced(call, cell)
    return Apply("product", {"cells": cells}, kind=call.kind) if call.op == "prod" else Apply(call.op, {"cells": cells})


def norm(call: Call, cell: Cell) -> Apply:
    """The p-norm along the reduced axes, by default the root of the sum of squares."""
    order = float(call["ord"])
    cells = reduced(call, cell)
    if order == 2 and np.isfinite(cells.values).all():
        return Apply(
            "sqrt", {"x": Dot(cells, cells, note=f"the sum of {len(cells):,} squares")}, note="the length of the vector"
        )
    return Apply("norm", {"cells": cells, "order": number(order, "order")})


def logsumexp(call: Call, cell: Cell) -> Apply:
    """The logarithm of the sum of exponentials."""
    return Apply("logsumexp", {"cells": reduced(call, cell)})


def cumsum(call: Call, cell: Cell) -> Dot:
    """The sum of this cell and all before it along one axis."""
    axis = call["dim"] % max(len(cell), 1)
    cells = outer(call["self"], [range(i + 1) if a == axis else i for a, i in enumerate(cell)])
    return Dot(cells, note=f"the sum of the first {len(cells):,} cells", kind=call.kind)


def reduced(call: Call, cell: Cell) -> Cells:
    """The cells along the reduced axes that end in this cell."""
    operand: Operand = call["self"]
    dims = dims_of(call, operand)
    return row(operand, before_reduction(cell, dims, len(operand.shape)), dims)


def _correction(call: Call) -> float:
    given = call.get("correction")
    if given is None:
        given = call.get("unbiased", True)
    return float(given)
