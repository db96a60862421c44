"""Argument checks of the functions of a first network: one sentence where NumPy would end in a traceback."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from convscope.errors import ConvscopeError, ShapeError
from convscope.type_checks import kind_of, takes

P = ParamSpec("P")
T = TypeVar("T")
MISFITS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
"""What NumPy, and Python around it, raise for arrays that do not fit each other."""


def fitting(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function refuse arguments of other kinds, as `takes` does, and shapes that do not fit each other.

    >>> @fitting
    ... def add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    ...     return x + y
    >>> add(np.zeros(2), np.zeros((3, 4)))
    Traceback (most recent call last):
    convscope.errors.ShapeError: add cannot calculate with x of shape (2,) and y of shape (3, 4): operands could not \
be broadcast together with shapes (2,) (3,4).
    """
    checked, signature = takes()(function), inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs).arguments  # missing or too many arguments are Python's to refuse
        try:
            return checked(*args, **kwargs)
        except ConvscopeError:
            raise
        except MISFITS as error:
            *descriptions, last = [f"{name} {_described(value)}" for name, value in bound.items()]
            listing = f"{', '.join(descriptions)} and {last}" if descriptions else last
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise ShapeError(f"{function.__name__} cannot calculate with {listing}: {reason}.") from error

    return call


def _described(value: object) -> str:
    """An argument in a message: an array by its shape, a number as it is, anything else by its kind."""
    if isinstance(value, int | float | str | tuple) or value is None:
        return f"= {value!r}"
    return f"of shape {np.shape(value)}" if isinstance(value, np.ndarray) else f"({kind_of(value)})"
