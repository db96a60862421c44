"""Activations backward: the incoming gradient, times the slope of the activation at its recorded number."""

from collections.abc import Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import leaf
from convscope.expr.expr import Apply, Leaf, number
from convscope.expr.precision import rounded
from convscope.expr.primitives import PRIMITIVES
from convscope.ops.vjp import VJP, Varies, only, wide
from convscope.typing import Array

CUBED = 1e12
SAME = 1e-6
"""The limits of a randomized slope that are closer than this count as one slope."""
_X = {"grad": "grad_output", "x": "self"}
_Y = {"grad": "grad_output", "y": "output"}
ARGUMENTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "threshold_backward": ("pass_above", {**_X, "threshold": "threshold"}),
    "hardtanh_backward": ("pass_between", {**_X, "low": "min_val", "high": "max_val"}),
    "hardshrink_backward": ("pass_outside", {"grad": "grad_out", "x": "self", "lambd": "lambd"}),
    "softshrink_backward": ("pass_outside", {**_X, "lambd": "lambd"}),
    "leaky_relu_backward": ("leaky_relu_backward", {**_X, "slope": "negative_slope"}),
    "hardsigmoid_backward": ("hardsigmoid_backward", _X),
    "hardswish_backward": ("hardswish_backward", _X),
    "sigmoid_backward": ("sigmoid_backward", _Y),
    "tanh_backward": ("tanh_backward", _Y),
    "silu_backward": ("silu_backward", _X),
    "mish_backward": ("mish_backward", _X),
    "gelu_backward": ("gelu_backward", _X),
    "softplus_backward": ("softplus_backward", {**_X, "beta": "beta", "threshold": "threshold"}),
    "log_sigmoid_backward": ("log_sigmoid_backward", _X),
    "logit_backward": ("logit_backward", {**_X, "eps": "eps"}),
    "native_dropout_backward": ("dropout_backward", {"grad": "grad_output", "mask": "mask", "scale": "scale"}),
}
"""ATen name -> the primitive, and its arguments as the schema names them."""


def activation(call: Call, cell: Cell) -> Apply:
    """The gradient of an activation's input: the gradient of its result, times the activation's slope.

    >>> grad, x = Operand.of(np.array([0.5, 0.5]), "fc.grad"), Operand.of(np.array([-1.0, 2.0]), "relu")
    >>> call = Call("threshold_backward", {"grad_output": grad, "self": x, "threshold": 0}, (2,))
    >>> activation(call, (0,)).value(), activation(call, (1,)).value()
    (0.0, 0.5)

    Source: PyTorch, aten/src/ATen/native/cpu/Activation.cpp and BinaryOpsKernel.cpp.

    Raises:
        UsageError: the approximated gelu of a number whose cube may be infinite in the kernel.
    """
    function, arguments = _applied(call)
    if function == "gelu_tanh_backward" and abs(float(call["self"].array[cell])) > CUBED:
        raise UsageError("no rule explains the slope of gelu by tanh at a number whose cube may overflow.")
    parts = {name: _part(call, value, cell, name) for name, value in arguments.items()}
    return Apply(function, parts, note=_note(function, parts))


def prelu(call: Call, cell: Cell) -> Apply:
    """The gradient of the input of a leaky relu with a learned slope, and as second result that of the slope.

    The second is one number for each cell; a sum over all cells that share a slope follows as a step of its own.
    """
    from_grad, x = leaf(call["grad_output"], cell), leaf(call["self"], cell)
    if call.output == 1:
        return Apply("prelu_slope_backward", {"grad": from_grad, "x": x})
    weight: Operand = call["weight"]
    index = tuple(0 if n == 1 else i for i, n in zip(cell[len(cell) - len(weight.shape) :], weight.shape, strict=True))
    return Apply("leaky_relu_backward", {"grad": from_grad, "x": x, "slope": leaf(weight, index)})


def glu(call: Call, cell: Cell) -> Apply:
    """In the first half, the gradient times the gate; in the second, times the input and the gate's slope."""
    operand, axis = call["self"], call["dim"] % len(cell)
    half = operand.shape[axis] // 2
    index = tuple(i % half if a == axis else i for a, i in enumerate(cell))
    gate = leaf(operand, tuple(i + half if a == axis else i for a, i in enumerate(index)))
    grad = leaf(call["grad_output"], index)
    if cell[axis] < half:
        return Apply("glu_backward", {"grad": grad, "gate": gate})
    return Apply("glu_gate_backward", {"grad": grad, "x": leaf(operand, index), "gate": gate})


def _applied(call: Call) -> tuple[str, dict[str, Operand | float]]:
    """The primitive and its arguments, as operands and numbers."""
    if call.op == "elu_backward":
        name, x = ("elu_backward_of_result", "y") if call["is_result"] else ("elu_backward", "x")
        scales = {key: call[key] for key in ("alpha", "scale", "input_scale")}
        return name, {"grad": call["grad_output"], x: call["self_or_result"], **scales}
    if call.op == "rrelu_with_noise_backward":
        return _randomized_slope(call)
    function, names = ARGUMENTS[call.op]
    if call.op == "logit_backward" and (call["eps"] is None or call["eps"] < 0):
        return function, {"grad": call["grad_output"], "x": call["self"], "eps": -1.0}
    if call.op == "gelu_backward" and call["approximate"] == "tanh":
        function = "gelu_tanh_backward"
    return function, {name: call[argument] for name, argument in names.items()}


def _randomized_slope(call: Call) -> tuple[str, dict[str, Operand | float]]:
    """In training the gradient times the slope that was drawn, which is 1 for positive numbers; else the mean slope."""
    low, high = float(call["lower"]), float(call["upper"])
    if call["training"] and high - low > SAME:
        return "mul", {"x": call["grad_output"], "y": call["noise"]}
    return "leaky_relu_backward", {"grad": call["grad_output"], "x": call["self"], "slope": (low + high) / 2}


def _part(call: Call, value: Operand | float, cell: Cell, name: str) -> Leaf:
    if isinstance(value, Operand):
        return leaf(value, cell)
    # narrow types are compared and multiplied in float32
    compute_dtype = call.dtype if call.dtype == "float64" else "float32"
    return number(rounded(float(value), compute_dtype), name, call.dtype)


def _note(function: str, parts: Mapping[str, Leaf]) -> str:
    """A note on whether the gradient passes."""
    if not function.startswith("pass_"):
        return ""
    passes = bool(Apply(function, {**parts, "grad": number(1.0, "grad")}).value())
    return "the gradient, passed on unchanged" if passes else "zero, because the activation is flat here"


def activation_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Multiply the weights by the slope (the result for a gradient of 1): linear in the incoming gradient.

    Raises:
        UsageError: the slope depends on the image too: then the operation is a product of two things that vary.
    """
    function, arguments = _applied(call)
    incoming = next(iter(arguments.values()))
    name = next(name for name, operand in call.operands().items() if operand is incoming)
    only(call, varies, name)
    numbers = [wide(value) if isinstance(value, Operand) else float(value) for value in arguments.values()]
    with np.errstate(all="ignore"):
        slope = PRIMITIVES[function].value(1.0, *numbers[1:])
    return VJP({name: weights * slope})
