"""How convscope explains `soft_clip`, and its second definition. Knows NumPy and convscope; no torch."""

import numpy as np

from convscope.expr.call import Call, Cell
from convscope.expr.cells import leaf
from convscope.expr.expr import Apply, number
from convscope.ops import Op
from convscope.ops.pointwise import pointwise_dependencies
from convscope.ops.vjp import VJP, tangent, wide
from convscope.reference import Operation


def rule(call: Call, cell: Cell) -> Apply:
    """limit × tanh(x ÷ limit), of the same cell of the input."""
    limit = number(call["limit"], "limit")
    bent = Apply("tanh", {"x": Apply("div", {"x": leaf(call["x"], cell), "y": limit})})
    return Apply("mul", {"x": limit, "y": bent})


def vjp(call: Call, weights: np.ndarray, varies: frozenset[str]) -> VJP:
    """The slope of tanh is 1 − tanh²."""
    bent = np.tanh(wide(call["x"]) / call["limit"])
    return tangent({"x": weights * (1 - bent**2)}, call, float(np.sum(weights * call["limit"] * bent)))


OPS = {"soft_clip::soft_clip": Op(rule, pointwise_dependencies, vjp, role="activation")}


def soft_clip(x: np.ndarray, limit: float) -> np.ndarray:
    """The definition, of the whole array in float64."""
    return limit * np.tanh(x / limit)


def soft_clip_error(y: np.ndarray, u: float, x: np.ndarray, limit: float) -> np.ndarray:
    """The quotient, tanh (4 units in the last place) and the product round, and the limit is written: 12 roundings."""
    return np.asarray(12 * u * np.abs(y))


REFERENCES = {"soft_clip::soft_clip": Operation(soft_clip, soft_clip_error)}
