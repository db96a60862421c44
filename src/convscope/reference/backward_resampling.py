"""Resampling and padding backward: every gradient goes to the cells that its output reads. Knows roundoff, NumPy.

The forward operations apply a matrix of weights to each axis separately; these are their transposes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.resampling import TAPS, Taps
from convscope.reference.roundoff import gamma
from convscope.typing import Array


def nearest_backward(shift: float = 0.0) -> Operation:
    """upsample_nearest{1,2,3}d_backward: every gradient goes to the cell that it copies.

    >>> nearest_backward().compute(grad_output=np.array([[[1.0, 2.0]]]), output_size=[2], input_size=[1, 1, 1]).tolist()
    [[[3.0]]]
    """

    def cells(have: int, many: int, factor: float | None) -> Array:
        scale = np.float32(1.0 / factor) if factor else np.float32(have) / np.float32(many)
        at = np.floor((np.arange(many, dtype=np.float32) + np.float32(shift)) * scale).astype(np.int64)
        return np.asarray(np.minimum(at, have - 1))

    def compute(grad_output: Array, output_size: Sequence[int], input_size: Sequence[int], **scales: Any) -> Array:
        for axis, have, factor in _axes(grad_output, input_size, scales):
            grad_output = _sent(grad_output, axis, cells(have, grad_output.shape[axis], factor), have)
        return grad_output

    def error(
        _y: Array, u: float, grad_output: Array, output_size: Sequence[int], input_size: Sequence[int], **scales: Any
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

    def each(grad: Array, input_size: Sequence[int], align: bool, scales: Any) -> Iterator[tuple[int, int, Taps]]:
        for axis, have, factor in _axes(grad, input_size, scales):
            yield axis, have, taps(have, grad.shape[axis], align, factor)

    def compute(
        grad_output: Array, output_size: Sequence[int], input_size: Sequence[int], align_corners: bool, **scales: Any
    ) -> Array:
        for axis, have, one in each(grad_output, input_size, align_corners, scales):
            grad_output = _spread(grad_output, axis, one.cells, one.weights, have)
        return grad_output

    def error(
        _y: Array, u: float, grad_output: Array, output_size: Sequence[int], input_size: Sequence[int],
        align_corners: bool, u_out: float = 0.0, **scales: Any,
    ) -> Array:  # fmt: skip
        """As `resampling._resampled_error`, along the transposed matrices: sums, coordinates, and stored weights."""
        total, moved = np.abs(grad_output), np.zeros_like(grad_output)
        for axis, have, one in each(grad_output, input_size, align_corners, scales):
            reach = np.clip(np.stack([one.cells[:, 0] - 1, one.cells[:, -1] + 1], 1), 0, have - 1)
            drift = u * slope * one.drift[:, None]
            sway = drift + u * one.slack + u_out * one.stored
            size = np.abs(one.weights)
            most = np.bincount(one.cells.ravel(), minlength=have).max(initial=1)
            wider = _spread(total + moved, axis, one.cells, sway, have)
            wider = wider + _spread(total + moved, axis, reach, drift.repeat(2, 1), have)
            moved = _spread(moved, axis, one.cells, size, have) + wider
            total = _spread(total, axis, one.cells, size, have)
            moved = moved + (gamma(float(most) + 2, u) + gamma(float(most), u_out)) * total
        return moved

    return Operation(compute, error)


LINEAR = interpolation_backward(TAPS["linear"], 1.0)
CUBIC = interpolation_backward(TAPS["cubic"], 1.4)


def bordered_backward(place: Callable[[Array, int], Array]) -> Operation:
    """reflection_pad and replication_pad, backward: every border cell's gradient goes to the cell that it copies.

    Args:
        place: Which cell a coordinate repeats, from the axis' size.
    """

    def compute(grad_output: Array, x: Array, padding: Sequence[int]) -> Array:
        rank = len(padding) // 2
        for back in range(rank):
            axis, before, have = grad_output.ndim - 1 - back, padding[2 * back], x.shape[-1 - back]
            cells = place(np.arange(grad_output.shape[axis]) - before, have)
            grad_output = _sent(grad_output, axis, cells, have)
        return grad_output

    def error(_y: Array, u: float, grad_output: Array, x: Array, padding: Sequence[int]) -> Array:
        """A sum of n copies: gamma(n); exact where there is one."""
        copies = compute(np.ones_like(grad_output), x, padding)
        total = compute(np.abs(grad_output), x, padding)
        return gamma(float(copies.max(initial=1.0)), u) * total * (copies > 1)

    return Operation(compute, error)


def select_backward(grad_output: Array, input_sizes: Sequence[int], dim: int, index: int) -> Array:
    """select_backward: the gradient where the index was, 0 elsewhere."""
    out = np.zeros(tuple(input_sizes))
    np.moveaxis(out, dim, 0)[index] = grad_output
    return out


def slice_backward(grad_output: Array, input_sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Array:
    """slice_backward: the gradient where the slice was, 0 elsewhere."""
    out = np.zeros(tuple(input_sizes))
    np.moveaxis(out, dim, 0)[start:end:step] = np.moveaxis(grad_output, dim, 0)
    return out


def unfold_backward(grad_in: Array, input_sizes: Sequence[int], dim: int, size: int, step: int) -> Array:
    """unfold_backward: the sum of the gradients of a cell in all slices that contain it."""
    out = np.zeros(tuple(input_sizes))
    lines = np.moveaxis(out, dim, 0)
    pieces = np.moveaxis(grad_in, (dim % out.ndim, -1), (0, 1))  # (pieces, size, ...)
    for at, piece in enumerate(pieces):
        lines[at * step : at * step + size] += piece
    return out


def unfold_backward_error(
    _y: Array, u: float, grad_in: Array, input_sizes: Sequence[int], dim: int, size: int, step: int
) -> Array:
    """A sum of at most size / step gradients, rounded up."""
    return gamma(-(-size // step), u) * unfold_backward(np.abs(grad_in), input_sizes, dim, size, step)


def embedding_backward(
    grad_output: Array, indices: Array, num_weights: int, padding_idx: int, scale_grad_by_freq: bool = False
) -> Array:
    """embedding_dense_backward: the sum of the gradients of a row of the table at all indices that read it.

    Args:
        grad_output: Shape (..., D).
        indices: The row index of each lookup, shape (...).
        num_weights: Rows of the table.
        padding_idx: A row without a gradient, or -1.
        scale_grad_by_freq: Divide by the number of indices that read the row.
    """
    places, width = np.asarray(indices).ravel(), grad_output.shape[-1]
    out = np.zeros((num_weights, width))
    np.add.at(out, places, grad_output.reshape(-1, width))
    if scale_grad_by_freq:
        out /= np.maximum(np.bincount(places, minlength=num_weights), 1)[:, None]
    if 0 <= padding_idx < num_weights:
        out[padding_idx] = 0.0
    return out


def embedding_backward_error(
    _y: Array, u: float, grad_output: Array, indices: Array, num_weights: int, padding_idx: int,
    scale_grad_by_freq: bool = False,
) -> Array:  # fmt: skip
    """A sum over the places that read the row, each divided where it is scaled."""
    counts = np.bincount(np.asarray(indices).ravel(), minlength=num_weights)[:, None]
    size = embedding_backward(np.abs(grad_output), indices, num_weights, padding_idx, scale_grad_by_freq)
    return gamma(float(counts.max(initial=1)) + 2, u) * size * ((counts > 1) | scale_grad_by_freq)


def _axes(grad: Array, input_size: Sequence[int], scales: Any) -> Iterator[tuple[int, int, float | None]]:
    """Each spatial axis, how many cells the input had there, and the factor that was given for it."""
    rank = len(input_size) - 2
    names = ["scales"] if rank == 1 else [f"scales_{axis}" for axis in "dhw"[-rank:]]
    for index, name in enumerate(names):
        yield grad.ndim - rank + index, int(input_size[2 + index]), scales.get(name)


def _sent(grad: Array, axis: int, cells: Array, have: int) -> Array:
    """Every number along `axis` added to one of `have` cells."""
    moved = np.moveaxis(grad, axis, 0)
    out = np.zeros((have, *moved.shape[1:]))
    np.add.at(out, cells, moved)
    return np.moveaxis(out, 0, axis)


def _spread(grad: Array, axis: int, cells: Array, weights: Array, have: int) -> Array:
    """Every number along `axis` added to the cells of its window, times their weights."""
    shape = [-1 if a == axis else 1 for a in range(grad.ndim)]
    parts = [_sent(grad * weights[:, tap].reshape(shape), axis, cells[:, tap], have) for tap in range(cells.shape[1])]
    return np.asarray(sum(parts))
