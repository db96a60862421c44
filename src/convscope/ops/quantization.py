"""Fake quantization: numbers rounded to the steps of an integer type, and kept as floating-point numbers."""

from collections.abc import Mapping

import numpy as np

from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import broadcast, leaf
from convscope.expr.expr import Apply, Leaf, number
from convscope.expr.primitives.quantization import fake_quantized, is_representable
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Varies, first_result, only, wide
from convscope.typing import Array, Numbers


def fake_quantize(call: Call, cell: Cell) -> Apply | Leaf:
    """The nearest step of a scale, kept between the smallest and the largest integer.

    The second result is whether it was inside already. One scale for all cells or one for each channel, as a number or
    as a tensor. Source: PyTorch, aten/src/ATen/native/quantized/FakeQuantPerTensorAffine.cpp.
    """
    x = leaf(call["self"], cell)
    if not _enabled(call):
        return number(1, "fake quantization is off") if call.output else Apply("identity", {"x": x})
    scale, zero = (_setting(call, name, cell) for name in ("scale", "zero_point"))
    parts = {"x": x, "scale": scale, "zero": zero, "low": _limit(call, "quant_min"), "high": _limit(call, "quant_max")}
    return Apply(_function(call) + ("_mask" if call.output else ""), parts)


def _function(call: Call) -> str:
    """A zero point that is not an integer is added before rounding."""
    zero = call["zero_point"]
    is_integer = not isinstance(zero, Operand) or zero.array.dtype.kind in "iu"
    return "fake_quantize" if is_integer else "fake_quantize_shifted"


def _enabled(call: Call) -> bool:
    switch: Operand | None = call.get("fake_quant_enabled")
    return switch is None or bool(switch.array.reshape(-1)[0])


def _setting(call: Call, name: str, cell: Cell) -> Leaf:
    value = call[name]
    if isinstance(value, Operand) and "axis" in call.arguments:
        return leaf(value, (cell[call["axis"]],))
    if isinstance(value, Operand):
        return leaf(value, (0,) * len(value.shape))
    if name == "scale":  # kernels take it in float32
        return number(float(np.float32(value)), name, "float32")
    return broadcast(int(value), cell, name)


def _limit(call: Call, name: str) -> Leaf:
    return number(call[name], name, "int64")


def fake_quantize_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """PyTorch's straight-through estimate: 1 inside the range, 0 outside; the tangent keeps the rounding."""
    first_result(call)
    only(call, varies, "self")
    image = wide(call["self"])
    if not _enabled(call):
        return VJP({"self": weights})
    settings = [_spread(call, name) for name in ("scale", "zero_point")]
    settings += [float(call[name]) for name in ("quant_min", "quant_max")]
    shifted = _function(call) != "fake_quantize"
    gradient = weights * is_representable(image, *settings, shifted=shifted)
    value = float(np.sum(weights * fake_quantized(image, *settings, shifted=shifted)))
    return VJP({"self": gradient}, value - float(np.sum(gradient * image)), linear=False)


def _spread(call: Call, name: str) -> Numbers:
    """A scale or zero point, shaped to meet the cells that it belongs to."""
    value = call[name]
    if not isinstance(value, Operand):
        return float(np.float32(value))
    if "axis" not in call.arguments:
        return wide(value).reshape(())
    return wide(value).reshape([-1 if axis == call["axis"] else 1 for axis in range(len(call.shape))])


def fake_quantize_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same cell; the scale and zero point of its channel, or of all."""
    mask = as_mask(mask)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if "axis" in call.arguments:
        other_axes = tuple(axis for axis in range(mask.ndim) if axis != call["axis"])
        masks |= {name: mask.max(axis=other_axes, initial=0.0) for name in varies & {"scale", "zero_point"}}
    return masks | ({"self": mask} if "self" in varies else {})


_FAKE = Op(fake_quantize, fake_quantize_dependencies, fake_quantize_vjp)
QUANTIZATION: Mapping[str, Op] = {
    "fake_quantize_per_tensor_affine_cachemask": _FAKE,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _FAKE,
    "fake_quantize_per_channel_affine_cachemask": _FAKE,
}
