"""Creation: tensors of constants and of numbers that follow from their index. Uses pointwise, precision and NumPy."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from convscope.reference.operation import Operation, moved
from convscope.reference.pointwise import written_value
from convscope.reference.precision import FUNCTION, cast, type_name, written
from convscope.typing import Array, DType, Numbers

Sizes = Sequence[int]


def filled(size: Sizes, fill_value: Numbers = 0.0, dtype: DType = None) -> Array:
    """full, and zeros and ones with their own values: a tensor of one number."""
    return cast(np.full(tuple(size), fill_value), dtype)


def filled_like(x: Array, fill_value: Numbers = 0.0, dtype: DType = None) -> Array:
    """full_like, zero: one number in the shape (and kind) of another tensor."""
    return np.broadcast_to(cast(np.asarray(fill_value), dtype or (None if x.dtype.kind == "f" else x.dtype)), x.shape)


def fill(x: Array, value: Numbers) -> Array:
    """fill: one number in the shape and kind of another tensor."""
    return filled_like(x, value)


def new_filled(x: Array, size: Sizes, fill_value: Numbers = 0.0, dtype: DType = None) -> Array:
    """new_full, and new_zeros and new_ones: one number in any shape, in the kind of another tensor."""
    return filled(size, fill_value, dtype or x.dtype)


def of_value(fill_value: float) -> dict[str, Callable[..., Array]]:
    """The three forms of zeros and of ones."""

    def plain(size: Sizes, dtype: DType = None) -> Array:
        return filled(size, fill_value, dtype or "float64")

    def like(x: Array, dtype: DType = None) -> Array:
        return filled_like(x, fill_value, dtype)

    def new(x: Array, size: Sizes, dtype: DType = None) -> Array:
        return new_filled(x, size, fill_value, dtype)

    return {"plain": plain, "like": like, "new": new}


def number(s: float, dtype: DType = None) -> Array:
    """scalar_tensor: one number, in PyTorch's default float type by default."""
    return cast(np.asarray(s), dtype or "float64")


def counted(end: float, start: float = 0, step: float = 1, dtype: DType = None) -> Array:
    """arange: start, start + step, ... before `end`; integers if all three are."""
    count = max(0, int(np.ceil((end - start) / step)))
    return cast(start + step * np.arange(count), dtype)


def counted_error(y: Array, u: float, end: float, start: float = 0, step: float = 1, dtype: DType = None) -> Numbers:
    """Start and step are written, multiplied by the count, and added."""
    steps = written(step, u) * np.arange(y.size) + written(start, u)
    return steps + 2 * u * np.abs(y) * (np.asarray(y).dtype.kind == "f") if np.any(np.mod(y, 1)) else 0.0


def spaced(start: float, end: float, steps: int, dtype: DType = None) -> Array:
    """linspace: `steps` numbers from `start` to `end`, equally far apart; for an integer type all are cut."""
    if type_name(dtype).startswith(("int", "uint")):
        start, end = np.trunc(start), np.trunc(end)
    return cast(np.linspace(start, end, steps), dtype)


def spaced_error(y: Array, u: float, start: float, end: float, steps: int, dtype: DType = None) -> Numbers:
    """From either end: the step is rounded three times, multiplied, and added. What is cut may jump near an integer."""
    bound = np.full(steps, 5 * u * (abs(start) + abs(end)))
    if y.dtype.kind == "f":
        return bound
    exact_values = np.linspace(np.trunc(start), np.trunc(end), steps)
    distance = np.abs(exact_values - np.round(exact_values))
    return np.where((distance > 0) & (distance <= bound), 1.0, 0.0)


def spaced_powers(start: float, end: float, steps: int, base: float = 10.0, dtype: DType = None) -> Array:
    """logspace: `base` to the power of numbers that are equally far apart; for an integer type all are cut."""
    if type_name(dtype).startswith(("int", "uint")):
        start, end = np.trunc(start), np.trunc(end)
    return cast(np.power(float(base), np.linspace(start, end, steps)), dtype)


def spaced_powers_error(
    y: Array, u: float, start: float, end: float, steps: int, base: float = 10.0, dtype: DType = None
) -> Numbers:
    """As `spaced_error` in the exponent, times the logarithm of the base, and a call of pow; what is cut may jump."""
    exponent = 5 * u * (abs(start) + abs(end))
    with np.errstate(all="ignore"):
        log = abs(np.log(abs(base))) if base else 0.0
        exact_power = np.abs(np.power(float(base), np.linspace(np.trunc(start), np.trunc(end), steps)))
        size = np.abs(y) if y.dtype.kind == "f" else exact_power
        written_base = np.maximum(abs(start), abs(end)) * (written(base, u) / abs(base) if base else 0.0)
        bound = size * np.expm1(exponent * log + written_base + FUNCTION * u)
    if y.dtype.kind == "f":
        return bound
    distance = np.abs(exact_power - np.round(exact_power))
    return np.where((distance > 0) & (distance <= bound), 1.0, 0.0)


def identity(n: int, m: int | None = None, dtype: DType = None) -> Array:
    """eye: ones on the diagonal."""
    return cast(np.eye(n, m), dtype)


_ZEROS, _ONES = of_value(0.0), of_value(1.0)
CREATION: Mapping[str, Operation] = {
    "zeros": moved(_ZEROS["plain"]),
    "_efficientzerotensor": moved(_ZEROS["plain"]),
    "ones": moved(_ONES["plain"]),
    "full": Operation(filled, written_value),
    "zeros_like": moved(_ZEROS["like"]),
    "zero": moved(_ZEROS["like"]),
    "ones_like": moved(_ONES["like"]),
    "full_like": Operation(filled_like, written_value),
    "fill": Operation(fill, written_value),
    "new_zeros": moved(_ZEROS["new"]),
    "new_ones": moved(_ONES["new"]),
    "new_full": Operation(new_filled, written_value),
    "scalar_tensor": Operation(number, written_value),
    "arange": Operation(counted, counted_error),
    "linspace": Operation(spaced, spaced_error),
    "logspace": Operation(spaced_powers, spaced_powers_error),
    "eye": moved(identity),
}
