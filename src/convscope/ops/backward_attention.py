"""Attention backward: through the weighted sum to the values, through weights and scores to query and key."""

from dataclasses import dataclass

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Source
from convscope.expr.cells import leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, number
from convscope.expr.precision import gamma
from convscope.typing import Array

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


def _scaled(call: Call, slopes: Cells, other: Cells, note: str) -> Dot:
    return Dot(slopes, other, scale=_scale(call), note=note, extra=2, narrow=1)


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
        mask = _mask(call, head)[np.ix_(queries, keys)]
        u, stored, scale = call.precision.sum, call.precision.inner, _scale(call)
        score = q @ k.T * scale + mask
        size = np.abs(q) @ np.abs(k).T * scale + np.where(np.isfinite(mask), np.abs(mask), 0.0)
        share = np.exp(score - total)
        far = np.where(share > 0, np.abs(np.where(share > 0, score, 0.0)) + np.abs(total), 0.0)
        share_off = share * (
            np.expm1(np.minimum(gamma(q.shape[1] + 4, u) * size + 2 * u * far, 1.0)) + EXP * u + stored
        )
        by_value, by_result = g @ v.T, (g * result).sum(1, keepdims=True)
        sizes = np.abs(g) @ np.abs(v).T + (np.abs(g) * np.abs(result)).sum(1, keepdims=True)
        slope = share * (by_value - by_result)
        off = share_off * np.abs(by_value - by_result) + (share + share_off) * gamma(g.shape[1] + 4, u) * sizes
        off = off + stored * np.abs(slope)
        at = [np.broadcast_to(a, share.shape).ravel() for a in (np.array(queries)[:, None], np.array(keys)[None])]
        return cls(call, head, *at, *(a.ravel() for a in (share, share_off, slope, off, mask)))

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


def _mask(call: Call, head: Cell) -> Array:
    """The mask added to each score of a head: 0, minus infinity for a hidden key, or a bias."""
    shape = (call["query"].shape[2], call["key"].shape[2])
    added = np.zeros(shape)
    mask = call.get("attn_mask")
    if mask is not None:
        lead = mask.shape[:-2]
        at = tuple(0 if n == 1 else i for i, n in zip(head[2 - len(lead) :], lead, strict=True))
        line = mask.array[at]
        added = np.where(line, 0.0, -np.inf) if mask.source.dtype == "bool" else line.astype(np.float64)
        added = np.broadcast_to(added, shape)
    return np.where(np.tri(*shape, dtype=bool), added, -np.inf) if call.get("is_causal") else added
