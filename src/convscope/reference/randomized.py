"""Layers that draw numbers: RReLU in evaluation, fractional max pooling. Uses precision and NumPy."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.reference.activations import leaky_relu, leaky_relu_error
from convscope.reference.operation import Operation
from convscope.typing import Array

Windows = list[Array]
"""For each axis the first cell of every window."""


def rrelu(x: Array, noise: Array, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Array:
    """rrelu_with_noise in evaluation: a leaky relu with the middle slope.

    Raises:
        UsageError: in training the slopes are random, and the arguments do not include them.
    """
    if training:
        raise UsageError("rrelu in training has random slopes; the reference cannot recompute them.")
    return leaky_relu(x, (lower + upper) / 2)


def rrelu_error(y: Array, u: float, x: Array, noise: Array, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Array:  # noqa: E501  # fmt: skip
    """The bound of a leaky relu, with a slope that is rounded twice."""
    return 2 * leaky_relu_error(y, u, x, (lower + upper) / 2)


def fractional_max_pool(
    x: Array, kernel_size: Sequence[int], output_size: Sequence[int], random_samples: Array
) -> tuple[Array, Array]:
    """fractional_max_pool{2,3}d: the largest cell of each random window, and its flat index in the plane.

    Window o of m on an axis of n cells starts at floor((o + s)·a) - floor(s·a), a = (n - kernel) / (m - 1), with a
    sample s of its own for each plane and axis; the last ends with the axis.

    >>> fractional_max_pool(np.arange(16.0).reshape(1, 4, 4), (2, 2), (2, 2), np.zeros((1, 1, 2)))[0]
    array([[[ 5.,  7.],
            [13., 15.]]])

    Args:
        x: Shape (N, C, H, W), (N, C, T, H, W), or without N.
        random_samples: Shape (N, C, axes); of two axes the first sample is the columns'.
    """
    rank = len(kernel_size)
    best, index = (np.zeros((*x.shape[:-rank], *output_size), kind) for kind in (x.dtype, np.int64))
    for plane, starts, _ in _random_windows(x, kernel_size, output_size, random_samples):
        for cell in np.ndindex(*output_size):
            first = [int(start[i]) for start, i in zip(starts, cell, strict=True)]
            window = x[plane][tuple(slice(begin, begin + size) for begin, size in zip(first, kernel_size, strict=True))]
            nan_indices = np.flatnonzero(np.isnan(window))
            winner = int(nan_indices[-1]) if len(nan_indices) else int(window.argmax())
            inside = np.unravel_index(winner, window.shape)
            best[(*plane, *cell)] = window[inside]
            cell_in_plane = [start + int(i) for start, i in zip(first, inside, strict=True)]
            index[(*plane, *cell)] = np.ravel_multi_index(cell_in_plane, x.shape[-rank:])
    return best, index


def fractional_max_pool_error(
    _y: object, u: float, x: Array, kernel_size: Sequence[int], output_size: Sequence[int], random_samples: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Exact, but where rounding may move the start of a window to the next cell: then any number may be next."""
    open_ = np.zeros((*x.shape[: -len(kernel_size)], *output_size))
    for plane, _, doubts in _random_windows(x, kernel_size, output_size, random_samples, u):
        for cell in np.ndindex(*output_size):
            if any(doubt[i] for doubt, i in zip(doubts, cell, strict=True)):
                open_[(*plane, *cell)] = np.inf
    return open_, open_


def _random_windows(
    x: Array, kernel_size: Sequence[int], output_size: Sequence[int], random_samples: Array, u: float = 0.0
) -> Iterator[tuple[tuple[int, ...], Windows, Windows]]:
    """Each plane with the starts of its windows, and whether rounding may move them.

    Raises:
        UsageError: a sample is not from 0 to 1.
    """
    if not ((random_samples >= 0) & (random_samples <= 1)).all():
        raise UsageError("the samples of a fractional max pooling are numbers from 0 to 1.")
    rank = len(kernel_size)
    samples = random_samples.reshape(-1, rank)
    for number, plane in enumerate(np.ndindex(*x.shape[:-rank])):
        plane_samples = samples[number][::-1] if rank == 2 else samples[number]
        starts, doubts = [], []
        for sample, in_size, out_size, size in zip(
            plane_samples, x.shape[-rank:], output_size, kernel_size, strict=True
        ):
            step = (in_size - size) / max(1, out_size - 1)
            positions, base = (np.arange(out_size) + sample) * step, sample * step
            first = np.floor(positions).astype(np.int64) - int(base)
            near = (_near(positions, u) | _near(np.asarray(base), u)) if u else np.zeros(out_size, bool)
            first[-1:], near = in_size - size, np.array(near)
            near[-1:] = False
            starts.append(first)
            doubts.append(near)
        yield plane, starts, doubts


def _near(positions: Array, u: float) -> Array:
    """Whether four roundings may take a number to the other side of an integer; 0 itself stays where it is."""
    return np.asarray((np.abs(positions - np.rint(positions)) <= 4 * u * np.abs(positions)) & (positions != 0))


_POOL = Operation(fractional_max_pool, fractional_max_pool_error)
RANDOMIZED: Mapping[str, Operation] = {
    "rrelu_with_noise": Operation(rrelu, rrelu_error),
    "fractional_max_pool2d": _POOL,
    "fractional_max_pool3d": _POOL,
}
