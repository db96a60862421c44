"""Normalization backward: batch, layer and group norm. Uses precision and NumPy.

y = (x - mean)·rate·weight + bias, rate = 1 / sqrt(variance + eps). With h = grad·weight and z = (x - mean)·rate, the
Jacobian of a row of n cells that are normalized together is

    dx = rate·(h - mean(h) - z·mean(h·z)),    dweight = sum of grad·z,    dbias = sum of grad:

straight, through the mean, and through the variance. Means and rates are those that the forward pass recorded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convscope.errors import UsageError
from convscope.reference.normalization import Layout
from convscope.reference.precision import carried, gamma
from convscope.typing import Array

Axes = tuple[int, ...]
LARGEST = 1e12
"""Beyond it products of three, as kernels form them, may overflow float32, and infinities become NaN or not."""


def batch_norm_backward(
    grad_out: Array, x: Array, weight: Array | None, running_mean: Array | None, running_var: Array | None,
    save_mean: Array | None, save_invstd: Array | None, train: bool, eps: float,
    output_mask: Sequence[bool] = (True, True, True), layout: Layout = "other",
) -> tuple[Array, ...]:  # fmt: skip
    """native_batch_norm_backward: by the statistics of the batch in training, else by running ones.

    >>> grad, x = np.array([[[1.0, 0.0]]]), np.array([[[1.0, 3.0]]])
    >>> two, one = np.array([2.0]), np.array([1.0])
    >>> batch_norm_backward(grad, x, None, None, None, two, one, True, 0.0)[1:]
    (array([-1.]), array([1.]))

    Args:
        grad_out: The gradient of the normalized cells, shape (N, C, ...).
        x: What was normalized.
        weight: Shape (C,), or None for 1.
        running_mean, running_var, save_mean, save_invstd: Shape (C,); the first two in evaluation, else the others.
        train: Which.
        eps: Added to the running variance.
        output_mask: Which of the gradients of input, weight and bias are wanted.
        layout: Memory format of the input. Affects only the order in which the kernel adds.

    Raises:
        UsageError: the statistics it needs are missing.
    """
    axes = (0, *range(2, x.ndim))
    _refuse_large(grad_out, x, weight)
    mean, rate = _statistics(x, running_mean, running_var, save_mean, save_invstd, train, eps)
    scale = 1.0 if weight is None else _line(weight, x)
    z = (x - mean) * rate
    straight = grad_out * scale * rate
    dx = _three_paths(grad_out * scale, z, rate, axes) if train else straight
    return _requested_results((dx, (grad_out * z).sum(axes), grad_out.sum(axes)), output_mask)


def batch_norm_backward_error(
    _y: object, u: float, grad_out: Array, x: Array, weight: Array | None, running_mean: Array | None,
    running_var: Array | None, save_mean: Array | None, save_invstd: Array | None, train: bool, eps: float,
    output_mask: Sequence[bool] = (True, True, True), layout: Layout = "other", u_out: float = 0.0,
) -> tuple[Array, ...]:  # fmt: skip
    """The bound of `_errors`, with sums in the kernels' order.

    Of contiguous float32, each image's plane is added in the lanes of a vector (4 of them or more), then the lanes, and
    the images in float64: a term is in no more than a quarter of the plane and 16 additions. Vectors, channels-last
    memory and narrow types are added one after the other, through all images.

    Source: PyTorch, aten/src/ATen/native/cpu/batch_norm_kernel.cpp (vec::reduce_all; accscalar_t).
    """
    axes = (0, *range(2, x.ndim))
    mean, rate = _statistics(x, running_mean, running_var, save_mean, save_invstd, train, eps)
    scale = np.asarray(1.0) if weight is None else np.abs(_line(weight, x))
    plane, cells = math.prod(x.shape[2:]), math.prod(x.shape[a] for a in axes)
    in_lanes = layout == "contiguous" and plane > 1 and not u_out and u > 2.0**-40
    depth = min(cells, plane // 4 + 16) if in_lanes else cells
    dx, dw, db = _errors(grad_out, x - mean, rate, scale, axes, depth, u)
    if not train:
        dx = 6 * u * np.abs(grad_out) * scale * rate
    stored = (
        3 * u_out * (np.abs(grad_out) + np.abs(grad_out).mean(axes, keepdims=True)) * scale * rate if train else 0.0
    )
    return _requested_results((dx + stored, dw, db), output_mask)


def layer_norm_backward(
    grad_out: Array, x: Array, normalized_shape: Sequence[int], mean: Array, rstd: Array, weight: Array | None = None,
    bias: Array | None = None, output_mask: Sequence[bool] = (True, True, True),
) -> tuple[Array, ...]:  # fmt: skip
    """native_layer_norm_backward: each row by itself; a row is the last axes, those of `normalized_shape`.

    Args:
        grad_out, x: The gradient of the normalized cells, and what was normalized, shape (..., *normalized_shape).
        normalized_shape: The lengths of the last axes.
        mean, rstd: Each row's, as recorded, shape (..., 1, 1).
        weight, bias: Shape `normalized_shape`, or None.
        output_mask: Which of the gradients of input, weight and bias are wanted.
    """
    lead = x.ndim - len(normalized_shape)
    rows, row_axes = tuple(range(lead)), tuple(range(lead, x.ndim))
    _refuse_large(grad_out, x, weight)
    z = (x - mean) * rstd
    dx = _three_paths(grad_out * (1.0 if weight is None else weight), z, rstd, row_axes)
    return _requested_results((dx, (grad_out * z).sum(rows), grad_out.sum(rows)), output_mask)


def layer_norm_backward_error(
    _y: object, u: float, grad_out: Array, x: Array, normalized_shape: Sequence[int], mean: Array, rstd: Array,
    weight: Array | None = None, bias: Array | None = None, output_mask: Sequence[bool] = (True, True, True),
    u_out: float = 0.0,
) -> tuple[Array, ...]:  # fmt: skip
    """The same bound as `_errors_apart`."""
    lead = x.ndim - len(normalized_shape)
    rows, row_axes = tuple(range(lead)), tuple(range(lead, x.ndim))
    scale = np.asarray(1.0) if weight is None else weight
    return _requested_results(_errors_apart(grad_out, x, mean, rstd, scale, (row_axes, rows), u, u_out), output_mask)


def group_norm_backward(
    grad_out: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, images: int, channels: int, cells: int,
    group: int, output_mask: Sequence[bool] = (True, True, True),
) -> tuple[Array, ...]:  # fmt: skip
    """native_group_norm_backward: the channels of a group together, each image by itself.

    Args:
        grad_out, x: The gradient of the normalized cells, and what was normalized, shape (N, C, ...).
        mean, rstd: Each image and group's, as recorded, shape (N, groups).
        weight: Shape (C,), or None.
        images, channels, cells: N, C and the cells of one channel.
        group: How many groups the channels form.
        output_mask: Which of the gradients of input, weight and bias are wanted.
    """
    shape = (images, group, channels // group, cells)
    g, centre, rate, scale = _grouped(grad_out, mean, rstd, weight, shape)
    _refuse_large(grad_out, x, weight)
    z = (x.reshape(shape) - centre) * rate
    dx = _three_paths(g * scale, z, rate, (2, 3)).reshape(x.shape)
    return _requested_results((dx, (g * z).sum((0, 3)).ravel(), g.sum((0, 3)).ravel()), output_mask)


def group_norm_backward_error(
    _y: object, u: float, grad_out: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, images: int,
    channels: int, cells: int, group: int, output_mask: Sequence[bool] = (True, True, True), u_out: float = 0.0,
) -> tuple[Array, ...]:  # fmt: skip
    """The same bound as `_errors_apart`."""
    shape = (images, group, channels // group, cells)
    g, centre, rate, scale = _grouped(grad_out, mean, rstd, weight, shape)
    dx, dw, db = _errors_apart(g, x.reshape(shape), centre, rate, scale, ((2, 3), (0, 3)), u, u_out)
    return _requested_results((dx.reshape(x.shape), dw.ravel(), db.ravel()), output_mask)


def _grouped(
    grad: Array, mean: Array, rstd: Array, weight: Array | None, shape: tuple[int, int, int, int]
) -> tuple[Array, Array, Array, Array]:
    """Gradients, means, rates and weights, shaped (N, G, C/G, cells) or to broadcast to it."""
    images, group, channels_per_group, _ = shape
    centre, rate = (values.reshape(images, group, 1, 1) for values in (mean, rstd))
    scale = np.ones((1, 1, 1, 1)) if weight is None else weight.reshape(1, group, channels_per_group, 1)
    return grad.reshape(shape), centre, rate, scale


def _errors_apart(
    grad: Array, x: Array, mean: Array, rate: Array, scale: Array, axes: tuple[Axes, Axes], u: float, u_out: float
) -> tuple[Array, Array, Array]:
    """The errors of dx, dweight and dbias in kernels that sum gradient·x and gradient·mean separately.

    They calculate dx = rate·h + b·x + c with b = (mean·sum(h) - sum(h·x))·rate³ / n and c = -b·mean - sum(h)·rate / n.
    With Z = (|x| + |mean|)·rate and γ for n + 8 roundings, b has the error γ·mean(|h|·Z) besides q = mean(h·z). The
    error is the same in b·x and in c, so it moves dx by its product with the distance |z|. The roundings of b·x and of
    b·mean differ: a few u of Z, times q and the error of b, which is far larger where the input is nearly constant.

    Args:
        mean, rate: As recorded, shaped to broadcast.
        scale: The weights, shaped to broadcast.
        axes: Those that are normalized together, and those that a weight is shared over.
        u, u_out: Unit roundoffs of sums and of results.

    Source: PyTorch, aten/src/ATen/native/cpu/layer_norm_kernel.cpp and group_norm_kernel.cpp.
    """
    together, shared = axes
    n, statistic_terms = (math.prod(grad.shape[a] for a in summed_axes) for summed_axes in axes)
    scaled_grad, z, deviation = grad * scale, (np.abs(x) + np.abs(mean)) * rate, (x - mean) * rate
    h, share = np.abs(scaled_grad), gamma(n + 8, u)
    means, slope_off = h.mean(together, keepdims=True), share * (h * z).mean(together, keepdims=True)
    slope = np.abs((scaled_grad * deviation).mean(together, keepdims=True)) + slope_off
    rounded = (12 * u + 4 * u_out) * (h + means + z * slope)
    dx = rate * (share * means + np.abs(deviation) * slope_off + rounded)
    added = gamma(statistic_terms + 8, u) + 2 * u_out
    dx = carried(dx, (h * z).sum(together, keepdims=True) / np.minimum(rate, 1), u)
    return dx, added * (np.abs(grad) * z).sum(shared), added * np.abs(grad).sum(shared)


def moved(
    op: str, arguments: Mapping[str, Any], exact: tuple[Array, Array], errors: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """How far rounded statistics move the gradients of input, weight and bias, each of which is flattened.

    With a mean that is off by d and a rate that is off by a share p, z becomes (z - d·rate)·(1 + p). So with
    q = mean(h·z), e = |d|·rate and c = 1 + |p|, the product z·q of the third path moves by at most

        s = (c² - 1)·|z·q| + c²·(e·|q| + e·|z·mean(h)| + e²·|mean(h)|),

    dx by rate·(|p|·|h - mean(h) - z·q| + c·s), and dweight by |p|·|sum of grad·z| + c·e·|sum of grad| for each part of
    its sum that shares a mean and a rate.

    Args:
        op: A backward operation of a batch norm in training, of a layer norm or of a group norm.
        arguments: Its arguments, by name.
        exact: Means and rates.
        errors: How far the recorded ones are from them.
    """
    x, weight = arguments["input"], arguments["weight"]
    shape: Axes
    together: Axes
    shared: Axes
    line: Axes
    if op == "native_layer_norm_backward":
        cells = math.prod(arguments["normalized_shape"])
        shape, together, shared, line = (-1, cells), (1,), (0,), (1, cells)
    else:
        groups = arguments["group"] if op == "native_group_norm_backward" else x.shape[1]
        shape, line = (len(x), groups, x.shape[1] // groups, math.prod(x.shape[2:])), (1, groups, -1, 1)
        together, shared = ((2, 3), (0, 3)) if op == "native_group_norm_backward" else ((0, 3), (0, 3))
    grad, x = arguments["grad_out"].reshape(shape), x.reshape(shape)
    statistic_shape = tuple(1 if axis in together else n for axis, n in enumerate(x.shape))
    mean, rate, d, rate_error = (values.reshape(statistic_shape) for values in (*exact, *errors))
    h = grad if weight is None else grad * weight.reshape(line)
    z, e, p = (x - mean) * rate, d * rate, rate_error / rate
    c = 1 + p
    average, q = np.abs(h.mean(together, keepdims=True)), (h * z).mean(together, keepdims=True)
    rate_term = (c * c - 1) * np.abs(z * q) + c * c * (e * np.abs(q) + e * np.abs(z) * average + e * e * average)
    dx = rate * (p * np.abs(h - h.mean(together, keepdims=True) - z * q) + c * rate_term)
    alike = tuple(axis for axis in shared if axis in together)
    sums = [np.abs(terms.sum(alike, keepdims=True)) for terms in (grad * z, grad)]
    dw = (p * sums[0] + c * e * sums[1]).sum(shared).ravel()
    return dx.ravel(), dw, np.zeros_like(dw)


def _statistics(
    x: Array, running_mean: Array | None, running_var: Array | None, save_mean: Array | None, save_invstd: Array | None,
    train: bool, eps: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Mean and rate of each channel, shaped to broadcast."""
    if train and save_mean is not None and save_invstd is not None:
        return _line(save_mean, x), _line(save_invstd, x)
    if train or running_mean is None or running_var is None:
        raise UsageError("batch norm needs the statistics that its forward pass recorded.")
    return _line(running_mean, x), 1 / np.sqrt(_line(running_var, x) + eps)


def _refuse_large(*arrays: Array | None) -> None:
    """Refuse numbers whose products may overflow on the way.

    Raises:
        UsageError: there are such.
    """
    if any(array is not None and (np.abs(array) > LARGEST).any() for array in arrays):
        raise UsageError("the gradient of a normalization for infinite or huge numbers depends on the kernel.")


def _three_paths(h: Array, z: Array, rate: Array, axes: Axes) -> Array:
    """The gradient of cells that are normalized together over `axes`."""
    return np.asarray(rate * (h - h.mean(axes, keepdims=True) - z * (h * z).mean(axes, keepdims=True)))


def _errors(
    grad: Array, deviation: Array, rate: Array, scale: Array, axes: Axes, depth: int, u: float
) -> tuple[Array, Array, Array]:
    """How far kernels may miss dx, dweight and dbias, where all three are summed over `axes`.

    The two means are sums of terms that go through at most `depth` additions, with 4 roundings of each term; the three
    paths, their products with rate and weight and their differences round at most 8 times.

    Args:
        deviation: Distances from the mean.
        scale: |weight|.
        depth: In how many additions a term is.
        u: Unit roundoff.
    """
    share = gamma(depth + 4, u)
    h, z = np.abs(grad) * scale, np.abs(deviation) * rate
    means, slope_size = h.mean(axes, keepdims=True), (h * z).mean(axes, keepdims=True)
    dx = rate * (share * (means + z * slope_size) + 8 * u * (h + means + z * slope_size))
    dw = share * (np.abs(grad) * z).sum(axes) + 4 * u * np.abs((grad * deviation * rate).sum(axes))
    added = np.abs(grad * deviation).sum(axes, keepdims=True)
    return carried(dx, added * scale, u), carried(dw, added.ravel(), u), share * np.abs(grad).sum(axes)


def _line(values: Array, x: Array) -> Array:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _requested_results(results: tuple[Array, ...], output_mask: Sequence[bool]) -> tuple[Array, ...]:
    return tuple(result for result, is_requested in zip(results, output_mask, strict=True) if is_requested)
