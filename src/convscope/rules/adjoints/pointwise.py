"""Adjoints of pointwise operations: the slope of the function, found in FUNCTIONS, at every cell."""

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, first_result, fitted, only, wide
from convscope.rules.call import Array, Call, Operand
from convscope.rules.expr import Leaf
from convscope.rules.functions import FUNCTIONS
from convscope.rules.pointwise import applied


def pointwise(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Weights times slopes; the constant from the function's offset where it is piecewise linear."""
    function, arguments = applied(call)
    operands = call.operands()
    names = {argument: _name(given, operands) for argument, given in arguments.items()}
    values = {argument: _numbers(given) for argument, given in arguments.items()}
    return through(function, values, names, weights, varies=varies, shapes={n: o.shape for n, o in operands.items()})


def through(
    function: str,
    values: dict[str, Array],
    names: dict[str, str],
    weights: Array,
    *,
    varies: Varies,
    shapes: dict[str, tuple[int, ...]],
) -> Pulled:
    """A function of `FUNCTIONS`, cell by cell.

    Args:
        values: Its arguments, in their order.
        names: Which operand each is; "" for a number.
        shapes: Of each operand.
    """
    found = FUNCTIONS[function]
    moving = tuple(names[argument] in varies for argument in values)
    with np.errstate(all="ignore"):
        if found.slopes is None:
            flat = {names[a]: np.zeros(shapes[names[a]]) for a, moves in zip(values, moving, strict=True) if moves}
            return Pulled(flat, _sum(weights, found.value(*values.values())))
        slopes = found.slopes(*values.values())
        gradients: dict[str, Array] = {}
        for argument, slope, moves in zip(values, slopes, moving, strict=True):
            if moves:
                name = names[argument]
                gradients[name] = gradients.get(name, 0.0) + fitted(_times(weights, slope), shapes[name])
        offset = found.offset(moving, *values.values()) if found.offset else None
        if offset is not None:
            return Pulled(gradients, _sum(weights, offset))
        flat_value = _sum(weights, found.value(*values.values()))
        parts = zip(values.values(), slopes, moving, strict=True)
        return Pulled(gradients, flat_value - sum(_sum(weights, v * s) for v, s, m in parts if m), linear=False)


def prelu(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The learnt slope below zero."""
    only(call, varies, "self")
    image, slope = wide(call["self"]), wide(call["weight"])
    return Pulled({"self": weights * np.where(image > 0, 1.0, slope)})


def glu(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The two halves are one operand."""
    only(call, varies, "self")
    axis = call["dim"] % weights.ndim
    x, gate = np.split(wide(call["self"]), 2, axis=axis)
    found = FUNCTIONS["glu"]
    assert found.slopes is not None
    one, other = found.slopes(x, gate)
    value = _sum(weights, found.value(x, gate)) - _sum(weights, one * x + other * gate)
    return Pulled({"self": np.concatenate([weights * one, weights * other], axis=axis)}, value, linear=False)


def log_sigmoid(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The slope is the sigmoid of -x."""
    first_result(call)
    only(call, varies, "self")
    return through(
        "log_sigmoid",
        {"x": wide(call["self"])},
        {"x": "self"},
        weights,
        varies=varies,
        shapes={"self": call["self"].shape},
    )


def dropout(call: Call, weights: Array, varies: Varies) -> Pulled:
    """What the recorded mask kept."""
    only(call, varies, "input")
    if not call.get("train", True):
        return Pulled({"input": weights})
    return Pulled({"input": weights * wide(call.extra["mask"]) / (1 - call["p"])})


def _name(given: object, operands: dict[str, Operand]) -> str:
    return next((name for name, operand in operands.items() if operand is given), "")


def _numbers(given: Operand | Leaf | float) -> Array:
    if isinstance(given, Operand):
        return given.array.astype(np.float64) if given.array.dtype != bool else given.array
    return np.asarray(given.value() if isinstance(given, Leaf) else given, np.float64)


def _times(weights: Array, slope: Array) -> Array:
    """Weight times slope; nothing where the weight is nothing, however steep the function."""
    return np.where(weights == 0, 0.0, weights * slope)


def _sum(weights: Array, values: Array) -> float:
    return float(np.sum(_times(weights, values)))
