"""Activations: relu and its family, the sigmoid and its family, gelu, glu. Uses precision and NumPy.

Each function is followed by its error; u stands for one rounding, `FUNCTION` for a call of exp, tanh or erf.
"""

import numpy as np

from convscope.reference.precision import FUNCTION, scalar, smallest, written
from convscope.reference.special_functions import erf
from convscope.typing import Array, Numbers

FLAT = 1e4
"""exp of minus this is 0 in every type: beyond it nothing changes, and its product with 0 stays a number."""


def relu(x: Array) -> Array:
    """max(x, 0), cell by cell; NaN stays.

    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return np.maximum(x, 0)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x, or negative_slope·x below 0."""
    return np.where(x > 0, x, x * negative_slope)


def leaky_relu_error(y: Array, u: float, x: Array, negative_slope: float = 0.01) -> Array:
    """Above 0 exact; below, a product with a written number."""
    return np.where(x > 0, 0.0, u * np.abs(y) + np.abs(x) * written(negative_slope, u))


def prelu(x: Array, weight: Array) -> Array:
    """_prelu_kernel: x, or weight·x below 0; the weight already shaped to broadcast."""
    return np.where(x > 0, x, weight * x)


def prelu_error(y: Array, u: float, x: Array, weight: Array) -> Array:
    """Above 0 exact; below, one product."""
    return np.where(x > 0, 0.0, u * np.abs(y))


def elu(x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    """scale·x, or scale·alpha·(exp(input_scale·x) - 1) below 0. Also celu and selu.

    >>> elu(np.array([3.0, 0.0]))
    array([3., 0.])
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) * input_scale)) * scale


def elu_error(y: Array, u: float, x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    """Kernels may subtract 1 from exp: its error is then absolute. The argument's rounding counts |input_scale·x|."""
    inner = np.minimum(np.abs(np.minimum(x, 0) * input_scale), FLAT)
    below = abs(alpha * scale) * np.exp(-inner) * (FUNCTION + 2 * inner) * u + abs(alpha * scale) * u * (inner > 0)
    return np.where(x > 0, u * np.abs(y) * (2 if scale != 1 else 0), below + 4 * u * np.abs(y))


def celu(x: Array, alpha: float = 1) -> Array:
    """x, or alpha·(exp(x / alpha) - 1) below 0."""
    return elu(x, alpha, 1, 1 / alpha)


def celu_error(y: Array, u: float, x: Array, alpha: float = 1) -> Array:
    """The same bound as `elu_error`."""
    return elu_error(y, u, x, alpha, 1, 1 / alpha)


def hardtanh(x: Array, low: float = -1, high: float = 1) -> Array:
    """x, not below `low`, not above `high`: relu6 with 0 and 6. Kernels of integers read both as integers."""
    if x.dtype.kind != "f":
        return np.clip(x, int(low), int(high))
    return np.clip(x, low, high)


def hardtanh_error(y: Array, u: float, x: Array, low: float = -1, high: float = 1) -> Numbers:
    """Exact, but the limits are written."""
    return np.where(x < low, written(low, u), 0.0) + np.where(x > high, written(high, u), 0.0)


def hardsigmoid(x: Array) -> Array:
    """(x + 3) / 6, not below 0, not above 1."""
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


def hardsigmoid_error(_y: Array, u: float, x: Array) -> Array:
    """The sum and the division by 6, or two roundings for a multiplication by 1/6; flat below -3."""
    return np.where(x < -3, 0.0, 4 * u * (np.minimum(np.abs(x), 3) + 3) / 6)


def hardswish(x: Array) -> Array:
    """x·hardsigmoid(x)."""
    return x * hardsigmoid(x)


def hardswish_error(y: Array, u: float, x: Array) -> Array:
    """As `hardsigmoid_error`, times x, and a product."""
    return np.abs(x) * hardsigmoid_error(y, u, x) + u * np.abs(y)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), from the side where exp does not overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def sigmoid_error(y: Array, u: float, x: Array) -> Array:
    """exp, a sum, a division: each a relative error, since both terms of the sum are positive."""
    return (FUNCTION + 4) * u * np.abs(y)


def silu(x: Array) -> Array:
    """x·sigmoid(x)."""
    return x * sigmoid(x)


def silu_error(y: Array, u: float, x: Array) -> Array:
    """As `sigmoid_error` and a product; where exp overflows in the kernel's type, x times what underflows."""
    return (FUNCTION + 5) * u * np.abs(y) + np.abs(x) * smallest(u)


def softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    """log(1 + exp(beta·x)) / beta; simply x if beta·x is above the threshold.

    >>> softplus(np.array([30.0]))
    array([30.])
    """
    inner = x * beta
    return np.where(inner > threshold, x, np.log1p(np.exp(np.minimum(inner, threshold))) / beta)


def softplus_error(y: Array, u: float, x: Array, beta: float = 1, threshold: float = 20) -> Array:
    """exp of a rounded argument (|beta·x| roundings), log1p, a division; near the threshold, the step between both."""
    inner = x * beta
    step = np.where(np.abs(inner - threshold) <= 4 * u * abs(threshold), np.log1p(np.exp(-threshold)) / beta, 0.0)
    body = (2 * np.minimum(np.abs(inner), FLAT) + 2 * FUNCTION + 4) * u * np.abs(y)
    return np.where(inner > threshold, 0.0, body) + step


def mish(x: Array) -> Array:
    """x·tanh(softplus(x))."""
    return np.asarray(x * np.tanh(np.where(x > 0, x, 0) + np.log1p(np.exp(-np.abs(x)))))


def mish_error(y: Array, u: float, x: Array) -> Array:
    """exp, log1p and tanh of positive numbers: no step enlarges a relative error."""
    return (3 * FUNCTION + 2) * u * np.abs(y) + np.abs(x) * smallest(u)


def log_sigmoid(x: Array) -> tuple[Array, None]:
    """log_sigmoid_forward: -log(1 + exp(-x)); its second output is the kernel's own buffer."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))), None


def log_sigmoid_error(y: tuple[Array, ...], u: float, x: Array) -> tuple[Array, None]:
    """exp, log1p, and a sum of two numbers of the same sign."""
    return (2 * FUNCTION + 2) * u * np.abs(y[0]), None


def gelu(x: Array, approximate: str = "none") -> Array:
    """x times the share of a normal distribution below x: x/2·(1 + erf(x / sqrt 2)), or its "tanh" approximation.

    >>> gelu(np.array([0.0, 100.0]))
    array([  0., 100.])
    """
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x))))
    return np.asarray(0.5 * x * (1 + erf(x * np.sqrt(0.5))))


def gelu_error(y: Array, u: float, x: Array, approximate: str = "none") -> Array:
    """|x|/2 times the error of 1 + erf or 1 + tanh, which for negative x is not small beside what cancels.

    erf or tanh charge `FUNCTION`, their argument's six roundings at most 3 (z·f'(z) < 0.5 for both), the sum 1; and
    three products.
    """
    return np.abs(x) * (FUNCTION / 2 + 2) * u + 3 * u * np.abs(y)


def glu(x: Array, dim: int = -1) -> Array:
    """The first half along `dim` times the sigmoid of the second."""
    left, right = np.split(x, 2, dim)
    return left * sigmoid(right)


def glu_error(y: Array, u: float, x: Array, dim: int = -1) -> Array:
    """The same bound as `silu_error`."""
    return np.asarray((FUNCTION + 5) * u * np.abs(y) + np.abs(np.split(x, 2, dim)[0]) * smallest(u))


def hardshrink(x: Array, lambd: float = 0.5) -> Array:
    """x, but 0 between -lambd and lambd."""
    return np.where((x >= -lambd) & (x <= lambd), 0.0, x)


def softshrink(x: Array, lambd: float = 0.5) -> Array:
    """x moved by lambd towards 0, and 0 between -lambd and lambd."""
    return np.where(np.abs(x) <= lambd, 0.0, x - np.sign(x) * lambd)


def shrink_error(y: Array, u: float, x: Array, lambd: float = 0.5) -> Array:
    """A difference; and cells as near to lambd as it is rounded may fall on either side."""
    near = np.abs(np.abs(x) - lambd) <= written(lambd, u)
    return u * np.abs(y) + np.where(y != 0, written(lambd, u), 0.0) + np.where(near, np.abs(x), 0.0)


def threshold(x: Array, threshold: float, value: float) -> Array:
    """x where it is above `threshold`, else `value`."""
    return np.where(~(x <= threshold), x, value)


def threshold_error(_y: Array, u: float, x: Array, threshold: float, value: float) -> Array:
    """Exact, but both numbers are written."""
    near = np.abs(x - threshold) <= scalar(threshold, u)
    jump = np.where(near & (scalar(threshold, u) > 0), np.abs(x - value), 0.0)
    return np.where(x <= threshold, written(value, u), 0.0) + jump
