"""Convolution backward: the gradients of input, kernels and bias, one kernel position at a time. Uses precision.

A kernel position reads one shifted, strided view of the input. The view times the gradients, summed, is the gradient of
the kernel position; the gradients times its number are added to the view for the gradient of the input. Arrays come in
the type that they were recorded in, and are widened some rows at a time.
"""

import itertools
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict, Unpack

import numpy as np

from convscope.errors import UsageError
from convscope.reference.convolution import Sizes, per_axis
from convscope.reference.parts import boxes
from convscope.reference.precision import carried, gamma
from convscope.typing import Array, Index

Change = Callable[[Array], Array]
"""Applied to all numbers before they are multiplied: nothing, or their magnitudes, or 1 where they are not zero."""


class Geometry(TypedDict):
    """Where a kernel meets its input, as the forward convolution takes it."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int


class BackwardGeometry(Geometry):
    """The other arguments of the operation: geometry, direction, and the requested gradients."""

    transposed: bool
    output_mask: Sequence[bool]


WALKS = platform.machine().lower() in {"amd64", "i386", "i686", "x86_64"}
"""Whether kernels add a kernel's gradient place after place here, see `_walked`."""
LANES = 64
CELLS = 2**19
"""Cells of both sides that are multiplied at a time, about: 4 MB of float64."""
FEW = 1000
"""Terms of a sum up to which its bound in any order is narrow enough: a thousand roundings of float32 are 6e-5."""


def convolution_backward(
    grad_output: Array,
    x: Array,
    weight: Array,
    bias_sizes: Sequence[int] | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    transposed: bool = False,
    output_padding: Sizes = 0,
    groups: int = 1,
    output_mask: Sequence[bool] = (True, True, True),
) -> tuple[Array, ...]:
    """The gradients of a convolution's input, kernels and bias, those that `output_mask` asks for.

    >>> one = np.ones((1, 1, 1, 1))
    >>> [g.ravel().tolist() for g in convolution_backward(one, np.full((1, 1, 2, 2), 3.0), np.full((1, 1, 2, 2), 5.0))]
    [[5.0, 5.0, 5.0, 5.0], [3.0, 3.0, 3.0, 3.0], [1.0]]

    Args:
        grad_output: The gradient of the result, shape (N, K, P, Q), or any other number of spatial axes.
        x: The input, shape (N, C, H, W).
        weight: The kernels, shape (K, C / groups, R, S); transposed (C, K / groups, R, S).
        bias_sizes: Shape of the bias; its gradient has one number for each channel of the result in any case.
        stride, padding, dilation, transposed, output_padding, groups: As in the forward convolution.
        output_mask: Which of the three gradients are requested.

    Returns:
        The requested ones, in the shapes of input, kernels and bias.

    Raises:
        UsageError: padding meets infinities or NaN: some kernels multiply it, which makes NaN, and some leave it out.
    """
    bordered = transposed or np.any(padding)
    if bordered and not all(np.isfinite(array).all() for array in (grad_output, x, weight)):
        raise UsageError("the gradient of a padded convolution with infinities or NaN depends on the kernel.")
    geometry: Geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return _gradients(_same, grad_output, x, weight, {**geometry, "transposed": transposed, "output_mask": output_mask})


def convolution_backward_error(
    _y: object,
    u: float,
    grad_output: Array,
    x: Array,
    weight: Array,
    bias_sizes: Sequence[int] | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    transposed: bool = False,
    output_padding: Sizes = 0,
    groups: int = 1,
    output_mask: Sequence[bool] = (True, True, True),
    u_out: float = 0.0,
) -> tuple[Array, ...]:
    """Plain sums of T products in any order: gamma(T) of the sum of magnitudes (Higham, section 3.1); or `_walked`.

    T counts what is not zero, because adding a zero is exact: behind a relu or a max pooling most terms are. Kernels of
    narrow types may put sums down in their type: of the input's gradient the sum of each kernel position, of the
    others the sum so far after each image.
    """
    arguments: BackwardGeometry = {
        "stride": stride, "padding": padding, "dilation": dilation, "transposed": transposed, "groups": groups,
        "output_mask": output_mask,
    }  # fmt: skip
    sizes = _gradients(np.abs, grad_output, x, weight, arguments)
    counts = _gradients(_occupied, grad_output, x, weight, arguments)
    images, taps = len(x), math.prod(weight.shape[2:])
    addition_counts = [n for n, is_requested in zip((taps, images, images), output_mask, strict=True) if is_requested]
    any_order = [_gamma(count, u) * size for size, count in zip(sizes, counts, strict=True)]
    if WALKS and u > 2.0**-40:
        wide, narrow = (grad_output, x) if transposed else (x, grad_output)
        geometry: Geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        rows = {
            1: lambda: _kernel_rows(wide, narrow, weight.shape, **geometry),
            2: lambda: _bias_images(grad_output),
        }
        for position, output in enumerate(n for n, is_requested in enumerate(output_mask) if is_requested):
            if output in rows and counts[position].max(initial=0) > FEW:
                walked = _walked(rows[output](), sizes[position], counts[position], u)
                any_order[position] = np.minimum(any_order[position], walked)
    return tuple(
        carried(error + gamma(times + 1, u_out) * size, size, u_out or u)
        for error, size, times in zip(any_order, sizes, addition_counts, strict=True)
    )


def _same(array: Array) -> Array:
    return array


def _occupied(array: Array) -> Array:
    """1 where a number is not zero."""
    return (array != 0).astype(np.float64)


def _gradients(
    change: Change, grad_output: Array, x: Array, weight: Array, arguments: BackwardGeometry
) -> tuple[Array, ...]:
    """The gradients of a convolution whose numbers are all changed before."""
    geometry: Geometry = {name: arguments[name] for name in Geometry.__annotations__}  # type: ignore[assignment, literal-required]
    transposed, asked = arguments["transposed"], arguments["output_mask"]
    wide, narrow = (grad_output, x) if transposed else (x, grad_output)
    errors: list[Array] = []
    if asked[0]:
        spread = _gathered if transposed else _scattered
        errors.append(spread(change(_widened(grad_output)), change(_widened(weight)), x.shape, **geometry))
    if asked[1]:
        errors.append(_kernels(change, wide, narrow, weight.shape, **geometry))
    if asked[2]:
        errors.append(_channel_sums(change, grad_output))
    return tuple(errors)


def _widened(array: Array) -> Array:
    return array.astype(np.float64, copy=False)


def _channel_sums(change: Change, grad: Array) -> Array:
    """The sum of each channel, shape (K,)."""
    sums = np.zeros(grad.shape[1])
    for box in boxes(grad.shape, range(grad.ndim)):
        sums[box[1]] += change(_widened(grad[box])).sum((0, *range(2, grad.ndim)))
    return sums


def _walked(rows: Iterator[tuple[Array, Array]], size: Array, count: Array, u: float) -> Array:
    """The error of kernels that add place after place: u·(T·B + size) / (1 - T·u).

    Kernels of x86 processors (oneDNN) have channels in the lanes of their vectors and go through the places in their
    order, cut into ranges for tiles and threads, whose sums are joined. Any partial sum is then one of successive rows,
    and of parts of a row at both ends: at most B, the span of the running sums over rows and twice the largest part.
    T - 1 additions round what they give, no more than B and the error E so far: E <= u·(T·(B + E) + size).

    Args:
        rows: The sum of each row in the order of the walk, and its largest part, in the shape of the gradient.
        size: The sum of all magnitudes.
        count: T, how many products are not zero.
        u: Unit roundoff.
    """
    total, low, high, row = (np.zeros(size.shape) for _ in range(4))
    for row_sum, magnitude in rows:
        total = total + row_sum
        low, high, row = np.minimum(low, total), np.maximum(high, total), np.maximum(row, magnitude)
    share = count * u
    with np.errstate(invalid="ignore", divide="ignore"):
        error = u * (count * (high - low + 2 * row) + size) / (1 - share)
    return np.where((share < 1) & np.isfinite(error), error, np.inf)


def _bias_images(grad: Array) -> Iterator[tuple[Array, Array]]:
    """For each image, the sum of each channel and the largest partial sum in the kernels.

    An image is added in up to 64 lanes of vectors, cell by cell in turn. The partial sum of a lane is at most the span
    of its running sums, and that of several lanes the sum of these.
    """
    for image in grad:
        planes = image.reshape(len(image), -1)
        each = [_lanes(planes[box[0]]) for box in boxes(planes.shape, (0,))]
        yield np.concatenate([total for total, _ in each]), np.concatenate([partial for _, partial in each])


def _lanes(planes: Array) -> tuple[Array, Array]:
    """(K, cells) -> the sum of each plane and its largest partial sum in lanes, shape (K,)."""
    flat = _widened(planes)
    lanes = np.pad(flat, ((0, 0), (0, -flat.shape[1] % LANES))).reshape(len(flat), -1, LANES)
    running = lanes.cumsum(1)
    span = np.maximum(running.max(1), 0) - np.minimum(running.min(1), 0)
    return flat.sum(1), np.minimum(span.sum(1), np.abs(flat).sum(1))


def _kernel_rows(
    wide: Array, narrow: Array, shape: tuple[int, ...], **geometry: Unpack[Geometry]
) -> Iterator[tuple[Array, Array]]:
    """For each row of each image, the sum that `_kernels` adds there, and its magnitudes."""
    groups = geometry["groups"]
    units, width = narrow.shape[1] // groups, narrow.shape[-1]
    most = max(1, 8 * CELLS // math.prod(shape))
    for seen, gradients in _meetings(
        _same, wide, narrow, shape, most=most, **geometry
    ):  # (G, C/G, P', Q'), (G, K/G, P, Q)
        lines = math.prod(gradients.shape[2:-1])
        lines_of_gradients = gradients.reshape(groups, units, lines, width).transpose(0, 2, 1, 3)  # (G, lines, K/G, Q)
        sums, sizes = (np.empty((lines, groups, units, *shape[1:])) for _ in range(2))
        for tap, met in _positions(gradients.shape[2:], shape[2:], **geometry):
            window = seen[met].reshape(groups, -1, lines, width).transpose(0, 2, 3, 1)  # (G, lines, Q, C/G)
            sums[tap] = (lines_of_gradients @ window).transpose(1, 0, 2, 3)
            sizes[tap] = (np.abs(lines_of_gradients) @ np.abs(window)).transpose(1, 0, 2, 3)
        for row_sum, magnitude in zip(sums, sizes, strict=True):
            yield row_sum.reshape(shape), magnitude.reshape(shape)


def _gamma(counts: Array, u: float) -> Array:
    """gamma of each count."""
    share = (counts + 1) * u
    return np.where(share < 1, share / np.where(share < 1, 1 - share, 1.0), np.inf)


def _scattered(grad: Array, weight: Array, shape: tuple[int, ...], **geometry: Unpack[Geometry]) -> Array:
    """(N, K, P, Q) -> (N, C, H, W): each output adds its gradient, times each kernel number, to its input cells."""
    padded, inner = _room(shape, grad.shape, weight.shape, **geometry)
    groups = geometry["groups"]
    out = np.zeros((shape[0], groups, shape[1] // groups, *padded))
    grouped_gradients = grad.reshape(grad.shape[0], groups, -1, *grad.shape[2:])  # (N, G, K/G, P, Q)
    kernels = weight.reshape(groups, -1, *weight.shape[1:])  # (G, K/G, C/G, R, S)
    for tap, cells_met in _positions(grad.shape[2:], weight.shape[2:], **geometry):
        out[cells_met] += np.einsum("ngk...,gkc->ngc...", grouped_gradients, kernels[tap], optimize=True)
    return np.ascontiguousarray(out.reshape(*shape[:2], *padded)[inner])


def _gathered(grad: Array, weight: Array, shape: tuple[int, ...], **geometry: Unpack[Geometry]) -> Array:
    """For transposed convolutions, (N, K, P, Q) -> (N, C, H, W): each input cell gathers from the outputs it wrote."""
    padded, inner = _room(grad.shape, shape, weight.shape, **geometry)
    groups = geometry["groups"]
    room = np.zeros((*grad.shape[:2], *padded))
    room[inner] = grad
    grouped = room.reshape(grad.shape[0], groups, -1, *padded)  # (N, G, K/G, P', Q')
    kernels = weight.reshape(groups, -1, *weight.shape[1:])  # (G, C/G, K/G, R, S)
    out = np.zeros((shape[0], groups, shape[1] // groups, *shape[2:]))
    for tap, cells_met in _positions(shape[2:], weight.shape[2:], **geometry):
        out += np.einsum("ngk...,gck->ngc...", grouped[cells_met], kernels[tap], optimize=True)
    return out.reshape(shape)


def _kernels(change: Change, wide: Array, narrow: Array, shape: tuple[int, ...], **geometry: Unpack[Geometry]) -> Array:
    """For each position, what it met times what was there: `narrow` has one cell for each place of the kernel."""
    groups = geometry["groups"]
    out = np.zeros((groups, narrow.shape[1] // groups, *shape[1:]))
    for room, passed in _meetings(change, wide, narrow, shape, **geometry):
        still = passed.reshape(groups, out.shape[1], -1)  # (G, K/G, PQ)
        for tap, met in _positions(passed.shape[2:], shape[2:], **geometry):
            window = room[met].reshape(groups, out.shape[2], -1)  # (G, C/G, PQ)
            out[tap] += still @ window.swapaxes(1, 2)
    return out.reshape(shape)


def _meetings(
    change: Change, wide: Array, narrow: Array, shape: tuple[int, ...], most: int = CELLS, **geometry: Unpack[Geometry]
) -> Iterator[tuple[Array, Array]]:
    """Both sides by groups, some rows of an image at a time: (G, C/G, P', Q') with its padding, and (G, K/G, P, Q)."""
    padded, inner = _room(wide.shape, narrow.shape, shape, **geometry)
    groups, rank = geometry["groups"], len(shape) - 2
    step, spread = per_axis(geometry["stride"], rank)[0], per_axis(geometry["dilation"], rank)[0]
    before, span, rows = per_axis(geometry["padding"], rank)[0], spread * (shape[2] - 1), narrow.shape[2]
    line = step * wide.shape[1] * math.prod(padded[1:]) + narrow.shape[1] * math.prod(narrow.shape[3:])
    each = min(most, max(1, CELLS // line))
    for image, first in itertools.product(range(len(wide)), range(0, rows, each)):
        passed = narrow[image, :, first : first + each]
        start, count = first * step - before, (passed.shape[1] - 1) * step + span + 1
        room = np.zeros((wide.shape[1], count, *padded[1:]))
        seen = wide[image, :, max(0, start) : max(0, start + count)]
        at = max(0, -start)
        room[(slice(None), slice(at, at + seen.shape[1]), *inner[2:])] = seen
        by_group = change(_widened(passed)).reshape(groups, -1, *passed.shape[1:])
        yield change(room).reshape(groups, -1, *room.shape[1:]), by_group


def _room(
    wide: tuple[int, ...],
    narrow: tuple[int, ...],
    weight: tuple[int, ...],
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> tuple[list[int], Index]:
    """The padded size that all kernel positions stay in, and where the tensor itself is in it."""
    rank = len(wide) - 2
    axis_settings = zip(
        wide[2:],
        narrow[2:],
        weight[2:],
        *(per_axis(v, rank) for v in (stride, padding, dilation)),
        strict=True,
    )
    sizes, inner = [], []
    for size, places, kernel, step, pad, spread in axis_settings:
        sizes.append(max(size + 2 * pad, (places - 1) * step + spread * (kernel - 1) + 1))
        inner.append(slice(pad, pad + size))
    return sizes, (..., *inner)


def _positions(
    places: Sequence[int], kernel: Sequence[int], stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Iterator[tuple[Index, Index]]:
    """Every kernel position, and the padded cells that it meets, both as an index of the last axes."""
    rank = len(kernel)
    step, spread = per_axis(stride, rank), per_axis(dilation, rank)
    for tap in np.ndindex(*kernel):
        cells_met = [
            slice(tap_index * d, tap_index * d + (count - 1) * s + 1, s)
            for tap_index, d, s, count in zip(tap, spread, step, places, strict=True)
        ]
        yield (..., *tap), (..., *cells_met)
