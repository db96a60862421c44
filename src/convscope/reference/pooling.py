"""Pooling: the maximum or the mean of each window, sliding or adaptive, on any number of spatial axes; and backward.

Uses precision and NumPy. A window of several axes is the product of one window per axis, so every axis is reduced
by itself: the largest of the row maxima is the largest, the sum of the row sums is the sum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convscope.reference.convolution import Sizes, per_axis
from convscope.reference.precision import carried, gamma
from convscope.typing import Array


@dataclass(frozen=True, slots=True, eq=False)
class PoolWindows:
    """The windows of one axis."""

    cells: Array
    """Input cell of each place in each window, shape (P, T)."""
    inside: Array
    """Whether that place is a cell of the input and not padding, shape (P, T)."""
    counts: Array
    """Cells by which a mean divides, shape (P,): padding included, the overhang of a last short window not."""


def sliding(
    size: int, kernel: int, stride: int, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> PoolWindows:
    """Windows of `kernel` cells that start every `stride` cells.

    >>> sliding(5, kernel=2, stride=2, ceil_mode=True).cells
    array([[0, 1],
           [2, 3],
           [4, 5]])

    With `ceil_mode` a last, short window is kept if it starts inside the input or its left padding.
    Source: PyTorch documentation, torch.nn.MaxPool2d and AvgPool2d.
    """
    span = dilation * (kernel - 1) + 1
    last_start = size + 2 * padding - span
    count = (-(-last_start // stride) if ceil_mode else last_start // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    starts = np.arange(count) * stride - padding
    cells = starts[:, None] + dilation * np.arange(kernel)
    counts = np.minimum(starts + kernel, size + padding) - starts
    return _trimmed(cells, (cells >= 0) & (cells < size), counts)


def adaptive(size: int, count: int) -> PoolWindows:
    """`count` windows that share out `size` cells: from floor(o·size / many) to ceil((o + 1)·size / many).

    >>> windows = adaptive(5, 3)
    >>> windows.cells[windows.inside].tolist(), windows.counts.tolist()
    ([0, 1, 1, 2, 3, 3, 4], [2, 3, 2])
    """
    first = np.arange(count) * size // count
    last = -(-(np.arange(count) + 1) * size // count)
    cells = first[:, None] + np.arange(max(1, int((last - first).max(initial=1))))
    return _trimmed(cells, cells < last[:, None], last - first)


def max_pool(
    x: Array,
    kernel_size: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """max_pool{1,2,3}d_with_indices: the largest cell of each window; padding never wins, NaN always does.

    >>> max_pool(np.array([[[3.0, 1.0], [2.0, 5.0]]]), (2, 2))
    (array([[[5.]]]), array([[[3]]]))

    Args:
        x: Shape (N, C, H, W) or (C, H, W); as many spatial axes as `kernel_size` has numbers.
        kernel_size: Height and width of the window.
        stride: Step between windows; the window's size if empty.
        padding: Rings of cells that never win, around the input.
        dilation: Step between the cells of one window.
        ceil_mode: Keep a last window that the input does not fill.

    Returns:
        The maxima, and the flat index of each in its plane: the first of equal ones (of NaNs, the last).
    """
    return _largest(x, _windows(x, kernel_size, stride, padding, dilation, ceil_mode))


def adaptive_max_pool(x: Array, output_size: Sequence[int]) -> tuple[Array, Array]:
    """adaptive_max_pool{1,2,3}d: as `max_pool`, with windows that share out the input."""
    return _largest(x, _shares(x, output_size))


def max_unpool(x: Array, indices: Array, output_size: Sequence[int], stride: Sizes = (), padding: Sizes = 0) -> Array:
    """max_unpool{2,3}d: every number back where `indices`, flat in the plane, says that it stood; 0 elsewhere.

    >>> max_unpool(np.array([[[5.0]]]), np.array([[[2]]]), (2, 2))
    array([[[0., 0.],
            [5., 0.]]])
    """
    lead = x.shape[: -len(output_size)]
    flat = np.zeros((*lead, int(np.prod(output_size))))
    np.put_along_axis(flat, indices.reshape(*lead, -1), x.reshape(*lead, -1), -1)
    return flat.reshape(*lead, *output_size)


def avg_pool(
    x: Array,
    kernel_size: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """avg_pool{1,2,3}d: the mean of each window.

    >>> avg_pool(np.array([[[3.0, 1.0], [2.0, 6.0]]]), (2, 2))
    array([[[3.]]])

    Args:
        x, kernel_size, stride, padding, ceil_mode: As for `max_pool`; padding counts as zeros.
        count_include_pad: Divide by the window's size, padding included; otherwise by its cells of the input.
        divisor_override: Divide by this number instead.
    """
    axes = _windows(x, kernel_size, stride, padding, 1, ceil_mode)
    counts = [w.counts if count_include_pad else w.inside.sum(1) for w in axes]
    mean = np.asarray(_total(x, axes) / (divisor_override or math.prod(np.ix_(*counts))))
    return mean if x.dtype.kind == "f" else np.trunc(mean).astype(x.dtype)  # of integers an integer, as C divides


def avg_pool_error(
    _y: Array,
    u: float,
    x: Array,
    kernel_size: Sizes,
    stride: Sizes = (),
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """A sum of T cells and one or two divisions: gamma(T + 2) of the mean magnitude."""
    if x.dtype.kind != "f":
        return np.zeros(())
    terms = math.prod(w.cells.shape[1] for w in _windows(x, kernel_size, stride, padding, 1, ceil_mode))
    mean = avg_pool(np.abs(x), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return carried(gamma(terms + 2, u) * np.abs(mean), (divisor_override or terms) * np.abs(mean), u)


def adaptive_avg_pool(x: Array, output_size: Sequence[int]) -> Array:
    """adaptive_avg_pool{1,2,3}d: the mean of each of the windows that share out the input."""
    axes = _shares(x, output_size)
    return _total(x, axes) / math.prod(np.ix_(*[w.counts for w in axes]))


def adaptive_avg_pool_error(_y: Array, u: float, x: Array, output_size: Sequence[int]) -> Array:
    """A sum of T cells and a division per axis: gamma(T + 3) of the mean magnitude."""
    terms = math.prod(w.cells.shape[1] for w in _shares(x, output_size))
    mean = adaptive_avg_pool(np.abs(x), output_size)
    return carried(gamma(terms + 3, u) * mean, terms * mean, u)


def _windows(
    x: Array, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> list[PoolWindows]:
    kernel = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
    rank = len(kernel)
    step = kernel if not isinstance(stride, int) and not len(stride) else per_axis(stride, rank)
    axis_settings = zip(x.shape[-rank:], kernel, step, per_axis(padding, rank), per_axis(dilation, rank), strict=True)
    return [sliding(*numbers, ceil_mode) for numbers in axis_settings]


def _shares(x: Array, output_size: Sequence[int]) -> list[PoolWindows]:
    return [adaptive(size, count) for size, count in zip(x.shape[-len(output_size) :], output_size, strict=True)]


def _trimmed(cells: Array, inside: Array, counts: Array) -> PoolWindows:
    """Without the places that are padding in every window: a kernel may be far larger than the input."""
    used = inside.any(0)
    return PoolWindows(cells[:, used], inside[:, used], counts)


def _largest(x: Array, axes: list[PoolWindows]) -> tuple[Array, Array]:
    """The maximum over the last axes of `x`, innermost first, and its flat index over these axes."""
    planes = x.shape[x.ndim - len(axes) :]
    best, place = x, np.broadcast_to(np.arange(math.prod(planes)).reshape(planes), x.shape)
    for axis, windows in zip(range(-1, -len(axes) - 1, -1), reversed(axes), strict=True):
        first = windows.inside.argmax(1)
        start = windows.cells[np.arange(len(first)), first]
        values, places = best, place
        best, place = values.take(start, axis), places.take(start, axis)
        for tap in range(windows.cells.shape[1]):
            inside = windows.inside[:, tap] & (first != tap)
            cell = np.where(inside, windows.cells[:, tap], 0)
            value = values.take(cell, axis)
            better = _along(inside, axis) & ((value > best) | (value != value))  # noqa: PLR0124  # NaN
            best, place = np.where(better, value, best), np.where(better, places.take(cell, axis), place)
    return best, place


def _total(x: Array, axes: list[PoolWindows]) -> Array:
    """The sum over the windows of the last axes of `x`."""
    for axis, windows in zip(range(-1, -len(axes) - 1, -1), reversed(axes), strict=True):
        total = np.zeros(())
        for tap in range(windows.cells.shape[1]):
            inside = windows.inside[:, tap]
            value = x.take(np.where(inside, windows.cells[:, tap], 0), axis)
            total = np.where(_along(inside, axis), value, 0.0) + total
        x = total
    return x


def _along(values: Array, axis: int) -> Array:
    """`values` shaped to broadcast along `axis`, counted from the end."""
    return values.reshape(-1, *[1] * (-axis - 1))


# Backward: to the maximum of each window, or evenly to all its cells. The maxima are found again from the input, not
# read from the indices that the forward pass recorded: a gradient in another cell is wrong, whatever they are.


def max_pool_backward(
    grad_output: Array, x: Array, kernel_size: Sizes, stride: Sizes = (), padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, indices: Array | None = None,
) -> Array:  # fmt: skip
    """max_pool{2,3}d_with_indices_backward: each window's gradient to its first largest cell (its last NaN).

    >>> max_pool_backward(np.array([[[7.0]]]), np.array([[[1.0, 4.0], [4.0, 0.0]]]), (2, 2)).tolist()
    [[[0.0, 7.0], [0.0, 0.0]]]

    Args:
        grad_output: The gradient of the maxima, (N, C, P, Q) or (C, P, Q).
        x: The input, (N, C, H, W) or (C, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As in the forward pooling.
        indices: The recorded indices; not used.
    """
    winners = max_pool(x, kernel_size, stride, padding, dilation, ceil_mode)[1]
    return _scattered(grad_output, winners, x.shape, grad_output.ndim - _rank(kernel_size))


def max_pool_backward_error(
    _y: Array, u: float, grad_output: Array, x: Array, kernel_size: Sizes, stride: Sizes = (), padding: Sizes = 0,
    dilation: Sizes = 1, ceil_mode: bool = False, indices: Array | None = None,
) -> Array:  # fmt: skip
    """A cell that is the maximum of n windows gets a sum of n gradients; exact for one."""
    winners = max_pool(x, kernel_size, stride, padding, dilation, ceil_mode)[1]
    return _sums_error(u, grad_output, winners, x.shape, grad_output.ndim - _rank(kernel_size))


def adaptive_max_pool_backward(grad_output: Array, x: Array, indices: Array | None = None) -> Array:
    """adaptive_max_pool{2,3}d_backward: as above, with adaptive windows."""
    lead = 2 if x.ndim > 3 else 1
    winners = adaptive_max_pool(x, grad_output.shape[lead:])[1]
    return _scattered(grad_output, winners, x.shape, lead)


def adaptive_max_pool_backward_error(
    _y: Array, u: float, grad_output: Array, x: Array, indices: Array | None = None
) -> Array:
    """The same bound as `max_pool_backward_error`."""
    lead = 2 if x.ndim > 3 else 1
    winners = adaptive_max_pool(x, grad_output.shape[lead:])[1]
    return _sums_error(u, grad_output, winners, x.shape, lead)


def avg_pool_backward(
    grad_output: Array, x: Array, kernel_size: Sizes, stride: Sizes = (), padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    """avg_pool{2,3}d_backward: each window's gradient, by the cells it averaged, to all its cells.

    >>> avg_pool_backward(np.array([[[8.0]]]), np.zeros((1, 2, 2)), (2, 2)).tolist()
    [[[2.0, 2.0], [2.0, 2.0]]]

    Args:
        grad_output: The gradient of the averages.
        x: The input; only its shape is used.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: As in the forward pooling.
    """
    rank = _rank(kernel_size)
    step = kernel_size if not isinstance(stride, int) and not len(stride) else stride
    axis_settings = zip(x.shape[-rank:], *(per_axis(v, rank) for v in (kernel_size, step, padding)), strict=True)
    windows = [sliding(size, kernel, s, pad, 1, ceil_mode) for size, kernel, s, pad in axis_settings]
    counts = [w.counts if count_include_pad else w.inside.sum(1) for w in windows]
    return _shared(grad_output / (divisor_override or math.prod(np.ix_(*counts))), windows, x.shape[-rank:])


def avg_pool_backward_error(_y: Array, u: float, grad_output: Array, x: Array, kernel_size: Sizes, *options: object,
                            **settings: object) -> Array:  # fmt: skip
    """A sum over the windows that read a cell, each divided once: gamma(T + 1) of the magnitudes."""
    size = avg_pool_backward(np.abs(grad_output), x, kernel_size, *options, **settings)  # type: ignore[arg-type]
    rank = _rank(kernel_size)
    return gamma(_most_windows(grad_output.shape[-rank:], per_axis(kernel_size, rank)) + 1, u) * size


def adaptive_avg_pool_backward(grad_output: Array, x: Array) -> Array:
    """_adaptive_avg_pool{2,3}d_backward: as above, with adaptive windows."""
    lead = 2 if x.ndim > 3 else 1
    windows = [adaptive(size, count) for size, count in zip(x.shape[lead:], grad_output.shape[lead:], strict=True)]
    return _shared(grad_output / math.prod(np.ix_(*[w.counts for w in windows])), windows, x.shape[lead:])


def adaptive_avg_pool_backward_error(_y: Array, u: float, grad_output: Array, x: Array) -> Array:
    """A division for each axis, and a sum over the windows that read a cell: at most two on an axis that shrinks."""
    lead = 2 if x.ndim > 3 else 1
    windows = [
        max(2, -(-count // size) + 1) for size, count in zip(x.shape[lead:], grad_output.shape[lead:], strict=True)
    ]
    size = adaptive_avg_pool_backward(np.abs(grad_output), x)
    return gamma(math.prod(windows) + len(windows), u) * size


def _rank(kernel_size: Sizes) -> int:
    return 1 if isinstance(kernel_size, int) else len(kernel_size)


def _scattered(grad: Array, winners: Array, shape: tuple[int, ...], lead: int) -> Array:
    planes = math.prod(shape[:lead])
    out = np.zeros((planes, math.prod(shape[lead:])))
    np.add.at(out, (np.arange(planes)[:, None], winners.reshape(planes, -1)), grad.reshape(planes, -1))
    return out.reshape(shape)


def _sums_error(u: float, grad: Array, winners: Array, shape: tuple[int, ...], lead: int) -> Array:
    """A sum of n numbers in any order is n - 1 additions: gamma(n - 1) of the magnitudes, with each cell's own n."""
    wins = _scattered(np.ones(grad.shape), winners, shape, lead)
    share = u * np.maximum(wins - 1, 0.0)
    gammas = np.divide(share, 1 - share, out=np.full(share.shape, np.inf), where=share < 1)
    return np.where(wins > 1, gammas * _scattered(np.abs(grad), winners, shape, lead), 0.0)


def _shared(grad: Array, windows: Sequence[PoolWindows], shape: Sequence[int]) -> Array:
    """Distribute each number of `grad` to all cells of its window, one axis after the other."""
    for axis, axis_windows, size in zip(range(-len(windows), 0), windows, shape, strict=True):
        axis_first = np.moveaxis(grad, axis, 0)
        out = np.zeros((size, *axis_first.shape[1:]))
        for tap in range(axis_windows.cells.shape[1]):
            inside = axis_windows.inside[:, tap]
            np.add.at(out, axis_windows.cells[inside, tap], axis_first[inside])
        grad = np.moveaxis(out, 0, axis)
    return grad


def _most_windows(places: Sequence[int], kernel: Sequence[int]) -> int:
    """How many windows may read one cell."""
    return math.prod(min(p, k) for p, k in zip(places, kernel, strict=True))
