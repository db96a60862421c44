"""Which products a function adds up for one cell, measured by calling the function.

A convolution is linear in its image and in its kernel, and so is a user's version of it. With a one in one cell of the
image, a one in one cell of the kernel and zeros elsewhere, the result shows how often the function adds that product.
The code is never inspected. The terms are shown only if they add up to the number that the function returned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product as iterate

import numpy as np

from convscope.checking.operation import Values
from convscope.typing import Array

Run = Callable[[Values], Array | None]
"""Arguments -> one result of the function; None where it fails."""
CALLS = 1500
"""Maximum number of calls of a function."""


@dataclass(frozen=True, slots=True)
class Term:
    """One product of a sum, or one cell of it."""

    factors: tuple[tuple[str, tuple[int, ...]], ...]
    """Array and cell of each factor."""
    numbers: tuple[float, ...]
    times: float
    """How often it is added: 1, or a share such as 1/4."""

    @property
    def value(self) -> float:
        """Its contribution to the sum."""
        return float(np.prod(self.numbers)) * self.times


def terms(run: Run, values: Values, cell: tuple[int, ...], products: tuple[tuple[str, ...], ...]) -> list[Term] | None:
    """The terms that a function adds up for a cell; None if it is not such a sum.

    Args:
        products: The arrays multiplied with each other in each kind of term.
    """
    arrays = {name for product in products for name in product}
    if any(values.get(name) is None for product in products[:1] for name in product):
        return None
    size = np.prod([values[name].size for name in products[0]])
    if size > CALLS:
        return None
    zeros = {name: np.zeros_like(values[name]) for name in arrays if values.get(name) is not None}
    out: list[Term] = []
    for product in products:
        if all(name in zeros for name in product):
            part = _terms(run, values, zeros, cell, product)
            if part is None:
                return None
            out += part
    return out


def _terms(
    run: Run, values: Values, zeros: Values, cell: tuple[int, ...], product: tuple[str, ...]
) -> list[Term] | None:
    """The terms of one product: each combination of relevant cells, measured one by one."""
    spread = {name: np.linspace(1.0, 1.9, values[name].size).reshape(values[name].shape) for name in product}
    cells = []
    for name in product:
        matter = []
        for at in np.ndindex(*values[name].shape):
            answer = _ask(run, values | zeros | spread | {name: _one(values[name], at)}, cell)
            if answer is None:
                return None
            if answer:
                matter.append(at)
        cells.append(matter)
    out = []
    for combination in iterate(*cells):
        ones = {name: _one(values[name], at) for name, at in zip(product, combination, strict=True)}
        times = _ask(run, values | zeros | ones, cell)
        if times is None:
            return None
        if times:
            factors = tuple(zip(product, combination, strict=True))
            out.append(Term(factors, tuple(float(values[name][at]) for name, at in factors), times))
    return out


def window(run: Run, values: Values, cell: tuple[int, ...], name: str = "x") -> list[Term] | None:
    """The cells that a maximum is chosen from: those that change it when they are raised far above all others."""
    before = _ask(run, values, cell)
    if before is None:
        return None
    high = 2 * float(np.abs(values[name]).max()) + 10
    out = []
    for at in np.ndindex(*values[name].shape):
        raised = values[name].copy()
        raised[at] = high
        after = _ask(run, values | {name: raised}, cell)
        if after is None:
            return None
        if after != before:
            out.append(Term(((name, at),), (float(values[name][at]),), 1.0))
    return out


def _one(array: Array, at: tuple[int, ...]) -> Array:
    out = np.zeros_like(array)
    out[at] = 1
    return out


def _ask(run: Run, values: Values, cell: tuple[int, ...]) -> float | None:
    result = run(values)
    if result is None or len(cell) != result.ndim or any(i >= n for i, n in zip(cell, result.shape, strict=True)):
        return None
    return float(result[cell])
