"""Writing into tensors and laying them out: index_add, scatter_reduce, put, masked_scatter, diag_embed. Uses NumPy.

Where several numbers are written to one cell without being combined, the last one stays, as PyTorch's CPU kernels do.
"""

from collections.abc import Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.reference.precision import carried, gamma, smallest, written
from convscope.typing import Array, Numbers

COMBINED: dict[str, np.ufunc] = {
    "sum": np.add, "mean": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum,
}  # fmt: skip
NEUTRAL = {"sum": 0, "mean": 0, "prod": 1, "amax": -np.inf, "amin": np.inf}
"""The neutral element of each way of combining."""


def add_slices(x: Array, dim: int, index: Array, source: Array, alpha: float = 1) -> Array:
    """index_add: `alpha` times slice i of `source` added to slice index[i] of an axis.

    >>> add_slices(np.zeros(3), 0, np.array([2, 0, 2]), np.array([1.0, 2.0, 3.0])).tolist()
    [2.0, 0.0, 4.0]
    """
    out = np.array(x, ndmin=1)
    front = np.moveaxis(out, dim, 0)
    np.add.at(front, np.atleast_1d(index), alpha * np.moveaxis(np.array(source, ndmin=out.ndim), dim, 0))
    return out.reshape(x.shape)


def add_slices_error(_y: Array, u: float, x: Array, dim: int, index: Array, source: Array, alpha: float = 1) -> Array:
    """A product and as many additions as the index has entries, at most."""
    size = add_slices(np.abs(x), dim, index, np.abs(source), abs(alpha))
    return carried(gamma(np.asarray(index).size + 2, u) * size, size, u) if x.dtype.kind == "f" else np.zeros(())


def copy_slices(x: Array, dim: int, index: Array, source: Array) -> Array:
    """index_copy: slice i of `source` replaces slice index[i]."""
    out = np.array(x, ndmin=1)
    np.moveaxis(out, dim, 0)[np.atleast_1d(index)] = np.moveaxis(np.array(source, ndmin=out.ndim), dim, 0)
    return out.reshape(x.shape)


def fill_slices(x: Array, dim: int, index: Array, value: Numbers) -> Array:
    """index_fill: one number in the slices that an index selects."""
    out = np.array(x, ndmin=1)
    np.moveaxis(out, dim, 0)[np.atleast_1d(index)] = value
    return out.reshape(x.shape)


def fill_slices_error(_y: Array, u: float, x: Array, dim: int, index: Array, value: Numbers) -> Array:
    """Exact, but the value is written in the tensor's type."""
    return fill_slices(np.zeros(x.shape), dim, index, written(value, u) if np.ndim(value) == 0 else 0.0)


def scatter_reduced(x: Array, dim: int, index: Array, src: Array, reduce: str, include_self: bool = True) -> Array:
    """scatter_reduce: the numbers written to a cell combined, with its own unless `include_self` is false.

    >>> scatter_reduced(np.array([5.0, 1.0]), 0, np.array([0, 0]), np.array([1.0, 3.0]), "mean", False).tolist()
    [2.0, 1.0]

    Raises:
        UsageError: a mean of integers, which PyTorch rounds down.
    """
    if reduce == "mean" and x.dtype.kind in "iub":
        raise UsageError("the reference has no mean of integers.")
    out, index = np.array(x, ndmin=1), np.atleast_1d(index)
    axes = list(np.ogrid[tuple(map(slice, index.shape))])
    axes[dim % index.ndim] = index
    target, sources = tuple(axes), np.atleast_1d(src)[tuple(map(slice, index.shape))]
    if not include_self:
        out[target] = np.iinfo(x.dtype).min if x.dtype.kind in "iu" and reduce == "amax" else (
            np.iinfo(x.dtype).max if x.dtype.kind in "iu" and reduce == "amin" else NEUTRAL[reduce]
        )  # fmt: skip
    COMBINED[reduce].at(out, target, sources)
    if reduce == "mean":
        count = np.full(out.shape, 1.0 if include_self else 0.0)
        np.add.at(count, target, 1.0)
        out = out / np.maximum(count, 1.0)
    return out.reshape(x.shape)


def scatter_reduced_error(
    y: Array, u: float, x: Array, dim: int, index: Array, src: Array, reduce: str, include_self: bool = True
) -> Numbers:
    """At most one addition or product for each index along the axis, and a division; extremes are exact.

    An intermediate product may underflow; what it loses is multiplied by all factors above 1.
    """
    if reduce in {"amax", "amin"} or y.dtype.kind != "f":
        return 0.0
    terms = (index.shape[dim] if np.ndim(index) else 1) + 2
    if reduce == "prod":
        sizes, source_sizes = (np.where(values == 0, 1.0, np.abs(values)) for values in (x, src))
        low, high = (
            scatter_reduced(limit(sizes, 1.0), dim, index, limit(source_sizes, 1.0), "prod", include_self)
            for limit in (np.minimum, np.maximum)
        )
        return gamma(terms, u) * np.abs(y) + np.where(low < smallest(u), terms * smallest(u) * high, 0.0)
    total = scatter_reduced(np.abs(x), dim, index, np.abs(src), "sum", include_self)
    size = scatter_reduced(np.abs(x), dim, index, np.abs(src), reduce, include_self)
    return carried(gamma(terms, u) * size, total, u)


def reduced_slices(x: Array, dim: int, index: Array, source: Array, reduce: str, include_self: bool = True) -> Array:
    """index_reduce: as `scatter_reduced`, whole slices at once."""
    return scatter_reduced(x, dim, _spread(index, dim, source), source, reduce, include_self)


def reduced_slices_error(
    y: Array, u: float, x: Array, dim: int, index: Array, source: Array, reduce: str, include_self: bool = True
) -> Numbers:
    """The same bound as `scatter_reduced_error`."""
    return scatter_reduced_error(y, u, x, dim, _spread(index, dim, source), source, reduce, include_self)


def put(x: Array, index: Array, source: Array, accumulate: bool = False) -> Array:
    """put: numbers written, or added, to cells at flat indices."""
    out = np.array(x, order="C")
    flat = out.reshape(-1)
    positions = np.asarray(index).reshape(-1)
    if accumulate:
        np.add.at(flat, positions, np.asarray(source).reshape(-1))
    else:
        flat[positions] = np.asarray(source).reshape(-1)
    return out


def put_error(_y: Array, u: float, x: Array, index: Array, source: Array, accumulate: bool = False) -> Numbers:
    """Exact; when adding, as many additions as there are numbers, at most."""
    if not accumulate or x.dtype.kind != "f":
        return 0.0
    return gamma(np.asarray(index).size + 1, u) * put(np.abs(x), index, np.abs(source), True)


def write_masked(x: Array, mask: Array, source: Array) -> Array:
    """masked_scatter: the first numbers of `source`, in row-major order, where the mask is true."""
    shape = np.broadcast_shapes(x.shape, mask.shape)
    out, full_mask = np.array(np.broadcast_to(x, shape)), np.broadcast_to(mask, shape)
    out[full_mask] = np.asarray(source).reshape(-1)[: int(full_mask.sum())]
    return out


def write_diagonal(x: Array, src: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    """diagonal_scatter: `x` with the diagonal of each matrix on two axes replaced."""
    out = np.array(x)
    turned = np.moveaxis(out, (dim1, dim2), (-2, -1))
    rows = np.arange(np.shape(src)[-1]) + max(-offset, 0)
    turned[..., rows, rows + offset] = src
    return out


def write_strided(
    x: Array, src: Array, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None,
    memory: tuple[Sequence[int], int] | None = None,
) -> Array:  # fmt: skip
    """as_strided_scatter: `x` with cells at fixed steps of its memory replaced.

    Args:
        x, src: Any array, and what is written into it.
        size, stride: Of what is written, in cells of memory.
        storage_offset: Its first cell in memory; by default that of `x`.
        memory: Strides of `x` and its first cell, in the same memory; by default row by row from 0.

    Raises:
        UsageError: `x` is not laid out row by row.
    """
    out = np.array(x, order="C")
    layout, first = memory or ([step // out.itemsize for step in out.strides], 0)
    if any(n > 1 and a * out.itemsize != b for n, a, b in zip(out.shape, layout, out.strides, strict=True)):
        raise UsageError("the reference knows as_strided_scatter for tensors that are laid out row by row.")
    along_axes = (np.arange(n)[(slice(None), *(None,) * (len(size) - 1 - i))] * stride[i] for i, n in enumerate(size))
    positions = sum(along_axes, start=np.asarray(0 if storage_offset is None else storage_offset - first))
    out.reshape(-1)[positions] = src
    return out


def embed_diagonal(x: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    """diag_embed: vectors as the diagonals of matrices of zeros.

    >>> embed_diagonal(np.array([1, 2]), 1).tolist()
    [[0, 1, 0], [0, 0, 2], [0, 0, 0]]
    """
    length, rank = x.shape[-1] + abs(offset), x.ndim + 1
    out = np.zeros((*x.shape[:-1], length, length), x.dtype)
    rows = np.arange(x.shape[-1]) + max(-offset, 0)
    out[..., rows, rows + offset] = x
    return np.moveaxis(out, (-2, -1), (dim1 % rank, dim2 % rank))


def block_diagonal(tensors: Sequence[Array]) -> Array:
    """block_diag: matrices as blocks along the diagonal, zeros elsewhere."""
    blocks = [np.atleast_2d(t) for t in tensors]
    out = np.zeros(np.sum([b.shape for b in blocks], axis=0), np.result_type(*blocks))
    row = column = 0
    for block in blocks:
        row, column = row + block.shape[0], column + block.shape[1]
        out[row - block.shape[0] : row, column - block.shape[1] : column] = block
    return out


def _spread(index: Array, dim: int, source: Array) -> Array:
    """The index of an axis for every cell of `source`."""
    rank = max(np.ndim(source), 1)
    shape = [-1 if axis == dim % rank else 1 for axis in range(rank)]
    return np.broadcast_to(np.reshape(index, shape), np.atleast_1d(source).shape)
