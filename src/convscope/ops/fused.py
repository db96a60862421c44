"""Fused transformer blocks: multi-head attention and a whole encoder layer as one operation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convscope.expr import error_bounds
from convscope.expr.call import Array, Call, Cell, Operand, Source
from convscope.expr.cells import leaf, outer
from convscope.expr.error_bounds import Bounded
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.primitives.activations import gelu, gelu_slope
from convscope.ops.dependencies import as_mask
from convscope.ops.reductions import mean_of, variance_of
from convscope.ops.vjp import VJP, Varies, first_result, only, tangent, wide

Derive = Callable[[int], Expr]


def multi_head_attention(call: Call, cell: Cell) -> Expr:
    """The heads' findings for this position, projected; the second result is the attention itself.

    Source: Vaswani and others 2017; PyTorch, aten/src/ATen/native/transformers/attention.cpp.
    """
    heads = _Heads.of(call, {name: _recorded(call[name], cell[0]) for name in ("query", "key", "value")}, cell[0])
    if call.output == 0:
        return heads.projected(cell[1], cell[2])
    if not call["average_attn_weights"]:
        return _made(heads.shares(cell[2], cell[1]), cell[3])
    found = [heads.shares(cell[1], head) for head in range(heads.count)]
    values = Bounded(np.array([c.values[cell[2]] for c in found]), np.array([_errors(c)[cell[2]] for c in found]))
    note = f"the mean of {heads.count} heads' shares"
    parts = _computed(values, "share by head", call.dtype, lambda head: _made(found[head], cell[2]))
    return Dot(parts, divisor=heads.count, note=note)


def encoder_layer(call: Call, cell: Cell) -> Apply:
    """Attention, a residual, two linear layers, a residual; normalized before each or after each.

    Source: PyTorch, aten/src/ATen/native/transformers/transformer.cpp.
    """
    layer = _EncoderLayer(call, cell[0], cell[1])
    return layer.outcome(cell[2])


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows (positions, channels) that go into attention, with the expression of each."""

    numbers: Bounded
    cells: Callable[[int], Cells]
    """A whole row as Cells."""


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """Multi-head attention of one image of the batch."""

    call: Call
    count: int
    rows: dict[str, _Rows]
    batch: int

    @classmethod
    def of(cls, call: Call, rows: dict[str, _Rows], batch: int) -> "_Heads":
        return cls(call, call.get("num_head") or call["num_heads"], rows, batch)

    @property
    def width(self) -> int:
        return int(self.call["embed_dim"])

    def part(self, name: str, units: slice, positions: slice) -> Bounded:
        """Some units of the query, key or value at some positions: (positions, units)."""
        start = ("query", "key", "value").index(name) * self.width
        rows = slice(start + units.start, start + units.stop)
        weight, bias = self.call["qkv_weight"].array[rows], self.call["qkv_bias"].array[rows]
        return error_bounds.affine(self.rows[name].numbers[positions], weight, bias, self.call.precision)

    def made(self, name: str, position: int, unit: int) -> Dot:
        """How one unit of the query, key or value was made."""
        line = ("query", "key", "value").index(name) * self.width + unit
        weights = outer(self.call["qkv_weight"], [line, range(self.width)])
        return Dot(
            self.rows[name].cells(position),
            weights,
            leaf(self.call["qkv_bias"], (line,)),
            note=f"{name} {unit} of position {position}",
        )

    def units(self, head: int) -> slice:
        size = self.width // self.count
        return slice(head * size, (head + 1) * size)

    def scores(self, position: int, head: int) -> Cells:
        """How well each key fits the query of this position."""
        units, scale = self.units(head), (self.width // self.count) ** -0.5
        query = self.part("query", units, slice(position, position + 1))
        keys = self.part("key", units, slice(None))
        found = error_bounds.product(query, Bounded(keys.value.T, keys.error.T), self.call.precision, scale)[0]
        masked = self.masked(position, head)
        if masked is not None:
            found = Bounded(np.where(masked, -np.inf, found.value), np.where(masked, 0.0, found.error))

        def derive(other: int) -> Dot | Leaf:
            if masked is not None and masked[other]:
                return number(-np.inf, "masked")
            asked = _computed(
                query[0], "query", self.call.dtype, lambda u: self.made("query", position, units.start + u)
            )
            given = _computed(keys[other], "key", self.call.dtype, lambda u: self.made("key", other, units.start + u))
            return Dot(asked, given, scale=scale, note=f"how well position {other} fits")

        return _computed(found, "score", self.call.dtype, derive)

    def masked(self, position: int, head: int) -> Array | None:
        """Which keys may not be seen. Mask types: 0 (query, key), 1 (batch, key), 2 (batch, head, query, key)."""
        mask: Operand | None = self.call.get("mask")
        if mask is None:
            return None
        array, kind = mask.array != 0, self.call["mask_type"]
        if kind == 0:
            return np.asarray(array[position])
        return np.asarray(array[self.batch] if kind == 1 else array[self.batch, head, position])

    def shares(self, position: int, head: int) -> Cells:
        """The softmax of the scores."""
        scores = self.scores(position, head)
        found = error_bounds.shares(Bounded(scores.values, _errors(scores)), None, self.call.precision)
        note = f"the share of attention in head {head}"

        def derive(other: int) -> Apply:
            return Apply("softmax", {"x": _made(scores, other), "cells": scores}, note=note)

        return _computed(found, "share", self.call.dtype, derive)

    def context(self, position: int) -> Cells:
        """What all heads found for this position, side by side."""
        values = self.part("value", slice(0, self.width), slice(None))
        shares = [self.shares(position, head) for head in range(self.count)]
        columns = []
        for head, share in enumerate(shares):
            line = Bounded(share.values[None], _errors(share)[None])
            columns.append(error_bounds.product(line, values[:, self.units(head)], self.call.precision)[0])
        found = Bounded(np.concatenate([c.value for c in columns]), np.concatenate([c.error for c in columns]))

        def derive(unit: int) -> Dot:
            head = unit * self.count // self.width
            seen = _computed(values[:, unit], "value", self.call.dtype, lambda other: self.made("value", other, unit))
            return Dot(seen, shares[head], note=f"the values of all positions, weighed by head {head}")

        return _computed(found, "heads", self.call.dtype, derive)

    def projected(self, position: int, unit: int) -> Dot:
        """One unit of the attention's result."""
        weights = outer(self.call["proj_weight"], [unit, range(self.width)])
        note = f"what {self.count} heads found, times the weights of the projection, plus its bias"
        return Dot(self.context(position), weights, leaf(self.call["proj_bias"], (unit,)), note=note)


class _EncoderLayer:
    """One position of one image in an encoder layer; every row of it once."""

    def __init__(self, call: Call, batch: int, position: int) -> None:
        self.call, self.batch, self.position = call, batch, position
        self.dtype, self.precision = call.dtype, call.precision
        source: Operand = call["src"]
        self.image = _recorded(source, batch)
        rows = self._normed_rows() if call["norm_first"] else self.image
        heads = _Heads.of(call, dict.fromkeys(("query", "key", "value"), rows), batch)
        context = heads.context(position)
        attended = self._through(context, "proj_weight", "proj_bias")
        residual = error_bounds.add(attended, self.image.numbers[position], self.precision)

        def added(unit: int) -> Apply:
            return Apply("add", {"x": heads.projected(position, unit), "y": leaf(source, (batch, position, unit))})

        self.first = _computed(residual, "attention + input", self.dtype, added)
        one = self._norm(self.first, 1) if not call["norm_first"] else self.first
        fed = self._norm(self.first, 2) if call["norm_first"] else one
        self.kept, self.hidden = one, self._hidden(fed)

    def outcome(self, unit: int) -> Apply:
        """One unit of the layer's result."""
        if self.call["norm_first"]:
            return self._fed_forward(unit)
        out = self._through(self.hidden, "ffn_weight_2", "ffn_bias_2")
        kept = Bounded(self.kept.values, _errors(self.kept))
        row = _computed(
            error_bounds.add(out, kept, self.precision), "feed-forward + residual", self.dtype, self._fed_forward
        )
        return self._normalized(row, unit, 2)

    def _fed_forward(self, unit: int) -> Apply:
        weights = outer(self.call["ffn_weight_2"], [unit, range(len(self.hidden))])
        note = "the hidden units, times the weights of the second linear layer, plus its bias"
        forward = Dot(self.hidden, weights, leaf(self.call["ffn_bias_2"], (unit,)), note=note)
        return Apply("add", {"x": forward, "y": _made(self.kept, unit)}, note="feed-forward plus residual")

    def _hidden(self, fed: Cells) -> Cells:
        inner = self._through(fed, "ffn_weight_1", "ffn_bias_1")
        found = error_bounds.gelu(inner, self.precision) if self.call["use_gelu"] else error_bounds.relu(inner)

        def derive(unit: int) -> Apply:
            weights = outer(self.call["ffn_weight_1"], [unit, range(len(fed))])
            before = Dot(
                fed, weights, leaf(self.call["ffn_bias_1"], (unit,)), note=f"hidden unit {unit} before its activation"
            )
            return Apply("gelu" if self.call["use_gelu"] else "relu", {"x": before}, note=f"hidden unit {unit}")

        return _computed(found, "hidden", self.dtype, derive)

    def _through(self, row: Cells, weight: str, bias: str) -> Bounded:
        given = Bounded(row.values, _errors(row))
        return error_bounds.affine(given, self.call[weight].array, self.call[bias].array, self.precision)

    def _norm(self, row: Cells, which: int) -> Cells:
        weight, bias = (self.call[f"norm_{name}_{which}"].array.astype(np.float64) for name in ("weight", "bias"))
        found = error_bounds.layer_norm(
            Bounded(row.values, _errors(row)), weight, bias, self.call["eps"], self.precision
        )
        return _computed(found, f"norm {which}", self.dtype, lambda unit: self._normalized(row, unit, which))

    def _normalized(self, row: Cells, unit: int, which: int) -> Apply:
        parts = {
            "x": row.leaf(unit) if row.derive is None else _made(row, unit),
            "mean": mean_of(row),
            "var": variance_of(row),
            "eps": number(self.call["eps"], "eps"),
            "weight": leaf(self.call[f"norm_weight_{which}"], (unit,)),
            "bias": leaf(self.call[f"norm_bias_{which}"], (unit,)),
        }
        return Apply("normalize_affine", parts, note=f"layer norm {which}")

    def _normed_rows(self) -> _Rows:
        weight, bias = (self.call[f"norm_{name}_1"].array.astype(np.float64) for name in ("weight", "bias"))
        found = error_bounds.layer_norm(self.image.numbers, weight, bias, self.call["eps"], self.precision)

        def cells(position: int) -> Cells:
            row = self.image.cells(position)
            return _computed(found[position], "norm 1", self.dtype, lambda unit: self._normalized(row, unit, 1))

        return _Rows(found, cells)


def _recorded(operand: Operand, batch: int) -> _Rows:
    width = operand.shape[2]
    return _Rows(Bounded.exact(operand.array[batch]), lambda position: outer(operand, [batch, position, range(width)]))


def _computed(numbers: Bounded, name: str, dtype: str, derive: Derive) -> Cells:
    count = len(numbers.value)
    source = Source(name, "computed", (count,), dtype)
    return Cells(numbers.value, source, np.arange(count)[:, None], (count,), errors=numbers.error, derive=derive)


def _errors(cells: Cells) -> Array:
    return np.zeros(len(cells)) if cells.errors is None else cells.errors


def _made(cells: Cells, index: int) -> Expr:
    assert cells.derive is not None, "recorded cells are leaves"
    return cells.derive(index)


def multi_head_attention_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """By query, key and value."""
    first_result(call)
    only(call, varies, "query", "key", "value")
    names = ("query", "key", "value")
    attention = _Attention(call, *(wide(call[name]) for name in names))
    found = dict(zip(names, attention.pull(weights), strict=True))
    gradients = {name: gradient for name, gradient in found.items() if name in varies}
    return tangent(gradients, call, float(np.sum(weights * attention.result)))


def encoder_layer_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """By the layer's input."""
    only(call, varies, "src")
    image, before = wide(call["src"]), call["norm_first"]
    given, first = _normed(call, image, 1) if before else (image, None)
    attention = _Attention(call, given, given, given)
    kept = image + attention.result
    if not before:
        kept, first = _normed(call, kept, 1)
    fed, second = _normed(call, kept, 2) if before else (kept, None)
    hidden = fed @ wide(call["ffn_weight_1"]).T + wide(call["ffn_bias_1"])
    bent = gelu(hidden) if call["use_gelu"] else np.maximum(hidden, 0)
    slope = gelu_slope(hidden) if call["use_gelu"] else (hidden > 0).astype(np.float64)
    result = kept + bent @ wide(call["ffn_weight_2"]).T + wide(call["ffn_bias_2"])
    if not before:
        result, second = _normed(call, result, 2)
    assert first is not None
    assert second is not None
    pulled = weights if before else second.pull(weights)
    by_fed = ((pulled @ wide(call["ffn_weight_2"])) * slope) @ wide(call["ffn_weight_1"])
    by_kept = pulled + (second.pull(by_fed) if before else by_fed)
    by_sum = by_kept if before else first.pull(by_kept)
    by_given = sum(attention.pull(by_sum))
    gradient = by_sum + (first.pull(np.asarray(by_given)) if before else by_given)
    return tangent({"src": np.asarray(gradient)}, call, float(np.sum(weights * result)))


class _Attention:
    """Multi-head attention with everything that its adjoint needs."""

    def __init__(self, call: Call, query: Array, key: Array, value: Array) -> None:
        self.heads = call.get("num_head") or call["num_heads"]
        self.matrices = np.split(wide(call["qkv_weight"]), 3)
        self.out = wide(call["proj_weight"])
        biases = np.split(wide(call["qkv_bias"]), 3)
        parts = zip((query, key, value), self.matrices, biases, strict=True)
        self.q, self.k, self.v = (self._by_head(x @ matrix.T + bias) for x, matrix, bias in parts)
        self.scale = 1 / math.sqrt(self.q.shape[-1])
        scores = self.q @ np.swapaxes(self.k, -1, -2) * self.scale
        masked = _masked(call)
        if masked is not None:
            scores = np.where(masked, -np.inf, scores)
        grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
        self.shares = grown / grown.sum(axis=-1, keepdims=True)  # (N, heads, L, S)
        self.result = self._joined(self.shares @ self.v) @ self.out.T + wide(call["proj_bias"])

    def pull(self, weights: Array) -> list[Array]:
        """Weights of the result as weights of query, key and value."""
        by_context = self._by_head(weights @ self.out)
        by_share = by_context @ np.swapaxes(self.v, -1, -2)
        by_score = self.shares * (by_share - (by_share * self.shares).sum(axis=-1, keepdims=True)) * self.scale
        by_parts = (
            by_score @ self.k,
            np.swapaxes(by_score, -1, -2) @ self.q,
            np.swapaxes(self.shares, -1, -2) @ by_context,
        )
        return [self._joined(part) @ matrix for part, matrix in zip(by_parts, self.matrices, strict=True)]

    def _by_head(self, rows: Array) -> Array:
        batch, length, width = rows.shape
        return rows.reshape(batch, length, self.heads, width // self.heads).swapaxes(1, 2)

    def _joined(self, rows: Array) -> Array:
        batch, heads, length, width = rows.shape
        return rows.swapaxes(1, 2).reshape(batch, length, heads * width)


class _Norm:
    """A layer norm with what its adjoint needs."""

    def __init__(self, image: Array, scale: Array, eps: float) -> None:
        self.far = image - image.mean(axis=-1, keepdims=True)
        self.root = np.sqrt((self.far**2).mean(axis=-1, keepdims=True) + eps)
        self.scale = scale

    def pull(self, weights: Array) -> Array:
        """Weights of the normalized rows as weights of the rows."""
        pulled = weights * self.scale
        straight = pulled - pulled.mean(axis=-1, keepdims=True)
        bent = self.far / self.root**2 * (pulled * self.far).mean(axis=-1, keepdims=True)
        return np.asarray((straight - bent) / self.root)


def _normed(call: Call, image: Array, which: int) -> tuple[Array, _Norm]:
    norm = _Norm(image, wide(call[f"norm_weight_{which}"]), call["eps"])
    return norm.far / norm.root * norm.scale + wide(call[f"norm_bias_{which}"]), norm


def _masked(call: Call) -> Array | None:
    """True where a key may not be seen, to be broadcast over (batch, heads, query, key)."""
    mask = call.get("mask")
    if mask is None:
        return None
    array: Array = mask.array != 0
    return array if call["mask_type"] == 2 else array[:, None, None, :] if call["mask_type"] == 1 else array[None, None]


def sequence_dependencies(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """Fused attention layers: all places of the same sequence."""
    operands = call.operands()
    share = as_mask(marks).reshape(marks.shape[0], -1).max(axis=1)  # (N,)
    found = {}
    for name in varies:
        shape = operands[name].shape
        first = shape[:1] == share.shape
        line = share.reshape(-1, *[1] * (len(shape) - 1)) if first else share.max()
        found[name] = np.broadcast_to(line, shape).copy()
    return found
