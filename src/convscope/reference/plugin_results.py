"""Plugin results: whether what a function of an installed package returns is what its field of an `Operation` asks for.

Each check takes the result and the positional arguments of the call, and gives what is wrong, or "". Uses NumPy.
"""

from typing import Any

import numpy as np

from convscope.plugins import Checks
from convscope.type_checks import kind_of
from convscope.typing import Array


def _kind(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else kind_of(value)


def _numbers(value: Any, others: str = "c") -> str:
    """Whether it is a number, or an array of numbers."""
    array = np.asarray(value) if isinstance(value, int | float | complex | np.generic | np.ndarray) else None
    if array is None or array.dtype.kind not in f"biuf{others}":
        return f"{_kind(value)}, not an array of numbers"
    return ""


def _forward(result: object, *_: object) -> str:
    """An array, or several, of which some may be left out."""
    if isinstance(result, tuple):
        return next(filter(None, (_numbers(one) for one in result if one is not None)), "")
    return _numbers(result)


def _error(result: object, values: Array | tuple[Array | None, ...], *_: object) -> str:
    """A bound for each number of the operation's result, or one for all."""
    several = isinstance(values, tuple)
    if isinstance(result, tuple) and not several:
        return "several bounds for one result"
    bounds = result if isinstance(result, tuple) else (result,) * (len(values) if several else 1)
    for bound, array in zip(bounds, values if isinstance(values, tuple) else (values,), strict=False):
        if bound is None and several:
            continue
        if why := _numbers(bound, ""):
            return why.replace("an array of numbers", "a bound")
        numbers = np.asarray(bound)
        if (numbers < 0).any():
            return "a bound below 0"
        if array is not None and numbers.ndim and np.broadcast_shapes(numbers.shape, array.shape) != array.shape:
            return f"a bound of the shape {numbers.shape} for a result of the shape {array.shape}"
    return ""


CHECKS: Checks = {"forward": _forward, "error": _error, "normwise": _error}
"""For the functions of an `Operation` of the reference."""
