"""Resampling and padding backward: every gradient goes to the cells that its output reads. Uses precision, NumPy.

The forward operations apply a matrix of weights to each axis separately; these are their transposes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Unpack

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.precision import gamma
from convscope.reference.resampling import TAPS, Filter, Scales, Taps, factors_of, filter_weights, times
from convscope.typing import Array


def nearest_backward(shift: float = 0.0) -> Operation:
    """upsample_nearest{1,2,3}d_backward: every gradient goes to the cell that it copies.

    >>> nearest_backward().compute(grad_output=np.array([[[1.0, 2.0]]]), output_size=[2], input_size=[1, 1, 1]).tolist()
    [[[3.0]]]
    """

    def cells(in_size: int, out_size: int, factor: float | None) -> Array:
        scale = np.float32(1.0 / factor) if factor else np.float32(in_size) / np.float32(out_size)
        cells_read = np.floor((np.arange(out_size, dtype=np.float32) + np.float32(shift)) * scale).astype(np.int64)
        return np.asarray(np.minimum(cells_read, in_size - 1))

    def compute(
        grad_output: Array, output_size: Sequence[int], input_size: Sequence[int], **scales: Unpack[Scales]
    ) -> Array:
        for axis, in_size, factor in _axes(grad_output, input_size, scales):
            grad_output = _sent(grad_output, axis, cells(in_size, grad_output.shape[axis], factor), in_size)
        return grad_output

    def error(
        _y: Array,
        u: float,
        grad_output: Array,
        output_size: Sequence[int],
        input_size: Sequence[int],
        **scales: Unpack[Scales],
    ) -> Array:
        """A sum of n copies: gamma(n - 1); exact where there is one."""
        copies = compute(np.ones_like(grad_output), output_size, input_size, **scales)
        total = compute(np.abs(grad_output), output_size, input_size, **scales)
        return gamma(float(copies.max(initial=1.0)), u) * total * (copies > 1)

    return Operation(compute, error)


def interpolation_backward(taps: Callable[..., Taps], slope: float) -> Operation:
    """upsample_{linear1d, bilinear2d, trilinear3d, bicubic2d}_backward: to the cells that each output reads, weighted.

    Args:
        taps: Cells and weights of each place of an axis.
        slope: The steepest change of a weight with its coordinate.
    """

    def taps_of_axes(
        grad: Array, input_size: Sequence[int], align: bool, scales: Scales
    ) -> Iterator[tuple[int, int, Taps]]:
        for axis, in_size, factor in _axes(grad, input_size, scales):
            yield axis, in_size, taps(in_size, grad.shape[axis], align, factor)

    def compute(
        grad_output: Array,
        output_size: Sequence[int],
        input_size: Sequence[int],
        align_corners: bool,
        **scales: Unpack[Scales],
    ) -> Array:
        for axis, in_size, axis_taps in taps_of_axes(grad_output, input_size, align_corners, scales):
            grad_output = _spread(grad_output, axis, axis_taps.cells, axis_taps.weights, in_size)
        return grad_output

    def error(
        _y: Array, u: float, grad_output: Array, output_size: Sequence[int], input_size: Sequence[int],
        align_corners: bool, u_out: float = 0.0, **scales: Unpack[Scales],
    ) -> Array:  # fmt: skip
        """As `resampling._resampled_error`, along the transposed matrices: sums, coordinates, and stored weights."""
        total, moved_error = np.abs(grad_output), np.zeros_like(grad_output)
        for axis, in_size, axis_taps in taps_of_axes(grad_output, input_size, align_corners, scales):
            reach = np.clip(np.stack([axis_taps.cells[:, 0] - 1, axis_taps.cells[:, -1] + 1], 1), 0, in_size - 1)
            drift = u * slope * axis_taps.drift[:, None]
            sway = drift + u * axis_taps.slack + u_out * axis_taps.stored
            size = np.abs(axis_taps.weights)
            most_terms = np.bincount(axis_taps.cells.ravel(), minlength=in_size).max(initial=1)
            wider = _spread(total + moved_error, axis, axis_taps.cells, sway, in_size)
            wider = wider + _spread(total + moved_error, axis, reach, drift.repeat(2, 1), in_size)
            moved_error = _spread(moved_error, axis, axis_taps.cells, size, in_size) + wider
            total = _spread(total, axis, axis_taps.cells, size, in_size)
            moved_error = moved_error + (gamma(float(most_terms) + 2, u) + gamma(float(most_terms), u_out)) * total
        return moved_error

    return Operation(compute, error)


LINEAR = interpolation_backward(TAPS["linear"], 1.0)
CUBIC = interpolation_backward(TAPS["cubic"], 1.4)


def antialiased_backward(curve: Filter, support: int) -> Operation:
    """_upsample_{bilinear, bicubic}2d_aa_backward: to all cells under each output's filter, weighted.

    Args:
        curve, support: The filter, and where it ends.
    """

    def weights_of_axes(
        grad: Array, input_size: Sequence[int], align: bool, scales: Scales
    ) -> Iterator[tuple[int, Array, Array]]:
        for axis, in_size, factor in _axes(grad, input_size, scales):
            weights, slack = filter_weights(in_size, grad.shape[axis], factor, align, curve, support)
            yield axis, weights.T, slack.T

    def compute(
        grad_output: Array, output_size: Sequence[int], input_size: Sequence[int], align_corners: bool,
        **scales: Unpack[Scales],
    ) -> Array:  # fmt: skip
        for axis, weights, _ in weights_of_axes(grad_output, input_size, align_corners, scales):
            grad_output = times(grad_output, weights, axis)
        return grad_output

    def error(
        _y: Array, u: float, grad_output: Array, output_size: Sequence[int], input_size: Sequence[int],
        align_corners: bool, u_out: float = 0.0, **scales: Unpack[Scales],
    ) -> Array:  # fmt: skip
        """As `resampling.antialiased_error`, transposed; kernels add the terms of both axes in one sum."""
        total, bound, terms = np.abs(grad_output), np.zeros_like(grad_output), 1
        for axis, weights, slack in weights_of_axes(grad_output, input_size, align_corners, scales):
            size = np.abs(weights)
            terms *= int((slack > 0).sum(1).max(initial=1))
            bound = times(bound, size, axis) + times(total + bound, u * slack + u_out * size, axis)
            total = times(total, size, axis)
        return bound + (gamma(float(terms) + 4, u) + gamma(float(terms), u_out)) * total

    return Operation(compute, error)


def bordered_backward(place: Callable[[Array, int], Array]) -> Operation:
    """reflection_pad and replication_pad, backward: every border cell's gradient goes to the cell that it copies.

    Args:
        place: Which cell a coordinate repeats, from the axis' size.
    """

    def compute(grad_output: Array, x: Array, padding: Sequence[int]) -> Array:
        rank = len(padding) // 2
        for back in range(rank):
            axis, before, in_size = grad_output.ndim - 1 - back, padding[2 * back], x.shape[-1 - back]
            cells = place(np.arange(grad_output.shape[axis]) - before, in_size)
            grad_output = _sent(grad_output, axis, cells, in_size)
        return grad_output

    def error(_y: Array, u: float, grad_output: Array, x: Array, padding: Sequence[int]) -> Array:
        """A sum of n copies: gamma(n); exact where there is one."""
        copies = compute(np.ones_like(grad_output), x, padding)
        total = compute(np.abs(grad_output), x, padding)
        return gamma(float(copies.max(initial=1.0)), u) * total * (copies > 1)

    return Operation(compute, error)


def _axes(grad: Array, input_size: Sequence[int], scales: Scales) -> Iterator[tuple[int, int, float | None]]:
    """Each spatial axis, how many cells the input had there, and the factor that was given for it."""
    rank = len(input_size) - 2
    for index, factor in enumerate(factors_of(scales, rank)):
        yield grad.ndim - rank + index, int(input_size[2 + index]), factor


def _sent(grad: Array, axis: int, cells: Array, in_size: int) -> Array:
    """Every number along `axis` added to one of `in_size` cells."""
    axis_first = np.moveaxis(grad, axis, 0)
    out = np.zeros((in_size, *axis_first.shape[1:]))
    np.add.at(out, cells, axis_first)
    return np.moveaxis(out, 0, axis)


def _spread(grad: Array, axis: int, cells: Array, weights: Array, in_size: int) -> Array:
    """Every number along `axis` added to the cells of its window, times their weights."""
    shape = [-1 if a == axis else 1 for a in range(grad.ndim)]
    parts = [
        _sent(grad * weights[:, tap].reshape(shape), axis, cells[:, tap], in_size) for tap in range(cells.shape[1])
    ]
    return np.asarray(sum(parts))
