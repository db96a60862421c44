"""Attention: softmax(query·keyᵀ·scale + mask)·value.

Knows roundoff and NumPy. Query rows do not see each other, so they are computed some at a time.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from convscope.errors import UsageError
from convscope.reference.roundoff import FUNCTION, gamma, largest
from convscope.reference.softmax import safe_softmax
from convscope.typing import Array

CELLS = 2**20
"""Scores that exist at a time: 8 MB of float64 for each of the arrays made from them."""


def attention(
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Array:
    """scaled_dot_product_attention: each query row mixes the value rows, by how well its key fits.

    >>> attention(np.zeros((1, 1, 4)), np.zeros((1, 2, 4)), np.array([[[1.0], [3.0]]]))
    array([[[2.]]])

    Args:
        query: Shape (..., L, E).
        key: Shape (..., S, E); where it has fewer heads (axis -3) than the query, they are shared out.
        value: Shape (..., S, Ev).
        attn_mask: Added to the scores, or boolean (True takes part), broadcast to (..., L, S).
        dropout_p: Must be 0: what dropout drops is random.
        is_causal: Row i sees the first i + 1 keys only.
        scale: Factor on the scores; 1 / sqrt(E) if None.

    Returns:
        Shape (..., L, Ev). A row that sees nothing gives 0.

    Raises:
        UsageError: with dropout.
    """
    if dropout_p:
        raise UsageError(f"attention with dropout_p={dropout_p} is random; its reference needs evaluation mode.")
    return np.concatenate([p @ v for p, _, v in _rows(query, key, value, attn_mask, is_causal, scale)], axis=-2)


def attention_error(
    _y: Array,
    u: float,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    u_out: float = 0.0,
) -> Array:
    """A weight p = e / s may be off by `weight_error`; where the inputs are float16 or bfloat16, kernels round it to
    that type (`u_out`) before the second product. The output is a sum of S products p·v: gamma(S) of the magnitudes.
    """
    parts, start = [], 0
    for p, s, v in _rows(query, key, value, attn_mask, is_causal, scale):
        rows = np.abs(query[..., start : start + p.shape[-2], :])
        start += p.shape[-2]
        sizes = _scaled(rows, np.abs(key), scale)
        scores_off = gamma(query.shape[-1] + 3, u) * sizes + 2 * u * np.where(np.isfinite(s), np.abs(s), 0.0)
        weights_off = weight_error(p, s, scores_off, u) + (u_out + gamma(p.shape[-1] + 1, u)) * p
        unscaled = _scaled(rows, np.abs(key), 1.0)  # kernels scale before or after the product
        overflows = np.maximum(sizes, unscaled).max(-1, keepdims=True, initial=0.0) >= largest(u)
        parts.append(np.where(overflows, np.inf, weights_off @ np.abs(v)))
    return np.concatenate(parts, axis=-2)


def flash_attention(query: Array, key: Array, value: Array, *numbers: Any, **how: Any) -> tuple[Array, None]:
    """_scaled_dot_product_flash_attention_for_cpu: `attention`; its second output serves the kernel's own gradient."""
    return attention(query, key, value, *numbers, **how), None


def flash_attention_error(
    y: Any, u: float, query: Array, key: Array, value: Array, u_out: float = 0.0, **how: Any
) -> tuple[Array, None]:
    """The same bound as `attention_error`."""
    return attention_error(y[0], u, query, key, value, u_out=u_out, **how), None


def weights_of(query: Array, key: Array, mask: Array | None, scale: float | None = None) -> tuple[Array, Array]:
    """Weights (..., L, S), and the scores before the softmax."""
    scores = _scaled(query, key, scale)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return safe_softmax(scores), scores


def weight_error(p: Array, scores: Array, scores_off: Array, u: float) -> Array:
    """Error of p = e / s when each score is off by `scores_off`.

    e = exp(score - max) is then off by at most exp(t) - 1 relative to itself, t = scores_off + |score - max|·u +
    FUNCTION·u; kernels that walk over blocks of keys rescale by exp(old max - new max), whose arguments add up to
    |score - max| once more, with one rounding and one exp per block. s is off by the mean of exp(t) - 1 weighted by p,
    and by gamma(S + blocks). No weight can be off by more than 1.

    Where the scores are so large that their errors are too (mean above 1/2), the weights are followed as odds instead:
    see `odds_error`.
    """
    below = np.where(p > 0, scores.max(-1, keepdims=True) - scores, 0.0)
    blocks = 1 + p.shape[-1] // 16
    off = np.where(p > 0, scores_off, 0.0) + (2 * below + FUNCTION + (FUNCTION + 1) * blocks) * u
    bent = np.minimum(off, 1.0)  # more is beyond this formula, and must not overflow
    mean = (p * np.expm1(bent)).sum(-1, keepdims=True)
    rounded = gamma(p.shape[-1] + 4, u) * p
    usual = p * np.expm1(bent + 2 * np.minimum(mean, 1.0)) + rounded
    small = (mean < 0.5) & (off.max(-1, keepdims=True) < 1.0)
    if small.all():
        return np.asarray(np.minimum(usual, 1.0))
    rest = u * (FUNCTION + (FUNCTION + 1) * blocks)
    spread = odds_error(p, scores, scores_off + rest, u) + rounded
    return np.asarray(np.minimum(np.where(small, usual, spread), 1.0))


def odds_error(p: Array, scores: Array, scores_off: Array, u: float) -> Array:
    """How far a weight may lie from p when each score is off by `scores_off`, however much that is.

    The odds of one key are p / (1 - p) = exp(score) / sum of exp(other scores). Each exponent here is off by its
    score's error and by 2·u of its distance from the maximum, so the odds are off by a factor of at most exp(t), t the
    sum of the key's own error and of the largest of the others that count. In logarithms nothing overflows.
    """
    seen = np.isfinite(scores)
    level = np.where(seen, scores, -np.inf)
    top = level.max(-1, keepdims=True)
    off = np.where(seen, scores_off + 2 * u * np.minimum(top - level, 1e300), 0.0)
    logs = level - top
    others = _log_of_others(logs)
    t = off + off.max(-1, keepdims=True)
    odds = logs - others
    return np.asarray(np.where(seen, np.maximum(_share(odds + t) - p, p - _share(odds - t)), 0.0))


def _log_of_others(logs: Array) -> Array:
    """For each key the logarithm of the sum of exp over all other keys of its row."""
    winner = logs.argmax(-1)[..., None]
    first = np.arange(logs.shape[-1]) == winner
    without = np.where(first, -np.inf, logs)
    second = without.max(-1, keepdims=True)
    level = np.where(np.isfinite(second), second, 0.0)
    rest = level + np.log(np.exp(without - level).sum(-1, keepdims=True))
    others = np.exp(logs).sum(-1, keepdims=True) - np.exp(without)  # the winner's 1 and more: no cancellation to 0
    return np.asarray(np.where(first, rest, np.log(np.maximum(others, 1.0))))


def _share(odds: Array) -> Array:
    """exp(odds) / (1 + exp(odds))."""
    small = np.exp(-np.abs(odds))
    return np.asarray(np.where(odds >= 0, 1.0, small) / (1 + small))


def _rows(
    query: Array, key: Array, value: Array, mask: Array | None, is_causal: bool, scale: float | None
) -> Iterator[tuple[Array, Array, Array]]:
    """Weights and scores of some query rows at a time, with the value rows they weigh."""
    length, keys = query.shape[-2], key.shape[-2]
    if is_causal:
        mask = np.tri(length, keys, dtype=bool)
    step = max(1, CELLS // max(1, math.prod(query.shape[:-2]) * keys))
    for start in range(0, length, step):
        part = query[..., start : start + step, :]
        seen = mask if mask is None or mask.shape[-2] == 1 else mask[..., start : start + step, :]
        weights, scores = weights_of(part, key, seen, scale)
        yield weights, scores, _shared(value, weights)


def _scaled(query: Array, key: Array, scale: float | None) -> Array:
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return np.asarray(query @ np.swapaxes(_shared(key, query), -1, -2) * factor)


def _shared(rows: Array, like: Array) -> Array:
    """Heads (axis -3) repeated where `like` has more of them: grouped-query attention."""
    if rows.ndim < 3 or like.ndim < 3 or rows.shape[-3] in {1, like.shape[-3]}:
        return rows
    return np.repeat(rows, like.shape[-3] // rows.shape[-3], axis=-3)
