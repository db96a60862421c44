"""Softmax and scaled dot-product attention: scores, their softmax, the weighted sum of the values; and backward."""

from dataclasses import dataclass

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import leaf, outer, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, number
from convscope.expr.precision import gamma
from convscope.expr.primitives.reductions import softmax, softmax_error
from convscope.ops.dependencies import as_mask
from convscope.ops.vjp import VJP, Varies, first_result, only, tangent, wide
from convscope.typing import Array


def softmax_cell(call: Call, cell: Cell) -> Apply:
    """softmax, log_softmax and the softmax that gives 0 where everything is masked, along one axis.

    >>> x = Operand.of(np.zeros((1, 4)), "fc")
    >>> softmax_cell(Call("_softmax", {"self": x, "dim": 1}, (1, 4)), (0, 2)).value()
    0.25
    """
    operand = call["self"]
    name = {"_softmax": "softmax", "_log_softmax": "log_softmax", "_safe_softmax": "safe_softmax"}[call.op]
    cells = row(operand, cell, [call["dim"] % len(cell)] if cell else [])
    return Apply(name, {"x": leaf(operand, cell), "cells": cells})


def attention(call: Call, cell: Cell) -> Expr:
    """The values of all positions, weighted by how well their keys fit this query.

    The second result is the logarithm of the sum of the exponentials of the scores.

    Source: Vaswani and others 2017; PyTorch documentation, scaled_dot_product_attention.
    """
    scores = _scores(call, cell[:3])
    if call.output == 1 and np.isneginf(scores.values).all():
        return number(0, "nothing to attend to")
    if call.output == 1:
        return Apply("logsumexp", {"cells": scores}, note="of the scores of all keys")
    batch, head, _, unit = cell
    values: Operand = call["value"]
    value_cells = outer(values, [batch, head * values.shape[1] // call["query"].shape[1], range(values.shape[2]), unit])
    note = f"the values of {len(value_cells)} positions, each times its share of attention"
    return Dot(value_cells, shares_of(scores, call), note=note)


def shares_of(scores: Cells, call: Call) -> Cells:
    """The softmax of scores, as intermediate numbers; 0 everywhere where all are masked."""
    masked = bool(np.isneginf(scores.values).all())  # nan hides nothing
    shares = np.zeros(len(scores)) if masked else softmax(scores.values)
    errors = (
        shares
        if masked
        else softmax_error(scores.values, shares, scores.errors if scores.errors is not None else 0.0, call.precision)
    )

    if scores.errors is not None and np.isinf(scores.errors).any():  # no share is known, not even that it is below 1
        errors = np.full(len(scores), np.inf)

    def derive(index: int) -> Apply:
        return Apply("safe_softmax", {"x": _one(scores, index), "cells": scores}, note="its share of attention")

    source = Source("share", "computed", (len(scores),), call.dtype)
    stored = errors + shares * call.precision.stored
    return Cells(shares, source, np.arange(len(scores))[:, None], (len(scores),), errors=stored, derive=derive)


def _one(cells: Cells, index: int) -> Dot | Apply:
    assert cells.derive is not None
    result = cells.derive(index)
    assert isinstance(result, Dot | Apply)
    return result


def _scores(call: Call, query_cell: Cell) -> Cells:
    """query · key × scale + mask for every key, with errors and derivations."""
    query, key = call["query"], call["key"]
    batch, head, position = query_cell
    depth, length = query.shape[3], key.shape[2]
    scale = call.get("scale") or depth**-0.5
    key_head = head * key.shape[1] // query.shape[1]
    query_row: Array = query.array[batch, head, position].astype(np.float64)
    keys: Array = key.array[batch, key_head].astype(np.float64)
    mask = _mask(call, query_cell, length)
    hidden = np.arange(length) > position if call.get("is_causal") else np.zeros(length, bool)
    with np.errstate(invalid="ignore"):
        values = np.where(hidden, -np.inf, keys @ query_row * scale + mask)  # whatever a masked key holds
        sizes = np.abs(keys) @ np.abs(query_row) * scale + np.where(np.isfinite(mask), np.abs(mask), 0.0)
    sizes = np.where(hidden, 0.0, sizes)
    errors = gamma(depth + 4, call.precision.sum) * sizes
    if sizes.max(initial=0.0) * max(1.0, 1 / abs(scale or 1.0)) >= call.precision.room:
        errors = np.full(length, np.inf)  # a score may be infinite on its way, and then no share is known

    def derive(index: int) -> Dot | Apply:
        product = Dot(
            outer(query, [batch, head, position, range(depth)]),
            outer(key, [batch, key_head, index, range(depth)]),
            scale=scale,
            note=f"how well key {index} fits the query",
        )
        if not mask.any():
            return product
        if hidden[index] and not np.isfinite(product.value()):
            return Apply("identity", {"x": number(mask[index], "mask")}, note="its score, masked")
        return Apply("add", {"x": product, "y": number(mask[index], "mask")}, note="its score, masked")

    source = Source("score", "computed", (length,), call.dtype)
    return Cells(values, source, np.arange(length)[:, None], (length,), errors=errors, derive=derive)


def _mask(call: Call, query_cell: Cell, length: int) -> Array:
    """What is added to each score: 0, or minus infinity where a key may not be seen, or a bias."""
    mask: Operand | None = call.get("attn_mask")
    added = np.zeros(length)
    if mask is not None:
        line = mask.array[
            tuple(0 if n == 1 else i for i, n in zip(query_cell[-len(mask.shape) + 1 :], mask.shape[:-1], strict=True))
        ]
        allowed = np.where(line, 0.0, -np.inf) if mask.source.dtype == "bool" else line.astype(np.float64)
        added = np.broadcast_to(allowed, (length,)).copy()
    if call.get("is_causal"):
        added[query_cell[2] + 1 :] = -np.inf
    return added


def softmax_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
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
    finite_image = np.where(np.isfinite(image), image, 0.0)  # a masked score has no share, and no slope
    return VJP({"self": gradient}, _sum(weights, shares) - _sum(gradient, finite_image), linear=False)


def attention_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """By query, key and value; linear in the values alone."""
    first_result(call)
    only(call, varies, "query", "key", "value", "attn_mask")
    query, key, value = (wide(call[name]) for name in ("query", "key", "value"))
    repeats = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, repeats, axis=1), np.repeat(value, repeats, axis=1)
    scale = call.get("scale") or query.shape[-1] ** -0.5
    scores = query @ np.swapaxes(key, -1, -2) * scale + _mask_vjp(call)
    if call.get("is_causal"):
        scores = np.where(np.tri(scores.shape[-2], scores.shape[-1], dtype=bool), scores, -np.inf)
    shares = _shares(scores, -1)
    by_share = weights @ np.swapaxes(value, -1, -2)
    by_score = shares * (by_share - (by_share * shares).sum(axis=-1, keepdims=True))
    results = {
        "query": by_score @ key * scale,
        "key": _per_head(np.swapaxes(by_score, -1, -2) @ query * scale, repeats),
        "value": _per_head(np.swapaxes(shares, -1, -2) @ weights, repeats),
    }
    gradients = {name: gradient for name, gradient in results.items() if name in varies}
    if "attn_mask" in varies:
        only(call, varies, *gradients)
    if set(gradients) == {"value"}:
        return VJP(gradients)
    return tangent(gradients, call, _sum(weights, shares @ value))


def _per_head(gradient: Array, repeats: int) -> Array:
    batch, heads, length, depth = gradient.shape
    return np.asarray(gradient.reshape(batch, heads // repeats, repeats, length, depth).sum(axis=2))


def _mask_vjp(call: Call) -> Array:
    mask = call.get("attn_mask")
    if mask is None:
        return np.zeros(())
    return np.where(mask.array, 0.0, -np.inf) if mask.source.dtype == "bool" else wide(mask)


def _shares(scores: Array, axis: int) -> Array:
    top = scores.max(axis=axis, keepdims=True)
    grown = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = grown.sum(axis=axis, keepdims=True)
    return np.where(total > 0, grown / np.where(total > 0, total, 1.0), 0.0)


def _sum(weights: Array, values: Array) -> float:
    return float(np.sum(np.where(weights == 0, 0.0, weights * values)))


def attention_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The query at the same position; keys and values of all positions that it may attend to."""
    mask = as_mask(mask)
    shapes = {name: operand.shape for name, operand in call.operands().items()}
    heads, queries = shapes["query"][1], shapes["query"][2]
    shared, keys = heads // shapes["key"][1], shapes["key"][2]
    asks = mask.reshape((*shapes["query"][:3], -1))  # (N, H, L, D); of the log-sum of exponentials (N, H, L)
    attended_by_head = np.matmul(np.swapaxes(asks, -1, -2), _allowed(call, queries, keys))  # (N, H, D, S)
    attended = as_mask(np.swapaxes(attended_by_head, -1, -2))  # (N, H, S, D)
    attended = attended.reshape(attended.shape[0], -1, shared, *attended.shape[2:]).max(axis=2)
    results = {
        "query": np.broadcast_to(asks.max(axis=-1, keepdims=True), shapes["query"]),
        "key": np.broadcast_to(attended.max(axis=-1, keepdims=True), shapes["key"]),
        "value": attended if attended.shape == shapes["value"] else np.ones(shapes["value"], np.float32),
    }
    if "attn_mask" in varies:
        results["attn_mask"] = np.ones(shapes["attn_mask"], np.float32)
    return {name: np.array(results[name]) for name in varies}


def _allowed(call: Call, queries: int, keys: int) -> Array:
    """(..., L, S): the positions that a query may attend to; a score of minus infinity excludes one."""
    allowed: Array = np.ones((queries, keys), np.float32)
    if call.get("is_causal"):
        allowed = np.tri(queries, keys, dtype=np.float32)
    attn_mask = call.get("attn_mask")
    if attn_mask is not None:
        open_ = attn_mask.array if attn_mask.source.dtype == "bool" else attn_mask.array > -np.inf
        allowed = allowed * open_
    return allowed


# Backward: through the weighted sum to the values, through weights and scores to query and key

EXP = 40.0
"""Roundings of one exp: attention uses a fast one of up to 20 units in the last place."""


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def attention_backward(call: Call, cell: Cell) -> Dot:
    """The gradient of a query, a key or a value.

    A value receives the gradients of all positions, each times its attention weight there. A query receives all keys,
    and a key all queries, each times the gradient of their score.

    Source: Dao and others 2022, appendix B.2; PyTorch, aten/src/ATen/native/cpu/FlashAttentionKernel.cpp.

    Raises:
        UsageError: with dropout, or with fewer heads of keys than of queries.
    """
    if call["dropout_p"] or call["query"].shape[1] != call["key"].shape[1]:
        raise UsageError("no rule explains the gradient of attention with dropout or shared heads.")
    batch, head, position, unit = cell
    queries, keys = range(call["query"].shape[2]), range(call["key"].shape[2])
    if call.output == 0:
        slopes = _Block.of(call, cell[:2], [position], keys).slopes()
        note = f"{len(keys)} keys, each times the gradient of its score"
        return _scaled(call, slopes, outer(call["key"], [batch, head, keys, unit]), note)
    block = _Block.of(call, cell[:2], queries, [position])
    if call.output == 1:
        note = f"{len(queries)} queries, each times the gradient of its score for this key"
        return _scaled(call, block.slopes(), outer(call["query"], [batch, head, queries, unit]), note)
    grads = outer(call["grad_out"], [batch, head, queries, unit])
    return Dot(
        block.shares(), grads, note=f"the gradients of {len(queries)} positions, each × this value's attention weight"
    )


def _scaled(call: Call, slopes: Cells, factors: Cells, note: str) -> Dot:
    return Dot(slopes, factors, scale=_scale(call), note=note, extra=2, narrow=1)


def _scale(call: Call) -> float:
    return float(call.get("scale") or call["query"].shape[3] ** -0.5)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """One query with all keys of its head, or one key with all queries; all arrays have the length of the other."""

    call: Call
    head: Cell
    queries: Array
    """The query of each cell."""
    keys: Array
    share: Array
    share_error: Array
    slope: Array
    slope_error: Array
    mask: Array

    @classmethod
    def of(cls, call: Call, head: Cell, queries: range | list[int], keys: range | list[int]) -> "_Block":
        """Shares exp(score - logsumexp), and slopes share × (gradient · value - gradient · result)."""
        q, g, result = (call[name].array[head][queries].astype(np.float64) for name in ("query", "grad_out", "out"))
        k, v = (call[name].array[head][keys].astype(np.float64) for name in ("key", "value"))
        total = call["logsumexp"].array[head][queries].astype(np.float64)[:, None]
        mask = _mask_of_head(call, head)[np.ix_(queries, keys)]
        u, stored, scale = call.precision.sum, call.precision.inner, _scale(call)
        score = q @ k.T * scale + mask
        size = np.abs(q) @ np.abs(k).T * scale + np.where(np.isfinite(mask), np.abs(mask), 0.0)
        share = np.exp(score - total)
        exponent_size = np.where(share > 0, np.abs(np.where(share > 0, score, 0.0)) + np.abs(total), 0.0)
        share_error = share * (
            np.expm1(np.minimum(gamma(q.shape[1] + 4, u) * size + 2 * u * exponent_size, 1.0)) + EXP * u + stored
        )
        by_value, by_result = g @ v.T, (g * result).sum(1, keepdims=True)
        sizes = np.abs(g) @ np.abs(v).T + (np.abs(g) * np.abs(result)).sum(1, keepdims=True)
        slope = share * (by_value - by_result)
        slope_error = (
            share_error * np.abs(by_value - by_result) + (share + share_error) * gamma(g.shape[1] + 4, u) * sizes
        )
        slope_error = slope_error + stored * np.abs(slope)
        indices = [np.broadcast_to(a, share.shape).ravel() for a in (np.array(queries)[:, None], np.array(keys)[None])]
        return cls(call, head, *indices, *(a.ravel() for a in (share, share_error, slope, slope_error, mask)))

    def shares(self) -> Cells:
        """The attention weight of each query for each key."""
        return self._cells("share", self.share, self.share_error, self._share)

    def slopes(self) -> Cells:
        """The gradient of each score."""
        return self._cells("slope of the score", self.slope, self.slope_error, self._slope)

    def _cells(self, name: str, values: Array, errors: Array, derive: "object") -> Cells:
        cells = np.stack([self.queries, self.keys], axis=1)
        shape = (self.call["query"].shape[2], self.call["key"].shape[2])
        source = Source(name, "computed", shape, self.call.dtype)
        return Cells(values, source, cells, (len(values),), errors=errors, derive=derive)  # type: ignore[arg-type]

    def _share(self, index: int) -> Apply:
        query, key = int(self.queries[index]), int(self.keys[index])
        units = range(self.call["query"].shape[3])
        note = f"how well key {key} fits query {query}"
        score: Expr = Dot(
            outer(self.call["query"], [*self.head, query, units]),
            outer(self.call["key"], [*self.head, key, units]),
            scale=_scale(self.call),
            note=note,
        )
        if self.mask[index]:
            score = Apply("add", {"x": score, "y": number(self.mask[index], "mask")}, note="its score, masked")
        total = leaf(self.call["logsumexp"], (*self.head, query))
        return Apply("exp", {"x": Apply("sub", {"x": score, "y": total}, note="score − logsumexp")}, note="its share")

    def _slope(self, index: int) -> Apply:
        query, key = int(self.queries[index]), int(self.keys[index])
        grads = outer(self.call["grad_out"], [*self.head, query, range(self.call["grad_out"].shape[3])])
        values = outer(self.call["value"], [*self.head, key, range(self.call["value"].shape[3])])
        result = outer(self.call["out"], [*self.head, query, range(self.call["out"].shape[3])])
        by_value = Dot(grads, values, note="the gradient of this key's attention weight")
        by_result = Dot(grads, result, note="the mean of that, weighted by the attention weights of all keys")
        parts: dict[str, Expr] = {"y": self._share(index), "grad": by_value, "mean": by_result}
        return Apply("softmax_backward", {**parts}, note=f"the gradient of the score of query {query}, key {key}")


def _mask_of_head(call: Call, head: Cell) -> Array:
    """The mask added to each score of a head: 0, minus infinity for a hidden key, or a bias."""
    shape = (call["query"].shape[2], call["key"].shape[2])
    added = np.zeros(shape)
    mask = call.get("attn_mask")
    if mask is not None:
        lead = mask.shape[:-2]
        lead_index = tuple(0 if n == 1 else i for i, n in zip(head[2 - len(lead) :], lead, strict=True))
        line = mask.array[lead_index]
        added = np.where(line, 0.0, -np.inf) if mask.source.dtype == "bool" else line.astype(np.float64)
        added = np.broadcast_to(added, shape)
    return np.where(np.tri(*shape, dtype=bool), added, -np.inf) if call.get("is_causal") else added
