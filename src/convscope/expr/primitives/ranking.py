"""Ranks and counts: the median of many numbers, where one of them is, how many are below or between others."""

# ruff: noqa: ARG001 - what is called through one table has one signature

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convscope.expr.precision import Precision, gamma
from convscope.expr.primitives.primitive import Primitive
from convscope.typing import Array, Row


def _no_error(precision: Precision, result: object, values: object, errors: object) -> float:
    return 0.0


def _median(row: Row) -> float:
    """The lower of the two in the middle; nan where there is one."""
    if not row.size or np.isnan(row).any():
        return np.nan
    return np.sort(row)[(row.size - 1) // 2]


def _nanmedian(row: Row) -> float:
    return _median(row[~np.isnan(row)])


def _mode(row: Row) -> float:
    """The most frequent number, the smallest of those that are equally frequent."""
    values, counts = np.unique(row, return_counts=True)
    return values[np.argmax(counts)]


def _same(row: Row, x: float) -> Array:
    return np.isnan(row) if np.isnan(x) else row == x


def _open_if_several(precision: Precision, result: float, values: tuple[Row, float], errors: object) -> float:
    """Kernels may return the index of any of several equal cells."""
    return float("inf") if np.count_nonzero(_same(*values)) > 1 else 0.0


def _nonzero(row: Row, positions: Row, rank: float) -> float:
    return positions[np.flatnonzero(row)[int(rank)]]


def _number_at(row: Row, index: float) -> float:
    return row[int(index)]


def _error_at(
    precision: Precision, result: float, values: tuple[Row, float], errors: tuple[Row | float, float]
) -> float:
    row, index = values
    return float(np.broadcast_to(errors[0], row.shape)[int(index)])


def _below(row: Row, x: float) -> float:
    return _insertion(~(row >= x))


def _not_above(row: Row, x: float) -> float:
    return _insertion(~(row > x))


def _insertion(comes_before: NDArray[np.bool_]) -> int:
    """The insertion point found by bisection, as kernels search; in an unsorted row it depends on the path taken.

    Args:
        comes_before: Which cells of the whole row come before the insertion point; those without an order do.
    """
    start, end = 0, len(comes_before)
    while start < end:
        middle = start + (end - start) // 2
        start, end = (middle + 1, end) if comes_before[middle] else (start, middle)
    return start


def _inside(row: Row, low: float, high: float, last: float) -> Array:
    """Bins include their lower edge, the last one also its upper edge."""
    return (row >= low) & ((row < high) | ((row == high) & (last != 0)))


def _between(row: Row, low: float, high: float, last: float, weights: Row | float = 1.0) -> float:
    return np.sum(np.broadcast_to(weights, row.shape)[_inside(row, low, high, last)])


def _between_error(
    precision: Precision,
    result: float,
    values: tuple[Row, float, float, float, *tuple[Row, ...]],
    errors: Sequence[float],
) -> float:
    """Cells that the error of an edge may take to the other side of it, and the roundings of the sum.

    The position of a cell among the bins is calculated with three more roundings, of the range. Counts are exact while
    the type holds every integer.
    """
    row, low, high, last = values[:4]
    weights = np.abs(np.broadcast_to(values[4] if len(values) > 4 else 1.0, row.shape))
    near = (np.abs(row - low) <= errors[1]) * (errors[1] > 0) + (np.abs(row - high) <= errors[2]) * (errors[2] > 0)
    counted = np.sum(weights[_inside(row, low, high, last)])
    rounds = len(values) > 4 or counted * precision.sum > 0.5
    return float(np.sum(weights * near) + (gamma(row.size, precision.sum) * counted if rounds else 0.0))


def _running_logsumexp(row: Row) -> float:
    return np.logaddexp.reduce(row)


def _running_error(precision: Precision, result: float, values: tuple[Row], errors: object) -> float:
    """Each of the additions rounds its result once, its exp and logarithm by 16 of at most 1."""
    row = values[0]
    if not np.isfinite(result):
        return 0.0
    largest = np.max(np.abs(np.logaddexp.accumulate(row)[np.isfinite(row)]), initial=abs(result))
    return float(row.size * (precision.sum * (16 + 2 * largest) + precision.inner * largest))


RANKING: Mapping[str, Primitive] = {
    "median": Primitive("the number in the middle of {cells}, sorted", _median, _no_error),
    "nanmedian": Primitive("the number in the middle of {cells}, sorted, without nan", _nanmedian, _no_error),
    "mode": Primitive("the most frequent of {cells}", _mode, _no_error),
    "index_of": Primitive("where {x} is in {cells}", lambda row, x: np.flatnonzero(_same(row, x))[0], _open_if_several),
    "last_index_of": Primitive(
        "where {x} is last in {cells}", lambda row, x: np.flatnonzero(_same(row, x))[-1], _no_error
    ),
    "count_nonzero": Primitive("how many of {cells} are not 0", np.count_nonzero, _no_error),
    "nonzero": Primitive("where number {rank} of {cells} that are not 0 is", _nonzero, _no_error),
    "number_at": Primitive("number {index} of {cells}", _number_at, _error_at),
    "count_below": Primitive("how many of {cells} are less than {x}", _below, _no_error),
    "count_not_above": Primitive("how many of {cells} are at most {x}", _not_above, _no_error),
    "is_among": Primitive("1 if {x} is among {cells}, else 0", lambda x, row: 1.0 * (x in row), _no_error),
    "between": Primitive("how many of {cells} are from {low} to {high}", _between, _between_error),
    "weight_between": Primitive(
        "the weights of those of {cells} that are from {low} to {high}", _between, _between_error
    ),
    "running_logsumexp": Primitive("log(sum of exp({cells}))", _running_logsumexp, _running_error),
}
