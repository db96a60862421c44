"""Reductions: sum, mean, variance, product, norm, running sums, log of a sum of exponentials; the same of segments.

Uses precision and NumPy. `dim` is an axis, several, or None (or none of them) for all, as in PyTorch. A segment is a
run of an axis.
"""

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import numpy as np

from convscope.errors import UsageError
from convscope.reference.moments import Kernel, moments, moments_error
from convscope.reference.precision import FUNCTION, carried, cast, gamma, scalar, smallest
from convscope.typing import Array, DType, Numbers

Axes = int | Sequence[int] | None


def axes_of(dim: Axes, rank: int) -> tuple[int, ...]:
    """The axes that `dim` means, counted from the front.

    >>> axes_of(None, 3), axes_of(-1, 3), axes_of([0, -2], 3)
    ((0, 1, 2), (2,), (0, 1))
    """
    if dim is None or (not isinstance(dim, int | np.integer) and not len(dim)):
        return tuple(range(rank))
    return tuple(int(d) % rank if rank else 0 for d in np.atleast_1d(dim)) if rank else ()


def count_of(x: Array, dim: Axes) -> int:
    """How many cells meet in one cell of the result."""
    return int(np.prod([x.shape[a] for a in axes_of(dim, x.ndim)], dtype=np.int64))


def total(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """sum: of float64 cells, or of integers and booleans as int64."""
    return np.asarray(cast(x, dtype).sum(axes_of(dim, x.ndim), keepdims=keepdim))


def total_error(y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Numbers:
    """Higham, section 4.2: any order of n additions is within gamma(n) of the sum of magnitudes; integers exact."""
    if y.dtype.kind != "f":
        return 0.0
    size = total(np.abs(x), dim, keepdim, dtype)
    return carried(gamma(count_of(x, dim), u) * size, size, u)


def nansum(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """The sum of the cells that are not nan."""
    return total(np.where(np.isnan(x), 0, x), dim, keepdim, dtype)


def nansum_error(y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Numbers:
    """The same bound as `sum`."""
    return total_error(y, u, np.where(np.isnan(x), 0, x), dim, keepdim, dtype)


def trace(x: Array) -> Array:
    """The sum of the diagonal."""
    return np.asarray(np.trace(x))


def trace_error(y: Array, u: float, x: Array) -> Numbers:
    """The bound of a sum over the diagonal."""
    return gamma(min(x.shape), u) * np.trace(np.abs(x)) if y.dtype.kind == "f" else 0.0


def mean(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """mean: the sum divided by the count; NaN of nothing."""
    return np.asarray(np.divide(cast(x, dtype).sum(axes_of(dim, x.ndim), keepdims=keepdim), count_of(x, dim)))


def mean_error(_y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """As a sum, and a division."""
    size, count = mean(np.abs(x), dim, keepdim, dtype), count_of(x, dim)
    return carried(gamma(count + 2, u) * size, count * size, u)


def product_of(x: Array, dim: Axes = None, keepdim: bool = False, dtype: DType = None) -> Array:
    """prod: all cells multiplied."""
    return np.asarray(cast(x, dtype).prod(axes_of(dim, x.ndim), keepdims=keepdim))


def product_of_error(y: Array, u: float, x: Array, dim: Axes = None, **_: object) -> Numbers:
    """n multiplications: gamma(n) of the result (Higham, lemma 3.1); and what underflows, times all above 1."""
    if y.dtype.kind != "f":
        return 0.0
    axes, size = axes_of(dim, x.ndim), np.abs(x)
    low = np.where((size > 0) & (size < 1), size, 1.0).prod(axes)
    underflow = np.where(low < smallest(u), count_of(x, dim) * smallest(u) * np.maximum(size, 1.0).prod(axes), 0.0)
    return gamma(count_of(x, dim), u) * np.abs(y) + underflow.reshape(y.shape)


def running_sum(x: Array, dim: int, dtype: DType = None) -> Array:
    """cumsum: each cell plus all before it on the axis."""
    return cast(x, dtype).cumsum(dim) if x.ndim else x


def running_sum_error(y: Array, u: float, x: Array, dim: int, dtype: DType = None) -> Numbers:
    """As a sum of as many cells as the axis has, at most."""
    if y.dtype.kind != "f":
        return 0.0
    size = running_sum(np.abs(x), dim, dtype)
    return carried(gamma(count_of(x, dim), u) * size, size, u)


class Degrees(TypedDict, total=False):
    """What the squares of a variance are divided by, in either form of ATen, and whether the axes are kept."""

    correction: float | None
    keepdim: bool
    unbiased: bool | None


def var_mean(
    x: Array, dim: Axes = None, correction: float | None = None, keepdim: bool = False, unbiased: bool | None = None
) -> tuple[Array, Array]:
    """var_mean: variance and mean; the squares are divided by n - correction (1 unless said; `unbiased` False: 0).

    >>> var_mean(np.array([1.0, 2.0, 3.0]), dim=0)
    (array(1.), array(2.))
    """
    axes, minus = _choice(x, dim, correction, unbiased)
    average, variance = moments(x, axes, minus)
    return _with_axes(variance, axes, keepdim), _with_axes(average, axes, keepdim)


def var_mean_error(
    _y: object, u: float, x: Array, dim: Axes = None, correction: float | None = None, keepdim: bool = False,
    unbiased: bool | None = None, u_out: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """As `moments_error`: float32 is added in float64 or in chunks, other types in turn."""
    axes, minus = _choice(x, dim, correction, unbiased)
    kernel: Kernel = "in turn" if u_out or u < 2.0**-40 else "chunked"
    error_of_mean, spread = moments_error(x, axes, u, minus, kernel)
    return _with_axes(spread, axes, keepdim), _with_axes(error_of_mean, axes, keepdim)


def var(x: Array, dim: Axes = None, **degrees: Unpack[Degrees]) -> Array:
    """var: the first of `var_mean`."""
    return var_mean(x, dim, **degrees)[0]


def var_error(y: Array, u: float, x: Array, dim: Axes = None, u_out: float = 0.0, **degrees: Unpack[Degrees]) -> Array:
    """The same bound as `moments_error`."""
    return var_mean_error(y, u, x, dim, u_out=u_out, **degrees)[0]


def std(x: Array, dim: Axes = None, **degrees: Unpack[Degrees]) -> Array:
    """std: the square root of `var`."""
    return np.sqrt(var(x, dim, **degrees))


def std_error(y: Array, u: float, x: Array, dim: Axes = None, u_out: float = 0.0, **degrees: Unpack[Degrees]) -> Array:
    """The variance may be smaller or larger: the root of the smaller is further off. And a rounding of the root."""
    variance_error = var_error(y, u, x, dim, u_out, **degrees)
    return np.asarray(
        y
        - np.sqrt(np.maximum(0, y**2 - variance_error))
        + 2 * u * y
        + np.where(y**2 < variance_error, np.sqrt(variance_error), 0.0)
    )


def std_mean(x: Array, dim: Axes = None, **degrees: Unpack[Degrees]) -> tuple[Array, Array]:
    """std_mean: standard deviation and mean."""
    variance, average = var_mean(x, dim, **degrees)
    return np.sqrt(variance), average


def std_mean_error(
    y: tuple[Array, ...], u: float, x: Array, dim: Axes = None, u_out: float = 0.0, **degrees: Unpack[Degrees]
) -> tuple[Array, Array]:
    """As `std_error` and `moments_error`."""
    return std_error(y[0], u, x, dim, u_out, **degrees), var_mean_error(y, u, x, dim, u_out=u_out, **degrees)[1]


def vector_norm(x: Array, order: float = 2, dim: Axes = None, keepdim: bool = False) -> Array:
    """linalg_vector_norm: (sum |x|^order)^(1/order); infinities give the largest and smallest magnitude, 0 counts.

    >>> vector_norm(np.array([3.0, -4.0])), vector_norm(np.array([3.0, -4.0]), np.inf)
    (array(5.), array(4.))
    """
    axes, size = axes_of(dim, x.ndim), np.abs(x)
    if np.isinf(order):
        return np.asarray(size.max(axes, keepdims=keepdim) if order > 0 else size.min(axes, keepdims=keepdim))
    if order == 0:
        return np.asarray((x != 0).sum(axes, keepdims=keepdim), np.float64)
    return np.asarray((size**order).sum(axes, keepdims=keepdim) ** (1.0 / order))


def vector_norm_error(y: Array, u: float, x: Array, order: float = 2, dim: Axes = None, **_: object) -> Numbers:
    """No term cancels: n additions and two powers are a relative error, which the root divides by |order|.

    Of other orders than 1 and 2, 1 / order is written, which turns the root S^(1/order) by a share u·|log y|, and so is
    the order, which turns each power by u·|order·log x| and the root by a share of it.

    Powers of small numbers underflow, and those of large ones with a negative order. If a sum S may be off by b, n
    times the smallest number, its root is off by at most S^(1/order)·b/S for S >= b and an order of 1 or more, because
    the root is concave, and by b^(1/order) below. Of other orders, it is between the roots of S - b and S + b.
    """
    if np.isinf(order) or order == 0:
        return 0.0
    plain, count = order in {1, 2}, count_of(x, dim)
    share = gamma(count + (1 if plain else FUNCTION), u) / abs(order) + (0 if order == 1 else FUNCTION * u)
    if not plain:
        logs = np.abs(np.log(np.where((x != 0) & np.isfinite(x), np.abs(x), 1.0)))
        share = share + u * (logs.max(initial=0.0) + np.abs(np.log(np.where(y > 0, y, 1.0))))
    size, underflow = np.abs(y), count * smallest(u)
    total = size**order
    bound = np.where(size > 0, share * size, 0.0)
    if order > 1:
        root_error = size * underflow / np.where(total >= underflow, total, 1.0)
        bound = bound + np.where(total >= underflow, root_error, np.where(y != 0, underflow ** (1 / order), 0.0))
    elif order != 1:
        around = [np.abs(np.maximum(total + change, 0.0) ** (1 / order) - size) for change in (-underflow, underflow)]
        bound = bound + np.where(y != 0, np.maximum(*around), 0.0)
    return carried(bound, total, u)


def _choice(x: Array, dim: Axes, correction: float | None, unbiased: bool | None) -> tuple[tuple[int, ...], float]:
    """The forms of ATen: var(x, unbiased), var(x, dim, unbiased), var(x, dim, correction=...)."""
    if unbiased is not None:
        correction = 1.0 if unbiased else 0.0
    return axes_of(dim, x.ndim), 1.0 if correction is None else correction


def _with_axes(values: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    return values if keepdim else np.asarray(values.squeeze(axes))


def log_sum_exp(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """logsumexp: log of the sum of exp(x) along one or more axes, minus infinity of no cells."""
    axes = axes_of(dim, x.ndim)
    top = x.max(axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    y = top + np.log(np.exp(x - top).sum(axes, keepdims=True))
    return np.asarray(y if keepdim else y.squeeze(axes))


def log_sum_exp_error(
    y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, u_out: float = 0.0
) -> Array:
    """As `log_softmax_error`: y = max + log s; exponentials, sum and logarithm are stored in the output's type."""
    axes = axes_of(dim, x.ndim)
    wide = log_sum_exp(x, dim, True)
    top = x.max(axes, keepdims=True, initial=-np.inf)
    shares = np.exp(x - wide)
    error = sum_share(x, shares, u, axes) + FUNCTION * u * np.abs(wide - top) + 2 * u * np.abs(wide)
    below = np.where(shares > 0, shares * np.abs(x - top), 0.0).sum(axes, keepdims=True)
    error = error + u_out * (3 + below + np.abs(wide - top))
    return np.asarray(error if keepdim or not x.ndim else error.reshape(y.shape))


def sum_share(x: Array, y: Array, u: float, dim: Axes) -> Array:
    """Relative error of s: each exp(d) is off by FUNCTION + |d| roundings and counts as much as its share y of s."""
    terms = int(np.prod([x.shape[a] for a in axes_of(dim, x.ndim)]))
    below = np.where(y > 0, np.abs(x - x.max(dim, keepdims=True, initial=-np.inf)), 0.0)
    return np.asarray(gamma(terms, u) + u * (FUNCTION + (y * below).sum(dim, keepdims=True)))


REDUCE: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.sum, "prod": np.prod, "max": np.max, "min": np.min}
EMPTY = {"sum": 0.0, "mean": np.nan, "prod": 1.0, "max": -np.inf, "min": np.inf}


def segment_reduce(
    data: Array, reduce: str, lengths: Array | None = None, indices: Array | None = None, offsets: Array | None = None,
    axis: int = 0, unsafe: bool = False, initial: float | None = None,
) -> Array:  # fmt: skip
    """Reduce consecutive runs of an axis to one number each, starting from an initial value.

    >>> segment_reduce(np.array([1.0, 2.0, 4.0]), "mean", lengths=np.array([1, 2])).tolist()
    [1.0, 3.0]

    Raises:
        UsageError: segments that are given cell by cell, or that end beyond the data.
    """
    del unsafe
    if (lengths is None and offsets is None) or indices is not None:
        raise UsageError("the reference has segment_reduce only with lengths or offsets.")
    starts = offsets if lengths is None else np.concatenate(
        [np.zeros((*lengths.shape[:-1], 1), np.int64), np.cumsum(lengths, -1)], -1)  # fmt: skip
    assert starts is not None
    if (np.maximum(starts[..., 1:], 0) > data.shape[axis])[np.diff(starts) > 0].any():
        raise UsageError("segment_reduce reads memory beyond its data, which is not recorded.")
    lead = starts.shape[:-1]
    result = np.empty((*lead, starts.shape[-1] - 1, *data.shape[axis + 1 :]))
    for lead_index in np.ndindex(lead):
        for k, (start, end) in enumerate(zip(starts[lead_index][:-1], starts[lead_index][1:], strict=True)):
            result[(*lead_index, k)] = _reduced(data[lead_index][start:end], reduce, initial)
    return result


def _reduced(cells: Array, reduce: str, initial: float | None) -> Numbers:
    if not len(cells):
        return EMPTY[reduce] if initial is None else initial
    first = {"sum": 0.0, "mean": 0.0, "prod": 1.0}.get(reduce) if initial is None else initial
    values = cells if first is None else np.concatenate([np.full((1, *cells.shape[1:]), first), cells])
    result = REDUCE[reduce](values, axis=0)
    return result / len(cells) if reduce == "mean" else result


def segment_reduce_error(
    y: Array, u: float, data: Array, reduce: str, initial: float | None = None, axis: int = 0,
    lengths: Array | None = None, indices: Array | None = None, offsets: Array | None = None, unsafe: bool = False,
) -> Numbers:  # fmt: skip
    """At most one addition or product for each cell of the axis, and a division; a Python number is rounded."""
    written_error = 0.0 if initial is None else float(scalar(initial, u))
    if reduce in {"max", "min"}:
        return np.where(y == initial, written_error, 0.0) if initial is not None else 0.0
    terms = data.shape[axis] + 2
    if reduce == "prod":
        return gamma(terms, u) * np.abs(y) * (1 + bool(written_error))
    start = None if initial is None else abs(initial)
    size = segment_reduce(np.abs(data), reduce, lengths, indices, offsets, axis, unsafe, start)
    return carried(gamma(terms, u) * size + written_error, size, u)
