"""Bounded: intermediate numbers of a fused operation, with how far the kernel's own may lie from them.

PyTorch does not hand out what happens inside a fused step. The rules recalculate it in float64 and carry a bound along,
operation by operation: own roundings, plus the bound of what went in times how strongly it counts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.expr.call import Array
from convscope.expr.precision import Precision, gamma
from convscope.expr.primitives.activations import gelu as gelu_of
from convscope.expr.primitives.reductions import softmax, softmax_error


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Numbers and their bounds, arrays of one shape.

    >>> Bounded.exact(np.ones((2, 3))).error.sum()
    np.float64(0.0)
    """

    value: Array
    error: Array

    @classmethod
    def exact(cls, array: Array) -> "Bounded":
        """Recorded numbers: what the kernel itself read."""
        value = array.astype(np.float64)
        return cls(value, np.zeros_like(value))

    def __getitem__(self, index: Any) -> "Bounded":
        return Bounded(self.value[index], self.error[index])

    def stored(self, precision: Precision) -> "Bounded":
        """The same after the kernel put it down in its storage type."""
        return Bounded(self.value, self.error + precision.stored * (np.abs(self.value) + self.error))


def affine(x: Bounded, weight: Array, bias: Array | None, precision: Precision) -> Bounded:
    """x @ weight.T + bias: (..., K), (N, K), (N,) -> (..., N)."""
    weights = weight.astype(np.float64)
    plus = np.zeros(len(weights)) if bias is None else bias.astype(np.float64)
    value = x.value @ weights.T + plus
    sizes = np.abs(x.value) @ np.abs(weights).T + np.abs(plus)
    own = gamma(weights.shape[1] + 2, precision.sum) * sizes
    return Bounded(value, own + x.error @ np.abs(weights).T).stored(precision)


def product(x: Bounded, y: Bounded, precision: Precision, scale: float = 1.0) -> Bounded:
    """x @ y * scale: (..., N, K), (..., K, M) -> (..., N, M)."""
    value = x.value @ y.value * scale
    sizes = np.abs(x.value) @ np.abs(y.value)
    inherited = x.error @ np.abs(y.value) + np.abs(x.value) @ y.error + x.error @ y.error
    own = gamma(x.value.shape[-1] + 3, precision.sum) * (sizes + inherited)
    return Bounded(value, (own + inherited) * abs(scale)).stored(precision)


def add(x: Bounded, y: Bounded, precision: Precision) -> Bounded:
    """x + y, of one shape."""
    value = x.value + y.value
    error = x.error + y.error
    return Bounded(value, error + precision.sum * (np.abs(value) + error)).stored(precision)


def shares(scores: Bounded, masked: Array | None, precision: Precision) -> Bounded:
    """The softmax of the last axis, 0 where masked."""
    rows = scores.value if masked is None else np.where(masked, -np.inf, scores.value)
    with np.errstate(invalid="ignore"):
        value = softmax(rows)
        error = softmax_error(rows, value, np.where(np.isfinite(rows), scores.error, 0.0), precision)
    return Bounded(value, error).stored(precision)


def layer_norm(x: Bounded, weight: Array, bias: Array, eps: float, precision: Precision) -> Bounded:
    """Each last axis by its own mean and variance, times weight plus bias.

    The bounds of mean and variance are those of `functions.rows`, for every row at once.
    """
    u, count = precision.sum, x.value.shape[-1]
    mean = x.value.mean(-1, keepdims=True)
    far = x.value - mean
    var = (far**2).mean(-1, keepdims=True)
    mean_error = gamma(count + 2, u) * np.abs(x.value).mean(-1, keepdims=True) + x.error.mean(-1, keepdims=True)
    shift = x.error + x.error.max(-1, keepdims=True)
    var_error = gamma(count + 8, u) * (var + mean**2) + (shift * (2 * np.abs(far) + shift)).mean(-1, keepdims=True)
    width = var + eps
    narrowest = np.maximum(width - var_error, 0.99 * eps)
    bent = np.maximum(np.sqrt(width / narrowest) - 1, 1 - np.sqrt(width / (width + var_error)))
    scale = np.abs(weight) / np.sqrt(width)
    value = far / np.sqrt(width) * weight + bias
    own = 8 * u * (np.abs(x.value) * scale + np.abs(mean) * scale + np.abs(bias))
    error = np.abs(far) * scale * bent + (x.error + mean_error) * scale * (1 + bent) + own
    return Bounded(value, error).stored(precision)


def relu(x: Bounded) -> Bounded:
    """Nothing below zero; errors pass unchanged."""
    return Bounded(np.maximum(x.value, 0.0), x.error)


def gelu(x: Bounded, precision: Precision) -> Bounded:
    """The exact gelu, whose slope is nowhere above 1.13."""
    return Bounded(gelu_of(x.value), 1.13 * x.error + 8 * precision.sum * np.abs(x.value)).stored(precision)
