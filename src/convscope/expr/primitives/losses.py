"""Losses of single numbers, where x is the prediction, y its target; and distances of two rows.

Kernels of losses store what they calculate in between in the type of the result: bfloat16 and half round there.
"""

# ruff: noqa: ARG001, ARG005 - what is called through one table has one signature

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convscope.expr.precision import Precision, gamma
from convscope.expr.primitives.activations import sigmoid
from convscope.expr.primitives.primitive import Primitive
from convscope.typing import Numbers, Row

EXP = 10.0
"""Roundings of an exponential or a logarithm and of what goes into it."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss of a pair of numbers."""

    formula: str
    value: Callable[..., Numbers]
    roundings: Callable[..., Numbers]
    """Function of (result, *arguments): the sum of the magnitudes that a kernel rounds."""
    slopes: Callable[..., tuple[Numbers, ...]]
    way: Callable[..., Numbers] | None = None
    """The largest intermediate magnitude: if it exceeds the type's range, the result has no bound."""
    stored: Callable[..., Numbers] | None = None
    """Like `roundings`, for the values that kernels of narrow types store in between; by default all of them."""
    curvature: Callable[..., Numbers] | None = None
    """Half the largest second derivative by x − y, where the loss is a function of that; else inexact numbers have no
    bound."""
    underflow: Callable[..., Numbers] | None = None
    """The later factor of an intermediate number that may underflow, if it is more than 1."""

    def errors(self, precision: Precision, result: Numbers, *values: Numbers) -> Numbers:
        """How far a kernel may be off, for one pair or many; the arguments are exact."""
        with np.errstate(all="ignore"):
            count = np.abs(self.roundings(result, *values))
            stored = count if self.stored is None else np.abs(self.stored(result, *values))
            bound = precision.sum * count + precision.inner * stored + precision.tiny * (count != 0)
            if self.underflow is not None:  # subnormal numbers have a spacing of tiny times the type's roundoff
                bound = bound + 2 * precision.tiny * (precision.inner or 1.0) * self.underflow(*values)
            limit = precision.largest if precision.inner else precision.room  # what is stored in between is narrow
            return bound if self.way is None else np.where(np.abs(self.way(*values)) < limit, bound, np.inf)

    def primitive(self) -> Primitive:
        """The loss of one pair as what an expression applies."""

        def error(precision: Precision, result: float, values: Sequence[float], errors: Sequence[float]) -> float:
            loss_error = float(self.errors(precision, result, *values))
            inexact = float(errors[0]) + float(errors[1])  # of x − y: f(d + e) − f(d) is f'(d)·e + f''(somewhere)·e²/2
            if not inexact:
                return loss_error
            assert self.curvature is not None, f"{self.formula} was given inexact arguments"
            slope = abs(float(self.slopes(*values)[0]))
            return loss_error + 1.001 * (slope + float(self.curvature(*values)) * inexact) * inexact

        return Primitive(self.formula, self.value, error, slopes=self.slopes)


def _smooth(x: Numbers, y: Numbers, beta: Numbers) -> Numbers:
    distance = np.abs(x - y)
    with np.errstate(all="ignore"):
        return np.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)


def _huber(x: Numbers, y: Numbers, delta: Numbers) -> Numbers:
    distance = np.abs(x - y)
    return np.where(distance <= delta, 0.5 * distance * distance, delta * (distance - 0.5 * delta))


def _smooth_slopes(x: Numbers, y: Numbers, beta: Numbers) -> tuple[Numbers, ...]:
    with np.errstate(all="ignore"):
        slope = np.where(np.abs(x - y) < beta, (x - y) / beta, np.sign(x - y))
    return slope, -slope, 0.0


def _huber_slopes(x: Numbers, y: Numbers, delta: Numbers) -> tuple[Numbers, ...]:
    slope = np.clip(x - y, -delta, delta)
    return slope, -slope, 0.0


def _soft_margin(x: Numbers, y: Numbers) -> Numbers:
    return np.logaddexp(0.0, -x * y)


def _soft_roundings(f: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """log(1 + e) moves by e ÷ (1 + e) times the relative error of e, which is that of its exponent and its own."""
    return np.abs(f) * EXP + sigmoid(-x * y) * (3 * np.abs(x * y) + EXP)


def _soft_stored(f: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """The product, its exponential, and the logarithm."""
    return 2 * np.abs(f) + 1.5 * sigmoid(-x * y) * (np.abs(x * y) + 1)


def _logs(x: Numbers) -> tuple[Numbers, Numbers]:
    """log(x) and log(1 − x), at least −100, as kernels of the binary cross-entropy have them."""
    with np.errstate(all="ignore"):
        return np.maximum(np.log(x), -100.0), np.maximum(np.log1p(-np.asarray(x, np.float64)), -100.0)


def _entropy(x: Numbers, y: Numbers, weight: Numbers) -> Numbers:
    yes, no = _logs(x)
    return weight * ((y - 1.0) * no - y * yes)


def _entropy_roundings(f: Numbers, x: Numbers, y: Numbers, weight: Numbers) -> Numbers:
    yes, no = _logs(x)
    return np.abs(weight) * (EXP + 2) * (np.abs((y - 1.0) * no) + np.abs(y * yes)) + 2 * np.abs(f)


def _entropy_stored(f: Numbers, x: Numbers, y: Numbers, weight: Numbers) -> Numbers:
    """Both logarithms, what they are multiplied by, the products; their difference, and that times the weight."""
    yes, no = _logs(x)
    return 3.1 * np.abs(weight) * (np.abs((y - 1.0) * no) + np.abs(y * yes)) + 2 * np.abs(f)


def _entropy_slopes(x: Numbers, y: Numbers, weight: Numbers) -> tuple[Numbers, ...]:
    """The slope by the prediction as PyTorch calculates it, with a divisor of at least 1e-12."""
    yes, no = _logs(x)
    return weight * (x - y) / np.maximum(x * (1.0 - x), 1e-12), weight * (no - yes), 0.0


def _log_sigmoid(x: Numbers) -> Numbers:
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


def _logit_entropy(x: Numbers, y: Numbers, weight: Numbers, positive: Numbers) -> Numbers:
    return weight * ((1.0 - y) * x - _log_sigmoid(x) * ((positive - 1.0) * y + 1.0))


def _logit_roundings(f: Numbers, x: Numbers, y: Numbers, weight: Numbers, positive: Numbers) -> Numbers:
    log, scaled = np.abs(_log_sigmoid(x)), (positive - 1.0) * y
    part = 3 * np.abs((1.0 - y) * x) + log * ((EXP + 8) * np.abs(scaled + 1.0) + 3 * np.abs(scaled) + 1)
    return np.abs(weight) * part + 2 * np.abs(f)


def _logit_stored(f: Numbers, x: Numbers, y: Numbers, weight: Numbers, positive: Numbers) -> Numbers:
    """The logarithm, its factor in three steps, both products; their difference, and that times the weight."""
    log, scaled = np.abs(_log_sigmoid(x)), (positive - 1.0) * y
    part = 2.1 * np.abs((1.0 - y) * x) + log * (3.1 * np.abs(scaled + 1.0) + 2.1 * np.abs(scaled))
    return np.abs(weight) * part + 2 * np.abs(f)


def _logit_slopes(x: Numbers, y: Numbers, weight: Numbers, positive: Numbers) -> tuple[Numbers, ...]:
    scale = (positive - 1.0) * y + 1.0
    return weight * ((1.0 - y) - scale * sigmoid(-x)), weight * (-x - _log_sigmoid(x) * (positive - 1.0)), 0.0, 0.0


LOSSES: Mapping[str, Loss] = {
    "squared_error": Loss(
        "({x} − {y})²",
        lambda x, y: (x - y) ** 2,
        lambda f, _x, _y: 3 * np.abs(f),
        lambda x, y: (2 * (x - y), -2 * (x - y)),
        curvature=lambda x, y: 1.0,
    ),
    "smooth_l1": Loss(
        "|{x} − {y}|² ÷ (2 × {beta}) below {beta}, |{x} − {y}| − {beta} ÷ 2 beyond",
        _smooth,
        lambda f, x, y, beta: 6 * np.abs(f) + 3 * np.where(np.abs(x - y) >= 0.9 * beta, np.abs(x - y) + beta, 0.0),
        _smooth_slopes,
        curvature=lambda x, y, beta: np.divide(0.5, beta),
        underflow=lambda x, y, beta: np.divide(1.0, beta),
    ),
    "huber": Loss(
        "|{x} − {y}|² ÷ 2 up to {delta}, {delta} × (|{x} − {y}| − {delta} ÷ 2) beyond",
        _huber,
        lambda f, x, y, delta: (
            6 * np.abs(f) + 4 * np.where(np.abs(x - y) >= 0.9 * delta, delta * (np.abs(x - y) + delta), 0.0)
        ),
        _huber_slopes,
        curvature=lambda x, y, delta: 0.5,
    ),
    "soft_margin": Loss(
        "log(1 + exp(−{x} × {y}))",
        _soft_margin,
        _soft_roundings,
        lambda x, y: (-y * sigmoid(-x * y), -x * sigmoid(-x * y)),
        way=lambda x, y: np.exp(-x * y),
        stored=_soft_stored,
    ),
    "binary_cross_entropy": Loss(
        "{weight} × (({y} − 1) × log(1 − {x}) − {y} × log({x}))",
        _entropy,
        _entropy_roundings,
        _entropy_slopes,
        None,
        _entropy_stored,
    ),
    "binary_cross_entropy_of_logit": Loss(
        "{weight} × ((1 − {y}) × {x} − (({positive} − 1) × {y} + 1) × log(sigmoid({x})))",
        _logit_entropy,
        _logit_roundings,
        _logit_slopes,
        stored=_logit_stored,
    ),
}
PAIRED: Mapping[str, Primitive] = {name: loss.primitive() for name, loss in LOSSES.items()}


# Distances: the p-norm of the difference of two rows, cell by cell or expanded into products


def _distance(x: Row, y: Row, order: float) -> float:
    distances = np.abs(x - y)
    if order == 0:
        return float(np.count_nonzero(distances))
    if np.isinf(order):
        return np.max(distances, initial=0.0) if order > 0 else np.min(distances)
    return np.sum(distances**order) ** (1 / order)


def _distance_error(precision: Precision, result: float, values: tuple[Row, Row, float], errors: object) -> float:
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
    underflow = (row.size * precision.tiny) ** (1 / max(order, 1.0)) if row.size else 0.0
    share = gamma(row.size + 12, precision.sum) / abs(order) + 14 * precision.sum + 2 * precision.inner
    return float(share * abs(result) + underflow)


def _expanded_error(precision: Precision, result: float, values: tuple[Row, Row], errors: object) -> float:
    """|x|² + |y|² − 2xy as a product of rows with M + 2 cells: what cancels leaves the roundings of its magnitude.

    Source: PyTorch, aten/src/ATen/native/Distance.cpp, _euclidean_dist.
    """
    x, y = values
    with np.errstate(over="ignore"):
        magnitude = float(np.sum((np.abs(x) + np.abs(y)) ** 2))
    if magnitude >= precision.room:
        return float("inf")
    square_error = (
        gamma(2 * x.size + 4, precision.sum) * magnitude + precision.inner * 2 * magnitude + x.size * precision.tiny
    )
    square = result * result
    return float(
        max(np.sqrt(square + square_error) - result, result - np.sqrt(max(square - square_error, 0.0))) * 1.01
    ) + float(2 * precision.sum * result + precision.inner * result)


DISTANCES: Mapping[str, Primitive] = {
    "distance": Primitive("(sum of |{x} − {y}| to the {order}) to the 1 ÷ {order}", _distance, _distance_error),
    "distance_by_products": Primitive(
        "√(sum of {x}² + sum of {y}² − 2 × sum of {x} × {y})",
        lambda x, y: _distance(x, y, 2.0),
        _expanded_error,
    ),
}
