"""Attention backward: gradients of softmax(query·keyᵀ·scale + mask)·value. Knows roundoff and NumPy.

With the attention weights P, the gradient G of the result O, and D = rowsum(G∘O): dV = Pᵀ·G, dP = G·Vᵀ,
dS = P∘(dP - D), dQ = scale·dS·K, dK = scale·dSᵀ·Q. O and the logsumexp are those that the forward pass recorded.
"""

import math
from typing import Any

import numpy as np

from convscope.errors import UsageError
from convscope.reference.roundoff import FUNCTION, gamma
from convscope.typing import Array

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
        grad_out, out: Of the result and the result, shape (N, H, L, Ev).
        query, key, value: Shapes (N, H, L, E), (N, H, S, E), (N, H, S, Ev).
        logsumexp: Of the scores of each query, shape (N, H, L).
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
    _y: Any, u: float, grad_out: Array, query: Array, key: Array, value: Array, out: Array, logsumexp: Array,
    dropout_p: float = 0.0, is_causal: bool = False, attn_mask: Array | None = None, scale: float | None = None,
    u_out: float = 0.0,
) -> Three:  # fmt: skip
    """A share exp(s - l) is off by the errors of s and l, absolutely, and by exp's own; a slope by its share's, and by
    those of its two sums; a gradient is a sum of products of these. Narrow types may store shares and slopes.
    """
    shares, scores, factor = _shares(query, key, logsumexp, dropout_p, is_causal, attn_mask, scale)
    seen = shares > 0
    sizes = np.abs(query) @ _turned(np.abs(key)) * factor
    reach = np.where(seen, np.abs(np.where(seen, scores, 0.0)), 0.0) + np.abs(logsumexp)[..., None]
    off = gamma(query.shape[-1] + 4, u) * sizes + 3 * u * reach
    shares_off = shares * (np.expm1(np.minimum(off, 1.0)) + 5 * FUNCTION * u + u_out)
    far = grad_out @ _turned(value) - (grad_out * out).sum(-1, keepdims=True)
    whole = np.abs(grad_out) @ _turned(np.abs(value)) + np.abs(grad_out * out).sum(-1, keepdims=True)
    slopes = np.abs(shares * far)
    slopes_off = shares_off * np.abs(far) + (shares + shares_off) * gamma(grad_out.shape[-1] + 4, u) * whole
    slopes_off = slopes_off + u_out * slopes
    queries, keys = shares.shape[-2:]

    def total(weights: Array, weights_off: Array, other: Array, n: int) -> Array:
        return np.asarray(((gamma(n + 3, u) + u_out) * weights + weights_off) @ np.abs(other))

    return (
        factor * total(slopes, slopes_off, key, keys),
        factor * total(_turned(slopes), _turned(slopes_off), query, queries),
        total(_turned(shares), _turned(shares_off), grad_out, queries),
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
