"""Pointwise functions: one input cell (or a pair) makes one output cell. Uses precision and NumPy.

The errors charge `FUNCTION` roundings (4 units in the last place) for a call of exp, tanh, erf and the like, one for
each further operation, and the slope of the function times the rounding of its argument where the kernel rounds one.
A number in the model's code (`x + 0.1`) is a float64; the kernel writes it in its own type first: `scalar`.
"""

from collections.abc import Callable

import numpy as np

from convscope.reference.precision import FUNCTION, carried, cast, scalar, written
from convscope.typing import Array, DType, Numbers


def unary(function: Callable[[Array], Array]) -> Callable[..., Array]:
    """A NumPy function of one array, as an operation: of float64, or of the integers that some functions keep."""

    def applied(x: Array) -> Array:
        return np.asarray(function(x))

    return applied


def binary(function: Callable[[Numbers, Numbers], Array]) -> Callable[..., Array]:
    """A NumPy function of two arrays, or of an array and a number, as an operation."""

    def applied(x: Numbers, right: Numbers) -> Array:
        return np.asarray(function(x, right))

    return applied


def either_error(_y: Array, u: float, x: Numbers, right: Numbers) -> Numbers:
    """maximum, minimum: exact, but a number is written in the tensor's type."""
    return scalar(x, u) + scalar(right, u)


def floating(x: Numbers) -> Array:
    """Integers and booleans as float64, which PyTorch's functions return for them."""
    return np.asarray(x) if np.asarray(x).dtype.kind == "f" else np.asarray(x, np.float64)


def erf_error(y: Array, u: float, x: Array, u_out: float = 0.0) -> Array:
    """A function call; PyTorch's own erf, for float16 and bfloat16, is as exact as float32 near 1, also near 0."""
    return FUNCTION * u * (np.abs(y) + (1.0 if u_out else 0.0))


def add(x: Array, right: Numbers, alpha: float = 1) -> Array:
    """x + alpha·right."""
    return np.asarray(x + (right if alpha == 1 else alpha * np.asarray(right)))


def add_error(y: Array, u: float, x: Array, right: Numbers, alpha: float = 1) -> Numbers:
    """One rounding of the sum; one more for a scaled or written operand."""
    if y.dtype.kind != "f":
        return 0.0
    operand_size = np.abs(alpha * np.asarray(right))
    return u * np.abs(y) + scalar(x, u) + abs(alpha) * scalar(right, u) + (0.0 if alpha == 1 else 3 * u * operand_size)


def subtract(x: Array, right: Numbers, alpha: float = 1) -> Array:
    """x - alpha·right."""
    return np.asarray(x - (right if alpha == 1 else alpha * np.asarray(right)))


def subtract_from(x: Array, right: Numbers, alpha: float = 1) -> Array:
    """rsub: right - alpha·x."""
    return np.asarray(right - alpha * x)


def subtract_from_error(y: Array, u: float, x: Array, right: Numbers, alpha: float = 1) -> Numbers:
    """As `add_error`, the other way round."""
    return add_error(y, u, np.asarray(right), x, alpha)


def multiply(x: Array, right: Numbers) -> Array:
    """x·right; and of booleans."""
    return np.asarray(x * right)


def multiply_error(y: Array, u: float, x: Array, right: Numbers) -> Numbers:
    """One rounding; one more for a written operand."""
    if y.dtype.kind != "f":
        return 0.0
    return u * np.abs(y) + scalar(right, 1.01 * u) * np.abs(x) + scalar(x, 1.01 * u) * np.abs(right)


def divide(x: Array, right: Numbers, rounding_mode: str | None = None) -> Array:
    """x / right; rounded down with "floor" (as Python's //), towards zero with "trunc".

    >>> divide(np.array([-7.0, 7.0]), 2, "floor"), divide(np.array([-7, 7]), 2, "trunc")
    (array([-4.,  3.]), array([-3,  3]))
    """
    if rounding_mode is None:
        return np.asarray(x / np.asarray(right))
    if rounding_mode == "floor":
        return np.asarray(np.floor_divide(x, right))
    if np.asarray(x).dtype.kind in "iub" and np.asarray(right).dtype.kind in "iub":
        down, left_over = np.divmod(
            x, right
        )  # rounded down: one too small where the signs differ and something remains
        return np.asarray(down + ((left_over != 0) & ((np.asarray(x) < 0) != (np.asarray(right) < 0))))
    return np.asarray(np.trunc(x / np.asarray(right)))


def divide_error(y: Array, u: float, x: Array, right: Numbers, rounding_mode: str | None = None) -> Numbers:
    """One rounding, two where a kernel multiplies by the reciprocal, one for a written operand.

    A rounded quotient is exact unless the quotient is within its own error of an integer, or has more digits
    than the type.
    """
    if y.dtype.kind != "f":
        return 0.0
    quotient = np.abs(x / np.asarray(right))
    if rounding_mode is None:
        share = np.where(np.equal(right, 0), 0.0, scalar(right, u) / np.abs(np.asarray(right)))  # 1 where it may be 0
        written = np.where(share < 1, share / (1 - share), np.inf) * quotient + scalar(x, u) / np.abs(np.asarray(right))
        return 3 * u * quotient + np.where(quotient > 0, written, 0.0)
    near = np.abs(quotient - np.round(quotient)) <= 4 * u * quotient
    return np.where(near, 1.0, 0.0) + np.where(quotient * u > 0.1, 8 * u * quotient, 0.0)


def floor_divide(x: Array, right: Numbers) -> Array:
    """x // right."""
    return divide(x, right, "floor")


def floor_divide_error(y: Array, u: float, x: Array, right: Numbers) -> Numbers:
    """The same bound as `divide_error`."""
    return divide_error(y, u, x, right, "floor")


def remainder(x: Array, right: Numbers) -> Array:
    """x - right·floor(x / right): the sign of the divisor, as Python's %."""
    return np.asarray(np.remainder(x, right))


def fmod(x: Array, right: Numbers) -> Array:
    """x - right·trunc(x / right): the sign of the dividend, as C's fmod."""
    return np.asarray(np.fmod(x, right))


def remainder_error(y: Array, u: float, x: Array, right: Numbers) -> Numbers:
    """The rest moves with what the divisor loses when written, and jumps by a divisor near a whole quotient."""
    if y.dtype.kind != "f":
        return 0.0
    quotient = np.abs(x / np.asarray(right))
    near = np.abs(quotient - np.round(quotient)) <= 4 * u * np.maximum(quotient, 1)
    return 2 * u * np.abs(y) + (quotient + 1) * scalar(right, u) + np.where(near, np.abs(right), 0.0)


def add_product(x: Array, tensor1: Array, tensor2: Array, value: float = 1) -> Array:
    """addcmul: x + value·tensor1·tensor2."""
    return np.asarray(x + value * tensor1 * tensor2)


def add_product_error(_y: Array, u: float, x: Array, tensor1: Array, tensor2: Array, value: float = 1) -> Array:
    """Four roundings of the product, one of the sum."""
    product = np.abs(value * tensor1 * tensor2)
    return carried(u * np.abs(x) + 5 * u * product, product, u)


def add_quotient(x: Array, tensor1: Array, tensor2: Array, value: float = 1) -> Array:
    """addcdiv: x + value·tensor1 / tensor2."""
    return np.asarray(x + value * tensor1 / tensor2)


def add_quotient_error(_y: Array, u: float, x: Array, tensor1: Array, tensor2: Array, value: float = 1) -> Array:
    """Four roundings of the quotient, one of the sum; unknown where a part of it is beyond the type."""
    quotient = np.abs(value * tensor1 / tensor2)
    largest = np.maximum(np.abs(value * tensor1), np.maximum(quotient, np.abs(tensor1 / tensor2)))
    return carried(u * np.abs(x) + 5 * u * quotient, largest, u)


def interpolate(x: Array, end: Array, weight: Numbers) -> Array:
    """lerp: x + weight·(end - x); from the end where the weight is 1/2 or more, so that an infinity there stays one."""
    return np.asarray(np.where(np.abs(weight) < 0.5, x + weight * (end - x), end - (end - x) * (1 - weight)))


def interpolate_error(_y: Array, u: float, x: Array, end: Array, weight: Numbers) -> Array:
    """From either end: the distance is rounded, scaled by weight or 1 - weight, and added."""
    return carried(5 * u * (1 + np.abs(weight)) * (np.abs(x) + np.abs(end)), np.abs(end - x), u)


def power(x: Numbers, exponent: Numbers) -> Array:
    """pow: x^exponent, with either a number or a tensor; of integers whole, 0 for most negative exponents."""
    base, raised = np.asarray(x), np.asarray(exponent)
    if base.dtype.kind not in "iub" or raised.dtype.kind not in "iub":
        return np.asarray(np.power(floating(base), floating(raised)))
    below = (raised < 0) & (np.abs(base) != 1)
    return np.where(below, 0, np.power(base, np.where(raised < 0, np.abs(raised), raised)))


def power_error(y: Array, u: float, x: Numbers, exponent: Numbers) -> Numbers:
    """A function call, and the slopes times what base and exponent lose when written."""
    if y.dtype.kind != "f":
        return 0.0
    size = np.abs(y)
    base = np.abs(floating(x))
    logs = np.abs(np.log(np.clip(base, 5e-324, 1.7e308)))  # clipped, because 0·inf must not become an error
    by_exponent = np.where(base > 0, logs, 0.0) * scalar(exponent, u)
    return size * (FUNCTION * u + by_exponent + np.abs(exponent) * np.where(base > 0, scalar(x, u) / base, 0.0))


def clamp(x: Array, low: Numbers | None = None, high: Numbers | None = None) -> Array:
    """clamp, clamp_min, clamp_max: not below `low`, not above `high`; NaN stays."""
    y = x if low is None else np.maximum(x, low)
    return np.asarray(y if high is None else np.minimum(y, high))


def clamp_error(y: Array, u: float, x: Array, low: Numbers | None = None, high: Numbers | None = None) -> Numbers:
    """Exact, but a limit is written in the tensor's type, and moves the cells within that distance of it."""
    return sum(
        (np.where(np.abs(y - limit) <= scalar(limit, u), 2 * scalar(limit, u), 0.0)
         for limit in (low, high) if limit is not None), start=np.zeros(x.shape),
    )  # fmt: skip


def sign(x: Array) -> Array:
    """sign: -1, 0 or 1; 0 for NaN, as in PyTorch."""
    return np.asarray((x > 0).astype(x.dtype) - (x < 0).astype(x.dtype))


def rounded(x: Array, decimals: int = 0) -> Array:
    """round: to the nearest integer, halves to the even one."""
    return np.asarray(np.round(x, decimals))


def rounded_error(y: Array, u: float, x: Array, decimals: int = 0) -> Numbers:
    """Exact for integers; with decimals, scaling back and forth, which moves cells at a half to either side."""
    if decimals == 0:
        return 0.0
    scaled = np.abs(x) * 10.0**decimals
    half = np.abs(scaled - np.floor(scaled) - 0.5) <= 4 * u * scaled
    return carried(4 * u * np.abs(y) + np.where(half, 10.0**-decimals, 0.0), np.maximum(scaled, np.abs(x)), u)


def dropped(x: Array, p: float = 0.5, train: bool | None = True, mask: Array | None = None) -> tuple[Array, Array]:
    """native_dropout with the mask that was drawn: kept cells are divided by 1 - p, the others are 0.

    >>> dropped(np.array([1.0, 2.0]), 0.5, True, np.array([True, False]))[0]
    array([2., 0.])
    """
    if not train:
        return x, np.ones(x.shape, bool)
    is_kept = np.ones(x.shape, bool) if mask is None else np.asarray(mask) != 0
    return x * is_kept / (1 - p) if p < 1 else np.zeros_like(x), is_kept


def dropped_error(
    y: tuple[Array, ...], u: float, x: Array, p: float = 0.5, train: bool | None = True, **_: object
) -> tuple[Numbers, float]:
    """The scale 1 / (1 - p) is written, and multiplied."""
    return (3 * u * np.abs(y[0]) if train else 0.0), 0.0


def dropout_error(y: Array, u: float, x: Array, p: float = 0.5, train: bool | None = True, **_: object) -> Numbers:
    """The same bound as `dropped_error`."""
    return dropped_error((y,), u, x, p, train)[0]


def converted(x: Array, dtype: DType = None) -> Array:
    """_to_copy: the same numbers in another type, rounded as that type rounds."""
    return cast(x, dtype)


def written_value(y: Array, u: float, **_: object) -> Numbers:
    """The error of tensors made of numbers (full, arange, scalar_tensor): those are written in the tensor's type."""
    return written(y, u) if y.dtype.kind == "f" else 0.0
