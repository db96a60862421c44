"""Activations that are not a function of one cell: learned slopes, gates, dropout, the log of a sigmoid.

The others are pointwise: a primitive of `expr.primitives.activations` applied to the same cell of the input.
"""

import numpy as np

from convscope.errors import UnknownName
from convscope.expr.call import Call, Cell
from convscope.expr.cells import broadcast, leaf
from convscope.expr.expr import Apply, Leaf, number
from convscope.expr.primitives import PRIMITIVES
from convscope.ops.dependencies import as_mask
from convscope.ops.pointwise import through_vjp, weighted_sum
from convscope.ops.vjp import VJP, Varies, first_result, fitted, only, wide
from convscope.typing import Array


def log_sigmoid(call: Call, cell: Cell) -> Apply:
    """The logarithm of the sigmoid; its second result is exp(-|x|), kept for training."""
    x = leaf(call["self"], cell)
    if call.output == 0:
        return Apply("log_sigmoid", {"x": x})
    return Apply("exp", {"x": Apply("neg", {"x": Apply("abs", {"x": x})})})


def prelu(call: Call, cell: Cell) -> Apply:
    """A leaky relu whose slope was learnt, one for all or one for each channel."""
    return Apply("leaky_relu", {"x": leaf(call["self"], cell), "slope": broadcast(call["weight"], cell, "slope")})


def glu(call: Call, cell: Cell) -> Apply:
    """The first half times the sigmoid of the second half."""
    operand, axis = call["self"], call["dim"] % len(cell)
    half = operand.shape[axis] // 2
    gate = tuple(i + half if a == axis else i for a, i in enumerate(cell))
    return Apply("glu", {"x": leaf(operand, cell), "gate": leaf(operand, gate)})


def dropout(call: Call, cell: Cell) -> Apply | Leaf:
    """What the recorded mask kept, scaled up by 1 / (1 - p); the second result is the mask itself.

    Raises:
        UnknownName: the mask was not recorded.
    """
    x = leaf(call["input"], cell)
    if not call.get("train", True):
        return number(1, "mask") if call.output else x
    if "mask" not in call.extra:
        raise UnknownName("recorded mask", "mask", call.extra)
    mask = leaf(call.extra["mask"], cell)
    return mask if call.output else Apply("dropout", {"x": x, "mask": mask, "p": number(call["p"], "p")})


def prelu_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The learnt slope below zero; by the slope itself what is below zero."""
    only(call, varies, "self", "weight")
    image, slope = wide(call["self"]), wide(call["weight"])
    gradients = {"self": weights * np.where(image > 0, 1.0, slope)} if "self" in varies else {}
    if "weight" not in varies:
        return VJP(gradients)
    gradients["weight"] = fitted(weights * np.where(image > 0, 0.0, image), call["weight"].shape)
    above_zero = 0.0 if "self" in varies else weighted_sum(weights, np.where(image > 0, image, 0.0))
    by_slope = weighted_sum(gradients["weight"], slope) if "self" in varies else 0.0
    return VJP(gradients, above_zero - by_slope, linear="self" not in varies)


def glu_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The two halves are one operand."""
    only(call, varies, "self")
    axis = call["dim"] % weights.ndim
    x, gate = np.split(wide(call["self"]), 2, axis=axis)
    result = PRIMITIVES["glu"]
    assert result.slopes is not None
    x_slope, gate_slope = result.slopes(x, gate)
    value = weighted_sum(weights, result.value(x, gate)) - weighted_sum(weights, x_slope * x + gate_slope * gate)
    return VJP({"self": np.concatenate([weights * x_slope, weights * gate_slope], axis=axis)}, value, linear=False)


def log_sigmoid_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The slope is the sigmoid of -x."""
    first_result(call)
    only(call, varies, "self")
    return through_vjp(
        "log_sigmoid",
        {"x": wide(call["self"])},
        {"x": "self"},
        weights,
        varies=varies,
        shapes={"self": call["self"].shape},
    )


def dropout_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """What the recorded mask kept."""
    only(call, varies, "input")
    if not call.get("train", True):
        return VJP({"input": weights})
    return VJP({"input": weights * wide(call.extra["mask"]) / (1 - call["p"])})


def glu_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same cell of both halves."""
    mask = as_mask(mask)
    return {"self": np.concatenate([mask, mask], axis=call["dim"] % mask.ndim)} if varies else {}
