"""Distances: the p-norm of the difference of two rows, cell by cell or expanded into products."""

# ruff: noqa: ARG001 - what is called through one table has one signature

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.expr.precision import Precision, gamma
from convscope.expr.primitives.primitive import Primitive

Row = NDArray[np.float64]


def _distance(x: Row, y: Row, order: float) -> Any:
    apart = np.abs(x - y)
    if order == 0:
        return float(np.count_nonzero(apart))
    if np.isinf(order):
        return np.max(apart, initial=0.0) if order > 0 else np.min(apart)
    return np.sum(apart**order) ** (1 / order)


def _distance_error(precision: Precision, result: float, values: Sequence[Any], errors: Sequence[Any]) -> float:
    """One rounding of each difference; a power, a sum of M terms and a root, which divides what comes before by p.

    Powers that underflow are lost: M of them leave a distance of at most (M × tiny) to the 1 ÷ p. Some kernels store
    the differences in the type of the result.
    """
    row, _, order = values
    if order == 0:
        return 0.0
    if np.isinf(order):
        return 2 * (precision.sum + precision.inner) * abs(result)
    if abs(result) ** order >= precision.room:
        return float("inf")
    lost = (row.size * precision.tiny) ** (1 / max(order, 1.0)) if row.size else 0.0
    share = gamma(row.size + 12, precision.sum) / abs(order) + 14 * precision.sum + 2 * precision.inner
    return float(share * abs(result) + lost)


def _expanded_error(precision: Precision, result: float, values: Sequence[Any], errors: Sequence[Any]) -> float:
    """|x|² + |y|² − 2xy as a product of rows with M + 2 cells: what cancels leaves the roundings of its magnitude.

    Source: PyTorch, aten/src/ATen/native/Distance.cpp, _euclidean_dist.
    """
    x, y = values
    with np.errstate(over="ignore"):
        magnitude = float(np.sum((np.abs(x) + np.abs(y)) ** 2))
    if magnitude >= precision.room:
        return float("inf")
    off = gamma(2 * x.size + 4, precision.sum) * magnitude + precision.inner * 2 * magnitude + x.size * precision.tiny
    square = result * result
    return float(max(np.sqrt(square + off) - result, result - np.sqrt(max(square - off, 0.0))) * 1.01) + float(
        2 * precision.sum * result + precision.inner * result
    )


DISTANCES: Mapping[str, Primitive] = {
    "distance": Primitive("(sum of |{x} − {y}| to the {order}) to the 1 ÷ {order}", _distance, _distance_error),
    "distance_by_products": Primitive(
        "√(sum of {x}² + sum of {y}² − 2 × sum of {x} × {y})",
        lambda x, y: _distance(x, y, 2.0),
        _expanded_error,
    ),
}
