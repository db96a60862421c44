"""Movement: view, permute, expand, slice, roll, split, shuffle: the same numbers in another place. Uses NumPy.

Every operation here is exact. Arrays may share memory with their input; nothing is written into.
"""

import math
from collections.abc import Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.reference.precision import cast
from convscope.typing import Array, Index

Sizes = Sequence[int]


def same(x: Array) -> Array:
    """clone, detach, alias, contiguous, lift_fresh: the tensor as it is."""
    return x


def view(x: Array, size: Sizes) -> Array:
    """view, _unsafe_view: the same cells in reading order, in another shape; one -1 is worked out."""
    return x.reshape(tuple(size))


def reshape(x: Array, shape: Sizes) -> Array:
    """reshape: as `view`."""
    return view(x, shape)


def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """flatten: the axes from `start_dim` to `end_dim` become one."""
    if not x.ndim:
        return x.reshape(1)
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])


def unflatten(x: Array, dim: int, sizes: Sizes) -> Array:
    """unflatten: one axis becomes several."""
    axis = dim % x.ndim
    known_size = -math.prod(sizes) if -1 in sizes else 1
    full_sizes = [x.shape[axis] // known_size if s == -1 else s for s in sizes]
    return x.reshape(*x.shape[:axis], *full_sizes, *x.shape[axis + 1 :])


def squeeze(x: Array, dim: int | Sizes | None = None) -> Array:
    """squeeze: without the axes of length 1, all or those named."""
    dims = range(x.ndim) if dim is None else [int(d) % max(1, x.ndim) for d in np.atleast_1d(dim)]
    return x.squeeze(tuple(d for d in dims if x.ndim and x.shape[d] == 1))


def unsqueeze(x: Array, dim: int) -> Array:
    """unsqueeze: with one more axis, of length 1."""
    return np.expand_dims(x, dim)


def transpose(x: Array, dim0: int, dim1: int) -> Array:
    """transpose: two axes change places."""
    return np.swapaxes(x, dim0, dim1) if x.ndim else x


def turned(x: Array) -> Array:
    """t: a matrix mirrored at its diagonal."""
    return x.T


def permute(x: Array, dims: Sizes) -> Array:
    """permute: the axes in another order."""
    return x.transpose(tuple(dims))


def move_axis(x: Array, source: int | Sizes, destination: int | Sizes) -> Array:
    """movedim: axes to other places, the rest in order."""
    return np.moveaxis(x, source, destination)


def expand(x: Array, size: Sizes) -> Array:
    """expand: axes of length 1 repeated; -1 keeps a length."""
    lead = len(size) - x.ndim
    target_size = [x.shape[i - lead] if s == -1 else s for i, s in enumerate(size)]
    return np.broadcast_to(x, target_size)


def expand_as(x: Array, right: Array) -> Array:
    """expand_as: to the shape of another tensor."""
    return np.broadcast_to(x, right.shape)


def repeat(x: Array, repeats: Sizes) -> Array:
    """repeat, tile: the whole tensor again and again along each axis."""
    return np.tile(x, tuple(repeats))


def tile(x: Array, dims: Sizes) -> Array:
    """tile: as `repeat`."""
    return np.tile(x, tuple(dims))


def repeat_each(x: Array, repeats: int | Array, dim: int | None = None) -> Array:
    """repeat_interleave: each cell again and again."""
    return np.repeat(x, repeats, dim)


def cat(tensors: Sequence[Array], dim: int = 0) -> Array:
    """cat: one after the other along an axis they have. Empty vectors take no part, as in PyTorch."""
    return np.concatenate([t for t in tensors if t.shape != (0,)] or list(tensors), dim)


def stack(tensors: Sequence[Array], dim: int = 0) -> Array:
    """stack: one after the other along a new axis."""
    return np.stack(tuple(tensors), dim)


def split(x: Array, split_size: int | Sizes, dim: int = 0) -> tuple[Array, ...]:
    """split: pieces of one size (the last may be smaller), or of the sizes given."""
    if not isinstance(split_size, int | np.integer):
        return split_sizes(x, split_size, dim)
    return tuple(np.split(x, np.arange(split_size, x.shape[dim], split_size), dim)) if split_size else (x,)


def split_sizes(x: Array, split_sizes: Sizes, dim: int = 0) -> tuple[Array, ...]:
    """split_with_sizes: pieces of the sizes given."""
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], dim))


def chunk(x: Array, chunks: int, dim: int = 0) -> tuple[Array, ...]:
    """chunk: at most that many pieces, all of the same size except the last."""
    return split(x, max(1, -(-x.shape[dim] // chunks)), dim)


def unbind(x: Array, dim: int = 0) -> tuple[Array, ...]:
    """unbind: the slices along an axis, without it."""
    return tuple(np.moveaxis(x, dim, 0))


def part(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    """slice: from `start` to before `end` along an axis; negative ones count from the end."""
    return np.asarray(x[_along(x, dim, slice(start, end, step))])


def narrow(x: Array, dim: int, start: int, length: int) -> Array:
    """narrow: `length` cells of an axis, from `start`."""
    first = int(start) % max(1, x.shape[dim])
    return part(x, dim, first, first + length)


def select(x: Array, dim: int, index: int) -> Array:
    """select: one slice of an axis, without the axis."""
    return np.asarray(x.take(index, dim))


def roll(x: Array, shifts: int | Sizes, dims: int | Sizes = ()) -> Array:
    """roll: moved along axes (or in reading order); what leaves at the end enters at the start."""
    axes = np.atleast_1d(dims).astype(int).tolist()
    moves = np.atleast_1d(shifts).tolist()
    return np.roll(x, moves, axes) if axes else np.roll(x, moves[0])


def flip(x: Array, dims: Sizes) -> Array:
    """flip: read from the other end."""
    return np.flip(x, tuple(dims))


def quarter_turns(x: Array, k: int = 1, dims: Sizes = (0, 1)) -> Array:
    """rot90: a plane turned by quarters, from the first of two axes towards the second."""
    return np.rot90(x, k, (dims[0], dims[1]))


def repeated_positions(repeats: Array) -> Array:
    """repeat_interleave of counts alone: position i as often as the i-th count says."""
    return np.repeat(np.arange(len(repeats)), repeats)


def repeat_interleave(
    x: Array | None = None, repeats: Array | int | None = None, dim: int | None = None, output_size: int | None = None
) -> Array:
    """repeat_interleave in both of ATen's forms; `output_size` is only what the counts add up to."""
    del output_size
    assert repeats is not None
    return repeated_positions(np.asarray(repeats)) if x is None else repeat_each(x, repeats, dim)


def diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """diagonal: of each matrix on two axes, as a last axis."""
    return np.diagonal(x, offset, dim1, dim2)


def lower(x: Array, diagonal: int = 0) -> Array:
    """tril: zero above a diagonal."""
    return np.tril(x, diagonal)


def upper(x: Array, diagonal: int = 0) -> Array:
    """triu: zero below a diagonal."""
    return np.triu(x, diagonal)


def strided(
    x: Array, size: Sizes, stride: Sizes, storage_offset: int | None = None, memory: tuple[Sizes, int] | None = None
) -> Array:
    """as_strided: cells of memory at fixed steps.

    >>> strided(np.array([[1, 2], [3, 4]]), [2], [2], memory=([1, 2], 0)).tolist()
    [1, 2]

    Args:
        x: Any array.
        size, stride: The result's, in cells.
        storage_offset: The first cell of the result in memory; by default that of `x`.
        memory: Strides of `x` and its first cell, in the same memory; by default row by row from 0.

    Raises:
        UsageError: a cell of the result is outside `x`.
    """
    steps, first = memory or ([math.prod(x.shape[axis + 1 :]) for axis in range(x.ndim)], 0)
    places = _addresses(x.shape, steps, first).ravel()
    addresses = _addresses(size, stride, first if storage_offset is None else storage_offset)
    order = np.argsort(places, kind="stable")
    positions = np.searchsorted(places, addresses, sorter=order)
    if (positions == x.size).any() or (places[order[positions]] != addresses).any():
        raise UsageError("as_strided reads memory outside its input, which is not recorded.")
    return np.asarray(x.reshape(-1)[order[positions]])


def _addresses(size: Sizes, stride: Sizes, first: int) -> Array:
    """Where each cell is in memory, in the shape `size`."""
    addresses = np.full((), first, np.int64)
    for n, step in zip(size, stride, strict=True):
        addresses = addresses[..., None] + np.arange(n, dtype=np.int64) * step
    return addresses


def windows(x: Array, dimension: int, size: int, step: int) -> Array:
    """unfold: the windows of an axis, each as a new last axis; a number counts as an axis of one."""
    if not x.ndim:
        return x.reshape(1)[:size]
    axis = dimension % x.ndim
    starts = np.arange(0, x.shape[axis] - size + 1, step)
    return np.moveaxis(x.take(starts[:, None] + np.arange(size), axis), axis + 1, -1)


def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """pixel_shuffle: channels become finer rows and columns: (N, C·f², H, W) -> (N, C, H·f, W·f)."""
    f, (*lead, channels, h, w) = upscale_factor, x.shape
    fine = x.reshape(*lead, channels // f**2, f, f, h, w)  # (N, C, f, f, H, W)
    return np.moveaxis(fine, (-2, -4, -1, -3), (-4, -3, -2, -1)).reshape(*lead, channels // f**2, h * f, w * f)


def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    """pixel_unshuffle: rows and columns become channels: (N, C, H·f, W·f) -> (N, C·f², H, W)."""
    f, (*lead, channels, h, w) = downscale_factor, x.shape
    coarse = x.reshape(*lead, channels, h // f, f, w // f, f)  # (N, C, H, f, W, f)
    return np.moveaxis(coarse, (-3, -1), (-4, -3)).reshape(*lead, channels * f**2, h // f, w // f)


def channel_shuffle(x: Array, groups: int) -> Array:
    """channel_shuffle: channel (g, i) becomes (i, g)."""
    grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    return np.swapaxes(grouped, 1, 2).reshape(x.shape)


def copy(x: Array, src: Array) -> Array:
    """copy: `src` in the shape and kind of `x`."""
    return np.broadcast_to(cast(src, None if x.dtype.kind == "f" else x.dtype), x.shape)


def _along(x: Array, dim: int, index: int | slice | Array) -> Index:
    return (slice(None),) * (dim % x.ndim) + (index,)
