"""Reductions: sum, mean, variance, product, norm, running sums, log of a sum of exponentials. Knows roundoff and NumPy.

`dim` is an axis, several, or None (or none of them) for all, as in PyTorch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from convscope.reference.casting import cast
from convscope.reference.moments import Kernel, moments, moments_error
from convscope.reference.roundoff import FUNCTION, carried, gamma, smallest
from convscope.typing import Array

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


def total(x: Array, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """sum: of float64 cells, or of integers and booleans as int64."""
    return np.asarray(cast(x, dtype).sum(axes_of(dim, x.ndim), keepdims=keepdim))


def total_error(y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """Higham, section 4.2: any order of n additions is within gamma(n) of the sum of magnitudes; integers exact."""
    if y.dtype.kind != "f":
        return 0.0
    size = total(np.abs(x), dim, keepdim, dtype)
    return carried(gamma(count_of(x, dim), u) * size, size, u)


def mean(x: Array, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """mean: the sum divided by the count; NaN of nothing."""
    return np.asarray(np.divide(cast(x, dtype).sum(axes_of(dim, x.ndim), keepdims=keepdim), count_of(x, dim)))


def mean_error(_y: Array, u: float, x: Array, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """As a sum, and a division."""
    size, count = mean(np.abs(x), dim, keepdim, dtype), count_of(x, dim)
    return carried(gamma(count + 2, u) * size, count * size, u)


def product_of(x: Array, dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """prod: all cells multiplied."""
    return np.asarray(cast(x, dtype).prod(axes_of(dim, x.ndim), keepdims=keepdim))


def product_of_error(y: Array, u: float, x: Array, dim: Axes = None, **_: Any) -> Any:
    """n multiplications: gamma(n) of the result (Higham, lemma 3.1)."""
    return gamma(count_of(x, dim), u) * np.abs(y) if y.dtype.kind == "f" else 0.0


def running_sum(x: Array, dim: int, dtype: Any = None) -> Array:
    """cumsum: each cell plus all before it on the axis."""
    return cast(x, dtype).cumsum(dim) if x.ndim else x


def running_sum_error(y: Array, u: float, x: Array, dim: int, dtype: Any = None) -> Any:
    """As a sum of as many cells as the axis has, at most."""
    if y.dtype.kind != "f":
        return 0.0
    size = running_sum(np.abs(x), dim, dtype)
    return carried(gamma(count_of(x, dim), u) * size, size, u)


def var_mean(
    x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False, unbiased: bool | None = None
) -> tuple[Array, Array]:
    """var_mean: variance and mean; the squares are divided by n - correction (1 unless said; `unbiased` False: 0).

    >>> var_mean(np.array([1.0, 2.0, 3.0]), dim=0)
    (array(1.), array(2.))
    """
    axes, minus = _choice(x, dim, correction, unbiased)
    average, variance = moments(x, axes, minus)
    return _kept(variance, axes, keepdim), _kept(average, axes, keepdim)


def var_mean_error(
    _y: Any, u: float, x: Array, dim: Any = None, correction: float | None = None, keepdim: bool = False,
    unbiased: bool | None = None, u_out: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """As `moments_error`: float32 is added in float64 or in chunks, other types in turn."""
    axes, minus = _choice(x, dim, correction, unbiased)
    kernel: Kernel = "in turn" if u_out or u < 2.0**-40 else "chunked"
    off, spread = moments_error(x, axes, u, minus, kernel)
    return _kept(spread, axes, keepdim), _kept(off, axes, keepdim)


def var(x: Array, dim: Any = None, **how: Any) -> Array:
    """var: the first of `var_mean`."""
    return var_mean(x, dim, **how)[0]


def var_error(y: Array, u: float, x: Array, dim: Any = None, u_out: float = 0.0, **how: Any) -> Array:
    """The same bound as `moments_error`."""
    return var_mean_error(y, u, x, dim, u_out=u_out, **how)[0]


def std(x: Array, dim: Any = None, **how: Any) -> Array:
    """std: the square root of `var`."""
    return np.sqrt(var(x, dim, **how))


def std_error(y: Array, u: float, x: Array, dim: Any = None, u_out: float = 0.0, **how: Any) -> Array:
    """The variance may be smaller or larger: the root of the smaller lies further off. And a rounding of the root."""
    off = var_error(y, u, x, dim, u_out, **how)
    return np.asarray(y - np.sqrt(np.maximum(0, y**2 - off)) + 2 * u * y + np.where(y**2 < off, np.sqrt(off), 0.0))


def std_mean(x: Array, dim: Any = None, **how: Any) -> tuple[Array, Array]:
    """std_mean: standard deviation and mean."""
    variance, average = var_mean(x, dim, **how)
    return np.sqrt(variance), average


def std_mean_error(y: Any, u: float, x: Array, dim: Any = None, u_out: float = 0.0, **how: Any) -> tuple[Array, Array]:
    """As `std_error` and `moments_error`."""
    return std_error(y[0], u, x, dim, u_out, **how), var_mean_error(y, u, x, dim, u_out=u_out, **how)[1]


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


def vector_norm_error(y: Array, u: float, x: Array, order: float = 2, dim: Axes = None, **_: Any) -> Any:
    """No term cancels: n additions and two powers are a relative error, which the root divides by |order|.

    Powers of small numbers underflow. If a sum S may be off by b, n times the smallest number, its root is off by at
    most S^(1/order)·b/S for S >= b, because the root is concave, and by b^(1/order) below.
    """
    if np.isinf(order) or order == 0:
        return 0.0
    inside = count_of(x, dim) + (FUNCTION if order not in {1, 2} else 1)
    off = (gamma(inside, u) / abs(order) + (0 if order == 1 else FUNCTION * u)) * np.abs(y)
    if order > 1:
        total, lost = np.abs(y) ** order, count_of(x, dim) * smallest(u)
        share = np.abs(y) * lost / np.where(total >= lost, total, 1.0)
        off = off + np.where(total >= lost, share, np.where(y != 0, lost ** (1 / order), 0.0))
    return carried(off, np.abs(y) ** order, u)


def _choice(x: Array, dim: Any, correction: float | None, unbiased: bool | None) -> tuple[tuple[int, ...], float]:
    """The forms of ATen: var(x, unbiased), var(x, dim, unbiased), var(x, dim, correction=...)."""
    if unbiased is not None:
        correction = 1.0 if unbiased else 0.0
    return axes_of(dim, x.ndim), 1.0 if correction is None else correction


def _kept(values: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    return values if keepdim else np.asarray(values.squeeze(axes))
