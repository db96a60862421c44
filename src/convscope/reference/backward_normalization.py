"""Normalization backward: batch, layer and group norm. Uses precision and NumPy.

y = (x - mean)·rate·weight + bias, rate = 1 / sqrt(variance + eps). With h = grad·weight and z = (x - mean)·rate, the
Jacobian of a row of n cells that are normalized together is

    dx = rate·(h - mean(h) - z·mean(h·z)),    dweight = sum of grad·z,    dbias = sum of grad:

straight, through the mean, and through the variance. Means and rates are those that the forward pass recorded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.reference.normalization import Layout
from convscope.reference.precision import carried, gamma
from convscope.typing import Array

Axes = tuple[int, ...]
LARGEST = 1e12
"""Beyond it products of three, as kernels form them, may overflow float32, and infinities become NaN or not."""


class Statistics(NamedTuple):
    """What the cells of a row were normalized by, shaped to broadcast."""

    mean: Array
    rate: Array
    scale: Array = np.asarray(1.0)
    """The weights."""


class Totals(NamedTuple):
    """Sums over the cells that share something, with h = grad·scale and z = (x - mean)·rate."""

    cells: int
    plane: int
    """Cells of a plane of the image, where the kernel adds planes."""
    pulled: Array
    """Of h."""
    bent: Array
    """Of h·z."""
    size: Array
    """Of |h|."""
    near: Array
    """Of |h·z|."""
    far: Array
    """Of |h|·(|x| + |mean|)·rate."""

    def plus(self, other: "Totals") -> "Totals":
        """The totals of both parts."""
        return Totals(self.cells + other.cells, self.plane, *(a + b for a, b in zip(self[2:], other[2:], strict=True)))


def totals(grad: Array, x: Array, row: Statistics, axes: Axes) -> Totals:
    """The totals over `axes`, which are kept with length 1."""
    h, z = grad * row.scale, (x - row.mean) * row.rate
    size = np.abs(h)
    sums = (h, h * z, size, size * np.abs(z), size * (np.abs(x) + np.abs(row.mean)) * row.rate)
    count, plane = math.prod(grad.shape[a] for a in axes), math.prod(grad.shape[2:])
    return Totals(count, plane, *(each.sum(axes, keepdims=True) for each in sums))


def batch_norm_backward(
    grad_out: Array, x: Array, weight: Array | None, running_mean: Array | None, running_var: Array | None,
    save_mean: Array | None, save_invstd: Array | None, train: bool, eps: float,
    output_mask: Sequence[bool] = (True, True, True), layout: Layout = "other", row_totals: Totals | None = None,
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
        output_mask: Which of the gradients of input, weight and bias are requested.
        layout: Memory format of the input. Affects only the order in which the kernel adds.
        row_totals: The totals of the channel, where the arrays are a part of it.

    Raises:
        UsageError: the statistics it needs are missing.
    """
    axes = (0, *range(2, x.ndim))
    refuse_large(grad_out, x, weight)
    mean, rate = _statistics(x, running_mean, running_var, save_mean, save_invstd, train, eps)
    scale = np.asarray(1.0) if weight is None else _line(weight, x)
    dx = grad_out * scale * rate if output_mask[0] else None
    if train and output_mask[0]:
        row = Statistics(mean, rate, scale)
        dx = _three_paths(grad_out, x, row, row_totals or totals(grad_out, x, row, axes))
    learnt = _scale_and_shift(grad_out, x, Statistics(mean, rate), axes, output_mask, row_totals)
    return _requested((dx, *learnt), output_mask)


def batch_norm_backward_error(
    _y: object, u: float, grad_out: Array, x: Array, weight: Array | None, running_mean: Array | None,
    running_var: Array | None, save_mean: Array | None, save_invstd: Array | None, train: bool, eps: float,
    output_mask: Sequence[bool] = (True, True, True), layout: Layout = "other", row_totals: Totals | None = None,
    u_out: float = 0.0,
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
    plane = math.prod(x.shape[2:]) if row_totals is None else row_totals.plane
    cells = math.prod(x.shape[a] for a in axes) if row_totals is None else row_totals.cells
    in_lanes = layout == "contiguous" and plane > 1 and not u_out and u > 2.0**-40
    share = gamma((min(cells, plane // 4 + 16) if in_lanes else cells) + 4, u)
    dx = None
    if output_mask[0]:
        row = Statistics(mean, rate, scale)
        total = row_totals or (totals(grad_out, x, row, axes) if train else None)
        dx = (
            6 * u * np.abs(grad_out) * scale * rate
            if total is None or not train
            else _moved_together(np.abs(grad_out) * scale, np.abs(x - mean) * rate, rate, total, share, u)
        )
        if train and total is not None:
            dx = dx + 3 * u_out * (np.abs(grad_out) * scale + total.size / cells) * rate
    dw, db = None, None
    if any(output_mask[1:]):
        total = row_totals or totals(grad_out, x, Statistics(mean, rate), axes)
        dw = carried(share * total.near + 4 * u * np.abs(total.bent), total.near / rate, u).ravel()
        db = share * total.size.ravel()
    return _requested((dx, dw, db), output_mask)


def layer_norm_backward(
    grad_out: Array, x: Array, normalized_shape: Sequence[int], mean: Array, rstd: Array, weight: Array | None = None,
    bias: Array | None = None, output_mask: Sequence[bool] = (True, True, True), row_totals: Totals | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """native_layer_norm_backward: each row by itself; a row is the last axes, those of `normalized_shape`.

    Args:
        grad_out, x: The gradient of the normalized cells, and what was normalized, shape (..., *normalized_shape).
        normalized_shape: The lengths of the last axes.
        mean, rstd: Each row's, as recorded, shape (..., 1, 1).
        weight, bias: Shape `normalized_shape`, or None.
        output_mask: Which of the gradients of input, weight and bias are requested.
        row_totals: The totals of the row, or of the column that shares a weight, where the arrays are a part of it.
    """
    lead = x.ndim - len(normalized_shape)
    rows, rest = tuple(range(lead)), tuple(range(lead, x.ndim))
    refuse_large(grad_out, x, weight)
    row = Statistics(mean, rstd, np.asarray(1.0) if weight is None else weight)
    dx = _three_paths(grad_out, x, row, row_totals or totals(grad_out, x, row, rest)) if output_mask[0] else None
    learnt = _scale_and_shift(grad_out, x, Statistics(mean, rstd), rows, output_mask, row_totals)
    return _requested((dx, *learnt), output_mask)


def layer_norm_backward_error(
    _y: object, u: float, grad_out: Array, x: Array, normalized_shape: Sequence[int], mean: Array, rstd: Array,
    weight: Array | None = None, bias: Array | None = None, output_mask: Sequence[bool] = (True, True, True),
    row_totals: Totals | None = None, u_out: float = 0.0,
) -> tuple[Array, ...]:  # fmt: skip
    """The same bound as `_errors_apart`."""
    lead = x.ndim - len(normalized_shape)
    rows, rest = tuple(range(lead)), tuple(range(lead, x.ndim))
    row = Statistics(mean, rstd, np.asarray(1.0) if weight is None else weight)
    return _requested(
        _errors_apart(grad_out, x, row, (rest, rows), u, u_out, output_mask, row_totals, in_lanes=True), output_mask
    )


def group_norm_backward(
    grad_out: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, images: int, channels: int, cells: int,
    group: int, output_mask: Sequence[bool] = (True, True, True), row_totals: Totals | None = None,
    layout: Layout = "other",
) -> tuple[Array, ...]:  # fmt: skip
    """native_group_norm_backward: the channels of a group together, each image by itself.

    Args:
        grad_out, x: The gradient of the normalized cells, and what was normalized, shape (N, C, ...).
        mean, rstd: Each image and group's, as recorded, shape (N, groups).
        weight: Shape (C,), or None.
        images, channels, cells: N, C and the cells of one channel.
        group: How many groups the channels form.
        output_mask: Which of the gradients of input, weight and bias are requested.
        row_totals: The totals of the group, or of the channel, where the arrays are a part of it.
        layout: Memory format of the input. Affects only the order in which the kernel adds.
    """
    shape = (images, group, channels // group, cells)
    g, y, row = _grouped(grad_out, x, mean, rstd, weight, shape)
    refuse_large(grad_out, x, weight)
    dx = None
    if output_mask[0]:
        dx = _three_paths(g, y, row, row_totals or totals(g, y, row, (2, 3))).reshape(x.shape)
    learnt = _scale_and_shift(g, y, Statistics(row.mean, row.rate), (0, 3), output_mask, row_totals)
    return _requested((dx, *(None if gradient is None else gradient.ravel() for gradient in learnt)), output_mask)


def group_norm_backward_error(
    _y: object, u: float, grad_out: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, images: int,
    channels: int, cells: int, group: int, output_mask: Sequence[bool] = (True, True, True),
    row_totals: Totals | None = None, layout: Layout = "other", u_out: float = 0.0,
) -> tuple[Array, ...]:  # fmt: skip
    """The same bound as `_errors_apart`."""
    shape = (images, group, channels // group, cells)
    g, y, row = _grouped(grad_out, x, mean, rstd, weight, shape)
    in_lanes = layout == "contiguous"
    dx, dw, db = _errors_apart(
        g, y, row, ((2, 3), (0, 3)), u, u_out, output_mask, row_totals, in_lanes=in_lanes, plane=cells
    )
    dx = None if dx is None else dx.reshape(x.shape)
    return _requested((dx, *(None if gradient is None else gradient.ravel() for gradient in (dw, db))), output_mask)


def _grouped(
    grad: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, shape: tuple[int, int, int, int]
) -> tuple[Array, Array, Statistics]:
    """Gradients, cells and what normalized them, shaped (N, G, C/G, cells) or to broadcast to it."""
    images, group, each, _ = shape
    centre, rate = (values.reshape(images, group, 1, 1) for values in (mean, rstd))
    scale = np.ones((1, 1, 1, 1)) if weight is None else weight.reshape(1, group, each, 1)
    return grad.reshape(shape), x.reshape(shape), Statistics(centre, rate, scale)


def _errors_apart(
    grad: Array, x: Array, row: Statistics, axes: tuple[Axes, Axes], u: float, u_out: float,
    output_mask: Sequence[bool], row_totals: Totals | None, *, in_lanes: bool, plane: int = 0,
) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    """The errors of dx, dweight and dbias in kernels that sum gradient·x and gradient·mean separately.

    They calculate dx = rate·h + b·x + c with b = (mean·sum(h) - sum(h·x))·rate³ / n and c = -b·mean - sum(h)·rate / n.
    With Z = (|x| + |mean|)·rate and γ for D + 8 roundings, b has the error γ·mean(|h|·Z) besides q = mean(h·z). The
    error is the same in b·x and in c, so it moves dx by its product with the distance |z|. The roundings of b·x and of
    b·mean differ: a few u of Z, times q and the error of b, which is far larger where the input is nearly constant.

    D is n, unless kernels add in the lanes of a vector (4 of them or more): of layer norm the row, of a group norm of
    contiguous memory each channel, then the channels. A term is in no more than a quarter of both and four times 7
    additions; the cells of a channel and the channels are together no more than n + 1. Threads of a GPU share a row by
    at least 32. The sums for weights and biases go through the rows of a layer norm one after the other; of a group
    norm they are those of the channels, added over the images.

    Args:
        row: What normalized the cells, as recorded.
        axes: Those that are normalized together, and those that a weight is shared over.
        u, u_out: Unit roundoffs of sums and of results.
        output_mask: Which are requested.
        row_totals: The totals over one of the two, where the arrays are a part of it.
        in_lanes: Whether the kernel adds a row in the lanes of a vector.
        plane: The cells of a channel of one image, if weights and biases add these in lanes.

    Source: PyTorch, aten/src/ATen/native/cpu/layer_norm_kernel.cpp and group_norm_kernel.cpp.
    """
    together, shared = axes
    dx, dw, db = None, None, None
    if output_mask[0]:
        total = row_totals or totals(grad, x, row, together)
        n = total.cells
        share = gamma((min(n, n // 4 + 32) if in_lanes and u > 2.0**-40 else n) + 8, u)
        h, z, distance = np.abs(grad * row.scale), (np.abs(x) + np.abs(row.mean)) * row.rate, (x - row.mean) * row.rate
        means, slope_off = total.size / n, share * total.far / n
        slope = np.abs(total.bent / n) + slope_off
        rounded = (12 * u + 4 * u_out) * (h + means + z * slope)
        dx = row.rate * (share * means + np.abs(distance) * slope_off + rounded)
        dx = carried(dx, total.far / np.minimum(row.rate, 1), u)
    if any(output_mask[1:]):
        total = row_totals or totals(grad, x, Statistics(row.mean, row.rate), shared)
        many = total.cells
        depth = min(many, plane // 4 + many // plane + 24) if plane and in_lanes and u > 2.0**-40 else many
        added = gamma(depth + 8, u) + 2 * u_out
        dw, db = added * total.far.squeeze(shared), added * total.size.squeeze(shared)
    return dx, dw, db


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


def refuse_large(*arrays: Array | None) -> None:
    """Refuse numbers whose products may overflow on the way.

    Raises:
        UsageError: there are such.
    """
    if any(array is not None and (np.abs(array) > LARGEST).any() for array in arrays):
        raise UsageError("the gradient of a normalization for infinite or huge numbers depends on the kernel.")


def _three_paths(grad: Array, x: Array, row: Statistics, total: Totals) -> Array:
    """The gradient of cells that are normalized together."""
    z = (x - row.mean) * row.rate
    return np.asarray(row.rate * (grad * row.scale - total.pulled / total.cells - z * (total.bent / total.cells)))


def _scale_and_shift(
    grad: Array, x: Array, row: Statistics, axes: Axes, output_mask: Sequence[bool], row_totals: Totals | None
) -> tuple[Array | None, Array | None]:
    """The gradients of weight and bias: sums over `axes`."""
    if not any(output_mask[1:]):
        return None, None
    total = row_totals or totals(grad, x, row, axes)
    return total.bent.squeeze(axes), total.pulled.squeeze(axes)


def _moved_together(h: Array, z: Array, rate: Array, total: Totals, share: float, u: float) -> Array:
    """How far kernels may miss dx, where mean and slope are summed over the same cells.

    The two means are sums of terms that go through the same number of additions at most, with 4 roundings of each term;
    the three paths, their products with rate and weight and their differences round at most 8 times.

    Args:
        h, z: Magnitudes of gradient times weight, and of normalized cells.
        share: The relative error of the sums.
        u: Unit roundoff.
    """
    means, bent = total.size / total.cells, total.near / total.cells
    dx = rate * (share * (means + z * bent) + 8 * u * (h + means + z * bent))
    return carried(dx, total.near / rate, u)


def _line(values: Array, x: Array) -> Array:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _requested(results: Sequence[Array | None], output_mask: Sequence[bool]) -> tuple[Array, ...]:
    return tuple(result for result, asked in zip(results, output_mask, strict=True) if asked and result is not None)
