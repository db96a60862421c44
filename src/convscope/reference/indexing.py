"""Indexing: index, gather, scatter, embedding, bags of embeddings, and their gradients. Uses precision and NumPy."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.reference.operation import Operation
from convscope.reference.precision import carried, gamma, written
from convscope.typing import Array, Numbers

Sizes = Sequence[int]


def index(x: Array, indices: Sequence[Array | None]) -> Array:
    """index: cells by lists of coordinates or masks, one per axis; None takes a whole axis."""
    return x[tuple(slice(None) if i is None else i for i in indices)]


def index_select(x: Array, dim: int, index: Array) -> Array:
    """index_select: slices of an axis by their numbers."""
    return x.take(np.atleast_1d(index), dim) if x.ndim else x


def gather(x: Array, dim: int, index: Array) -> Array:
    """gather: for each cell of `index`, the cell of `x` with that number along `dim`; a number is a vector of one."""
    if not index.size:  # of any shape
        return np.zeros(index.shape, x.dtype)
    return np.atleast_1d(x)[_spots(np.atleast_1d(index), dim)].reshape(index.shape)


def take(x: Array, index: Array) -> Array:
    """take: cells by their numbers in reading order."""
    return np.asarray(x.reshape(-1)[index])


def select_masked(x: Array, mask: Array) -> Array:
    """masked_select: the cells where the mask holds, in reading order."""
    together = np.broadcast_shapes(x.shape, mask.shape)
    return np.asarray(np.broadcast_to(x, together)[np.broadcast_to(mask, together)])


def scatter(
    x: Array, dim: int, index: Array, src: Array | None = None, value: Numbers | None = None, reduce: str | None = None
) -> Array:
    """scatter: `x` with `src` (or a value) written where `gather` would read; "add" adds, "multiply" multiplies."""
    if not index.size:  # of any shape
        return np.array(x)
    out = np.array(x, ndmin=1)  # a number counts as a vector of one
    index = np.atleast_1d(index)
    spots = _spots(index, dim)
    if src is not None:
        new = np.atleast_1d(src)[tuple(slice(0, s) for s in index.shape)]
    elif value is not None:
        new = np.asarray(int(value) if x.dtype.kind in "iu" else value)
    else:
        raise UsageError("scatter takes a tensor or a number to write.")
    if reduce is None:
        out[spots] = new
    else:
        (np.add if reduce == "add" else np.multiply).at(out, spots, new)
    return out.reshape(x.shape)


def scatter_add(x: Array, dim: int, index: Array, src: Array) -> Array:
    """scatter_add: `x` with `src` added where `gather` would read."""
    return scatter(x, dim, index, src, reduce="add")


def scatter_add_error(_y: Array, u: float, x: Array, dim: int, index: Array, src: Array) -> Array:
    """As many additions as the axis of `index` is long, at most."""
    terms = index.shape[dim] if index.ndim else 1
    return gamma(terms, u) * scatter_add(np.abs(x), dim, index, np.abs(src))


def scatter_error(
    _y: Array, u: float, x: Array, dim: int, index: Array, src: Array | None = None, value: Numbers | None = None,
    reduce: str | None = None,
) -> Numbers:  # fmt: skip
    """Exact, but a value is written; with `reduce`, as many operations as the axis of `index` is long, at most."""
    if reduce is not None:
        size = np.abs(np.asarray(value if src is None else src))
        terms = 2 * index.shape[dim] if index.ndim else 2
        return gamma(terms, u) * scatter(np.abs(x), dim, index, size if src is not None else None, size, reduce)
    return 0.0 if value is None else scatter(np.zeros(x.shape), dim, index, value=written(value, u))


def write_part(
    x: Array, src: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """slice_scatter: `x` with one of its slices replaced."""
    out = np.array(x)
    out[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)] = src
    return out


def write_select(x: Array, src: Array, dim: int, index: int) -> Array:
    """select_scatter: `x` with slice `index` of an axis replaced."""
    out = np.array(x)
    out[(slice(None),) * (dim % x.ndim) + (index,)] = src
    return out


def write_index(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False) -> Array:
    """index_put: `x` with the cells that `index` would read replaced, or added to."""
    out, spots = np.array(x), tuple(slice(None) if i is None else i for i in indices)
    if accumulate:
        np.add.at(out, spots, values)  # type: ignore[arg-type]  # slices are allowed, NumPy's types do not say so
    else:
        out[spots] = values
    return out


def write_index_error(
    _y: Array, u: float, x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool = False
) -> Numbers:
    """Exact; when adding, as many additions as values are added to the cell."""
    if not accumulate:
        return 0.0
    share = write_index(np.zeros(x.shape), indices, np.ones(np.shape(values)), True) * u
    return share / np.maximum(1 - share, 0.0) * write_index(np.abs(x), indices, np.abs(values), True)


def embedding(weight: Array, indices: Array) -> Array:
    """embedding: row number `indices` of a table."""
    return weight[indices]


def _spots(index: Array, dim: int) -> tuple[Array, ...]:
    grid = list(np.ogrid[tuple(slice(0, s) for s in index.shape)])
    if grid:
        grid[dim % len(grid)] = index
    return tuple(grid)


# Bags of embeddings: rows of a table, a bag at a time


SUM, MEAN, MAX = range(3)


def embedding_bag(
    weight: Array, indices: Array, offsets: Array, mode: int = SUM, per_sample_weights: Array | None = None,
    include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[Array | None, ...]:  # fmt: skip
    """_embedding_bag: the sum, the mean or the largest of the rows of each bag; an empty bag is 0.

    >>> embedding_bag(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 1]), np.array([0, 2]))[0]
    array([[5.],
           [2.]])

    Args:
        weight: The table, shape (V, D).
        indices: Rows of all bags, one bag after the other, shape (L,).
        offsets: Where each bag starts, shape (B,); with `include_last_offset` one more, where the last ends.
        mode: 0 adds, 1 averages, 2 takes the largest.
        per_sample_weights: What each row is multiplied by, shape (L,).
        padding_idx: A row that does not count, or -1.

    Returns:
        Shape (B, D); and three results that only a backward pass reads, as None.
    """
    bags = _bags(weight, indices, offsets, per_sample_weights, include_last_offset, padding_idx)
    return np.array([_reduced_bag(rows, mode) for rows in bags]).reshape(-1, weight.shape[1]), None, None, None


def embedding_bag_error(
    _y: object, u: float, weight: Array, indices: Array, offsets: Array, mode: int = SUM,
    per_sample_weights: Array | None = None, include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[Array, ...]:  # fmt: skip
    """A product and an addition for each row of a bag, and a division; the largest is exact."""
    nothing = np.zeros(())
    if mode == MAX:
        return nothing, nothing, nothing, nothing
    scale = None if per_sample_weights is None else np.abs(per_sample_weights)
    bags = list(_bags(np.abs(weight), indices, offsets, scale, include_last_offset, padding_idx))
    size = np.array([_reduced_bag(rows, mode) for rows in bags]).reshape(-1, weight.shape[1])
    counts = np.array([len(rows) for rows in bags]).reshape(-1, 1)
    bound = np.vectorize(lambda count: gamma(count + 2, u), otypes=[float])(counts) * size
    return carried(bound, size * np.maximum(counts, 1), u), nothing, nothing, nothing


def _bags(
    weight: Array, indices: Array, offsets: Array, scale: Array | None, include_last_offset: bool, padding_idx: int
) -> Iterator[Array]:
    """The rows of each bag, shape (n, D).

    Raises:
        UsageError: the last offset is not where the indices end; kernels differ in what the last bag holds then.
    """
    if include_last_offset and len(offsets) and int(offsets[-1]) != len(indices):
        raise UsageError(f"the last offset is {int(offsets[-1])}, but there are {len(indices)} indices.")
    ends = [*offsets[1:], *([] if include_last_offset else [len(indices)])]
    for start, end in zip(offsets, ends, strict=False):
        part = slice(int(start), int(end))
        counts = indices[part] != padding_idx
        rows = weight[indices[part][counts]]
        yield rows if scale is None else rows * scale[part][counts][:, None]


def _reduced_bag(rows: Array, mode: int) -> Array:
    if not len(rows):
        return np.zeros(rows.shape[1])
    return np.asarray((rows.sum(0), rows.mean(0), rows.max(0))[mode])


_BAG = Operation(embedding_bag, embedding_bag_error)
EMBEDDING_BAG: Mapping[str, Operation] = {"_embedding_bag": _BAG, "_embedding_bag_forward_only": _BAG}


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


def diagonal_backward(grad_output: Array, input_sizes: Sequence[int], offset: int, dim1: int, dim2: int) -> Array:
    """diagonal_backward: the gradient on the diagonal, 0 elsewhere.

    >>> diagonal_backward(np.array([3.0]), [2, 2], 1, 0, 1).tolist()
    [[0.0, 3.0], [0.0, 0.0]]
    """
    out = np.zeros(tuple(input_sizes))
    planes = np.moveaxis(out, (dim1, dim2), (-2, -1))
    at = np.arange(grad_output.shape[-1])
    planes[..., at + max(0, -offset), at + max(0, offset)] = grad_output
    return out


def unfold_backward(grad_in: Array, input_sizes: Sequence[int], dim: int, size: int, step: int) -> Array:
    """unfold_backward: the sum of the gradients of a cell in all slices that contain it."""
    out = np.zeros(tuple(input_sizes))
    lines = np.moveaxis(out, dim, 0)
    pieces = np.moveaxis(grad_in, (dim % out.ndim, -1), (0, 1))  # (pieces, size, ...)
    for piece_index, piece in enumerate(pieces):
        lines[piece_index * step : piece_index * step + size] += piece
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
