"""Fake quantization: the nearest of equally spaced numbers, inside a range. Uses precision and NumPy."""

from collections.abc import Mapping

import numpy as np

from convscope.reference.operation import Operation
from convscope.typing import Array, Numbers

SINGLE = 2.0**-24
"""Kernels find the step in float32, whatever the type of the tensor."""


def fake_quantize(
    x: Array, scale: Numbers, zero_point: Numbers, quant_min: int, quant_max: int, axis: int | None = None,
    fake_quant_enabled: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """fake_quantize_per_{tensor,channel}_affine_cachemask: (step - zero_point)·scale, and whether it was in the range.

    >>> fake_quantize(np.array([0.27, 99.0]), 0.5, 0, 0, 10)
    (array([0.5, 5. ]), array([ True, False]))

    Args:
        x: Numbers of any shape.
        scale, zero_point: A number, a tensor of one, or one for each index of `axis`.
        quant_min, quant_max: The smallest and the largest step.
        axis: That of the channels.
        fake_quant_enabled: 0 leaves x as it is.
    """
    if fake_quant_enabled is not None and not fake_quant_enabled.reshape(-1)[0]:
        return x, np.ones(x.shape, bool)
    size, zero, step, _ = _steps(x, scale, zero_point, axis)
    inside = (step >= quant_min) & (step <= quant_max)
    step = np.where(np.isnan(step), quant_min, step)
    return (np.clip(step, quant_min, quant_max) - zero) * size, inside


def fake_quantize_error(
    y: tuple[Array, Array], u: float, x: Array, scale: Numbers, zero_point: Numbers, quant_min: int, quant_max: int,
    axis: int | None = None, fake_quant_enabled: Array | None = None, u_out: float = 0.0,
) -> tuple[Array, Array]:  # fmt: skip
    """A product, and a difference where the zero point is not whole; near the middle of two steps it may be either.

    What no integer counts (NaN, infinities, more than 2^62 steps) a kernel may bring to either end of the range.
    """
    if fake_quant_enabled is not None and not fake_quant_enabled.reshape(-1)[0]:
        return np.zeros(()), np.zeros(())
    size, zero, _, quotient = _steps(x, scale, zero_point, axis)
    rounding = max(u, SINGLE)
    either = np.abs(quotient - np.floor(quotient) - 0.5) <= 4 * rounding * (np.abs(quotient - zero) + 2 * np.abs(zero))
    is_too_large = ~(np.abs(quotient) < 2.0**62)
    bound = 2 * rounding * (np.abs(y[0]) + np.abs(zero * size)) + np.where(either, size, 0.0)
    return np.where(is_too_large, np.inf, bound) + 0 * u_out, np.where(either | is_too_large, 1.0, 0.0)


def _steps(x: Array, scale: Numbers, zero_point: Numbers, axis: int | None) -> tuple[Array, Array, Array, Array]:
    """Scale and zero point for each cell, the step of each cell, and where it was before it was rounded."""
    shape = [1] * x.ndim if axis is None else [-1 if a == axis else 1 for a in range(x.ndim)]
    size = np.asarray(scale, np.float64).astype(np.float32).astype(np.float64).reshape(shape)
    zero = np.asarray(zero_point)
    shifted, zero = zero.dtype.kind == "f", zero.astype(np.float64).reshape(shape)
    quotient = x / size + (zero if shifted else 0.0)
    return size, zero, np.rint(quotient) + (0.0 if shifted else zero), quotient


_FAKE = Operation(fake_quantize, fake_quantize_error)
QUANTIZATION: Mapping[str, Operation] = {
    "fake_quantize_per_tensor_affine_cachemask": _FAKE,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _FAKE,
    "fake_quantize_per_channel_affine_cachemask": _FAKE,
}
