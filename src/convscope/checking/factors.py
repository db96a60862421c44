"""A result that is the correct one times a factor: measured, and named if it is one of the sizes of the call.

Uses the records of this package and NumPy. The factor of each case is the quotient of the function's result and the
reference's. It is named only if a size, or one constant, is that factor in all cases.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from convscope.checking.operation import Mistake, Results, Values
from convscope.typing import Array

Size = Callable[[Values], float | None]
"""A size of a call; None if it has no such size."""


def _axis(name: str, axis: int) -> Size:
    return lambda values: _shape(values, name)[axis] if len(_shape(values, name)) > axis else None


def _shape(values: Values, name: str) -> tuple[int, ...]:
    array = values.get(name)
    return array.shape if isinstance(array, np.ndarray) else ()


def _window(values: Values) -> float | None:
    shape = _shape(values, "weight")
    if len(shape) == 4:
        return float(shape[2] * shape[3])
    size = values.get("kernel_size")
    return None if size is None else float(size**2)


def _positions(values: Values) -> float | None:
    shape = _shape(values, "dout")
    return float(shape[2] * shape[3]) if len(shape) == 4 else None


def _all_of(name: str) -> Size:
    return lambda values: float(np.prod(_shape(values, name))) if _shape(values, name) else None


SIZES: Mapping[str, Size] = {
    "the number of images": _axis("x", 0),
    "the number of cells in a window": _window,
    "the number of windows": _positions,
    "the number of input channels": lambda values: _axis("x", 1)(values) if len(_shape(values, "x")) == 4 else None,
    "the number of kernels": _axis("weight", 0),
    "the number of numbers in dout": _all_of("dout"),
    "the number of numbers in x": _all_of("x"),
    "the stride": lambda values: values.get("stride"),
    "the square of the stride": lambda values: None if "stride" not in values else values["stride"] ** 2,
}
"""What a result may have been multiplied or divided by mistakenly."""


def factor(name: str, cases: Sequence[tuple[Values, Array, Array]]) -> Mistake | None:
    """The mistake of a result that is the correct one times a size, or times one number; None if it is not.

    >>> ones = np.ones(3)
    >>> images = [({"x": np.ones((n, 2))}, ones / n, ones) for n in (1, 2, 4)]
    >>> factor("dw", images).cause
    'divided by the number of images'
    >>> factor("loss", [({}, 3 * ones, ones), ({}, 6 * ones, 2 * ones)]).cause
    'multiplied by 3'

    Args:
        name: The result's name.
        cases: For each case its arguments, the function's result and the correct one.
    """
    measured = [_quotient(yours, expected) for _, yours, expected in cases]
    if None in measured or len([q for q in measured if q]) < 2:
        return None
    pairs = [(values, q) for (values, _, _), q in zip(cases, measured, strict=True) if q]
    quotients = np.array([q for _, q in pairs], np.float64)
    if np.allclose(quotients, quotients[0], rtol=CLOSE):
        text = f"{1 / quotients[0]:.3g}" if abs(quotients[0]) < 1 else f"{quotients[0]:.3g}"
        word = "divided" if abs(quotients[0]) < 1 else "multiplied"
        return _mistake(name, f"{word} by {text}", lambda _values: float(quotients[0]))
    for text, size in SIZES.items():
        sizes: list[Any] = [size(values) for values, _ in pairs]
        if not all(sizes):
            continue
        array = np.array(sizes, np.float64)
        if np.allclose(quotients, array, rtol=CLOSE):
            return _mistake(name, f"multiplied by {text}", partial(_power, size, 1))
        if np.allclose(quotients, 1 / array, rtol=CLOSE):
            return _mistake(name, f"divided by {text}", partial(_power, size, -1))
    return None


def _power(size: Size, power: int, values: Values) -> float:
    return float(size(values) or np.nan) ** power


CLOSE = 1e-4
"""How far quotients may differ, relatively, and be the same number."""


def _quotient(yours: Array, expected: Array) -> float | None:
    """The factor between two arrays; 0 if both are zero, None if there is none."""
    if yours.shape != expected.shape or not np.isfinite(yours).all():
        return None
    squares = float((expected.astype(np.float64) ** 2).sum())
    if not squares:
        return None if np.any(yours) else 0.0
    quotient = float((yours.astype(np.float64) * expected).sum()) / squares
    distance = np.abs(yours - quotient * expected).max()
    return quotient if quotient and distance <= CLOSE * abs(quotient) * np.abs(expected).max() else None


def _mistake(name: str, cause: str, share: Callable[[Values], float]) -> Mistake:
    def after(results: Results, values: Values) -> Results:
        return {name: results[name] * share(values)}

    return Mistake(cause, f"{name} is the correct result, {cause}.", after=after)
