"""Updates: one step of each optimizer in plain NumPy, from a parameter, its gradient and its state to all of these.

Also batch norm's running statistics after a batch.

Source: PyTorch documentation, torch.optim: the algorithm of SGD, Adam, AdamW, Adadelta, RMSprop. The errors follow each
number with the roundings that a kernel may make on the way (`u` each), larger where numbers cancel.
"""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import NamedTuple, ParamSpec

import numpy as np

from convscope.reference.moments import Kernel, moments, moments_error
from convscope.reference.operation import Operation
from convscope.typing import Array, Numbers

P = ParamSpec("P")


class Inexact(NamedTuple):
    """Numbers, and how far a kernel's may be off."""

    value: Array
    error: Array

    @classmethod
    def of(cls, value: Numbers) -> "Inexact":
        """Recorded numbers."""
        return cls(np.asarray(value, np.float64), np.zeros(()))

    def times(self, factor: float, u: float) -> "Inexact":
        """Multiplied by a setting, which is rounded too."""
        value = self.value * factor
        return Inexact(value, self.error * abs(factor) + 2 * u * abs(value))

    def plus(self, other: "Inexact", u: float) -> "Inexact":
        """The sum, rounded once."""
        value = self.value + other.value
        return Inexact(value, self.error + other.error + u * abs(value))

    def product(self, other: "Inexact", u: float) -> "Inexact":
        """The product, rounded once."""
        value = self.value * other.value
        error = self.error * abs(other.value) + (abs(self.value) + self.error) * other.error
        return Inexact(value, error + u * abs(value))

    def root(self, u: float) -> "Inexact":
        """The square root; near zero an error counts by its own root."""
        value = np.sqrt(np.maximum(self.value, 0.0))
        with np.errstate(all="ignore"):
            near = np.where(value > 0, self.error / (2 * value), np.inf)
        return Inexact(value, np.minimum(near, np.sqrt(self.error)) + 2 * u * value)

    def over(self, other: "Inexact", u: float) -> "Inexact":
        """The quotient; without bound where the divisor may be zero."""
        with np.errstate(all="ignore"):
            value = self.value / other.value
            least = abs(other.value) - other.error
            error = np.where(least > 0, (self.error + abs(value) * other.error) / least, np.inf)
        return Inexact(value, error + 2 * u * abs(value))


def _blend(old: Array, new: Inexact, rate: float, u: float) -> Inexact:
    """rate·old + (1 - rate)·new; a kernel may add (1 - rate)·(new - old) to the old instead."""
    before = Inexact.of(old)
    mixed = before.times(rate, u).plus(new.times(1 - rate, u), u)
    return Inexact(mixed.value, mixed.error + 2 * u * (abs(before.value) + (1 - rate) * abs(new.value)))


def _decayed(param: Array, grad: Array, weight_decay: float, maximize: bool, u: float) -> Inexact:
    gradient = Inexact.of(-np.asarray(grad) if maximize else grad)
    return gradient.plus(Inexact.of(param).times(weight_decay, u), u) if weight_decay else gradient


def _stepped(param: Inexact, direction: Inexact, lr: float, u: float) -> Inexact:
    stepped = param.plus(direction.times(-lr, 2 * u), u)
    return Inexact(stepped.value, stepped.error + u * abs(stepped.value))


def sgd_update(
    param: Array, grad: Array, momentum_buffer: Array | None, *, lr: float, momentum: float, dampening: float,
    weight_decay: float, nesterov: bool, maximize: bool, u: float = 0.0,
) -> tuple[Inexact, ...]:  # fmt: skip
    """Parameter and momentum buffer."""
    gradient = _decayed(param, grad, weight_decay, maximize, u)
    velocity = gradient
    if momentum and momentum_buffer is not None:
        velocity = Inexact.of(momentum_buffer).times(momentum, u).plus(gradient.times(1 - dampening, u), u)
    direction = gradient.plus(velocity.times(momentum, u), u) if momentum and nesterov else velocity
    return _stepped(Inexact.of(param), direction, lr, u), velocity


def adam_update(
    param: Array, grad: Array, exp_avg: Array, exp_avg_sq: Array, *, lr: float, beta1: float, beta2: float,
    eps: float, weight_decay: float, maximize: bool, step: int, u: float = 0.0, decoupled: bool = False,
) -> tuple[Inexact, ...]:  # fmt: skip
    """Parameter, mean of the gradients, mean of their squares."""
    gradient = _decayed(param, grad, 0.0 if decoupled else weight_decay, maximize, u)
    mean = _blend(exp_avg, gradient, beta1, u)
    square = _blend(exp_avg_sq, gradient.product(gradient, u), beta2, u)
    size = square.times(1 / (1 - beta2**step), 2 * u).root(u).plus(Inexact.of(eps), 2 * u)
    direction = mean.times(1 / (1 - beta1**step), 2 * u).over(size, 2 * u)
    start = Inexact.of(param)
    start = start.times(1 - lr * weight_decay, u) if decoupled and weight_decay else start
    return _stepped(start, direction, lr, u), mean, square


def adadelta_update(
    param: Array, grad: Array, square_avg: Array, acc_delta: Array, *, lr: float, rho: float, eps: float,
    weight_decay: float, maximize: bool, u: float = 0.0,
) -> tuple[Inexact, ...]:  # fmt: skip
    """Parameter, mean of the squared gradients, mean of the squared steps."""
    gradient = _decayed(param, grad, weight_decay, maximize, u)
    square = _blend(square_avg, gradient.product(gradient, u), rho, u)
    recent = Inexact.of(acc_delta).plus(Inexact.of(eps), u).root(u)
    delta = recent.over(square.plus(Inexact.of(eps), u).root(u), u).product(gradient, 2 * u)
    mean_square_step = _blend(acc_delta, delta.product(delta, u), rho, u)
    return _stepped(Inexact.of(param), delta, lr, u), square, mean_square_step


def rmsprop_update(
    param: Array, grad: Array, square_avg: Array, momentum_buffer: Array | None, grad_avg: Array | None, *,
    lr: float, alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool, maximize: bool,
    u: float = 0.0,
) -> tuple[Inexact | None, ...]:  # fmt: skip
    """Parameter, mean of the squared gradients, momentum buffer, mean of the gradients."""
    gradient = _decayed(param, grad, weight_decay, maximize, u)
    square = _blend(square_avg, gradient.product(gradient, u), alpha, u)
    mean, spread = None, square
    if centered:
        mean = _blend(np.zeros_like(param) if grad_avg is None else grad_avg, gradient, alpha, u)
        squared = mean.product(mean, 2 * u)
        spread = square.plus(Inexact(-squared.value, squared.error), u)
    direction = gradient.over(spread.root(u).plus(Inexact.of(eps), u), u)
    velocity = None
    if momentum:
        velocity = direction
        if momentum_buffer is not None:
            velocity = Inexact.of(momentum_buffer).times(momentum, u).plus(direction, u)
        direction = velocity
    return _stepped(Inexact.of(param), direction, lr, u), square, velocity, mean


def values_of(update: Callable[P, tuple[Inexact | None, ...]]) -> Callable[P, tuple[Array | None, ...]]:
    """An update as its new numbers alone."""

    @wraps(update)
    def forward(*arguments: P.args, **named: P.kwargs) -> tuple[Array | None, ...]:
        return tuple(None if number is None else number.value for number in update(*arguments, **named))

    return forward


def errors_of(update: Callable[..., tuple[Inexact | None, ...]]) -> Callable[..., tuple[Array | None, ...]]:
    """How far a kernel's numbers may be off."""

    def error(_result: object, u: float, **arguments: object) -> tuple[Array | None, ...]:
        return tuple(None if number is None else number.error for number in update(**arguments, u=u))

    return error


def running_statistic(
    x: Array, running: Array, momentum: float, layout: str = "other", *, spread: bool = False, u: float = 0.0
) -> Inexact:
    """Batch norm's running mean, or with `spread` its running variance, after a batch.

    The batch's variance is divided by n - 1 here, though batch norm itself divides it by n. Kernels round the momentum
    m itself, by u·m, and so 1 - m, which may be much smaller, by as much.

    Args:
        x: The input of batch norm, shape (N, C, ...).
        running: The statistic before, shape (C,).
        momentum: The weight of this batch.
        layout: Memory format of the input. Affects only the order in which the kernel adds.
        spread: The variance instead of the mean.
        u: The kernel's unit roundoff.
    """
    axes = (0, *range(2, x.ndim))
    kernel: Kernel = "chunked" if layout == "contiguous" and u > 2.0**-40 else "in turn"
    batch = moments(x, axes, correction=1)[spread].ravel()
    batch_error = moments_error(x, axes, u, 1, kernel, "chunked")[spread].ravel()
    previous, new = Inexact.of(running).times(1 - momentum, 2 * u), Inexact(batch, batch_error).times(momentum, 2 * u)
    mixed = previous.plus(new, u)
    return Inexact(mixed.value, mixed.error + u * abs(mixed.value) + 2 * u * momentum * abs(running))


def _statistic(name: str, *, spread: bool) -> Operation:
    def forward(x: Array, momentum: float, layout: str = "other", **running: Array) -> Array:
        return running_statistic(x, running[name], momentum, layout, spread=spread).value

    def error(_y: object, u: float, x: Array, momentum: float, layout: str = "other", **running: Array) -> Array:
        return running_statistic(x, running[name], momentum, layout, spread=spread, u=u).error

    return Operation(forward, error)


def _update(function: Callable[..., tuple[Inexact | None, ...]]) -> Operation:
    return Operation(values_of(function), errors_of(function))


UPDATES: Mapping[str, Operation] = {
    "convscope::sgd": _update(sgd_update),
    "convscope::adam": _update(adam_update),
    "convscope::adamw": _update(partial(adam_update, decoupled=True)),
    "convscope::adadelta": _update(adadelta_update),
    "convscope::rmsprop": _update(rmsprop_update),
    "convscope::running_mean": _statistic("running_mean", spread=False),
    "convscope::running_var": _statistic("running_var", spread=True),
}
