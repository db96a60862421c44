"""Activations backward: the incoming gradient times the derivative of the activation. Uses precision, NumPy.

Every derivative is written from its forward function; x is the input of that function, `output` its result. If a kernel
only selects, it is exact; otherwise its error is that of the derivative, times the gradient, and two roundings.
"""

from collections.abc import Callable

import numpy as np

from convscope.reference.activations import FLAT, sigmoid
from convscope.reference.operation import Operation, wide
from convscope.reference.precision import FUNCTION, smallest
from convscope.reference.special_functions import erf
from convscope.typing import Array, Numbers


def sloped(
    slope: Callable[..., Array],
    roundings: Callable[..., Array],
    *,
    narrow: bool = False,
    lost: Callable[..., Numbers] = lambda **_: 1.0,
) -> Operation:
    """`grad_output` times a slope that a kernel may miss by `roundings`, in units of u.

    Where an exponential overflows or underflows, it also misses the smallest number, times `lost`.
    With `narrow`, kernels calculate in the tensors' own type also where that is float16 or bfloat16.

    >>> double = sloped(lambda x: 2 + 0 * x, lambda x: 0 * x)
    >>> double.compute(grad_output=np.array([1.0, 3.0]), self=np.zeros(2)).tolist()
    [2.0, 6.0]
    """

    def compute(grad_output: Array, **settings: object) -> Array:
        return np.asarray(grad_output * slope(**settings))

    def error(y: Array, u: float, grad_output: Array, **settings: object) -> Array:
        return np.asarray(
            2 * u * np.abs(y) + np.abs(grad_output) * (u * roundings(**settings) + smallest(u) * lost(**settings))
        )

    return Operation(compute, error if narrow else wide(error))


def gated(passes: Callable[..., Array], *, open_: bool = False) -> Operation:
    """The gradient where it passes, 0 elsewhere; with `open_`, kernels differ in what they do where x is NaN."""

    def compute(grad_output: Array, x: Array, **settings: object) -> Array:
        return np.where(passes(x, **settings), grad_output, 0.0)

    def error(_y: Array, _u: float, x: Array, **_: object) -> Numbers:
        nan = np.isnan(x)
        return np.where(nan, np.inf, 0.0) if open_ and nan.any() else 0.0

    return Operation(compute, error)


def above(x: Array, threshold: float) -> Array:
    """threshold_backward, relu's: where x was above."""
    return ~(x <= threshold)


def between(x: Array, low: float, high: float) -> Array:
    """hardtanh_backward: where x was between both, the limits themselves excluded."""
    return (x > low) & (x < high)


def outside(x: Array, lambd: float) -> Array:
    """hardshrink_backward and softshrink_backward: where x was not set to 0."""
    return (x < -lambd) | (x > lambd)


def shrink_backward(grad_out: Array, x: Array, lambd: float) -> Array:
    """hardshrink_backward, whose schema has another name for the gradient."""
    return np.where(outside(x, lambd), grad_out, 0.0)


def shrink_backward_error(_y: Array, _u: float, grad_out: Array, x: Array, lambd: float) -> Numbers:
    """Exact; open where x is NaN."""
    nan = np.isnan(x)
    return np.where(nan, np.inf, 0.0) if nan.any() else 0.0


def leaky_relu_backward(
    grad_output: Array, x: Array, negative_slope: float = 0.01, self_is_result: bool = False
) -> Array:
    """The gradient above 0, `negative_slope` times it elsewhere; input and result have the same sign.

    >>> leaky_relu_backward(np.array([4.0, 4.0]), np.array([-1.0, 1.0]), 0.25).tolist()
    [1.0, 4.0]
    """
    return np.where(x > 0, grad_output, grad_output * negative_slope)


def leaky_relu_backward_error(y: Array, u: float, grad_output: Array, x: Array, **_: object) -> Array:
    """Above 0 exact; below, a product with a written number."""
    return np.where(x > 0, 0.0, 2 * u * np.abs(y))


def prelu_backward(grad_output: Array, x: Array, weight: Array) -> tuple[Array, Array]:
    """_prelu_kernel_backward: the gradients of input and slope, cell by cell (shared slopes are summed later)."""
    return np.where(x > 0, grad_output, weight * grad_output), np.where(x > 0, 0.0, x * grad_output)


def prelu_backward_error(
    y: tuple[Array, ...], u: float, grad_output: Array, x: Array, weight: Array
) -> tuple[Array, Array]:
    """One product each."""
    return np.where(x > 0, 0.0, u * np.abs(y[0])), u * np.abs(y[1])


def hardsigmoid_backward(grad_output: Array, x: Array) -> Array:
    """A sixth of the gradient on the slope between -3 and 3, nothing outside.

    Kernels multiply by 1/6 as float32 holds it, also where the tensors are float64 (native/cpu/Activation.cpp).
    """
    return np.where((x > -3) & (x < 3), grad_output * float(np.float32(1 / 6)), 0.0)


def hardswish_backward(grad_output: Array, x: Array) -> Array:
    """x·(x + 3) / 6 has the slope x / 3 + 1/2 between -3 and 3; 0 below, 1 above."""
    slope = np.where(x < 3, x / 3 + 0.5, 1.0)
    return np.where(x <= -3, 0.0, grad_output * slope)


def hardswish_backward_error(y: Array, u: float, grad_output: Array, x: Array) -> Array:
    """A division or a product with 1/3, a sum and a product."""
    return np.where(np.abs(x) < 3, np.abs(grad_output) * u * (2 * np.abs(x) + 1) + 2 * u * np.abs(y), 0.0)


def sigmoid_slope(output: Array) -> Array:
    """y·(1 - y)."""
    return np.asarray(output * (1 - output))


def sigmoid_off(output: Array) -> Array:
    """A difference and a product."""
    return np.asarray(3 * np.abs(output * (1 - output)))


def tanh_slope(output: Array) -> Array:
    """1 - y²."""
    return np.asarray((1 - output) * (1 + output))


def tanh_off(output: Array) -> Array:
    """A square and a difference."""
    return np.asarray(output**2 + np.abs(1 - output**2))


def silu_slope(x: Array) -> Array:
    """x·σ(x) has the slope σ(x) + x·σ(x)·σ(-x)."""
    share = sigmoid(x)
    return np.where(np.isinf(x), np.nan, share + x * share * sigmoid(-x))  # kernels multiply 0 by x


def silu_off(x: Array) -> Array:
    """σ is off by FUNCTION + 4 roundings; so is 1 - σ, absolutely, where σ is near 1."""
    size = np.minimum(np.abs(x), FLAT)
    return np.asarray((FUNCTION + 6) * sigmoid(x) * (2 + size))


def steep(x: Array) -> Array:
    """What a lost σ(x) is multiplied by in the slopes of silu and mish."""
    return 1 + np.minimum(np.abs(x), FLAT)


def gelu_slope(x: Array, approximate: str = "none") -> Array:
    """The normal distribution below x, plus x times its density; or the slope of the approximation by tanh."""
    if approximate == "tanh":
        root, cubic = np.sqrt(2 / np.pi), 0.044715
        tanh = np.tanh(root * x * (1 + cubic * x**2))
        return np.asarray(0.5 + 0.5 * tanh + 0.5 * root * x * (1 - tanh) * (1 + tanh) * (1 + 3 * cubic * x**2))
    return np.asarray(0.5 + 0.5 * erf(x * np.sqrt(0.5)) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def gelu_off(x: Array, approximate: str = "none") -> Array:
    """erf or tanh near -1 leave an absolute error; the density's argument x²/2 counts its size in roundings.

    Of tanh, 1 - tanh² is off by its absolute error, times at most x·(1 + 3·0.0447·x²)·0.4, while |x| < 8: beyond, tanh
    is 1 in every type.
    """
    size = np.minimum(np.abs(x), FLAT)
    if approximate == "tanh":
        near = np.minimum(size, 8)
        steep = near * (1 + 0.1342 * near**2) * (size < 8)
        return np.where(
            np.abs(x) < 1e12, FUNCTION + 4 + (2 * FUNCTION + 6) * 0.4 * steep, np.inf
        )  # its cube may overflow
    return np.asarray(FUNCTION + 2 + size * np.exp(-(size**2) / 2) * (FUNCTION + 6 + size**2))


def mish_slope(x: Array) -> Array:
    """x·tanh(s), s = log(1 + exp(x)), has the slope tanh(s) + x·(1 - tanh²(s))·σ(x)."""
    tanh = np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))
    return np.asarray(tanh + x * (1 - tanh) * (1 + tanh) * sigmoid(x))


def mish_off(x: Array) -> Array:
    """exp, log1p and tanh, each `FUNCTION`; what 1 - tanh² loses is multiplied by x·σ(x)."""
    tanh = np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))
    return np.asarray((3 * FUNCTION + 4) * (tanh + np.minimum(np.abs(x), FLAT) * sigmoid(x)))


def softplus_slope(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    """σ(beta·x), and 1 beyond the threshold."""
    return np.where(x * beta > threshold, 1.0, sigmoid(x * beta))


def softplus_off(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    """exp of a rounded argument, a sum and a division; at the threshold the step between both branches."""
    inner = x * beta
    step = np.where(np.abs(inner - threshold) <= 1e-5 * abs(threshold), np.exp(-threshold) * 2.0**24, 0.0)
    return sigmoid(inner) * (FUNCTION + 4 + 2 * np.minimum(np.abs(inner), FLAT)) + step


def log_sigmoid_backward(grad_output: Array, x: Array, buffer: Array) -> Array:
    """log σ(x) has the slope σ(-x) = exp(-x) / (1 + exp(-x)); `buffer` is the exp(-|x|) that the forward pass kept."""
    small = buffer if buffer.shape == x.shape else np.exp(-np.abs(x))  # other devices keep none
    return np.asarray(grad_output * np.where(x < 0, 1, small) / (1 + small))


def log_sigmoid_backward_error(y: Array, u: float, grad_output: Array, x: Array, buffer: Array) -> Array:
    """For negative x the kernel subtracts from 1; without a buffer, exp is off by FUNCTION roundings."""
    slope = np.where(x < 0, 1.0, sigmoid(-x))
    return np.abs(grad_output) * (u * (FUNCTION + 8) * slope + smallest(u)) + 2 * u * np.abs(y)


def elu_backward(
    grad_output: Array, alpha: float, scale: float, input_scale: float, is_result: bool, self_or_result: Array
) -> Array:
    """scale above 0; below, the slope of scale·alpha·(exp(input_scale·x) - 1), from x or from the result itself."""
    x = self_or_result
    exponential = (x / (scale * alpha) + 1 if is_result else np.exp(np.minimum(x, 0) * input_scale)) * alpha
    return grad_output * scale * np.where(x <= 0, exponential * input_scale, 1.0)


def elu_backward_error(
    y: Array, u: float, grad_output: Array, alpha: float, scale: float, input_scale: float, is_result: bool,
    self_or_result: Array,
) -> Array:  # fmt: skip
    """exp of a rounded argument and three products; from the result, a sum that may cancel."""
    x = np.abs(np.minimum(self_or_result, 0))
    if is_result:
        return np.abs(grad_output * input_scale) * 5 * u * (x + abs(alpha * scale)) + 3 * u * np.abs(y)
    return (FUNCTION + 6 + 4 * np.minimum(x * abs(input_scale), FLAT)) * u * np.abs(y)


def glu_backward(grad_output: Array, x: Array, dim: int = -1) -> Array:
    """left·σ(right): to the left σ(right), to the right left·σ(right)·σ(-right)."""
    left, right = np.split(x, 2, dim)
    return np.concatenate([grad_output * sigmoid(right), grad_output * left * sigmoid(right) * sigmoid(-right)], dim)


def glu_backward_error(y: Array, u: float, grad_output: Array, x: Array, dim: int = -1) -> Array:
    """σ is off by FUNCTION + 4 roundings, 1 - σ by as much of 1."""
    left, right = np.split(x, 2, dim)
    gate = np.abs(grad_output) * (sigmoid(right) * (FUNCTION + 5) * u + smallest(u))
    return np.concatenate([gate, 2 * gate * np.abs(left)], dim) + 3 * u * np.abs(y)


def dropout_backward(grad_output: Array, mask: Array, scale: float) -> Array:
    """native_dropout_backward: the gradient where the mask is 1, times `scale`."""
    return np.where(mask, grad_output * scale, 0.0 * grad_output)


def logit_backward(grad_output: Array, x: Array, eps: float | None = None) -> Array:
    """1 / x + 1 / (1 - x), times the gradient; with eps, 0 where x is not between eps and 1 - eps.

    Without it, nan where x is not between 0 and 1.

    >>> logit_backward(np.array([1.0, 1.0]), np.array([0.5, 0.9]), 0.2).tolist()
    [4.0, 0.0]
    """
    slope = np.where((x == 0) | (x == 1), np.inf, 1 / x + 1 / (1 - x))
    if eps is None or eps < 0:
        return grad_output * np.where((x < 0) | (x > 1), np.nan, slope)
    return np.where((x >= eps) & (x <= 1 - eps), grad_output * slope, 0.0)


def logit_backward_error(y: Array, u: float, grad_output: Array, x: Array, eps: float | None = None) -> Array:
    """A difference, a product and a quotient; unknown where x is one rounding from a limit, which is rounded itself.

    Of nan, vectors of numbers are outside the limits, and single numbers inside.
    """
    error = 4 * u * np.abs(y)
    if eps is None or eps < 0:
        return error
    near = np.minimum(np.abs(x - eps), np.abs(x - (1 - eps))) <= 2 * u
    return np.where((near & (x != 0) & (x != 1)) | np.isnan(x), np.inf, error)


def rrelu_backward(
    grad_output: Array, x: Array, noise: Array, lower: float, upper: float, training: bool, self_is_result: bool
) -> Array:
    """rrelu_with_noise_backward: times the recorded slope in training, times the mean slope otherwise."""
    if training and upper - lower > 1e-6:
        return grad_output * noise
    return np.where(x > 0, grad_output, grad_output * (lower + upper) / 2)


def rrelu_backward_error(y: Array, u: float, **_: object) -> Array:
    """A product, with a mean that is rounded twice."""
    return 4 * u * np.abs(y)
