"""Reductions: the sum, mean, variance, product or norm along some axes; running sums; segments."""

from collections.abc import Iterator, Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import before_reduction, dims_of, outer, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import widened
from convscope.expr.primitives.moments import mean_roundings
from convscope.ops.dependencies import as_mask
from convscope.ops.vjp import VJP, Varies, only, tangent, wide
from convscope.typing import Array


def total(call: Call, cell: Cell) -> Dot:
    """The sum of all cells along the reduced axes.

    >>> x = Operand.of(np.arange(6.0).reshape(2, 3), "x")
    >>> total(Call("sum", {"self": x, "dim": [1], "keepdim": False, "dtype": None}, (2,)), (1,)).value()
    12.0
    """
    cells = reduced(call, cell)
    return Dot(cells, note=f"the sum of {len(cells):,} cells", kind=call.kind)


def nansum(call: Call, cell: Cell) -> Dot:
    """The sum of the cells along the reduced axes that are not nan."""
    cells = reduced(call, cell)
    numbers_only = np.flatnonzero(~np.isnan(cells.values))
    some = Cells(cells.values[numbers_only], cells.source, cells.cells[numbers_only], (len(numbers_only),))
    return Dot(some, note=f"the sum of {len(some):,} of {len(cells):,} cells, without nan", kind=call.kind)


def trace(call: Call, _cell: Cell) -> Dot:
    """The sum of the diagonal of a matrix."""
    operand = call["self"]
    places = np.repeat(np.arange(min(operand.shape), dtype=np.int64)[:, None], 2, axis=1)
    values = widened(np.asarray(operand.array[tuple(places.T)]))
    cells = Cells(values, operand.source, places, (len(places),))
    return Dot(cells, note=f"the sum of the {len(cells):,} cells on the diagonal", kind=call.kind)


def mean(call: Call, cell: Cell) -> Dot:
    """Their sum, divided by their number."""
    cells = reduced(call, cell)
    return Dot(cells, divisor=len(cells), note=f"the mean of {len(cells):,} cells", extra=2)


def mean_of(cells: Cells, kernel: str = "variance") -> Dot:
    """The mean of the given cells, as a kernel of `KERNELS` finds it; it may carry means along instead of sums."""
    counted = np.count_nonzero(cells.values, axis=-1) - 1 + (len(cells) != 1)
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
    result = variance_of(cells, _correction(call), kernel)
    return Apply("sqrt", {"x": result}, note="the standard deviation") if call.op.startswith("std") else result


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


def logsumexp(call: Call, cell: Cell) -> Apply | Leaf:
    """The logarithm of the sum of exponentials; minus infinity of no cells."""
    cells = reduced(call, cell)
    return Apply("logsumexp", {"cells": cells}) if len(cells) else number(-np.inf, "log 0")


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
    correction = call.get("correction")
    if correction is None:
        correction = call.get("unbiased", True)
    return float(correction)


def total_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """sum and mean."""
    only(call, varies, "self")
    shape = call["self"].shape
    count = 1.0 if call.op == "sum" else float(np.prod([shape[d] for d in dims_of(call, call["self"])]))
    return VJP({"self": np.broadcast_to(kept_weights(call, weights) / count, shape).copy()})


def nansum_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the cells that are not nan."""
    only(call, varies, "self")
    return VJP({"self": kept_weights(call, weights) * ~np.isnan(wide(call["self"]))})


def trace_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the diagonal."""
    only(call, varies, "self")
    return VJP({"self": np.eye(*call["self"].shape) * weights})


def variance_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """var and std, and the mean that comes with them."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    kept_axes_weights, count = kept_weights(call, weights), float(np.prod([image.shape[d] for d in dims]))
    if call.output == 1:
        return VJP({"self": np.broadcast_to(kept_axes_weights / count, image.shape).copy()})
    setting = call.get("correction")
    correction = float(call.get("unbiased", True) if setting is None else setting)
    alike = image.max(axis=dims, keepdims=True, initial=-np.inf) == image.min(axis=dims, keepdims=True, initial=np.inf)
    deviation = np.where(alike, 0.0, image - image.mean(axis=dims, keepdims=True))  # a mean of equal numbers is rounded
    var = (deviation**2).sum(axis=dims, keepdims=True) / (count - correction)
    root = np.sqrt(var) if call.op.startswith("std") else None
    slope = 2 * deviation / (count - correction)
    if root is not None:  # PyTorch's slope of the root at 0 is 0
        slope = np.where(root == 0, 0.0, slope / (2 * root))
    return tangent(
        {"self": kept_axes_weights * slope}, call, float(np.sum(kept_axes_weights * (var if root is None else root)))
    )


def product_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The product of all others, for each cell."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    if not image.ndim:
        return VJP({"self": weights})
    result = image.prod(axis=dims, keepdims=True)
    other_products = np.empty_like(image)
    for cell in np.ndindex(image.shape):
        line = tuple(slice(None) if a in dims else i for a, i in enumerate(cell))
        cell_line = image[line].copy()
        cell_line[tuple(i for a, i in enumerate(cell) if a in dims)] = 1.0
        other_products[cell] = cell_line.prod()
    cell_line = kept_weights(call, weights)
    return tangent({"self": cell_line * other_products}, call, float(np.sum(cell_line * result)))


def norm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The p-norm: the direction of the vector; the tangent goes through zero."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    order = float(call["ord"])
    sizes = np.abs(image)
    if np.isinf(order):
        best = (np.max if order > 0 else np.min)(sizes, axis=dims, keepdims=True)
        wins = sizes == best
        slope = np.sign(image) * wins / wins.sum(axis=dims, keepdims=True)
        return VJP({"self": kept_weights(call, weights) * slope})
    if order == 0:  # the number of cells that are not zero
        count = float(np.sum(kept_weights(call, weights) * np.count_nonzero(image, axis=dims, keepdims=True)))
        return tangent({"self": np.zeros(image.shape)}, call, count)
    length = (sizes**order).sum(axis=dims, keepdims=True) ** (1 / order)
    with np.errstate(all="ignore"):
        slope = np.sign(image) * sizes ** (order - 1) / length ** (order - 1)
    slope = np.where(length > 0, np.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    return VJP({"self": kept_weights(call, weights) * slope}, linear=order == 1)


def logsumexp_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The softmax."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    top = image.max(axis=dims, keepdims=True)
    grown = np.exp(image - top)
    added = grown.sum(axis=dims, keepdims=True)
    row_weights = kept_weights(call, weights)
    return tangent({"self": row_weights * grown / added}, call, float(np.sum(row_weights * (top + np.log(added)))))


def cumsum_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Every cell counts in all sums from its own on."""
    only(call, varies, "self")
    axis = call["dim"] % max(weights.ndim, 1)
    return VJP({"self": np.flip(np.cumsum(np.flip(weights, axis), axis), axis) if weights.ndim else weights})


def kept_weights(call: Call, weights: Array) -> Array:
    """The weights with the reduced axes put back as length 1."""
    shape, dims = call["self"].shape, dims_of(call, call["self"])
    return weights.reshape([1 if a in dims else n for a, n in enumerate(shape)])


def reduction_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells along the axes that are reduced."""
    if not varies:
        return {}
    shape, dims = call["self"].shape, dims_of(call, call["self"])
    row_mask = as_mask(mask).reshape([1 if axis in dims else n for axis, n in enumerate(shape)])
    return {"self": np.broadcast_to(row_mask, shape).copy()}


def along_axis_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells along one axis: a softmax, a ranking."""
    if not varies:
        return {}
    shape = call["self"].shape
    axis = call["dim"] % max(len(shape), 1)
    row_mask = as_mask(mask).max(axis=axis, keepdims=True) if shape else as_mask(mask)
    return {"self": np.broadcast_to(row_mask, shape).copy()}


def cumsum_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cell and those before it on one axis."""
    if not varies or not mask.ndim:
        return {"self": as_mask(mask)} if varies else {}
    axis = call["dim"] % mask.ndim
    return {"self": np.flip(np.maximum.accumulate(np.flip(as_mask(mask), axis), axis), axis)}


EMPTY = {"sum": 0.0, "mean": np.nan, "prod": 1.0, "max": -np.inf, "min": np.inf}
"""The result for an empty segment."""


def run_of(call: Call, lead: Cell, segment: int) -> range:
    """The indices of one segment, from its lengths or offsets.

    Raises:
        UsageError: segments that are given cell by cell, or that end beyond the data.
    """
    if call.get("lengths") is not None:
        ends = np.cumsum(call["lengths"].array[lead])
        run = range(int(ends[segment - 1]) if segment else 0, int(ends[segment]))
    elif call.get("offsets") is not None:
        starts = call["offsets"].array[lead]
        run = range(int(starts[segment]), int(starts[segment + 1]))
    else:
        raise UsageError("segment_reduce is explained only with lengths or offsets.")
    if run and run.stop > call["data"].shape[call["axis"]]:
        raise UsageError("segment_reduce reads memory beyond its data, which is not recorded.")
    return run


def segment(call: Call, cell: Cell) -> Expr:
    """All cells of one segment, and the initial value."""
    axis, reduce, initial = call["axis"] % len(cell), call["reduce"], call.get("initial")
    run = run_of(call, cell[:axis], cell[axis])
    if not len(run):
        return number(EMPTY[reduce] if initial is None else initial, "initial")
    cells = outer(call["data"], [run if a == axis else i for a, i in enumerate(cell)])
    first = None if initial is None else number(initial, "initial")
    note = f"of the {len(cells):,} cells of this segment"
    if reduce in {"sum", "mean"}:
        total = Dot(cells, bias=first, note=f"the sum {note}")
        return total if reduce == "sum" else Apply("div", {"x": total, "y": number(len(cells), "count")})
    function, pair = {"prod": ("product", "mul"), "max": ("max", "maximum"), "min": ("min", "minimum")}[reduce]
    inner = Apply(function, {"cells": cells}, note)
    return Apply(pair, {"x": first, "y": inner}) if first else inner


def _segments(call: Call, weights: Array) -> Iterator[tuple[Cell, tuple[slice | int, ...]]]:
    """Each cell with a weight, and the cells of its segment."""
    axis = call["axis"] % weights.ndim
    for cell in map(tuple, np.argwhere(weights)):
        run = run_of(call, tuple(map(int, cell[:axis])), int(cell[axis]))
        yield cell, tuple(slice(run.start, run.stop) if a == axis else int(i) for a, i in enumerate(cell))


def segment_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the cells of the segment, times the slope of the reduction."""
    only(call, varies, "data")
    data, reduce, initial = wide(call["data"]), call["reduce"], call.get("initial")
    gradient, value = np.zeros(data.shape), 0.0
    for cell, run in _segments(call, weights):
        row = data[run]
        gradient[run] += weights[cell] * _slopes(reduce, row, initial)
        value += weights[cell] * segment(call, tuple(map(int, cell))).value()
    return tangent({"data": gradient}, call, value)


def _slopes(reduce: str, row: Array, initial: float | None) -> Array:
    if reduce in {"sum", "mean"}:
        return np.full(len(row), 1.0 if reduce == "sum" else 1 / max(len(row), 1))
    if reduce == "prod":
        return np.array([np.delete(row, i).prod() for i in range(len(row))]) * (1 if initial is None else initial)
    every = row if initial is None else np.append(row, initial)
    best = every == (every.max(initial=-np.inf) if reduce == "max" else every.min(initial=np.inf))
    return np.asarray(best[: len(row)] / max(int(best[: len(row)].sum()), 1))


def segment_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The cells of the segment."""
    if "data" not in varies:
        return {}
    result = np.zeros(call["data"].shape, np.float32)
    for _, run in _segments(call, as_mask(mask)):
        result[run] = 1.0
    return {"data": result}
