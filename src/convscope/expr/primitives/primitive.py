"""Primitive: what an expression can apply to numbers: its formula, its value, its rounding, its slopes.

Numbers in, numbers out: knows NumPy and Precision, no tensors and no names. A formula is text with the arguments' names
in braces. Everything works on single numbers and, element by element, on arrays.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.expr.precision import Precision
from convscope.typing import Numbers


@dataclass(frozen=True, slots=True)
class Primitive:
    """One function.

    >>> double = elementary("2 × {x}", lambda x: 2 * x, roundings=1, slopes=lambda x: (2.0,))
    >>> double.value(3.0), float(double.error(Precision(0.5, 0, 0, 9), 6.0, [3.0], [0.0]))
    (6.0, 3.0)
    """

    formula: str
    value: Callable[..., Numbers]
    """The result, in float64."""
    error: Callable[[Precision, Any, Any, Any], Numbers]
    """How far a kernel's result may be from `value`: (precision, result, arguments, their errors).

    Each function declares the types of its own arguments: a number, or a `Row` for an argument of many numbers.
    """
    branch: Callable[..., str] | None = None
    """The formula of the branch that these arguments take."""
    slopes: Callable[..., Sequence[Numbers]] | None = None
    """The partial derivatives, as PyTorch defines them at kinks."""
    offset: Callable[..., Numbers | None] | None = None
    """For a piecewise linear function: the part that the varying arguments do not explain (see `elementary`)."""
    many: bool = False
    """Whether `value` and `error` also take arrays, n numbers for n cells: shape (n,), and (n, T) of rows."""


def elementary(
    formula: str,
    value: Callable[..., Numbers],
    *,
    roundings: Callable[..., Numbers] | float = 0.0,
    slopes: Callable[..., Sequence[Numbers]] | None = None,
    steepest: float | None = None,
    stored: Callable[..., Numbers] | None = None,
    offset: Callable[..., Numbers | None] | None = None,
    branch: Callable[..., str] | None = None,
    way: Callable[..., Numbers] | None = None,
    lost: Callable[..., Numbers] | None = None,
    grown: bool = False,
) -> Primitive:
    """A function of single numbers, for `Function`.

    A rounding is counted in units of u, the unit roundoff, times a magnitude. Libraries of elementary functions promise
    one unit in the last place, which is 2u (Sleef, MKL); twice that is allowed, and what the kernels do around it.

    Args:
        formula: With the arguments' names in braces.
        value: The function itself.
        roundings: u is multiplied by this: a function of (result, *arguments), or a number of times |result|.
        slopes: The partial derivatives by each argument.
        steepest: The largest slope anywhere, where an argument may be inexact and the slope changes suddenly.
        stored: The magnitude of what a kernel may put down in between, in the type of its result.
        offset: Of a piecewise linear function, called as (varies, *arguments) with a truth value for each argument:
            the result minus slope times argument for those that vary, found from constants alone. None for the result
            says that the function is not linear in these.
        branch: Which branch of the formula these arguments take.
        way: The largest magnitude on the way to the result: where it exceeds the type, the result has no bound.
        lost: What a kernel multiplies by a number that may underflow: 1 / (1 + exp(-x)) is 0 once exp(-x) is infinite.
        grown: Whether `roundings` and `stored` count arguments as larger by their errors: where a kernel multiplies
            one of them by far more than its slope, so that its error is rounded too.
    """

    def error(precision: Precision, result: Numbers, values: Sequence[Numbers], errors: Sequence[Numbers]) -> Numbers:
        sizes = [v + np.copysign(e, v) for v, e in zip(values, errors, strict=True)] if grown else values
        count = np.abs(roundings(result, *sizes) if callable(roundings) else roundings * result)
        bound = precision.sum * count + np.where(count != 0, precision.tiny, 0.0)
        if lost is not None:
            bound = bound + precision.tiny * np.abs(lost(*values))
        if stored is not None and precision.inner:
            bound = bound + precision.inner * np.abs(stored(*sizes))
        inexact = [np.any(error) for error in errors]
        if any(inexact) and steepest is not None:
            bound = bound + steepest * _largest(errors)
        elif any(inexact):
            assert slopes is not None, f"{formula} was given inexact arguments"
            by_argument = [
                np.where(np.equal(e, 0), 0.0, np.abs(s) * e)
                for s, e, needed in zip(slopes(*values), errors, inexact, strict=True)
                if needed
            ]
            bound = bound + 1.001 * functools.reduce(np.add, by_argument)
        return bound if way is None else np.where(np.abs(way(*values)) >= precision.room, np.inf, bound)

    return Primitive(formula, value, error, branch, slopes, offset, many=True)


def _largest(errors: Sequence[Numbers]) -> Numbers:
    """The largest of each cell's errors."""
    return functools.reduce(np.maximum, errors)


def no_offset(*_: object) -> float:
    """The offset of a function that goes through zero on each of its pieces."""
    return 0.0
