"""Adjoints of softmax and attention: their tangents."""

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, first_result, only, tangent, wide
from convscope.rules.call import Array, Call


def softmax(call: Call, weights: Array, varies: Varies) -> Pulled:
    """softmax and log_softmax along one axis."""
    only(call, varies, "self")
    image, axis = wide(call["self"]), call["dim"] % max(weights.ndim, 1)
    shares = _shares(image, axis)
    if call.op == "_log_softmax":
        top = image.max(axis=axis, keepdims=True)
        value = image - top - np.log(np.exp(image - top).sum(axis=axis, keepdims=True))
        gradient = weights - shares * weights.sum(axis=axis, keepdims=True)
        return tangent({"self": gradient}, call, _sum(weights, value))
    gradient = shares * (weights - (weights * shares).sum(axis=axis, keepdims=True))
    seen = np.where(np.isfinite(image), image, 0.0)  # a masked score has no share, and no slope
    return Pulled({"self": gradient}, _sum(weights, shares) - _sum(gradient, seen), linear=False)


def attention(call: Call, weights: Array, varies: Varies) -> Pulled:
    """By query, key and value; linear in the values alone."""
    first_result(call)
    only(call, varies, "query", "key", "value", "attn_mask")
    query, key, value = (wide(call[name]) for name in ("query", "key", "value"))
    repeats = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, repeats, axis=1), np.repeat(value, repeats, axis=1)
    scale = call.get("scale") or query.shape[-1] ** -0.5
    scores = query @ np.swapaxes(key, -1, -2) * scale + _mask(call, query.shape[-2], key.shape[-2])
    shares = _shares(scores, -1)
    by_share = weights @ np.swapaxes(value, -1, -2)
    by_score = shares * (by_share - (by_share * shares).sum(axis=-1, keepdims=True))
    found = {
        "query": by_score @ key * scale,
        "key": _per_head(np.swapaxes(by_score, -1, -2) @ query * scale, repeats),
        "value": _per_head(np.swapaxes(shares, -1, -2) @ weights, repeats),
    }
    gradients = {name: gradient for name, gradient in found.items() if name in varies}
    if "attn_mask" in varies:
        only(call, varies, *gradients)
    if set(gradients) == {"value"}:
        return Pulled(gradients)
    return tangent(gradients, call, _sum(weights, shares @ value))


def _per_head(gradient: Array, repeats: int) -> Array:
    batch, heads, length, depth = gradient.shape
    return np.asarray(gradient.reshape(batch, heads // repeats, repeats, length, depth).sum(axis=2))


def _mask(call: Call, rows: int, columns: int) -> Array:
    added = np.zeros((rows, columns))
    mask = call.get("attn_mask")
    if call.get("is_causal"):
        added = np.where(np.tri(rows, columns, dtype=bool), 0.0, -np.inf)
    if mask is not None:
        added = added + (np.where(mask.array, 0.0, -np.inf) if mask.source.dtype == "bool" else wide(mask))
    return added


def _shares(scores: Array, axis: int) -> Array:
    top = scores.max(axis=axis, keepdims=True)
    grown = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = grown.sum(axis=axis, keepdims=True)
    return np.where(total > 0, grown / np.where(total > 0, total, 1.0), 0.0)


def _sum(weights: Array, values: Array) -> float:
    return float(np.sum(np.where(weights == 0, 0.0, weights * values)))
