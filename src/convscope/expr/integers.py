"""Whole numbers: how integer types count. They wrap around at the ends of their range, as C's do.

Imports nothing of convscope. Python's own integers calculate without limits, and `wrapped` takes the result back
into the type: additions, subtractions and products modulo 2**bits, so it does not matter when that is done.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS: Mapping[str, int] = {"uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64}
"""The integer types, as PyTorch names them, and their width."""
FINEST = 2**53
"""Up to here float64 holds every whole number."""


def wrapped(value: int, dtype: str) -> int:
    """A whole number as a tensor of this type holds it: modulo 2**bits, from 0 or from -2**(bits - 1) on.

    >>> wrapped(300, "uint8"), wrapped(128, "int8"), wrapped(2, "bool")
    (44, -128, 1)
    """
    if dtype == "bool":
        return int(value != 0)
    width = 1 << BITS[dtype]
    lowest = 0 if dtype == "uint8" else -(width // 2)
    return (value - lowest) % width + lowest


def exact(value: Any) -> float | int:
    """A number of an array as a float; as an integer where a float would round it.

    >>> exact(np.int64(3)), exact(np.int64(2**62 + 1))
    (3.0, 4611686018427387905)
    """
    result = float(value)
    return result if not isinstance(value, np.integer) or int(result) == int(value) else int(value)


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """An array in float64; as it is where it holds integers that float64 would round."""
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and ((array > FINEST) | (array < -FINEST)).any():
        return array
    return array.astype(np.float64)


def _truncated(x: int, y: int) -> int:
    return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)


def _power(x: int, exponent: int) -> int:
    """A negative exponent leaves 0 of all but 1 and -1."""
    if exponent >= 0:
        return int(x**exponent)
    if abs(x) != 1:
        return 0
    return x if exponent % 2 else 1


def _product(row: Sequence[int]) -> int:
    return math.prod(row)


WHOLE: Mapping[str, Callable[..., int]] = {
    "add": operator.add,
    "add_scaled": lambda x, alpha, y: x + alpha * y,
    "sub": operator.sub,
    "sub_scaled": lambda x, alpha, y: x - alpha * y,
    "mul": operator.mul,
    "neg": operator.neg,
    "abs": operator.abs,
    "square": lambda x: x * x,
    "pow": _power,
    "floor_div": operator.floordiv,
    "trunc_div": _truncated,
    "remainder": operator.mod,
    "fmod": lambda x, y: x - y * _truncated(x, y),
    "product": _product,
    "bitwise_and": operator.and_,
    "bitwise_or": operator.or_,
    "bitwise_xor": operator.xor,
    "bitwise_not": operator.invert,
    "identity": lambda x: x,
}
"""The functions of `FUNCTIONS` whose results may leave a type's range, between whole numbers and without rounding."""
