"""Normalization: batch, instance, layer, group and RMS norm. Uses reductions, precision and NumPy.

All of them are (x - mean) / sqrt(variance + eps) · weight + bias; they differ in what mean and variance are taken over.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from convscope.errors import UsageError
from convscope.reference.moments import Kernel, Moments, error_of, moments_of
from convscope.reference.precision import gamma, smallest
from convscope.typing import Array

Layout = Literal["contiguous", "channels last", "other"]
"""Memory format of a tensor; it selects the kernel."""


def batch_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
    layout: Layout = "other",
    moments: Moments | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """native_batch_norm: each channel by its running mean and variance, or in training by this batch's own.

    >>> batch_norm(np.array([[[1.0, 3.0]]]), None, None, training=True, eps=0.0)[0]
    array([[[-1.,  1.]]])

    Args:
        x: Shape (N, C, ...).
        weight, bias: Shape (C,), or None for 1 and 0.
        running_mean, running_var: Shape (C,); not used in training.
        training: Take mean and variance (divided by n) over everything but the channel.
        eps: Added to the variance.
        layout: Memory format of the input. Affects only the order in which the kernel adds.
        moments: The moments of the batch, where `x` is a part of it; shaped to broadcast along the channels.

    Returns:
        The normalized input; in training also mean and 1 / sqrt(variance + eps) per channel, else None.
    """
    mean, variance, *_ = _batch(x, running_mean, running_var, training, 0.0, "in turn", moments)
    out = _normalized(x, mean, variance, _channels(weight, x), _channels(bias, x), eps)
    return (out, mean.ravel(), _rate(variance, eps).ravel()) if training else (out, None, None)


def batch_norm_error(
    _y: object, u: float, x: Array, weight: Array | None, bias: Array | None, running_mean: Array | None = None,
    running_var: Array | None = None, training: bool = False, eps: float = 1e-5, layout: Layout = "other",
    moments: Moments | None = None, u_out: float = 0.0,
) -> tuple[Array, Array | None, Array | None]:  # fmt: skip
    """In evaluation the running values are exact, so |x·s| + |mean·s| + |bias| in a few u; else as `_error`.

    In training mean, sum of squares and rate are stored in the tensors' type before they are used, one rounding each.
    Kernels calculate in float32, but for other layouts than contiguous and channels last in the tensors' type: then eps
    is added, the root taken and 1 divided by it with three roundings.
    """
    kernel: Kernel = "in turn" if layout != "contiguous" or u_out or u < 2.0**-40 else "chunked"
    mean, variance, mean_error, spread = _batch(x, running_mean, running_var, training, u, kernel, moments)
    inside = max(u, u_out) if layout == "other" else u
    if not training:
        rate_error = _rate_error(variance, spread, eps, u) + 3 * (inside - u) * _rate(variance, eps)
        scales = _channels(weight, x), _channels(bias, x)
        return _error(x, mean, variance, mean_error, spread, *scales, eps, inside, rate_error), None, None
    stored = u_out * np.abs(mean) + (smallest(u_out) if u_out else 0.0)
    mean_error, spread = mean_error + stored, spread + u_out * (variance + spread) + stored**2
    rate_error = _rate_error(variance, spread, eps, u) + u_out * _rate(variance, eps)
    error = _error(
        x, mean, variance, mean_error, spread, _channels(weight, x), _channels(bias, x), eps, inside, rate_error
    )
    return error, mean_error.ravel(), rate_error.ravel()


def layer_norm(
    x: Array, normalized_shape: Sequence[int], weight: Array | None = None, bias: Array | None = None,
    eps: float = 1e-5, moments: Moments | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """native_layer_norm: each row by its own mean and variance; a row is the last axes, those of `normalized_shape`.

    >>> layer_norm(np.array([[1.0, 3.0], [5.0, 5.0]]), [2], eps=0.25)[1].tolist()
    [[2.0], [5.0]]

    Args:
        x: Shape (..., *normalized_shape).
        normalized_shape: The lengths of the last axes.
        weight, bias: Shape `normalized_shape`, or None for 1 and 0.
        eps: Added to the variance.
        moments: The moments of the row, where `x` is a part of it and the other arguments are of the same part.

    Returns:
        The normalized input, the means, and 1 / sqrt(variance + eps).
    """
    row = moments or moments_of(x, _last(x, normalized_shape))
    return _normalized(x, row.mean, row.variance, weight, bias, eps), row.mean, _rate(row.variance, eps)


def layer_norm_error(
    _y: object, u: float, x: Array, normalized_shape: Sequence[int], weight: Array | None = None,
    bias: Array | None = None, eps: float = 1e-5, moments: Moments | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """As `_error`, with the errors of each row's own statistics."""
    row = moments or moments_of(x, _last(x, normalized_shape))
    mean, variance, (off, spread) = row.mean, row.variance, error_of(row, u, kernel="chunked")
    return _error(x, mean, variance, off, spread, weight, bias, eps, u), off, _rate_error(variance, spread, eps, u)


def group_norm(
    x: Array, weight: Array | None, bias: Array | None, group: int, eps: float = 1e-5, images: int | None = None,
    channels: int | None = None, cells: int | None = None, layout: Layout = "other", moments: Moments | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """native_group_norm: the channels of a group together, each image by itself; instance norm where C = groups.

    Args:
        x: Shape (N, C, ...).
        weight, bias: Shape (C,), or None.
        group: How many groups the channels form.
        eps: Added to the variance.
        images, channels, cells: N, C and the cells of one channel, where the call says them; they must be those of `x`.
        layout: Memory format of the input. Affects only the order in which the kernel adds.
        moments: The moments of the group, shape (1, 1, 1), where `x` is a part of one.

    Returns:
        The normalized input, and per image and group, shape (N, groups), mean and 1 / sqrt(variance + eps).
    """
    stated, actual = (images, channels, cells), (*x.shape[:2], math.prod(x.shape[2:]))
    if any(s is not None and s != o for s, o in zip(stated, actual, strict=True)):
        raise UsageError(f"the call says {stated} images, channels and cells; the input has {actual}.")
    rows = moments or moments_of(_groups(x, group), (2,))
    m, v = (_ungrouped(values, x, group) for values in (rows.mean, rows.variance))
    out = _normalized(x, m, v, _channels(weight, x), _channels(bias, x), eps)
    return out, rows.mean[..., 0], _rate(rows.variance, eps)[..., 0]


def group_norm_error(
    _y: object, u: float, x: Array, weight: Array | None, bias: Array | None, group: int, eps: float = 1e-5,
    layout: Layout = "other", moments: Moments | None = None, **_: object,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """As `_error`, with the errors of each group's own statistics."""
    kernel: Kernel = "chunked" if layout == "contiguous" else "one pass"
    rows = moments or moments_of(_groups(x, group), (2,))
    variance, (mean_error, spread) = rows.variance, error_of(rows, u, kernel=kernel)
    m, v, dm, dv = (_ungrouped(values, x, group) for values in (rows.mean, variance, mean_error, spread))
    error = _error(x, m, v, dm, dv, _channels(weight, x), _channels(bias, x), eps, u)
    return error, mean_error[..., 0], _rate_error(variance, spread, eps, u)[..., 0]


def rms_norm(
    x: Array, normalized_shape: Sequence[int], weight: Array | None = None, eps: float | None = None,
    moments: Moments | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """_fused_rms_norm: x / sqrt(mean(x²) + eps) · weight, and that rate. Without `eps`, float32's machine epsilon."""
    square = moments.square if moments else (x**2).mean(_last(x, normalized_shape), keepdims=True)
    rate = _rate(square, 2.0**-23 if eps is None else eps)
    return x * rate * (1.0 if weight is None else weight), rate


def rms_norm_error(
    y: tuple[Array, ...],
    u: float,
    x: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    eps: float | None = None,
    moments: Moments | None = None,
) -> tuple[Array, Array]:
    """No term of mean(x²) cancels: a relative error of gamma(n + 2), halved by the root, and four roundings."""
    n = moments.cells if moments else math.prod(normalized_shape)
    share = gamma(n + 2, u) / 2 + 6 * u
    return share * np.abs(y[0]), share * y[1]


def _batch(
    x: Array, running_mean: Array | None, running_var: Array | None, training: bool, u: float, kernel: Kernel,
    moments: Moments | None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Mean, variance and their errors, shaped to broadcast along the channels."""
    if training or running_mean is None or running_var is None:
        batch = moments or moments_of(x, (0, *range(2, x.ndim)))
        return batch.mean, batch.variance, *error_of(batch, u, kernel=kernel, squares="chunked")
    mean, variance = (values.reshape(-1, *[1] * (x.ndim - 2)) for values in (running_mean, running_var))
    return mean, variance, np.zeros_like(mean), np.zeros_like(variance)


def _normalized(x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None, eps: float) -> Array:
    out = (x - mean) * _rate(variance, eps) * (1.0 if weight is None else weight)
    return np.asarray(out if bias is None else out + bias)


def _error(
    x: Array, mean: Array, variance: Array, mean_error: Array, spread: Array, weight: Array | None, bias: Array | None,
    eps: float, u: float, rate_error: Array | None = None,
) -> Array:  # fmt: skip
    """How far (x - mean)·rate·weight + bias may be off, when the mean is off by `mean_error`, the variance by `spread`.

    Kernels compute either that, or x·s + (bias - mean·s) with s = rate·weight. The error of the rate moves x - mean,
    that of the mean is multiplied by the rate; the roundings of s, of both products and of the sums are at most 8
    on each of |x·s| and |mean·s|, and 2 on the bias.
    """
    gain = 1.0 if weight is None else np.abs(weight)
    rate = _rate(variance, eps)
    rate_error = _rate_error(variance, spread, eps, u) if rate_error is None else rate_error
    scale = (rate + rate_error) * gain
    statistics_error = gain * rate_error * np.abs(x - mean) + scale * mean_error
    rounded = 8 * u * scale * (np.abs(x) + np.abs(mean) + mean_error) + (0.0 if bias is None else 2 * u * np.abs(bias))
    return np.where(np.isinf(rate_error), np.inf, statistics_error + rounded)


def _rate(variance: Array, eps: float) -> Array:
    return np.asarray(1 / np.sqrt(variance + eps))


def _rate_error(variance: Array, spread: Array, eps: float, u: float) -> Array:
    """1 / sqrt is steeper towards 0, so a variance too small by `spread` (never below 0) errs most."""
    least = np.maximum(variance - spread, 0) + eps
    error = 1 / np.sqrt(least) - _rate(variance, eps) + 4 * u / np.sqrt(least)
    return np.where(np.isinf(spread), np.inf, error)  # an infinite sum of squares makes any rate, also none


def _channels(values: Array | None, x: Array) -> Array | None:
    return None if values is None else values.reshape(-1, *[1] * (x.ndim - 2))


def _last(x: Array, normalized_shape: Sequence[int]) -> tuple[int, ...]:
    if tuple(normalized_shape) != x.shape[x.ndim - len(normalized_shape) :]:
        raise UsageError(f"normalized_shape {list(normalized_shape)} is not how an input of shape {x.shape} ends.")
    return tuple(range(x.ndim - len(normalized_shape), x.ndim))


def _groups(x: Array, group: int) -> Array:
    return x.reshape(x.shape[0], group, -1)


def _ungrouped(values: Array, x: Array, group: int) -> Array:
    """One number per image and group, shape (N, G, 1), as one per image and channel."""
    per_channel = np.repeat(values[..., 0], x.shape[1] // group, axis=1)
    return per_channel.reshape(*per_channel.shape, *[1] * (x.ndim - 2))
