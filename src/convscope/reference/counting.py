"""Ranks, counts and places: median, mode, cummax, nonzero, unique, searchsorted, histogram. Uses precision, NumPy."""

from collections.abc import Callable, Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.reference.operation import Errors
from convscope.reference.precision import cast, gamma, largest, written
from convscope.reference.reductions import Axes, axes_of
from convscope.reference.selection import Selected, ties
from convscope.typing import Array, DType, Numbers


def _at_rank(x: Array, dim: int | None, keepdim: bool, rank: Callable[[Array], int]) -> Selected:
    """The number of a rank along an axis, nan last, and where it is; of all cells without an axis."""
    if dim is None or not x.ndim:
        flat = np.sort(x, axis=None)
        value = np.asarray(flat[rank(flat)] if flat.size else np.nan)
        return value if dim is None else (value, np.zeros((), np.int64))
    order = np.argsort(x, axis=dim, kind="stable")
    inner = np.moveaxis(np.take_along_axis(x, order, dim), dim, -1)
    rank_index = np.expand_dims(np.apply_along_axis(rank, -1, inner), dim)
    index = np.take_along_axis(order, rank_index, dim)
    value = np.take_along_axis(x, index, dim)
    return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))


def median(x: Array, dim: int | None = None, keepdim: bool = False) -> Selected:
    """The number in the middle, the lower one of two; nan where there is one.

    >>> float(median(np.array([4.0, 1.0, 3.0, 2.0])))
    2.0
    """
    return _at_rank(x, dim, keepdim, lambda row: row.size - 1 if np.isnan(row[-1]) else (row.size - 1) // 2)


def nanmedian(x: Array, dim: int | None = None, keepdim: bool = False) -> Selected:
    """The median of the numbers that are not nan."""
    return _at_rank(x, dim, keepdim, lambda row: max(int(np.count_nonzero(~np.isnan(row))) - 1, 0) // 2)


def kth_value(x: Array, k: int, dim: int = -1, keepdim: bool = False) -> Selected:
    """kthvalue: number k from the smallest, nan last."""
    return _at_rank(x, dim, keepdim, lambda _row: k - 1)


def mode(x: Array, dim: int = -1, keepdim: bool = False) -> Selected:
    """The most frequent number, the smallest of equally frequent ones.

    Raises:
        UsageError: there is nan among them, where PyTorch's answer depends on their order.
    """
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise UsageError("the reference has no mode of numbers with nan.")

    def rank(row: Array) -> int:
        counts = [int(np.count_nonzero(row == value)) for value in row]
        return int(np.argmax(counts))

    return _at_rank(x, dim, keepdim, rank)


def place_error(
    y: Selected, _u: float, x: Array, dim: int | None = None, keepdim: bool = False, k: int | None = None
) -> Errors:
    """The number is exact; its index is open where it occurs more than once."""
    if not isinstance(y, tuple):
        return 0.0
    axis = -1 if dim is None else dim
    return 0.0, ties(x, y[0] if keepdim or not x.ndim else np.expand_dims(y[0], axis), axis, keepdim) if x.ndim else 0.0


def kth_error(y: Selected, u: float, x: Array, k: int, dim: int = -1, keepdim: bool = False) -> Errors:
    """The same bound as `place_error`."""
    return place_error(y, u, x, dim, keepdim, k)


def mode_error(y: Selected, u: float, x: Array, dim: int = -1, keepdim: bool = False) -> Errors:
    """The same bound as `place_error`."""
    return place_error(y, u, x, dim, keepdim)


def running_extreme(pick: np.ufunc) -> Callable[[Array, int], tuple[Array, Array]]:
    """cummax or cummin: the maximum or minimum so far, and its last index."""

    def running(x: Array, dim: int) -> tuple[Array, Array]:
        if not x.ndim:
            return x, np.zeros((), np.int64)
        best = pick.accumulate(x, dim)
        positions = np.arange(x.shape[dim]).reshape([-1 if a == dim % x.ndim else 1 for a in range(x.ndim)])
        is_new_best = (x == best) | np.isnan(x)
        return best, np.maximum.accumulate(np.where(is_new_best, positions, 0), dim)

    return running


def running_product(x: Array, dim: int, dtype: DType = None) -> Array:
    """cumprod: each cell times all before it on the axis."""
    return cast(x, dtype).cumprod(dim) if x.ndim else cast(x, dtype)


def running_product_error(y: Array, u: float, x: Array, dim: int, dtype: DType = None) -> Numbers:
    """At most one rounding for each cell of the axis (Higham, lemma 3.1)."""
    return gamma(x.shape[dim] if x.ndim else 1, u) * np.abs(y) if y.dtype.kind == "f" else 0.0


def running_log_sum(x: Array, dim: int) -> Array:
    """logcumsumexp: the logarithm of the sum of the exponentials so far."""
    result: Array = np.logaddexp.accumulate(x, dim) if x.ndim else x
    return result


def running_log_sum_error(y: Array, u: float, x: Array, dim: int, u_out: float = 0.0) -> Array:
    """Every addition rounds its result, and 1 by up to 16 for its exp and logarithm."""
    if not x.ndim:
        return np.zeros(())
    largest = np.maximum.accumulate(np.where(np.isfinite(y), np.abs(y), 0.0), dim)
    return np.asarray(x.shape[dim] * (u * (16 + 2 * largest) + u_out * largest))


def count_nonzero(x: Array, dim: Axes = None) -> Array:
    """How many cells are not 0."""
    return np.asarray(np.count_nonzero(x, axis=axes_of(dim, x.ndim)))


def nonzero(x: Array) -> Array:
    """The indices of the cells that are not 0, one row for each."""
    return np.argwhere(x)


def nonzero_static(x: Array, size: int, fill_value: int = -1) -> Array:
    """The first rows of `nonzero`, filled up to a number of rows."""
    rows = np.argwhere(x)[:size]
    return np.concatenate([rows, np.full((size - len(rows), x.ndim), fill_value, rows.dtype)])


def _distinct(rows: Array, *, in_turn: bool) -> tuple[Array, Array, Array]:
    """First row, kind of each row, and count of each kind; kinds in the order of their numbers or of their runs."""
    if in_turn:
        new = np.ones(len(rows), bool)
        new[1:] = [not np.array_equal(a, b) for a, b in zip(rows[1:], rows[:-1], strict=True)]
        kinds = np.cumsum(new) - 1
        return np.flatnonzero(new), kinds, np.bincount(kinds, minlength=int(new.sum()))
    if not rows.shape[1]:
        return (
            np.zeros(min(1, len(rows)), np.int64),
            np.zeros(len(rows), np.int64),
            np.full(min(1, len(rows)), len(rows)),
        )
    _, first, kinds, counts = np.unique(
        rows, axis=0, return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    return first, kinds.reshape(-1), counts


def _unique(x: Array, dim: int | None, requested: tuple[bool, bool], *, in_turn: bool) -> tuple[Array | None, ...]:
    if dim is None:
        rows = x.reshape(-1, 1)
        first, kinds, counts = _distinct(rows, in_turn=in_turn)
        values, kinds = x.reshape(-1)[first], kinds.reshape(x.shape)
    else:
        rows = np.moveaxis(x, dim, 0).reshape(x.shape[dim], -1)
        first, kinds, counts = _distinct(rows, in_turn=in_turn)
        values = x.take(first, dim)
    return values, kinds if requested[0] else None, counts if requested[1] else None


def unique(x: Array, return_inverse: bool = False, return_counts: bool = False) -> tuple[Array | None, ...]:
    """_unique2: the distinct numbers in order, the index of each cell's number among them, and their counts.

    >>> [a.tolist() for a in unique(np.array([3.0, 1.0, 3.0]), return_inverse=True, return_counts=True)]
    [[1.0, 3.0], [1, 0, 1], [1, 2]]
    """
    return _unique(x, None, (return_inverse, return_counts), in_turn=False)


def unique_error(
    _y: object, _u: float, x: Array, return_inverse: bool = False, return_counts: bool = False
) -> tuple[Numbers, ...]:
    """Exact, but each nan is distinct, and the order of several depends on the kernel."""
    is_nan = np.isnan(x)
    return 0.0, np.where(is_nan & (is_nan.sum() > 1), np.inf, 0.0), 0.0


def unique_slices(
    x: Array,
    dim: int,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> tuple[Array | None, ...]:
    """unique_dim: like `unique`, for the slices of an axis.

    Raises:
        UsageError: a slice contains nan, which has no place in the order of slices.
    """
    if np.isnan(x).any():
        raise UsageError("slices that contain nan cannot be ordered.")
    return _unique(x, dim, (return_inverse, return_counts), in_turn=False)


def unique_runs(
    x: Array, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> tuple[Array | None, ...]:
    """unique_consecutive: the first of each run of equal numbers or slices."""
    return _unique(x, dim, (return_inverse, return_counts), in_turn=True)


def search(
    sorted_sequence: Array, x: Numbers, out_int32: bool = False, right: bool = False, side: str | None = None,
    sorter: Array | None = None,
) -> Array:  # fmt: skip
    """searchsorted: how many numbers of a sorted row come before the insertion point of `x`.

    The search halves the row, so that its result is defined also where the row is not sorted, or holds nan.

    >>> search(np.array([1.0, 3.0, 5.0]), np.array([3.0, 4.0])).tolist(), search(np.array([3.0, 1.0]), 2.0).tolist()
    ([1, 2], 2)

    Source: PyTorch, aten/src/ATen/native/Bucketization.cpp, cus_lower_bound and cus_upper_bound.
    """
    rows = sorted_sequence if sorter is None else np.take_along_axis(sorted_sequence, sorter, -1)
    values = np.asarray(x)
    rows = np.broadcast_to(rows, (*values.shape[:-1], rows.shape[-1])) if rows.ndim == 1 and values.ndim else rows
    low, high = np.zeros(values.shape, np.int64), np.full(values.shape, rows.shape[-1], np.int64)
    while (searching := low < high).any():
        middle = (low + high) // 2
        probe = np.minimum(middle, rows.shape[-1] - 1)
        number = np.take_along_axis(rows, probe, -1) if values.ndim else rows[probe]
        before = ~(number > values if right or side == "right" else number >= values)
        low, high = np.where(searching & before, middle + 1, low), np.where(searching & ~before, middle, high)
    return _as_index(low, out_int32)


def search_error(_y: Array, u: float, sorted_sequence: Array, x: Numbers, **_: object) -> Numbers:
    """Exact between tensors; a number, once written, may have passed a cell."""
    if np.ndim(x):
        return 0.0
    return float(np.count_nonzero((np.abs(sorted_sequence - x) <= written(x, u)) & (written(x, u) > 0)))


def bucket(x: Numbers, boundaries: Array, out_int32: bool = False, right: bool = False) -> Array:
    """bucketize: the index of the bucket of a number."""
    return search(boundaries, x, out_int32, right)


def bucket_error(y: Array, u: float, x: Numbers, boundaries: Array, **_: object) -> Numbers:
    """The same bound as `search_error`."""
    return search_error(y, u, boundaries, x)


def _as_index(places: Array, out_int32: bool) -> Array:
    return np.asarray(places).astype(np.int32 if out_int32 else np.int64)


def is_among(elements: Numbers, test_elements: Numbers, assume_unique: bool = False, invert: bool = False) -> Array:
    """isin: whether a number is among others."""
    return np.asarray(np.isin(elements, test_elements, assume_unique=assume_unique, invert=invert))


def fixed_histogram(x: Array, bins: int = 100, low: float = 0, high: float = 0) -> Array:
    """histc: how many numbers are in each of some bins of equal width; of the data's range where low = high."""
    return _counted(x.reshape(-1), _edges(x, bins, (low, high) if low != high else None, 1.0), None)


def fixed_histogram_error(_y: Array, u: float, x: Array, bins: int = 100, low: float = 0, high: float = 0) -> Array:
    """Numbers near an inner edge can be in either bin; counts are exact while the type holds every integer.

    A kernel multiplies distances by the number of bins: where a wide range makes this overflow, nothing is known.
    """
    edges = _edges(x, bins, (low, high) if low != high else None, 1.0)
    if len(edges) * (edges[-1] - edges[0]) >= largest(u):
        return np.full(bins, np.inf)
    count = _counted(x.reshape(-1), edges, None)
    return _near(x.reshape(-1), edges, None, u, exact=False) + np.where(count * u > 0.5, gamma(x.size, u) * count, 0.0)


def histogram(
    x: Array, bins: int | Array, range: Sequence[float] | None = None, weight: Array | None = None,  # noqa: A002
    density: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """histogram: the counts, or sums of weights, of bins, and their edges; as a density their area is 1.

    Raises:
        UsageError: edges that are not sorted, or data with nan, which PyTorch's kernel may count in any bin.
    """
    if np.isnan(x).any():
        raise UsageError("a histogram has no bin for nan.")
    edges = _all_edges(x, bins, range)
    count = _counted(x.reshape(-1), edges, weight)
    return (count / count.sum() / np.diff(edges) if density else count), edges


def histogram_error(
    y: tuple[Array, ...], u: float, x: Array, bins: int | Array, range: Sequence[float] | None = None,  # noqa: A002
    weight: Array | None = None, density: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Numbers near an inner edge may be in either bin, weights are added, a density divides by the bin's width."""
    edges = _all_edges(x, bins, range)
    has_edges = not isinstance(bins, int)
    size = np.abs(edges[[0, -1]]).sum()
    edge_error = np.zeros(edges.shape) if has_edges else np.full(edges.shape, 6 * u * size)
    near = _near(x.reshape(-1), edges, weight, u, exact=has_edges)
    if weight is not None:
        near = near + gamma(x.size, u) * _counted(x.reshape(-1), edges, np.abs(weight))
    if not density:
        return near, edge_error
    count, width = _counted(x.reshape(-1), edges, weight), np.diff(edges)
    total = np.abs(count).sum()
    density_error = (near + np.abs(y[0] * width) * near.sum()) / total / width
    return density_error + np.abs(y[0]) * (6 * u + gamma(x.size, u) + 2 * edge_error[0] / width), edge_error


def _all_edges(x: Array, bins: int | Array, range: Sequence[float] | None) -> Array:  # noqa: A002
    if isinstance(bins, int | np.integer):
        return _edges(x, int(bins), None if range is None else (range[0], range[1]), 0.5)
    if (np.diff(bins) < 0).any():
        raise UsageError("the reference knows histograms whose edges are sorted.")
    return bins


def _edges(x: Array, bins: int, limits: tuple[float, float] | None, more: float) -> Array:
    """Evenly spaced over the limits, or over the data; an empty range is widened by `more` on either side."""
    if limits is None:
        limits = (x.min(), x.max()) if x.size else (0.0, 1.0 if more < 1 else 0.0)
    low, high = limits
    if low == high:
        low, high = low - more, high + more
    return np.linspace(low, high, bins + 1)


def _counted(x: Array, edges: Array, weight: Array | None) -> Array:
    """The sum of the weights in each bin; the last bin includes its upper edge."""
    inside = (x >= edges[0]) & (x <= edges[-1])
    bins = np.minimum(np.searchsorted(edges, x[inside], "right") - 1, len(edges) - 2)
    bin_weights = None if weight is None else weight.reshape(-1)[inside]
    return np.bincount(bins, bin_weights, len(edges) - 1).astype(np.float64)


def _near(x: Array, edges: Array, weight: Array | None, u: float, *, exact: bool) -> Array:
    """For each bin, the weights of numbers within 6 roundings of one of its inner edges."""
    cell_weights = np.ones(x.shape) if weight is None else np.abs(weight.reshape(-1))
    if exact:
        return np.zeros(len(edges) - 1)
    close = np.abs(x[:, None] - edges[1:-1]) <= 6 * u * np.abs(edges[[0, -1]]).sum()
    edge_weights = (cell_weights[:, None] * close).sum(0)
    return np.asarray(np.concatenate([edge_weights, [0.0]]) + np.concatenate([[0.0], edge_weights]))
