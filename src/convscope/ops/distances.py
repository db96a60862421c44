"""Distances between rows, and lengths of vectors: cdist, pdist, norm, the scaled directions of weight norm."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source, broadcast_cell
from convscope.expr.cells import leaf, outer, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.ops import reductions
from convscope.ops.dependencies import as_mask, everything
from convscope.ops.op import Op
from convscope.ops.titles import backward, named
from convscope.ops.vjp import VJP, Varies, first_result, fitted, only, tangent, wide
from convscope.typing import Array


def norm(call: Call, cell: Cell) -> Apply:
    """The p-norm along some axes, by default the root of the sum of squares."""
    return reductions.norm(_with_order(call), cell)


def norm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The direction of the vector."""
    return reductions.norm_vjp(_with_order(call), weights, varies)


def _with_order(call: Call) -> Call:
    order = call.get("p")
    return replace(call, arguments={**call.arguments, "ord": 2 if order is None else order})


def cdist(call: Call, cell: Cell) -> Apply:
    """The distance of a row of the first matrix from a row of the second.

    `_euclidean_dist`, for many rows, expands the square: sum of x² + sum of y² − 2 × sum of x × y.
    """
    *batch, first, second = cell
    left, right = call["x1"], call["x2"]
    x, y = (
        row(operand, (*broadcast_cell(tuple(batch), operand.shape[:-2]), index, 0), [len(operand.shape) - 1])
        for operand, index in ((left, first), (right, second))
    )
    if call.op == "_euclidean_dist":
        return Apply("distance_by_products", {"x": x, "y": y}, note="the distance of two rows")
    return Apply("distance", {"x": x, "y": y, "order": number(call["p"], "p")}, note="the distance of two rows")


def pdist(call: Call, cell: Cell) -> Apply:
    """The distance of two rows of one matrix: of the first from all others, then of the second from those after it."""
    first, second = (int(indices[cell[0]]) for indices in np.triu_indices(call["self"].shape[0], 1))
    x, y = (row(call["self"], (indices, 0), [1]) for indices in (first, second))
    return Apply("distance", {"x": x, "y": y, "order": number(call["p"], "p")}, note="the distance of two rows")


@np.errstate(all="ignore")  # infinities and nan are explained like any number
def cdist_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradients of a row's distances, each times the direction from the other row.

    Source: PyTorch, aten/src/ATen/native/cpu/DistanceOpsKernel.cpp.
    """
    *batch, index, column = cell
    left, right, grad = call["x1"], call["x2"], call["grad"]
    x = leaf(left, (*broadcast_cell(tuple(batch), left.shape[:-2]), index, column))
    y = outer(right, [*broadcast_cell(tuple(batch), right.shape[:-2]), range(right.shape[-2]), column])
    gradients, distances = (row(operand, (*batch, index, 0), [len(batch) + 1]) for operand in (grad, call["cdist"]))
    return _along_directions(call, gradients, x.scalar - y.values, distances.values)


@np.errstate(all="ignore")
def pdist_backward(call: Call, cell: Cell) -> Dot | Leaf:
    """The gradients of a row's distances from all others, each times the direction from the other row."""
    index, column = cell
    first, second = np.triu_indices(call["self"].shape[0], 1)
    pairs = np.flatnonzero((first == index) | (second == index))
    others = first[pairs] + second[pairs] - index
    x, y = leaf(call["self"], cell), outer(call["self"], [others, column])
    gradients, distances = (outer(operand, [pairs]) for operand in (call["grad"], call["pdist"]))
    return _along_directions(call, gradients, x.scalar - y.values, distances.values)


def _along_directions(call: Call, gradients: Cells, difference: Array, distances: Array) -> Dot | Leaf:
    """Gradients times the slope of each distance by one difference, with the distances as recorded.

    A slope has a rounding of the difference, which its power multiplies; two powers, a product and a quotient. What a
    power loses below the smallest number of the type, the quotient carries on.
    """
    order, precision = float(call["p"]), call.precision
    if order == 0:
        return number(0, "the slope of a count")
    sizes, u = np.abs(difference), precision.sum
    if np.isinf(order):
        behind = np.ceil(np.abs(np.abs(_rounded(call, difference)) - distances))
        slopes, errors = np.sign(difference) * (1 - np.minimum(1.0, behind)), np.zeros(sizes.shape)
    elif order == 1:  # kernels differ in the sign of nan
        slopes, errors = np.nan_to_num(np.sign(difference)), np.where(np.isnan(difference), np.inf, 0.0)
    else:
        lengths = distances ** (order - 1)
        slopes = np.sign(difference) * sizes ** (order - 1) / lengths
        roundings = 3 if order == 2 else 20 + abs(order - 1)
        lost = precision.tiny * (1 + sizes + 1 / np.maximum(sizes, precision.tiny)) / lengths
        errors = roundings * u * np.abs(slopes) + np.where((order != 2) & (sizes > 0), lost, 0.0)
        errors = np.where(np.maximum(lengths, sizes ** max(order - 1, 0)) < precision.room, errors, np.inf)
        settled = (distances == 0) | ((difference == 0) & (order < 2))
        slopes, errors = np.where(settled, 0.0, slopes), np.where(settled, 0.0, errors)
    source = Source("direction", "computed", slopes.shape)
    directions = Cells(slopes, source, np.arange(len(slopes))[:, None], (len(slopes),), errors=errors)
    return Dot(gradients, directions, note=f"the gradients of {len(slopes)} distances × the direction of each", extra=1)


def _rounded(call: Call, difference: Array) -> Array:
    """Differences as a kernel has them, in its type: the largest of a row is found among these."""
    return difference.astype(np.float32).astype(np.float64) if call.dtype == "float32" else difference


def dist(call: Call, cell: Cell) -> Apply:  # noqa: ARG001  # its result has one cell
    """The distance of two tensors of any shape, all of their cells in one row."""
    full = np.broadcast_shapes(call["self"].shape, call["other"].shape)
    x, y = (_spread(operand, full) for operand in (call["self"], call["other"]))
    return Apply("distance", {"x": x, "y": y, "order": number(call["p"], "p")}, note="the distance of two tensors")


def _spread(operand: Operand, full: tuple[int, ...]) -> Cells:
    """All cells of a tensor in one row, repeated where it is broadcast."""
    shape = operand.shape
    flat = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), full).ravel()
    cells = np.stack(np.unravel_index(flat, shape), axis=1) if shape else np.zeros((len(flat), 0), np.int64)
    return Cells(wide(operand).ravel()[flat], operand.source, cells, (len(flat),))


def dist_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass to both tensors the direction from the other."""
    only(call, varies, "self", "other")
    difference = wide(call["self"]) - wide(call["other"])
    slopes, _ = _directions(_rounded(call, difference.ravel()), float(call["p"]))
    _, distance = _directions(difference.ravel(), float(call["p"]))
    along = (weights * slopes).reshape(difference.shape)
    gradients = {"self": fitted(along, call["self"].shape), "other": fitted(-along, call["other"].shape)}
    return tangent({name: gradients[name] for name in varies}, call, float(np.sum(weights * distance)))


def cdist_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass to each row the direction from the other, in the p-norm."""
    only(call, varies, "x1", "x2")
    left, right = wide(call["x1"]), wide(call["x2"])
    order = float(call.get("p", 2.0))
    difference = left[..., :, None, :] - right[..., None, :, :]
    (slopes, _), (_, distances) = _directions(_rounded(call, difference), order), _directions(difference, order)
    along = weights[..., None] * slopes  # (..., P, R, M)
    gradients = {"x1": fitted(along.sum(-2), left.shape), "x2": fitted(-along.sum(-3), right.shape)}
    return tangent({name: gradients[name] for name in varies}, call, float(np.sum(weights * distances)))


def pdist_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to both rows of each pair."""
    only(call, varies, "self")
    image = wide(call["self"])
    first, second = np.triu_indices(len(image), 1)
    difference, order = image[first] - image[second], float(call["p"])
    (slopes, _), (_, distances) = _directions(_rounded(call, difference), order), _directions(difference, order)
    gradient = np.zeros_like(image)
    np.add.at(gradient, first, weights[:, None] * slopes)
    np.add.at(gradient, second, -weights[:, None] * slopes)
    return tangent({"self": gradient}, call, float(np.sum(weights * distances)))


def _directions(difference: Array, order: float) -> tuple[Array, Array]:
    """The slope of a distance by each difference, (..., M), and the distance, (...)."""
    sizes = np.abs(difference)
    if order == 0:
        return np.zeros_like(difference), np.asarray(np.count_nonzero(difference, axis=-1), np.float64)
    if np.isinf(order):
        distances = sizes.max(axis=-1, initial=0.0) if order > 0 else sizes.min(axis=-1)
        return np.sign(difference) * (sizes == distances[..., None]), distances
    distances = (sizes**order).sum(axis=-1) ** (1 / order)
    with np.errstate(all="ignore"):
        slopes = np.sign(difference) * (sizes / distances[..., None]) ** (order - 1)
    return np.where((distances[..., None] > 0) & (sizes > 0), slopes, 0.0), distances


def cdist_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The two rows of each distance."""
    mask = as_mask(mask)
    rows = {"x1": mask.max(axis=-1, initial=0.0), "x2": mask.max(axis=-2, initial=0.0)}
    masks = {}
    for name in varies:
        shape = call[name].shape
        masks[name] = np.broadcast_to(as_mask(fitted(rows[name], shape[:-1]))[..., None], shape).copy()
    return masks


def pdist_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The two rows of each distance."""
    if not varies:
        return {}
    shape = call["self"].shape
    rows: Array = np.zeros(shape[0], np.float32)
    for members in np.triu_indices(shape[0], 1):
        rows[members[mask != 0]] = 1.0
    return {"self": np.broadcast_to(rows[:, None], shape).copy()}


def weight_norm(call: Call, cell: Cell) -> Expr:
    """A cell of the direction v, times the length g, divided by the norm of v; the second result is the norm.

    Source: Salimans and Kingma, Weight Normalization, NeurIPS 2016.
    """
    direction, length = call["v"], call["g"]
    axis = call["dim"] % len(direction.shape)
    index = cell[axis] if call.output == 0 else broadcast_cell(cell, length.shape)[axis]
    vector = outer(direction, [index if a == axis else range(n) for a, n in enumerate(direction.shape)])
    vector_norm = Apply(
        "sqrt", {"x": Dot(vector, vector, note=f"the sum of {len(vector):,} squares")}, note="the length of the vector"
    )
    if call.output:
        return vector_norm
    stretch = Apply(
        "div", {"x": leaf(length, broadcast_cell(cell, length.shape)), "y": vector_norm}, note="scale factor"
    )
    return Apply("mul", {"x": leaf(direction, cell), "y": stretch})


def weight_norm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The derivative of w = g·v ÷ |v|: the component along v is removed."""
    first_result(call)
    only(call, varies, "v", "g")
    direction, length = wide(call["v"]), wide(call["g"])
    axes = tuple(a for a in range(direction.ndim) if a != call["dim"] % direction.ndim)
    has = np.sqrt((direction**2).sum(axes, keepdims=True))
    along = (weights * direction).sum(axes, keepdims=True) / has
    gradients = {"v": (length / has) * (weights - direction * along / has), "g": fitted(along, length.shape)}
    return tangent({name: gradients[name] for name in varies}, call, float(np.sum(along * length)))


@np.errstate(all="ignore")  # infinities and nan are explained like any number
def weight_norm_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the direction v or of the length g of w = g·v ÷ |v|.

    That of g is the component of the gradient along v; it is removed from the gradient of v, since no change
    along v changes w.

    Source: Salimans and Kingma 2016, equation 3; PyTorch, aten/src/ATen/native/cpu/WeightNormKernel.cpp.
    """
    direction, length, norms = call["saved_v"], call["saved_g"], call["saved_norms"]
    axis = call["dim"] % len(direction.shape)
    index = cell[axis] if call.output == 0 else broadcast_cell(cell, length.shape)[axis]
    line = [index if a == axis else range(n) for a, n in enumerate(direction.shape)]
    vector_norm = leaf(norms, tuple(index if n > 1 else 0 for n in norms.shape))
    count = len(outer(direction, line))
    products = Dot(outer(call["grad_w"], line), outer(direction, line), note=f"the sum of {count:,} gradients × v")
    along = Apply(
        "div",
        {"x": products, "y": vector_norm},
        note="the component of the gradient along v, the gradient of its length",
    )
    if call.output:
        return along
    stretch = Apply(
        "div", {"x": leaf(length, tuple(index if n > 1 else 0 for n in length.shape)), "y": vector_norm}, note="scale"
    )
    scaled = Apply("mul", {"x": leaf(call["grad_w"], cell), "y": stretch}, note="the gradient × the scale")
    share = Apply(
        "div", {"x": Apply("mul", {"x": stretch, "y": along}), "y": vector_norm}, note="the component along v"
    )
    return Apply("sub", {"x": scaled, "y": Apply("mul", {"x": leaf(direction, cell), "y": share})})


def weight_norm_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The whole vector, and its length g."""
    shape, mask = call["v"].shape, as_mask(mask)
    axes = tuple(a for a in range(len(shape)) if a != call["dim"] % len(shape))
    reached = mask.max(axis=axes, keepdims=True, initial=0.0)
    masks = {"v": np.broadcast_to(reached, shape).copy(), "g": as_mask(fitted(reached, call["g"].shape))}
    if call.output:
        masks["g"] = np.zeros(call["g"].shape, np.float32)
    return {name: masks[name] for name in varies}


DISTANCES: Mapping[str, Op] = {
    "norm": Op(norm, reductions.reduction_dependencies, norm_vjp),
    "dist": Op(dist, everything, dist_vjp, rounding="stores between"),
    "_cdist_forward": Op(cdist, cdist_dependencies, cdist_vjp),
    "_euclidean_dist": Op(cdist, cdist_dependencies, cdist_vjp, rounding="stores between"),
    "_pdist_forward": Op(pdist, pdist_dependencies, pdist_vjp),
    "_cdist_backward": Op(cdist_backward, everything, title=backward(named("distances"))),
    "_pdist_backward": Op(pdist_backward, everything, title=backward(named("distances"))),
    "_weight_norm_interface": Op(weight_norm, weight_norm_dependencies, weight_norm_vjp),
}
