"""Backward: the gradients of normalized numbers, softmax included, whose parts come from every number of the group."""

# ruff: noqa: ARG005 - what is called through one table has one signature

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convscope.expr.primitives.primitive import Primitive, elementary
from convscope.typing import Numbers


class NormalizationPaths(NamedTuple):
    """The parts of the gradient of a normalized number."""

    grad: Numbers
    from_mean: Numbers
    x: Numbers
    mean: Numbers
    rate: Numbers
    slope: Numbers
    weight: Numbers = 1.0

    def total(self) -> Numbers:
        """The direct path, minus the paths through the mean and the variance."""
        return (self.grad - self.from_mean - (self.x - self.mean) * self.rate**2 * self.slope) * self.scale

    @property
    def scale(self) -> Numbers:
        """The common factor of all three paths."""
        return self.rate * self.weight

    def size(self, *, separate: bool = False) -> Numbers:
        """The magnitudes of the three paths; `separate`, of x and mean each with its own factor."""
        deviation = np.abs(self.x) + np.abs(self.mean) if separate else np.abs(self.x - self.mean)
        through_rate = deviation * self.rate**2 * np.abs(self.slope)
        return (np.abs(self.grad) + np.abs(self.from_mean) + through_rate) * np.abs(self.scale)

    def slopes(self) -> tuple[Numbers, ...]:
        """The slopes by each argument."""
        deviation, through_rate = self.x - self.mean, self.rate**2 * self.slope * self.scale
        by_rate = (self.grad - self.from_mean - 3 * deviation * self.rate**2 * self.slope) * self.weight
        by_weight = (self.grad - self.from_mean - deviation * self.rate**2 * self.slope) * self.rate
        return (
            self.scale,
            -self.scale,
            -through_rate,
            through_rate,
            by_rate,
            -deviation * self.rate**2 * self.scale,
            by_weight,
        )


BACKWARD_NORMALIZATION: Mapping[str, Primitive] = {
    "normalize_backward": elementary(
        "({grad} − {from_mean} − ({x} − {mean}) × {rate}² × {from_variance}) × {rate} × {weight}",
        lambda *arguments: NormalizationPaths(*arguments).total(),
        roundings=lambda f, *arguments: 8 * NormalizationPaths(*arguments).size(),
        stored=lambda *arguments: 4 * NormalizationPaths(*arguments).size(),
        slopes=lambda *arguments: NormalizationPaths(*arguments).slopes(),
    ),
    "normalize_backward_scaled": elementary(
        "({grad} − {from_mean} − ({x} − {mean}) × {rate}² × {from_variance}) × {rate}",
        lambda *arguments: NormalizationPaths(*arguments).total(),
        roundings=lambda f, *arguments: 12 * NormalizationPaths(*arguments).size(separate=True),
        stored=lambda *arguments: 4 * NormalizationPaths(*arguments).size(separate=True),
        slopes=lambda *arguments: NormalizationPaths(*arguments).slopes()[:6],
        grown=True,
    ),
    "normalized_by": elementary(
        "({x} − {mean}) × {rate}",
        lambda x, mean, rate: (x - mean) * rate,
        roundings=lambda f, x, mean, rate: 3 * (np.abs(x) + np.abs(mean)) * np.abs(rate),
    ),
    "normalize_backward_fixed": elementary(
        "{grad} × {rate} × {weight}",
        lambda grad, rate, weight: grad * rate * weight,
        roundings=4,
        stored=lambda grad, rate, weight: grad * rate * weight,
        slopes=lambda grad, rate, weight: (rate * weight, grad * weight, grad * rate),
    ),
    "softmax_backward": elementary(
        "{y} × ({grad} − {mean})",
        lambda y, grad, mean: y * (grad - mean),
        roundings=lambda f, y, grad, mean: 2 * np.abs(f) + 3 * np.abs(y) * (np.abs(grad) + np.abs(mean)),
        stored=lambda y, grad, mean: np.abs(y) * (np.abs(grad) + np.abs(mean)),
        slopes=lambda y, grad, mean: (grad - mean, y, -y),
    ),
    "log_softmax_backward": elementary(
        "{grad} − exp({log_p}) × {total}",
        lambda grad, log_p, total: grad - np.exp(log_p) * total,
        roundings=lambda f, grad, log_p, total: np.abs(f) + 42 * np.abs(np.exp(log_p) * total),
        stored=lambda grad, log_p, total: 2 * np.abs(np.exp(log_p) * total),
        slopes=lambda grad, log_p, total: (1.0, -np.exp(log_p) * total, -np.exp(log_p)),
    ),
}
