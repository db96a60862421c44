"""Pointwise operations: each cell from the same cell of the inputs, broadcast where these are smaller.

`applied` names the primitive that an operation applies and its arguments; the rule reads one cell of each."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import broadcast
from convscope.expr.expr import Apply, Leaf, number
from convscope.expr.precision import PRECISIONS, WHOLE, rounded, wrapped
from convscope.expr.primitives import PRIMITIVES
from convscope.ops.dependencies import as_mask
from convscope.ops.op import together
from convscope.ops.vjp import VJP, Varies, fitted
from convscope.typing import Array, Numbers

Given: TypeAlias = Operand | Leaf | float
"""What a primitive is applied to: a tensor, a cell of one that was read already, or a number."""
Arguments: TypeAlias = dict[str, Given]
"""Argument names of a primitive -> what they are."""
_X = {"x": "self"}
_XY = {"x": "self", "y": "other"}
SAME = (
    "relu", "hardsigmoid", "hardswish", "silu", "mish", "sigmoid", "tanh", "neg", "abs", "sign", "floor", "ceil",
    "trunc", "reciprocal", "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p",
    "erf", "sin", "cos", "tan", "asin", "acos", "sinh", "cosh", "erfc", "frac", "atan", "logical_not",
    "isnan", "isinf", "acosh", "asinh", "atanh", "deg2rad", "rad2deg", "sinc", "angle", "signbit", "isposinf",
    "isneginf",
)  # fmt: skip
"""Operations of one argument that are called as their function is."""
OF_PAIRS = ("mul", "maximum", "minimum", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or",
    "bitwise_xor", "copysign", "hypot", "fmax", "fmin", "logaddexp", "logaddexp2", "xlogy", "ldexp",
)  # fmt: skip
"""Operations of `self` and `other` that are called as their function is."""
ARGUMENTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    **{name: (name, _X) for name in SAME},
    **{name: (name, _XY) for name in OF_PAIRS},
    "special_xlog1py": ("xlog1py", _XY),
    "heaviside": ("heaviside", {"x": "self", "y": "values"}),
    "sgn": ("sign", _X),
    "atan2": ("atan2", {"x": "self", "y": "other"}),
    "leaky_relu": ("leaky_relu", {"x": "self", "slope": "negative_slope"}),
    "threshold": ("threshold", {"x": "self", "threshold": "threshold", "value": "value"}),
    "hardshrink": ("hardshrink", {"x": "self", "lambd": "lambd"}),
    "softshrink": ("softshrink", {"x": "self", "lambd": "lambd"}),
    "elu": ("elu", {"x": "self", "alpha": "alpha", "scale": "scale", "input_scale": "input_scale"}),
    "celu": ("celu", {"x": "self", "alpha": "alpha"}),
    "hardtanh": ("hardtanh", {"x": "self", "low": "min_val", "high": "max_val"}),
    "softplus": ("softplus", {"x": "self", "beta": "beta", "threshold": "threshold"}),
    "addcmul": ("addcmul", {"x": "self", "scale": "value", "y": "tensor1", "z": "tensor2"}),
    "addcdiv": ("addcdiv", {"x": "self", "scale": "value", "y": "tensor1", "z": "tensor2"}),
    "lerp": ("lerp", {"x": "self", "y": "end", "weight": "weight"}),
    "where": ("where", {"condition": "condition", "yes": "self", "no": "other"}),
    "masked_fill": ("where", {"condition": "mask", "yes": "value", "no": "self"}),
}


def pointwise(call: Call, cell: Cell) -> Apply:
    """One function of the same cell of each input: relu, exp, a sum, a product.

    >>> import numpy as np
    >>> x = Operand.of(np.array([-1.0, 2.0]), "conv1")
    >>> pointwise(Call("relu", {"self": x}, (2,)), (1,)).value()
    2.0
    """
    function, arguments = applied(call)
    leaves = {name: _read(value, cell, name) for name, value in arguments.items()}
    if call.kind and function in WHOLE:
        return _wrapping(call, function, leaves)
    return Apply(function, leaves)


def alike(call: Call, cell: Cell) -> Array | None:
    """All cells; integers that may wrap around are calculated one at a time."""
    return None if call.kind and applied(call)[0] in WHOLE else together(call, cell)


def _wrapping(call: Call, function: str, leaves: dict[str, Leaf]) -> Apply:
    """A function of integers, with a note where its result does not fit into the type.

    Raises:
        UsageError: it divides by zero.
    """
    if function in {"floor_div", "trunc_div", "remainder", "fmod"} and not leaves["y"].number:
        raise UsageError("no rule explains the division of an integer by zero.")
    limitless = WHOLE[function](*(int(leaf.number) for leaf in leaves.values()))
    fits = wrapped(limitless, call.kind) == limitless
    around = "" if fits else f"{limitless:,}, which {call.kind} holds as {wrapped(limitless, call.kind):,}"
    return Apply(function, leaves, around, call.kind)


def applied(call: Call) -> tuple[str, Arguments]:
    """The name of the function that this operation applies, and what to."""
    if call.op in SPECIAL:
        return SPECIAL[call.op](call)
    function, names = ARGUMENTS[call.op]
    arguments = {name: call[operand] for name, operand in names.items()}
    if call.op == "hardtanh" and call.kind:  # kernels of integers read the limits as integers
        arguments |= {name: int(arguments[name]) for name in ("low", "high")}
    return function, arguments


def _sum(call: Call) -> tuple[str, Arguments]:
    """add, sub, rsub: the second number scaled by alpha, which is 1 in nearly all networks."""
    x, y = (call["other"], call["self"]) if call.op == "rsub" else (call["self"], call["other"])
    function, alpha = "add" if call.op == "add" else "sub", float(call.get("alpha", 1))
    return (function, {"x": x, "y": y}) if alpha == 1 else (f"{function}_scaled", {"x": x, "alpha": alpha, "y": y})


def _quotient(call: Call) -> tuple[str, Arguments]:
    """div, in one mode rounded down and in one towards zero; remainder, fmod, floor_divide."""
    modes = {None: "div", "floor": "floor_div", "trunc": "trunc_div"}
    names = {"remainder": "remainder", "fmod": "fmod", "floor_divide": "floor_div"}
    function = modes[call.get("rounding_mode")] if call.op == "div" else names[call.op]
    arguments = {"x": call["self"], "y": call["other"]}
    return function, arguments if function == "div" else _as_read(arguments, call.dtype)


def _as_read(arguments: Arguments, dtype: str) -> Arguments:
    """Functions with jumps need written numbers exactly as the kernel reads them."""
    return {
        name: value if isinstance(value, Operand | Leaf) else number(rounded(float(value), dtype), name, dtype)
        for name, value in arguments.items()
    }


def _power(call: Call) -> tuple[str, Arguments]:
    """A number to a power; to the second it is the number times itself."""
    if not isinstance(call["exponent"], Operand) and call["exponent"] == 2:
        return "square", {"x": call["self"]}
    return "pow", {"x": call["self"], "exponent": call["exponent"]}


def _round(call: Call) -> tuple[str, Arguments]:
    """To the nearest integer, ties to even, or to some decimals."""
    decimals = call.get("decimals", 0)
    return ("round_decimals", {"x": call["self"], "decimals": decimals}) if decimals else ("round", {"x": call["self"]})


def _gelu(call: Call) -> tuple[str, Arguments]:
    """gelu, exactly by the error function, or approximated by tanh."""
    return "gelu_tanh" if call["approximate"] == "tanh" else "gelu", {"x": call["self"]}


def _clamp(call: Call) -> tuple[str, Arguments]:
    """clamp, clamp_min, clamp_max: nothing below the one, nothing above the other."""
    x, low, high = call["self"], call.get("min"), call.get("max")
    if high is None:
        return "clamp_min", {"x": x, "y": low}
    return ("clamp_max", {"x": x, "y": high}) if low is None else ("clamp", {"x": x, "low": low, "high": high})


def _compared(call: Call) -> tuple[str, Arguments]:
    """eq, ne, lt, le, gt, ge: 1 or 0. A number is first rounded to the type of what it is compared with."""
    x = call["self"]
    return call.op, _as_read({"x": x, "y": call["other"]}, x.source.dtype)


def _not(call: Call) -> tuple[str, Arguments]:
    """Every bit turned over; of a truth value, the other one."""
    return "logical_not" if call.dtype == "bool" else "bitwise_not", {"x": call["self"]}


def _logit(call: Call) -> tuple[str, Arguments]:
    """log(x / (1 - x)); with eps, of x between eps and 1 - eps."""
    eps = call.get("eps")
    limited = eps is not None and eps >= 0
    return ("logit_within", {"x": call["self"], "eps": float(eps)}) if limited else ("logit", {"x": call["self"]})


def _finite(call: Call) -> tuple[str, Arguments]:
    """nan_to_num: numbers for nan and infinities, by default 0 and the largest of the type."""
    largest = PRECISIONS[call.dtype].largest if call.dtype in PRECISIONS else 0.0
    defaults = {"nan": 0.0, "posinf": largest, "neginf": -largest}
    replacements: Arguments = {
        name: usual if call.get(name) is None else float(call[name]) for name, usual in defaults.items()
    }
    return "nan_to_num", {"x": call["self"], **_as_read(replacements, call.dtype)}


def _frexp(call: Call) -> tuple[str, Arguments]:
    """The number as a mantissa, the first result, times 2 to an exponent, the second."""
    return ("exponent" if call.output else "mantissa"), {"x": call["self"]}


SPECIAL: Mapping[str, Callable[[Call], tuple[str, Arguments]]] = {
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    **dict.fromkeys(("div", "remainder", "fmod", "floor_divide"), _quotient),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compared),
    "pow": _power,
    "round": _round,
    "gelu": _gelu,
    "bitwise_not": _not,
    "logit": _logit,
    "nan_to_num": _finite,
    "frexp": _frexp,
}


def _read(value: Given, cell: Cell, name: str) -> Leaf:
    if isinstance(value, Leaf):
        return value
    return broadcast(value, cell, name)


def pointwise_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Weights times slopes; the constant from the function's offset where it is piecewise linear."""
    function, arguments = applied(call)
    operands = call.operands()
    names = {argument: _name(argument_value, operands) for argument, argument_value in arguments.items()}
    values = {argument: _numbers(argument_value) for argument, argument_value in arguments.items()}
    return through_vjp(
        function, values, names, weights, varies=varies, shapes={n: o.shape for n, o in operands.items()}
    )


def through_vjp(
    function: str,
    values: dict[str, Array],
    names: dict[str, str],
    weights: Array,
    *,
    varies: Varies,
    shapes: dict[str, tuple[int, ...]],
) -> VJP:
    """A function of `FUNCTIONS`, cell by cell.

    Args:
        values: Its arguments, in their order.
        names: Which operand each is; "" for a number.
        shapes: The shape of each operand.
    """
    result = PRIMITIVES[function]
    moving = tuple(names[argument] in varies for argument in values)
    with np.errstate(all="ignore"):
        if result.slopes is None:
            flat = {names[a]: np.zeros(shapes[names[a]]) for a, moves in zip(values, moving, strict=True) if moves}
            return VJP(flat, weighted_sum(weights, result.value(*values.values())))
        slopes = result.slopes(*values.values())
        gradients: dict[str, Array] = {}
        for argument, slope, moves in zip(values, slopes, moving, strict=True):
            if moves:
                name = names[argument]
                gradients[name] = gradients.get(name, 0.0) + fitted(weighed(weights, slope), shapes[name])
        offset = result.offset(moving, *values.values()) if result.offset else None
        if offset is not None:
            return VJP(gradients, weighted_sum(weights, offset))
        flat_value = weighted_sum(weights, result.value(*values.values()))
        parts = zip(values.values(), slopes, moving, strict=True)
        return VJP(gradients, flat_value - sum(weighted_sum(weights, v * s) for v, s, m in parts if m), linear=False)


def _name(value: object, operands: dict[str, Operand]) -> str:
    return next((name for name, operand in operands.items() if operand is value), "")


def _numbers(value: Operand | Leaf | float) -> Array:
    if isinstance(value, Operand):
        return value.array.astype(np.float64) if value.array.dtype != bool else value.array
    return np.asarray(value.value() if isinstance(value, Leaf) else value, np.float64)


def weighed(weights: Array, slope: Numbers) -> Array:
    """Weight times slope; nothing where the weight is nothing, however steep the function."""
    return np.where(weights == 0, 0.0, weights * slope)


def weighted_sum(weights: Array, values: Numbers) -> float:
    """The sum of the numbers, each times its weight."""
    return float(np.sum(weighed(weights, values)))


def pointwise_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same cell of each operand, broadcast."""
    operands, mask = call.operands(), as_mask(mask)
    return {name: as_mask(fitted(mask, operands[name].shape)) for name in varies}
