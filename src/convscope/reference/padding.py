"""Padding, and windows as columns: constant, reflected, repeated and circular borders; im2col and col2im.

Uses convolution's argument forms, precision and NumPy. Like PyTorch, paddings are listed from the last axis on, two
numbers (before, after) per axis; negative ones cut off.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from convscope.reference.convolution import Sizes, per_axis
from convscope.reference.precision import gamma, written
from convscope.typing import Array, Numbers


def constant_pad(x: Array, pad: Sequence[int], value: float = 0) -> Array:
    """constant_pad_nd: a border of `value`.

    >>> constant_pad(np.array([[1.0, 2.0]]), [1, 0], 7.0)
    array([[7., 1., 2.]])
    """
    pairs = _pairs(x, pad)
    cut = tuple(slice(max(0, -a), size + min(0, b)) for size, (a, b) in zip(x.shape, pairs, strict=True))
    return np.pad(x[cut], [(max(0, a), max(0, b)) for a, b in pairs], constant_values=value)


def constant_pad_error(_y: Array, u: float, x: Array, pad: Sequence[int], value: float = 0) -> Numbers:
    """Exact, but the value is written in the tensor's type."""
    return constant_pad(np.zeros_like(x), pad, 1.0) * written(value, u)


def bordered(place: Callable[[Array, int], Array]) -> Callable[..., Array]:
    """A padding whose border repeats cells of the input: `place` says which, from a coordinate and the axis' size.

    >>> bordered(reflected)(np.array([1.0, 2.0, 3.0]), [2, 1])
    array([3., 2., 1., 2., 3., 2.])
    """

    def pad_border(x: Array, padding: Sequence[int]) -> Array:
        for axis, (before, after) in enumerate(_pairs(x, padding)):
            if before or after:
                x = x.take(place(np.arange(-before, x.shape[axis] + after), x.shape[axis]), axis)
        return x

    return pad_border


def reflected(positions: Array, size: int) -> Array:
    """Mirrored at the border cells, which are not repeated."""
    return np.asarray(size - 1 - np.abs(size - 1 - np.abs(positions)))


def repeated(positions: Array, size: int) -> Array:
    """The border cell again and again."""
    return np.clip(positions, 0, size - 1)


def circular(positions: Array, size: int) -> Array:
    """From the other end."""
    return positions % size


def im2col(x: Array, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> Array:
    """Every window as a column.

    >>> im2col(np.arange(9.0).reshape(1, 1, 3, 3), 2).shape
    (1, 4, 4)

    Args:
        x: Shape (N, C, H, W) or (C, H, W).
        kernel_size, dilation, padding, stride: As for a convolution.

    Returns:
        Shape (N, C·R·S, P·Q), columns in the order of the windows, rows in the order of a kernel's cells.
    """
    (rows, columns), sizes = _places(x.shape[-2:], kernel_size, dilation, padding, stride)
    h, w = per_axis(padding, 2)
    padded = np.pad(x, [*[(0, 0)] * (x.ndim - 2), (h, h), (w, w)])
    windows = padded[..., rows[:, None, :, None], columns[None, :, None, :]]  # (N, C, R, S, P, Q)
    return windows.reshape(*x.shape[:-3], math.prod(windows.shape[-5:-2]), math.prod(sizes))


def col2im(
    x: Array, output_size: Sequence[int], kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Array:
    """Columns back into an image; where windows overlap, they are added.

    Args:
        x: Shape (N, C·R·S, P·Q) or (C·R·S, P·Q).
        output_size: Height and width of the image.
        kernel_size, dilation, padding, stride: As `im2col` was given.

    Returns:
        Shape (N, C, H, W) or (C, H, W).
    """
    (rows, columns), sizes = _places(output_size, kernel_size, dilation, padding, stride)
    (h, w), kernel = per_axis(padding, 2), per_axis(kernel_size, 2)
    windows = x.reshape(*x.shape[:-2], -1, *kernel, *sizes)  # (N, C, R, S, P, Q)
    out = np.zeros((*windows.shape[:-4], output_size[0] + 2 * h, output_size[1] + 2 * w), x.dtype)
    for r, s in np.ndindex(*kernel):  # the windows of one kernel cell do not overlap
        out[..., rows[r][:, None], columns[s]] += windows[..., r, s, :, :]
    return np.ascontiguousarray(out[..., h : h + output_size[0], w : w + output_size[1]])


def col2im_error(
    _y: Array, u: float, x: Array, output_size: Sequence[int], kernel_size: Sizes, **settings: Sizes
) -> Array:
    """A sum of at most R·S cells: gamma(R·S - 1) of the magnitudes; exact where windows do not overlap."""
    terms = math.prod(per_axis(kernel_size, 2))
    count = col2im(np.ones_like(x), output_size, kernel_size, **settings)
    total = col2im(np.abs(x), output_size, kernel_size, **settings)
    return np.where(count > 1, gamma(terms - 1, u) * total, 0.0)


def _pairs(x: Array, padding: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of every axis of `x`, in the order of the axes."""
    pairs = list(zip(padding[0::2], padding[1::2], strict=True))
    return [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]


def _places(
    image: Sequence[int], kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes
) -> tuple[list[Array], list[int]]:
    """Padded rows (R, P) and columns (S, Q) that each kernel cell meets, and how many windows there are (P, Q)."""
    places, sizes = [], []
    axis_settings = [per_axis(v, 2) for v in (kernel_size, dilation, padding, stride)]
    for size, kernel, d, pad, step in zip(image, *axis_settings, strict=True):
        count = (size + 2 * pad - d * (kernel - 1) - 1) // step + 1
        places.append(np.arange(kernel)[:, None] * d + np.arange(count) * step)
        sizes.append(count)
    return places, sizes
