"""Attention: softmax(query·keyᵀ·scale + mask)·value, its gradients, and softmax by itself.

Uses reductions, precision and NumPy. Query rows do not see each other, so they are computed some at a time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.reference.precision import FUNCTION, gamma, largest
from convscope.reference.reductions import sum_share
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
        attended = np.tri(p.shape[-2], p.shape[-1], start, dtype=bool) if is_causal else True
        start += p.shape[-2]
        # Kernels scale before or after the product, and overwrite the scores of masked keys.
        sizes, unscaled = (np.where(attended, _scaled(rows, np.abs(key), factor), 0.0) for factor in (scale, 1.0))
        scores_error = gamma(query.shape[-1] + 3, u) * sizes + 2 * u * np.where(np.isfinite(s), np.abs(s), 0.0)
        weights_error = weight_error(p, s, scores_error, u) + (u_out + gamma(p.shape[-1] + 1, u)) * p
        overflows = np.maximum(sizes, unscaled).max(-1, keepdims=True, initial=0.0) >= largest(u)
        parts.append(np.where(overflows, np.inf, weights_error @ np.abs(v)))
    return np.concatenate(parts, axis=-2)


def flash_attention(
    query: Array, key: Array, value: Array, dropout_p: float = 0.0, is_causal: bool = False,
    attn_mask: Array | None = None, scale: float | None = None,
) -> tuple[Array, None]:  # fmt: skip
    """_scaled_dot_product_flash_attention_for_cpu: `attention`; its second output serves the kernel's own gradient."""
    return attention(query, key, value, attn_mask, dropout_p, is_causal, scale), None


def flash_attention_error(
    y: tuple[Array, ...], u: float, query: Array, key: Array, value: Array, dropout_p: float = 0.0,
    is_causal: bool = False, attn_mask: Array | None = None, scale: float | None = None, u_out: float = 0.0,
) -> tuple[Array, None]:  # fmt: skip
    """The same bound as `attention_error`."""
    return attention_error(y[0], u, query, key, value, attn_mask, dropout_p, is_causal, scale, u_out), None


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
    score_error = np.where(p > 0, scores_off, 0.0) + (2 * below + FUNCTION + (FUNCTION + 1) * blocks) * u
    exponent = np.minimum(score_error, 1.0)  # more is beyond this formula, and must not overflow
    mean = (p * np.expm1(exponent)).sum(-1, keepdims=True)
    rounded = gamma(p.shape[-1] + 4, u) * p
    typical = p * np.expm1(exponent + 2 * np.minimum(mean, 1.0)) + rounded
    small = (mean < 0.5) & (score_error.max(-1, keepdims=True) < 1.0)
    if small.all():
        return np.asarray(np.minimum(typical, 1.0))
    own_rounding = u * (FUNCTION + (FUNCTION + 1) * blocks)
    spread = odds_error(p, scores, scores_off + own_rounding, u) + rounded
    return np.asarray(np.minimum(np.where(small, typical, spread), 1.0))


def odds_error(p: Array, scores: Array, scores_off: Array, u: float) -> Array:
    """How far a weight may be from p when each score is off by `scores_off`, however much that is.

    The odds of one key are p / (1 - p) = exp(score) / sum of exp(other scores). Each exponent here is off by its
    score's error and by 2·u of its distance from the maximum, so the odds are off by a factor of at most exp(t), t the
    sum of the key's own error and of the largest of the others that count. In logarithms nothing overflows.
    """
    finite = np.isfinite(scores)
    level = np.where(finite, scores, -np.inf)
    top = level.max(-1, keepdims=True)
    score_error = np.where(finite, scores_off + 2 * u * np.minimum(top - level, 1e300), 0.0)
    logs = level - top
    log_of_others = _log_of_others(logs)
    t = score_error + score_error.max(-1, keepdims=True)
    odds = logs - log_of_others
    return np.asarray(np.where(finite, np.maximum(_share(odds + t) - p, p - _share(odds - t)), 0.0))


def _log_of_others(logs: Array) -> Array:
    """For each key the logarithm of the sum of exp over all other keys of its row."""
    winner = logs.argmax(-1)[..., None]
    first = np.arange(logs.shape[-1]) == winner
    without = np.where(first, -np.inf, logs)
    second = without.max(-1, keepdims=True)
    level = np.where(np.isfinite(second), second, 0.0)
    log_of_rest = level + np.log(np.exp(without - level).sum(-1, keepdims=True))
    other_sum = np.exp(logs).sum(-1, keepdims=True) - np.exp(without)  # the winner's 1 and more: no cancellation to 0
    return np.asarray(np.where(first, log_of_rest, np.log(np.maximum(other_sum, 1.0))))


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
        part_mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., start : start + step, :]
        weights, scores = weights_of(part, key, part_mask, scale)
        yield weights, scores, _shared(value, weights)


def _scaled(query: Array, key: Array, scale: float | None) -> Array:
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return np.asarray(query @ np.swapaxes(_shared(key, query), -1, -2) * factor)


def _shared(rows: Array, like: Array) -> Array:
    """Heads (axis -3) repeated where `like` has more of them: grouped-query attention."""
    if rows.ndim < 3 or like.ndim < 3 or rows.shape[-3] in {1, like.shape[-3]}:
        return rows
    return np.repeat(rows, like.shape[-3] // rows.shape[-3], axis=-3)


# Backward. With the attention weights P, the gradient G of the result O, and D = rowsum(G∘O): dV = Pᵀ·G, dP = G·Vᵀ,
# dS = P∘(dP - D), dQ = scale·dS·K, dK = scale·dSᵀ·Q. O and the logsumexp are those that the forward pass recorded.


LARGEST = 1e12
"""Beyond it products of three, as kernels form them, may overflow float32."""
Three = tuple[Array, Array, Array]


def flash_attention_backward(
    grad_out: Array, query: Array, key: Array, value: Array, out: Array, logsumexp: Array, dropout_p: float = 0.0,
    is_causal: bool = False, attn_mask: Array | None = None, scale: float | None = None,
) -> Three:  # fmt: skip
    """_scaled_dot_product_flash_attention_for_cpu_backward.

    >>> one, two = np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 2.0)
    >>> [g.item() for g in flash_attention_backward(one, one, one, two, two, np.ones((1, 1, 1)))]
    [0.0, 0.0, 1.0]

    Args:
        grad_out, out: The gradient of the result, and the result, shape (N, H, L, Ev).
        query, key, value: Shapes (N, H, L, E), (N, H, S, E), (N, H, S, Ev).
        logsumexp: The logsumexp of the scores of each query, shape (N, H, L).
        dropout_p: Must be 0.
        is_causal: Whether query i sees the first i + 1 keys only.
        attn_mask: Added to the scores, or boolean, broadcast to (N, H, L, S).
        scale: Factor on the scores; 1 / sqrt(E) if None.

    Returns:
        The gradients of query, key and value.

    Raises:
        UsageError: with dropout, or with other heads of keys than of queries.
    """
    shares, _, factor = _shares(query, key, logsumexp, dropout_p, is_causal, attn_mask, scale)
    by_score = shares * (grad_out @ _turned(value) - (grad_out * out).sum(-1, keepdims=True))
    return factor * by_score @ key, factor * _turned(by_score) @ query, _turned(shares) @ grad_out


def flash_attention_backward_error(
    _y: object, u: float, grad_out: Array, query: Array, key: Array, value: Array, out: Array, logsumexp: Array,
    dropout_p: float = 0.0, is_causal: bool = False, attn_mask: Array | None = None, scale: float | None = None,
    u_out: float = 0.0,
) -> Three:  # fmt: skip
    """A share exp(s - l) is off by the errors of s and l, absolutely, and by exp's own; a slope by its share's, and by
    those of its two sums; a gradient is a sum of products of these. Narrow types may store shares and slopes.
    """
    shares, scores, factor = _shares(query, key, logsumexp, dropout_p, is_causal, attn_mask, scale)
    attended = shares > 0
    sizes = np.abs(query) @ _turned(np.abs(key)) * factor
    reach = np.where(attended, np.abs(np.where(attended, scores, 0.0)), 0.0) + np.abs(logsumexp)[..., None]
    score_error = gamma(query.shape[-1] + 4, u) * sizes + 3 * u * reach
    shares_error = shares * (np.expm1(np.minimum(score_error, 1.0)) + 5 * FUNCTION * u + u_out)
    value_gap = grad_out @ _turned(value) - (grad_out * out).sum(-1, keepdims=True)
    magnitude = np.abs(grad_out) @ _turned(np.abs(value)) + np.abs(grad_out * out).sum(-1, keepdims=True)
    slopes = np.abs(shares * value_gap)
    slopes_error = (
        shares_error * np.abs(value_gap) + (shares + shares_error) * gamma(grad_out.shape[-1] + 4, u) * magnitude
    )
    slopes_error = slopes_error + u_out * slopes
    queries, keys = shares.shape[-2:]

    def total(weights: Array, weights_error: Array, factors: Array, n: int) -> Array:
        return np.asarray(((gamma(n + 3, u) + u_out) * weights + weights_error) @ np.abs(factors))

    return (
        factor * total(slopes, slopes_error, key, keys),
        factor * total(_turned(slopes), _turned(slopes_error), query, queries),
        total(_turned(shares), _turned(shares_error), grad_out, queries),
    )


def _shares(
    query: Array, key: Array, logsumexp: Array, dropout_p: float, is_causal: bool, mask: Array | None,
    scale: float | None,
) -> tuple[Array, Array, float]:  # fmt: skip
    """Shares and scores, (N, H, L, S), and the factor on the scores."""
    if dropout_p or query.shape[1] != key.shape[1]:
        raise UsageError("the reference has no gradient of attention with dropout or shared heads.")
    if not all((np.abs(array) < LARGEST).all() for array in (query, key, logsumexp)):
        raise UsageError("the gradient of attention for infinite or huge numbers depends on the kernel.")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ _turned(key) * factor
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return np.exp(scores - logsumexp[..., None]), scores, factor


def _turned(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


# Softmax and log-softmax


class RowTotals(NamedTuple):
    """What the parts of a row have in common."""

    cells: int
    top: Array
    """The largest."""
    total: Array
    """The sum of exp(x - top)."""
    depth: Array
    """How far the cells are below the largest, each counted by its share."""

    def share(self, u: float) -> Array:
        """As `sum_share`."""
        return np.asarray(gamma(self.cells, u) + u * (FUNCTION + self.depth))


def row_totals(parts: Sequence[Array]) -> RowTotals:
    """The totals of one row whose cells come some at a time, so that its float64 copy never exists as a whole.

    >>> row_totals([np.zeros(1), np.zeros(3)]).total.item()
    4.0
    """
    top = np.float64(np.max([part.max() for part in parts]))
    total, weighed = 0.0, 0.0
    for part in parts:
        below = part.astype(np.float64) - top
        powers = np.exp(below)
        total, weighed = total + powers.sum(), weighed + np.where(powers > 0, powers * np.abs(below), 0.0).sum()
    return RowTotals(sum(part.size for part in parts), np.asarray(top), np.asarray(total), np.asarray(weighed / total))


def softmax(x: Array, dim: int = -1, row: RowTotals | None = None) -> Array:
    """exp(x) divided by the sum of exp(x) along `dim`: positive numbers that sum to 1.

    >>> softmax(np.array([0.0, np.log(3.0)]))
    array([0.25, 0.75])

    Args:
        x: The scores.
        dim: Along which they are shared out.
        row: Of the whole row, where x is a part of one.
    """
    powers = np.exp(x - (x.max(dim, keepdims=True) if row is None else row.top))
    return np.asarray(powers / (powers.sum(dim, keepdims=True) if row is None else row.total))


def softmax_error(
    y: Array, u: float, x: Array, dim: int = -1, u_out: float = 0.0, row: RowTotals | None = None
) -> Array:
    """Each y = e / s, with e = exp(d) and d = x - max, one rounding each.

    e is off by FUNCTION + |d| roundings; s, a sum of n such, by gamma(n) and the mean of those, weighted by y; the
    division (or a reciprocal and a product) by 2. All are relative errors. Where y is 0, x is minus infinity (or so
    far below the maximum that every type gives 0), and both are exact. e, s and y may be stored in a narrower type.
    """
    return np.where(y > 0, y * (relative(x, y, u, dim, row) + 3 * u_out), 0.0)


def safe_softmax(x: Array, dim: int = -1) -> Array:
    """_safe_softmax: as `softmax`, but 0 along a `dim` that holds only minus infinity."""
    return np.where(np.isneginf(x.max(dim, keepdims=True)), 0.0, softmax(x, dim))


def safe_softmax_error(y: Array, u: float, x: Array, dim: int = -1, u_out: float = 0.0) -> Array:
    """The same bound as `softmax_error`, whose kernel it calls."""
    return np.where(np.isneginf(x.max(dim, keepdims=True)), 0.0, softmax_error(y, u, x, dim, u_out))


def log_softmax(x: Array, dim: int = -1, row: RowTotals | None = None) -> Array:
    """x minus the logarithm of the sum of exp(x) along `dim`.

    >>> bool(np.allclose(np.exp(log_softmax(np.array([0.0, np.log(3.0)]))), [0.25, 0.75]))
    True
    """
    below = x - (x.max(dim, keepdims=True) if row is None else row.top)
    return np.asarray(below - np.log(np.exp(below).sum(dim, keepdims=True) if row is None else row.total))


def log_softmax_error(
    y: Array, u: float, x: Array, dim: int = -1, u_out: float = 0.0, row: RowTotals | None = None
) -> Array:
    """y = d - log s: a rounding of d = x - max, the relative error of s, log itself, and the difference.

    d, s and log s may be stored in a narrower type.
    """
    below = x - (x.max(dim, keepdims=True) if row is None else row.top)
    logs = np.abs(np.where(np.isfinite(y), below - y, 0.0))
    share = (sum_share(x, np.exp(y), u, dim) if row is None else row.share(u)) + 2 * u_out
    return np.asarray((u + u_out) * (np.abs(below) + np.abs(y) + 2 * logs) + share + FUNCTION * u * logs)


def relative(x: Array, y: Array, u: float, dim: int, row: RowTotals | None = None) -> Array:
    """Relative error of each share: its own exp, the sum, the division."""
    below = np.where(y > 0, np.abs(x - (x.max(dim, keepdims=True) if row is None else row.top)), 0.0)
    share = sum_share(x, y, u, dim) if row is None else row.share(u)
    return np.asarray(share + u * (FUNCTION + 3 + below))
