"""Adjoints of resampling: every result's weight back to the cells it was made of, one axis after the other."""

from collections.abc import Callable

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, only
from convscope.rules.adjoints.separable import Matrix, along
from convscope.rules.call import Array, Call
from convscope.rules.resampling import Taps, cubic_taps, linear_taps, nearest_taps


def nearest(call: Call, weights: Array, varies: Varies) -> Pulled:
    """To the nearest cell."""
    return _back(call, weights, varies, nearest_taps)


def linear(call: Call, weights: Array, varies: Varies) -> Pulled:
    """To the two nearest on each axis."""
    return _back(call, weights, varies, linear_taps)


def cubic(call: Call, weights: Array, varies: Varies) -> Pulled:
    """To the four nearest on each axis."""
    return _back(call, weights, varies, cubic_taps)


def _back(call: Call, weights: Array, varies: Varies, taps: Callable[[Call, int, int], Taps]) -> Pulled:
    only(call, varies, "self")
    axes = len(call["output_size"])
    matrices: list[Matrix] = []
    for axis in range(axes):
        length, wanted = call["self"].shape[axis - axes], weights.shape[axis - axes]
        matrix = np.zeros((wanted, length))
        for at in range(wanted):
            positions, shares, _ = taps(call, axis, at)
            matrix[at, positions] = shares
        matrices.append(matrix)
    return Pulled({"self": along(weights, matrices)})
