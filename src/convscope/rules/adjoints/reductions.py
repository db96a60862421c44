"""Adjoints of reductions: a sum passes its weight to every cell, a maximum to the winners."""

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, first_result, only, tangent, wide
from convscope.rules.call import Array, Call
from convscope.rules.gather import dims_of


def total(call: Call, weights: Array, varies: Varies) -> Pulled:
    """sum and mean."""
    only(call, varies, "self")
    shape = call["self"].shape
    count = 1.0 if call.op == "sum" else float(np.prod([shape[d] for d in dims_of(call, call["self"])]))
    return Pulled({"self": np.broadcast_to(_kept(call, weights) / count, shape).copy()})


def variance(call: Call, weights: Array, varies: Varies) -> Pulled:
    """var and std, and the mean that comes with them."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    kept, count = _kept(call, weights), float(np.prod([image.shape[d] for d in dims]))
    if call.output == 1:
        return Pulled({"self": np.broadcast_to(kept / count, image.shape).copy()})
    given = call.get("correction")
    correction = float(call.get("unbiased", True) if given is None else given)
    far = image - image.mean(axis=dims, keepdims=True)
    var = (far**2).sum(axis=dims, keepdims=True) / (count - correction)
    root = np.sqrt(var) if call.op.startswith("std") else None
    slope = 2 * far / (count - correction) / (1 if root is None else 2 * root)
    return tangent({"self": kept * slope}, call, float(np.sum(kept * (var if root is None else root))))


def extreme(call: Call, weights: Array, varies: Varies) -> Pulled:
    """amax and amin share a weight among equal winners; max and min along an axis give it to the one they name."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    sign = 1.0 if "max" in call.op else -1.0
    best = (sign * image).max(axis=dims, keepdims=True)
    wins = sign * image == best
    if call.op in {"max", "min"} and call.get("dim") is not None:
        first = np.argmax(wins, axis=dims[0])
        wins = np.arange(image.shape[dims[0]]).reshape([-1 if a == dims[0] else 1 for a in range(image.ndim)])
        wins = wins == np.expand_dims(first, dims[0])
    return Pulled({"self": _kept(call, weights) * wins / wins.sum(axis=dims, keepdims=True)})


def least_and_largest(call: Call, weights: Array, varies: Varies) -> Pulled:
    """aminmax: shared among equal winners."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    best = (np.max if call.output else np.min)(image, axis=dims, keepdims=True)
    wins = image == best
    return Pulled({"self": _kept(call, weights) * wins / wins.sum(axis=dims, keepdims=True)})


def ranked(call: Call, weights: Array, varies: Varies) -> Pulled:
    """sort and topk: to the cell that came in each place."""
    first_result(call)
    only(call, varies, "self")
    image = wide(call["self"])
    axis = call["dim"] % max(image.ndim, 1)
    down = call.get("descending", call.get("largest", False))
    order = np.argsort(-image if down else image, axis=axis, kind="stable")
    found = np.zeros(image.shape)
    np.put_along_axis(found, np.take(order, range(weights.shape[axis]), axis=axis), weights, axis=axis)
    return Pulled({"self": found})


def product(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The product of all others, for each cell."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    found = image.prod(axis=dims, keepdims=True)
    others = np.empty_like(image)
    for cell in np.ndindex(image.shape):
        line = tuple(slice(None) if a in dims else i for a, i in enumerate(cell))
        kept = image[line].copy()
        kept[tuple(i for a, i in enumerate(cell) if a in dims)] = 1.0
        others[cell] = kept.prod()
    kept_weights = _kept(call, weights)
    return tangent({"self": kept_weights * others}, call, float(np.sum(kept_weights * found)))


def norm(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The p-norm: the direction of the vector; the tangent goes through zero."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    order = float(call["ord"])
    sizes = np.abs(image)
    if np.isinf(order):
        best = (np.max if order > 0 else np.min)(sizes, axis=dims, keepdims=True)
        wins = sizes == best
        slope = np.sign(image) * wins / wins.sum(axis=dims, keepdims=True)
        return Pulled({"self": _kept(call, weights) * slope})
    length = (sizes**order).sum(axis=dims, keepdims=True) ** (1 / order)
    with np.errstate(all="ignore"):
        slope = np.sign(image) * sizes ** (order - 1) / length ** (order - 1)
    slope = np.where(length > 0, np.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    return Pulled({"self": _kept(call, weights) * slope}, linear=order == 1)


def logsumexp(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The softmax."""
    only(call, varies, "self")
    image, dims = wide(call["self"]), dims_of(call, call["self"])
    top = image.max(axis=dims, keepdims=True)
    grown = np.exp(image - top)
    added = grown.sum(axis=dims, keepdims=True)
    kept = _kept(call, weights)
    return tangent({"self": kept * grown / added}, call, float(np.sum(kept * (top + np.log(added)))))


def cumsum(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Every cell counts in all sums from its own on."""
    only(call, varies, "self")
    axis = call["dim"] % max(weights.ndim, 1)
    return Pulled({"self": np.flip(np.cumsum(np.flip(weights, axis), axis), axis) if weights.ndim else weights})


def _kept(call: Call, weights: Array) -> Array:
    """The weights with the reduced axes put back as length 1."""
    shape, dims = call["self"].shape, dims_of(call, call["self"])
    return weights.reshape([1 if a in dims else n for a, n in enumerate(shape)])
