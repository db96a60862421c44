"""Probabilities: softmax, log-softmax, the logarithm of a sum of exponentials. Knows reductions, roundoff and NumPy."""

from typing import Any

import numpy as np

from convscope.reference.reductions import Axes, axes_of
from convscope.reference.roundoff import FUNCTION, gamma
from convscope.typing import Array


def softmax(x: Array, dim: int = -1) -> Array:
    """exp(x) divided by the sum of exp(x) along `dim`: positive numbers that sum to 1.

    >>> softmax(np.array([0.0, np.log(3.0)]))
    array([0.25, 0.75])
    """
    powers = np.exp(x - x.max(dim, keepdims=True))
    return np.asarray(powers / powers.sum(dim, keepdims=True))


def softmax_error(y: Array, u: float, x: Array, dim: int = -1, u_out: float = 0.0) -> Array:
    """Each y = e / s, with e = exp(d) and d = x - max, one rounding each.

    e is off by FUNCTION + |d| roundings; s, a sum of n such, by gamma(n) and the mean of those, weighted by y; the
    division (or a reciprocal and a product) by 2. All are relative errors. Where y is 0, x is minus infinity (or so
    far below the maximum that every type gives 0), and both are exact. e, s and y may be stored in a narrower type.
    """
    return np.where(y > 0, y * (relative(x, y, u, dim) + 3 * u_out), 0.0)


def safe_softmax(x: Array, dim: int = -1) -> Array:
    """_safe_softmax: as `softmax`, but 0 along a `dim` that holds only minus infinity."""
    return np.where(np.isneginf(x.max(dim, keepdims=True)), 0.0, softmax(x, dim))


def safe_softmax_error(y: Array, u: float, x: Array, dim: int = -1) -> Array:
    """The same bound as `softmax_error`."""
    return np.where(np.isneginf(x.max(dim, keepdims=True)), 0.0, softmax_error(y, u, x, dim))


def log_softmax(x: Array, dim: int = -1) -> Array:
    """x minus the logarithm of the sum of exp(x) along `dim`.

    >>> bool(np.allclose(np.exp(log_softmax(np.array([0.0, np.log(3.0)]))), [0.25, 0.75]))
    True
    """
    below = x - x.max(dim, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(dim, keepdims=True)))


def log_softmax_error(y: Array, u: float, x: Array, dim: int = -1, u_out: float = 0.0) -> Array:
    """y = d - log s: a rounding of d = x - max, the relative error of s, log itself, and the difference.

    d, s and log s may be stored in a narrower type.
    """
    below = x - x.max(dim, keepdims=True)
    logs = np.abs(np.where(np.isfinite(y), below - y, 0.0))
    share = sum_share(x, np.exp(y), u, dim) + 2 * u_out
    return np.asarray((u + u_out) * (np.abs(below) + np.abs(y) + 2 * logs) + share + FUNCTION * u * logs)


def log_sum_exp(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """logsumexp: log of the sum of exp(x) along one or more axes."""
    axes = axes_of(dim, x.ndim)
    top = x.max(axes, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    y = top + np.log(np.exp(x - top).sum(axes, keepdims=True))
    return np.asarray(y if keepdim else y.squeeze(axes))


def log_sum_exp_error(
    y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, u_out: float = 0.0
) -> Array:
    """As `log_softmax_error`: y = max + log s; exponentials, sum and logarithm are stored in the output's type."""
    axes = axes_of(dim, x.ndim)
    wide = log_sum_exp(x, dim, True)
    top = x.max(axes, keepdims=True)
    shares = np.exp(x - wide)
    error = sum_share(x, shares, u, axes) + FUNCTION * u * np.abs(wide - top) + 2 * u * np.abs(wide)
    below = np.where(shares > 0, shares * np.abs(x - top), 0.0).sum(axes, keepdims=True)
    error = error + u_out * (3 + below + np.abs(wide - top))
    return np.asarray(error if keepdim or not x.ndim else error.reshape(y.shape))


def sum_share(x: Array, y: Array, u: float, dim: Any) -> Array:
    """Relative error of s: each exp(d) is off by FUNCTION + |d| roundings and counts as much as its share y of s."""
    terms = int(np.prod([x.shape[a] for a in axes_of(dim, x.ndim)]))
    below = np.where(y > 0, np.abs(x - x.max(dim, keepdims=True)), 0.0)
    return np.asarray(gamma(terms, u) + u * (FUNCTION + (y * below).sum(dim, keepdims=True)))


def relative(x: Array, y: Array, u: float, dim: Any) -> Array:
    """Relative error of each share: its own exp, the sum, the division."""
    below = np.where(y > 0, np.abs(x - x.max(dim, keepdims=True)), 0.0)
    return np.asarray(sum_share(x, y, u, dim) + u * (FUNCTION + 3 + below))
