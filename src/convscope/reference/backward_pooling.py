"""Pooling backward: to the maximum of each window, or evenly to all its cells. Knows pooling's windows and NumPy.

The maxima are found again from the input, not read from the indices that the forward pass recorded: a gradient that
went to another cell is wrong, whatever the indices are.
"""

import math
from collections.abc import Sequence

import numpy as np

from convscope.reference.convolution import Sizes, per_axis
from convscope.reference.pooling import PoolWindows, adaptive, adaptive_max_pool, max_pool, sliding
from convscope.reference.roundoff import gamma
from convscope.typing import Array


def max_pool_backward(
    grad_output: Array, x: Array, kernel_size: Sizes, stride: Sizes = (), padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False, indices: Array | None = None,
) -> Array:  # fmt: skip
    """max_pool{2,3}d_with_indices_backward: each window's gradient to its first largest cell (its last NaN).

    >>> max_pool_backward(np.array([[[7.0]]]), np.array([[[1.0, 4.0], [4.0, 0.0]]]), (2, 2)).tolist()
    [[[0.0, 7.0], [0.0, 0.0]]]

    Args:
        grad_output: Of the maxima, (N, C, P, Q) or (C, P, Q).
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
        grad_output: Of the averages.
        x: The input; only its shape is used.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: As in the forward pooling.
    """
    rank = _rank(kernel_size)
    step = kernel_size if not isinstance(stride, int) and not len(stride) else stride
    each = zip(x.shape[-rank:], *(per_axis(v, rank) for v in (kernel_size, step, padding)), strict=True)
    windows = [sliding(size, kernel, s, pad, 1, ceil_mode) for size, kernel, s, pad in each]
    counts = [w.counts if count_include_pad else w.inside.sum(1) for w in windows]
    return _shared(grad_output / (divisor_override or math.prod(np.ix_(*counts))), windows, x.shape[-rank:])


def avg_pool_backward_error(_y: Array, u: float, grad_output: Array, x: Array, kernel_size: Sizes, *how: object,
                            **settings: object) -> Array:  # fmt: skip
    """A sum over the windows that read a cell, each divided once: gamma(T + 1) of the magnitudes."""
    size = avg_pool_backward(np.abs(grad_output), x, kernel_size, *how, **settings)  # type: ignore[arg-type]
    rank = _rank(kernel_size)
    return gamma(_most_windows(grad_output.shape[-rank:], per_axis(kernel_size, rank)) + 1, u) * size


def adaptive_avg_pool_backward(grad_output: Array, x: Array) -> Array:
    """_adaptive_avg_pool{2,3}d_backward: as above, with adaptive windows."""
    lead = 2 if x.ndim > 3 else 1
    windows = [adaptive(size, many) for size, many in zip(x.shape[lead:], grad_output.shape[lead:], strict=True)]
    return _shared(grad_output / math.prod(np.ix_(*[w.counts for w in windows])), windows, x.shape[lead:])


def adaptive_avg_pool_backward_error(_y: Array, u: float, grad_output: Array, x: Array) -> Array:
    """A division for each axis, and a sum over the windows that read a cell: at most two on an axis that shrinks."""
    lead = 2 if x.ndim > 3 else 1
    windows = [
        max(2, -(-many // size) + 1) for size, many in zip(x.shape[lead:], grad_output.shape[lead:], strict=True)
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
    wins = _scattered(np.ones(grad.shape), winners, shape, lead)
    return gamma(float(wins.max(initial=1.0)) - 1, u) * _scattered(np.abs(grad), winners, shape, lead) * (wins > 1)


def _shared(grad: Array, windows: Sequence[PoolWindows], shape: Sequence[int]) -> Array:
    """Distribute each number of `grad` to all cells of its window, one axis after the other."""
    for axis, one, size in zip(range(-len(windows), 0), windows, shape, strict=True):
        moved = np.moveaxis(grad, axis, 0)
        out = np.zeros((size, *moved.shape[1:]))
        for tap in range(one.cells.shape[1]):
            inside = one.inside[:, tap]
            np.add.at(out, one.cells[inside, tap], moved[inside])
        grad = np.moveaxis(out, 0, axis)
    return grad


def _most_windows(places: Sequence[int], kernel: Sequence[int]) -> int:
    """How many windows may read one cell."""
    return math.prod(min(p, k) for p, k in zip(places, kernel, strict=True))
