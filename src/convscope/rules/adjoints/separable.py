"""Separable: operations that mix cells along each axis by a matrix, one axis after the other."""

from collections.abc import Sequence

import numpy as np

from convscope.rules.call import Array

Matrix = Array


def along(weights: Array, matrices: Sequence[Matrix]) -> Array:
    """The weights of the result, brought back through one matrix (P, H) for each of the last axes.

    >>> along(np.ones((1, 2)), [np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])]).tolist()
    [[1.0, 0.5, 0.5]]
    """
    found = weights
    for back, matrix in enumerate(reversed(matrices)):
        axis = found.ndim - 1 - back
        found = np.moveaxis(np.moveaxis(found, axis, -1) @ matrix, -1, axis)
    return found
