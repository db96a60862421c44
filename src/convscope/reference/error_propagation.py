"""The error of fused blocks, carried from stage to stage: nothing is recorded between them.

Knows the stages' own errors, roundoff and NumPy. Each stage takes numbers and how far they may be off, cell by cell
and as the length of each row, and returns the same for its result. The length matters: a matrix may turn the largest
errors of all cells into the largest error of one, but lengthens no row by more than its spectral norm (Higham,
chapter 6), and over several stages that is what keeps the bound from growing without need.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.reference.activations import gelu, gelu_error, relu
from convscope.reference.attention import weight_error, weights_of
from convscope.reference.encoder import heads_of, joined, taking_part
from convscope.reference.matmul import linear, linear_error
from convscope.reference.normalization import layer_norm, layer_norm_error
from convscope.reference.roundoff import Array, gamma


@dataclass(frozen=True, slots=True, eq=False)
class Off:
    """Numbers in rows, and how far a kernel's may lie from them."""

    values: Array
    """Shape (..., n)."""
    cells: Array
    """Largest error of each cell, shape (..., n)."""
    rows: Array
    """Largest Euclidean length of each row's errors, shape (..., 1)."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """Unit roundoff of the type a kernel calculates in, and of the type it stores in (0: the same)."""

    u: float
    out: float


def multi_head_attention_error(
    _y: Any, u: float, query: Array, key: Array, value: Array, embed_dim: int, num_head: int, qkv_weight: Array,
    qkv_bias: Array, proj_weight: Array, proj_bias: Array, mask: Array | None = None, need_weights: bool = True,
    average_attn_weights: bool = True, mask_type: int | None = None, u_out: float = 0.0,
) -> tuple[Array, Array | None]:  # fmt: skip
    """Carried through the projections; averaging the weights of H heads takes H + 1 roundings more."""
    by, seen = Rounding(u, u_out), taking_part(mask, mask_type)
    inputs = [exactly(x) for x in (query, key, value)]
    mixed, shares = _attend(inputs, embed_dim, num_head, qkv_weight, qkv_bias, seen, by)
    out = _project(mixed, proj_weight, proj_bias, by).cells
    if not need_weights:
        return out, None
    return out, shares.mean(1) + (num_head + 1) * u if average_attn_weights else shares


def encoder_layer_error(
    _y: Array, u: float, src: Array, embed_dim: int, num_heads: int, qkv_weight: Array, qkv_bias: Array,
    proj_weight: Array, proj_bias: Array, use_gelu: bool, norm_first: bool, eps: float, norm_weight_1: Array,
    norm_bias_1: Array, norm_weight_2: Array, norm_bias_2: Array, ffn_weight_1: Array, ffn_bias_1: Array,
    ffn_weight_2: Array, ffn_bias_2: Array, mask: Array | None = None, mask_type: int | None = None,
    u_out: float = 0.0,
) -> Array:  # fmt: skip
    """The error of each stage, carried through the next."""
    by, seen = Rounding(u, u_out), taking_part(mask, mask_type)

    def attend(x: Off) -> Off:
        mixed, _ = _attend([x, x, x], embed_dim, num_heads, qkv_weight, qkv_bias, seen, by)
        return _project(mixed, proj_weight, proj_bias, by)

    def network(x: Off) -> Off:
        inner = _project(x, ffn_weight_1, ffn_bias_1, by)
        return _project(_bend(inner, use_gelu, by), ffn_weight_2, ffn_bias_2, by)

    x = exactly(src)
    if norm_first:
        x = _plus(x, attend(_normalize(x, norm_weight_1, norm_bias_1, eps, by)), by)
        return _plus(x, network(_normalize(x, norm_weight_2, norm_bias_2, eps, by)), by).cells
    x = _normalize(_plus(x, attend(x), by), norm_weight_1, norm_bias_1, eps, by)
    return _normalize(_plus(x, network(x), by), norm_weight_2, norm_bias_2, eps, by).cells


def exactly(x: Array) -> Off:
    """Numbers without error."""
    return Off(x, np.zeros_like(x), np.zeros((*x.shape[:-1], 1)))


def length(x: Array) -> Array:
    """Euclidean length of each row, shape (..., 1)."""
    return np.asarray(np.sqrt((x**2).sum(-1, keepdims=True)))


def spectral_norm(weight: Array) -> float:
    """An upper bound on how much a matrix lengthens a row, at most a quarter too large.

    >>> 3 <= spectral_norm(np.diag([3.0, 1.0])) < 3.1
    True

    The spectral norm of G = WᵀW is at most the Frobenius norm of G⁸, to the power 1/8; W's is its root.
    """
    size = float(np.sqrt((weight**2).sum())) or 1.0
    narrow = weight if weight.shape[0] <= weight.shape[1] else weight.T
    gram = (narrow / size) @ (narrow / size).T
    power = np.linalg.matrix_power(gram, 8)
    return float(size * (power**2).sum() ** (1 / 32))


def _off(values: Array, cells: Array, rows: Array | None = None) -> Off:
    """Each of both measures limits the other."""
    total = length(cells) if rows is None else np.minimum(rows, length(cells))
    return Off(values, np.minimum(cells, total), total)


def _project(x: Off, weight: Array, bias: Array, by: Rounding) -> Off:
    """A linear layer: what its inputs are off is multiplied by the weights, and its own error is added."""
    y = linear(x.values, weight, bias)
    own = linear_error(y, by.u, np.abs(x.values) + x.cells, weight, bias) + by.out * np.abs(y)
    passed = np.minimum(x.cells @ np.abs(weight).T, x.rows * length(weight).T)
    return _off(y, passed + own, x.rows * spectral_norm(weight) + length(own))


def _attend(
    inputs: list[Off], size: int, heads: int, weight: Array, bias: Array, seen: Array | None, by: Rounding
) -> tuple[Off, Array]:
    """Projected queries, keys and values, mixed; and the error of each weight, shape (N, heads, L, S)."""
    weights, biases = weight.reshape(3, size, -1), bias.reshape(3, -1)
    made = [_project(x, w, b, by) for x, w, b in zip(inputs, weights, biases, strict=True)]
    q, k, v = (_off(heads_of(m.values, heads), heads_of(m.cells, heads), m.rows[:, None]) for m in made)
    shares, scores = weights_of(q.values, k.values, seen)
    off = weight_error(shares, scores, _scores_off(q, k, scores, by.u), by.u)
    off = off + (by.out + gamma(shares.shape[-1] + 1, by.u)) * shares
    mixed = joined(shares @ v.values)
    cells = off @ (np.abs(v.values) + v.cells) + shares @ v.cells
    rows = off @ (length(v.values) + v.rows) + shares @ v.rows  # (N, heads, L, 1)
    return _off(mixed, joined(cells) + by.out * np.abs(mixed), length(joined(rows)) + by.out * length(mixed)), off


def _scores_off(q: Off, k: Off, scores: Array, u: float) -> Array:
    """Of the product of queries and keys, scaled and masked: what both are off, and its own sum."""

    def across(a: Array, b: Array) -> Array:
        return np.asarray(a @ np.swapaxes(b, -1, -2))

    large = across(np.abs(q.values) + q.cells, np.abs(k.values) + k.cells)
    by_cells = large - across(np.abs(q.values), np.abs(k.values))
    by_rows = across(length(q.values) + q.rows, length(k.values) + k.rows) - across(length(q.values), length(k.values))
    scale = 1 / np.sqrt(q.values.shape[-1])
    own = gamma(q.values.shape[-1] + 3, u) * large * scale + 2 * u * np.where(np.isfinite(scores), np.abs(scores), 0.0)
    return np.asarray(np.minimum(by_cells, by_rows) * scale + own)


def _bend(x: Off, use_gelu: bool, by: Rounding) -> Off:
    """gelu is nowhere steeper than 1.13, relu than 1."""
    if not use_gelu:
        return _off(relu(x.values), x.cells, x.rows)
    y = gelu(x.values)
    own = gelu_error(y, by.u, np.abs(x.values) + x.cells) + by.out * np.abs(y)
    return _off(y, 1.13 * x.cells + own, 1.13 * x.rows + length(own))


def _plus(a: Off, b: Off, by: Rounding) -> Off:
    y = a.values + b.values
    own = (by.u + by.out) * (np.abs(y) + a.cells + b.cells)
    return _off(y, a.cells + b.cells + own, a.rows + b.rows + length(own))


def _normalize(x: Off, weight: Array, bias: Array, eps: float, by: Rounding) -> Off:
    """Layer norm of n numbers whose errors have length r.

    Subtracting the mean lengthens no row. With z the rest and s = sqrt(|z|²/n + eps), s moves by at most r/sqrt(n), so
    z/s moves by at most r/s for z and as much for s: |z'| (1/s - 1/s') <= sqrt(n)·|s - s'|/s. Cell by cell, z moves by
    its error and the mean's, and 1/s by what the shortest s allows. The layer's own error is taken at the shortest s.
    """
    n = x.values.shape[-1]
    y, mean, rate = layer_norm(x.values, [n], weight, bias, eps)
    steep = 1 / np.maximum(1 / rate - x.rows / np.sqrt(n), np.sqrt(eps))
    own = layer_norm_error(y, by.u, x.values, [n], weight, bias, eps)[0] * (steep / rate) ** 3 + by.out * np.abs(y)
    cells = (x.cells + np.minimum(x.cells.mean(-1, keepdims=True), x.rows / np.sqrt(n))) * steep
    cells = np.abs(weight) * (cells + np.abs(x.values - mean) * (steep - rate)) + own
    return _off(y, cells, 2 * rate * x.rows * np.abs(weight).max() + length(own))
