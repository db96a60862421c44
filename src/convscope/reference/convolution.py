"""Convolution: a window of the input times a kernel, summed; and its transpose. Any number of spatial axes.

Uses errors, precision and NumPy. Like PyTorch it does not flip the kernel (cross-correlation).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from convscope.errors import ShapeError
from convscope.reference.precision import carried, gamma
from convscope.typing import Array, Index

Sizes = int | Sequence[int]
Padding = Sizes | str | Sequence[tuple[int, int]]

BLOCK = 2**19
"""Cells of the unfolded input that exist at a time: 4 MB of float64, which a processor's cache holds."""


def convolution(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    transposed: bool = False,
    output_padding: Sizes = 0,
    groups: int = 1,
    multiplies_padding: bool = True,
) -> Array:
    """Slide `weight` over `x` and sum the products, or the transpose of that.

    >>> convolution(np.ones((1, 2, 5, 6)), np.ones((3, 2, 2, 3)), None)[0, 0, 0, 0]
    np.float64(12.0)

    Args:
        x: Input, shape (N, C, H, W), or any other number of spatial axes.
        weight: Kernels, shape (K, C / groups, R, S); transposed (C, K / groups, R, S).
        bias: One number per output channel, shape (K,), or None.
        stride: Step between windows, in input cells (transposed: in output cells); one per axis, or one for all.
        padding: Rings of zeros around the input (transposed: rings cut off the output); or "valid" for none,
            or "same" for as many as keep its size, the odd one at the end; or for each axis how many cells of them
            are before and after it.
        dilation: Step between the cells of one window.
        transposed: The transpose: each input cell adds itself times the kernel to the output.
        output_padding: Rows and columns to add at the end of a transposed output.
        groups: Channel groups that do not see each other.
        multiplies_padding: Whether the zeros of the padding are multiplied too: an infinite weight makes nan
            of them. Some kernels leave them out instead.

    Returns:
        Shape (N, K, P, Q), P = (H + 2·padding - dilation·(R - 1) - 1) // stride + 1; transposed
        P = (H - 1)·stride - 2·padding + dilation·(R - 1) + output_padding + 1.

    Raises:
        ShapeError: the kernels expect other channels, or are larger than the padded input.

    Source: PyTorch documentation, torch.nn.Conv2d and torch.nn.ConvTranspose2d.
    """
    rank = weight.ndim - 2
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    borders = borders_of(padding, weight.shape[2:], dilation)
    if transposed:
        out = _scatter(x, weight, stride, borders, dilation, per_axis(output_padding, rank), groups)
    elif multiplies_padding:
        out = _gather(x, weight, stride, borders, dilation, groups)
    else:
        out = _gather_inside(x, weight, stride, borders, dilation, groups)
    return out if bias is None else out + bias.reshape(-1, *[1] * rank)


def convolution_error(
    y: Array,
    u: float,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    transposed: bool = False,
    output_padding: Sizes = 0,
    groups: int = 1,
    u_out: float = 0.0,
    multiplies_padding: bool = True,
) -> Array:
    """A plain sum of T products and a bias, in any order: gamma(T + 1) of the sum of magnitudes (Higham, section 3.1).

    Each term meets one rounding of its product, at most T - 1 additions, and the addition of the bias. In the
    transpose a kernel position reaches an output cell only if the stride allows it, so fewer terms meet; float16 and
    bfloat16 kernels round the sum over the channels of each position, which float32 holds, and add the positions and
    the bias up in that type, one after the other (PyTorch, NaiveConvolutionTranspose2d.cpp). Of P positions that reach
    a cell, each sum S meets its own rounding and at most P more: gamma(P + 1) of all |S| and the bias, in which
    channels cancel. Each addition rounds the running sum R that it makes, which is smaller where signs differ: so the
    error is also at most (1 + u)^(P + 2) times the sum of u·(|S| + |R|), and the smaller of both is taken.
    """
    rank = weight.ndim - 2
    magnitude = convolution(
        np.abs(x), np.abs(weight), None if bias is None else np.abs(bias),
        stride, padding, dilation, transposed, output_padding, groups, multiplies_padding,
    )  # fmt: skip
    terms = weight[0].size
    if transposed:
        steps = [s // math.gcd(s, d) for s, d in zip(per_axis(stride, rank), per_axis(dilation, rank), strict=True)]
        reach = math.prod(-(-k // s) for k, s in zip(weight.shape[2:], steps, strict=True))
        terms = weight.shape[0] // groups * reach
        error = gamma(terms + 1, u) * magnitude
        if u_out:
            step, spacing, extra = (per_axis(setting, rank) for setting in (stride, dilation, output_padding))
            borders = borders_of(padding, weight.shape[2:], spacing)
            sums = _scatter(x, weight, step, borders, spacing, extra, groups, change=np.abs)
            running = _scatter(x, weight, step, borders, spacing, extra, groups, running=True)
            lost = u_out * (sums + running + np.abs(y))
            sums += 0.0 if bias is None else np.abs(bias).reshape(-1, *[1] * rank)
            walked = (lost + error) * (1 + u_out) ** (reach + 2) - error
            error = error + np.fmin(gamma(reach + 1, u_out) * (sums + error), walked)
        return carried(error, magnitude, u_out or u)
    return carried(gamma(terms + 1, u) * magnitude, magnitude, u)


def convolution_normwise(
    y: Array, u: float, x: Array, weight: Array, bias: Array | None = None, **geometry: Sizes
) -> Array:
    """Kernels that multiply in another basis: a share of the norms, the same for a whole plane.

    A Fourier transform of n points is within about 6·log2(n)·u of its norm (Higham, theorem 24.2); three of them
    and a sum over C channels give u·(C + 18·log2(n) + 2). A Winograd tile F(2x2, 3x3) enlarges its data by at most
    81 (the product of the 1-norms 3, 3 and 1.5 of its transforms, squared, is smaller) with a dozen roundings.
    Larger Winograd tiles lose more and are not covered.
    """
    rank, groups = weight.ndim - 2, int(geometry.get("groups", 1))  # type: ignore[arg-type]  # groups is one int
    n, channels = x.shape[0], x.shape[1]
    planes = np.sqrt((x.reshape(n, groups, channels // groups, -1) ** 2).sum(-1))  # (N, G, C/G)
    kernels = np.sqrt((weight.reshape(*weight.shape[:2], -1) ** 2).sum(-1))
    if geometry.get("transposed"):
        kernels = kernels.reshape(groups, channels // groups, -1)  # (G, C/G, K/G)
    else:
        kernels = kernels.reshape(groups, -1, channels // groups).transpose(0, 2, 1)
    norms = (planes[:, :, None] @ kernels).reshape(n, -1, *[1] * rank)  # (N, K, 1, 1)
    points = math.prod(x.shape[2:]) + weight[0, 0].size
    share = u * (channels // groups + 18 * math.log2(points) + 2 + 81 * 12)
    offset = 0.0 if bias is None else np.abs(bias).reshape(-1, *[1] * rank)
    return np.asarray(share * norms + 2 * u * offset + u * np.abs(y))


def per_axis(value: Sizes, rank: int) -> tuple[int, ...]:
    """`value` once per axis: PyTorch lets one number stand for all.

    >>> per_axis([2], 3), per_axis((1, 2), 2)
    ((2, 2, 2), (1, 2))
    """
    values = (value,) if isinstance(value, int | np.integer) else tuple(value)
    return tuple(map(int, values * rank if len(values) == 1 else values))


def borders_of(padding: Padding, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Cells of padding before and after each axis.

    >>> borders_of("same", (4, 3), (1, 1))
    [(1, 2), (1, 1)]
    """
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    if isinstance(padding, str):
        padding = 0
    if not isinstance(padding, int | np.integer) and any(isinstance(p, tuple) for p in padding):
        return [(int(before), int(after)) for before, after in padding]  # type: ignore[misc]  # pairs, all of them
    return [(p, p) for p in per_axis(padding, len(kernel))]  # type: ignore[arg-type]  # no pairs here


def _gather(
    x: Array,
    weight: Array,
    stride: tuple[int, ...],
    borders: list[tuple[int, int]],
    dilation: tuple[int, ...],
    groups: int,
) -> Array:
    """Each output cell gathers its window; windows and kernels are multiplied as matrices."""
    rank, (n, channels) = len(stride), x.shape[:2]
    if channels != weight.shape[1] * groups:
        raise ShapeError(
            f"the kernels {weight.shape} in {groups} group(s) take {weight.shape[1] * groups} channels, "
            f"but the input {x.shape} has {channels}."
        )
    padded = np.pad(x, [(0, 0), (0, 0), *borders])
    span = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(s > length for s, length in zip(span, padded.shape[2:], strict=True)):
        raise ShapeError(f"a window of {span} cells does not fit into the padded input of {list(padded.shape[2:])}.")
    grouped = padded.reshape(n, groups, channels // groups, *padded.shape[2:])
    spatial = tuple(range(3, 3 + rank))
    windows = sliding_window_view(grouped, span, axis=spatial)  # (N, G, C/G, H', W', R', S')
    stepped: Index = tuple(slice(None, None, s) for s in (*stride, *dilation))
    windows = windows[(..., *stepped)]
    windows = windows.transpose(0, 1, 2, *(a + rank for a in spatial), *spatial)  # (N, G, C/G, R, S, P, Q)
    return _multiply(weight.reshape(groups, weight.shape[0] // groups, -1), windows, rank)


def _gather_inside(
    x: Array,
    weight: Array,
    stride: tuple[int, ...],
    borders: list[tuple[int, int]],
    dilation: tuple[int, ...],
    groups: int,
) -> Array:
    """As `_gather`, one kernel position at a time, and only where it meets the input."""
    n, sizes, kernel = x.shape[0], x.shape[2:], weight.shape[2:]
    axis_settings = list(zip(sizes, kernel, stride, dilation, borders, strict=True))
    places = [(size + sum(border) - d * (k - 1) - 1) // s + 1 for size, k, s, d, border in axis_settings]
    cells = x.reshape(n, groups, x.shape[1] // groups, *sizes)
    kernels = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)  # (G, K/G, C/G, RS)
    out = np.zeros((n, groups, kernels.shape[1], *places))
    lead: Index = (slice(None),) * 3
    for tap, tap_index in enumerate(np.ndindex(*kernel)):
        reads, writes = [], []
        for i, count, (size, _, s, d, (before, _)) in zip(tap_index, places, axis_settings, strict=True):
            start = np.arange(count) * s + i * d - before
            valid = np.flatnonzero((start >= 0) & (start < size))
            reads.append(start[valid])
            writes.append(valid)
        if not all(map(len, reads)):
            continue
        cells_read: Array = cells[(*lead, *np.ix_(*reads))]
        added = kernels[..., tap] @ cells_read.reshape(*cells_read.shape[:3], -1)  # (N, G, K/G, cells)
        out[(*lead, *np.ix_(*writes))] += added.reshape(*added.shape[:3], *map(len, writes))
    return out.reshape(n, -1, *places)


def _multiply(kernels: Array, windows: Array, rank: int) -> Array:
    """Kernels (G, K/G, T) times windows (N, G, C/G, R, S, P, Q) -> (N, K, P, Q), some rows or images at a time."""
    n, groups, *_ = windows.shape
    places = windows.shape[3 + rank :]
    out = np.empty((n, groups, kernels.shape[1], *places))
    row_cells = groups * kernels.shape[2] * math.prod(places[1:])
    images = max(1, BLOCK // max(1, row_cells * places[0]))
    rows = places[0] if images > 1 else max(1, BLOCK // max(1, row_cells))
    buffer = np.empty(min(n, images) * min(rows, places[0]) * row_cells)
    for first in range(0, n, images):
        for row in range(0, places[0], rows):
            block = windows[first : first + images]
            block = block[(slice(None),) * (3 + rank) + (slice(row, row + rows),)]
            unfolded = buffer[: block.size].reshape(block.shape)
            np.copyto(unfolded, block)
            sums = kernels @ unfolded.reshape(len(block), groups, kernels.shape[2], -1)  # (n, G, K/G, rows·Q)
            target = out[first : first + images, :, :, row : row + rows]
            target[...] = sums.reshape(target.shape)
    return out.reshape(n, -1, *places)


def _scatter(
    x: Array,
    weight: Array,
    stride: tuple[int, ...],
    borders: list[tuple[int, int]],
    dilation: tuple[int, ...],
    extra: tuple[int, ...],
    groups: int,
    change: Callable[[Array], Array] = np.asarray,
    *,
    running: bool = False,
) -> Array:
    """Each input cell adds itself times the kernel to the output, one kernel position at a time.

    Args:
        change: Applied to the sum over the channels before it is added.
        running: Whether to add up the magnitudes of the running sums instead.
    """
    (n, channels), sizes, kernel = x.shape[:2], x.shape[2:], weight.shape[2:]
    if channels != weight.shape[0]:
        raise ShapeError(f"the kernels {weight.shape} take {weight.shape[0]} channels, the input {x.shape} {channels}.")
    step = list(zip(sizes, stride, dilation, kernel, extra, strict=True))
    full = [(h - 1) * s + d * (k - 1) + 1 + e for h, s, d, k, e in step]
    cells = x.reshape(n, groups, channels // groups, -1)  # (N, G, C/G, HW)
    kernels = weight.reshape(groups, channels // groups, weight.shape[1], -1)  # (G, C/G, K/G, RS)
    out = np.zeros((n, groups, weight.shape[1], *full))
    magnitudes = np.zeros_like(out) if running else out
    for tap, tap_index in enumerate(np.ndindex(*kernel)):
        reached: Index = tuple(
            slice(i * d, i * d + (h - 1) * s + 1, s) for i, (h, s, d, *_) in zip(tap_index, step, strict=True)
        )
        added = np.swapaxes(kernels[..., tap], 1, 2) @ cells  # (N, G, K/G, HW)
        out[(..., *reached)] += change(added).reshape(*added.shape[:3], *sizes)
        if running:
            magnitudes[(..., *reached)] += np.abs(out[(..., *reached)])
    inside: Index = tuple(slice(before, size - after) for size, (before, after) in zip(full, borders, strict=True))
    return np.ascontiguousarray(magnitudes.reshape(n, -1, *full)[(..., *inside)])
