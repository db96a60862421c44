"""Selection: maxima and minima, sorting, comparing, choosing by mask or index. Uses precision and NumPy.

What is selected is one of the inputs, so the numbers are exact. Where equal numbers compete, PyTorch leaves open
which index wins in some operations; there the error of the index is infinite.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from convscope.reference.operation import Errors
from convscope.reference.precision import scalar, written
from convscope.reference.reductions import Axes, axes_of
from convscope.typing import Array, Numbers

Selected: TypeAlias = Array | tuple[Array, Array]
"""The numbers that were selected; along an axis also where they are on it."""


def extreme(reduce: Callable[..., Array], choose: Callable[..., Array]) -> Callable[..., Selected]:
    """max or min in ATen's three forms: of all cells, with indices along `dim`, of two tensors.

    >>> extreme(np.max, np.argmax)(x=np.array([[1.0, 5.0], [7.0, 2.0]]), dim=1)
    (array([5., 7.]), array([1, 0]))
    """
    pairs = np.maximum if reduce is np.max else np.minimum

    def best(x: Array, dim: int | None = None, keepdim: bool = False, right: Array | None = None) -> Selected:
        if right is not None:
            return pairs(x, right)
        if dim is None:
            return reduce(x)
        return reduce(x, dim, keepdims=keepdim), choose(x, dim, keepdims=keepdim)

    return best


def extreme_error(
    y: Selected, u: float, x: Array, dim: int | None = None, keepdim: bool = False, right: Array | None = None
) -> Errors:
    """The value is exact; the index is open where the winner occurs more than once. A bound as a number is written."""
    if right is not None:
        return scalar(right, u)
    if dim is None:
        return 0.0
    return 0.0, ties(x, y[0] if keepdim or not x.ndim else np.expand_dims(y[0], dim), dim, keepdim)


def arg_extreme(choose: Callable[..., Array]) -> Callable[..., Array]:
    """argmax or argmin: the first index along `dim`, or of the flattened tensor."""

    def position(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
        if dim is None:
            return choose(x).reshape([1] * x.ndim) if keepdim else choose(x)
        return choose(x, dim, keepdims=keepdim)

    return position


def largest(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """amax: the largest along one or more axes; NaN wins."""
    return np.asarray(x.max(axes_of(dim, x.ndim), keepdims=keepdim))


def least(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """amin: the smallest along one or more axes; NaN wins."""
    return np.asarray(x.min(axes_of(dim, x.ndim), keepdims=keepdim))


def range_of(x: Array, dim: int | None = None, keepdim: bool = False) -> tuple[Array, Array]:
    """aminmax: both."""
    return least(x, dim, keepdim), largest(x, dim, keepdim)


def every(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """all: whether no cell is zero."""
    return np.asarray((x != 0).all(axes_of(dim, x.ndim), keepdims=keepdim))


def some(x: Array, dim: Axes = None, keepdim: bool = False) -> Array:
    """any: whether some cell is not zero."""
    return np.asarray((x != 0).any(axes_of(dim, x.ndim), keepdims=keepdim))


def ordered(x: Array, dim: int = -1, descending: bool = False) -> tuple[Array, Array]:
    """sort: the cells along `dim` in order, NaN as the largest, and where they came from.

    >>> ordered(np.array([3.0, 1.0, 2.0]), descending=True)
    (array([3., 2., 1.]), array([0, 2, 1]))
    """
    if not x.ndim:
        return x, np.zeros((), np.int64)
    order = np.argsort(x, axis=dim, kind="stable")
    if descending:  # stable the other way round: equal ones keep their order
        order = x.shape[dim] - 1 - np.flip(np.argsort(np.flip(x, dim), axis=dim, kind="stable"), dim)
    return np.take_along_axis(x, order, dim), order


def ordered_error(y: tuple[Array, ...], _u: float, x: Array, dim: int = -1, **_: object) -> tuple[float, Array | float]:
    """The order is exact, the indices of equal cells are open."""
    return 0.0, neighbours(y[0], dim) if x.ndim else 0.0


def top(x: Array, k: int, dim: int = -1, largest: bool = True) -> tuple[Array, Array]:
    """topk: the k largest (or smallest) along `dim`, in order, and where they came from."""
    values, order = ordered(x, dim, largest)
    if not x.ndim:
        return values, order
    first = np.arange(k)
    return values.take(first, dim), order.take(first, dim)


def top_error(
    _y: object, _u: float, x: Array, k: int, dim: int = -1, largest: bool = True
) -> tuple[float, Array | float]:
    """As `ordered_error`; the last one may equal the first that was left out."""
    if not x.ndim:
        return 0.0, 0.0
    return 0.0, neighbours(ordered(x, dim, largest)[0], dim).take(np.arange(k), dim)


def compare_error(_y: Array, u: float, x: Array, right: Numbers) -> Numbers:
    """eq, ne, lt, le, gt, ge: exact between tensors; a number, once written, may have crossed a cell."""
    written_error = scalar(right, u)
    return np.where((np.abs(x - right) <= written_error) & (written_error > 0), 1.0, 0.0)


def choose(condition: Array, x: Numbers, right: Numbers) -> Array:
    """where: `x` where the condition holds, else `right`."""
    return np.asarray(np.where(condition, x, right))


def choose_error(_y: Array, u: float, condition: Array, x: Numbers, right: Numbers) -> Numbers:
    """Exact, but a number that is chosen is written in the tensor's type."""
    return np.where(condition, scalar(x, u), scalar(right, u))


def fill_masked(x: Array, mask: Array, value: Numbers) -> Array:
    """masked_fill: `value` where the mask holds, else `x`."""
    return np.where(mask, value, x)


def fill_masked_error(_y: Array, u: float, x: Array, mask: Array, value: Numbers) -> Numbers:
    """Exact, but the value is written in the tensor's type."""
    return np.where(np.broadcast_to(mask, np.broadcast_shapes(mask.shape, x.shape)), written(value, u), 0.0)


def ties(x: Array, winner: Array, dim: int, keepdim: bool) -> Array:
    """inf where `winner` (or NaN) occurs more than once along `dim`, else 0."""
    same = (x == winner) | (np.isnan(x) if x.dtype.kind == "f" else False)
    return np.where(same.sum(dim, keepdims=keepdim) > 1, np.inf, 0.0)


def neighbours(values: Array, dim: int) -> Array:
    """inf where a sorted cell equals the one before or after it, else 0."""
    values = np.moveaxis(values, dim, -1)
    same = (values[..., 1:] == values[..., :-1]) | (np.isnan(values[..., 1:]) & np.isnan(values[..., :-1]))
    none = np.zeros((*values.shape[:-1], 1), bool)
    open_ = np.concatenate([none, same], -1) | np.concatenate([same, none], -1)
    return np.moveaxis(np.where(open_, np.inf, 0.0), -1, dim)
