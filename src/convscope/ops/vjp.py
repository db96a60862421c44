"""Vector-Jacobian products: how strongly a weighted sum of results depends on each input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Operand
from convscope.typing import Array

Varies = frozenset[str]
"""The operands that depend on the image, as `Call.operands` names them."""


@dataclass(frozen=True, slots=True, eq=False)
class VJP:
    """A weighted sum of an operation's results, as the same sum of its inputs plus a constant."""

    gradients: Mapping[str, Array]
    """For each operand that varies: the weight of each of its cells, float64, in its shape."""
    constant: float = 0.0
    """What biases and shifts add; found from them, not by subtracting."""
    linear: bool = True
    """False where the operation is not piecewise linear: then this is its tangent at the recorded inputs."""


def wide(operand: Operand) -> Array:
    """An operand's numbers in float64."""
    return operand.array.astype(np.float64)


def fitted(gradient: Array, shape: tuple[int, ...]) -> Array:
    """A gradient summed over the axes along which its operand was broadcast.

    >>> fitted(np.ones((4, 3)), (1, 3)).tolist()
    [[4.0, 4.0, 4.0]]
    """
    lead = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(lead)))
    repeated = tuple(axis for axis, n in enumerate(shape) if n == 1 and gradient.shape[axis] != 1)
    return gradient.sum(axis=repeated, keepdims=True) if repeated else gradient


def tangent(gradients: Mapping[str, Array], call: Call, value: float) -> VJP:
    """The tangent of a function that is not piecewise linear.

    Args:
        value: The weighted sum of its results, calculated from the recorded inputs.
    """
    operands = call.operands()
    linear = sum(float(np.sum(g * wide(operands[name]))) for name, g in gradients.items())
    return VJP(gradients, value - linear, linear=False)


def only(call: Call, varies: Varies, *names: str) -> None:
    """Refuse to differentiate by anything but these operands.

    Raises:
        UsageError: another operand depends on the image.
    """
    for name in varies - set(names):
        raise UsageError(
            f"{call.op} depends on the image through its argument {name!r}, which cannot be followed to the input; "
            "explain this cell step by step instead."
        )


def first_result(call: Call) -> None:
    """Refuse to follow what an operation gives besides its result: statistics, buffers.

    Raises:
        UsageError: it is not the first result.
    """
    if call.output:
        raise UsageError(f"result {call.output} of {call.op} cannot be followed to the input; explain it step by step.")


Matrix = Array


def along(weights: Array, matrices: Sequence[Matrix]) -> Array:
    """The weights of the result, brought back through one matrix (P, H) for each of the last axes.

    >>> along(np.ones((1, 2)), [np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])]).tolist()
    [[1.0, 0.5, 0.5]]
    """
    result = weights
    for back, matrix in enumerate(reversed(matrices)):
        axis = result.ndim - 1 - back
        result = np.moveaxis(np.moveaxis(result, axis, -1) @ matrix, -1, axis)
    return result


def kept_for_backward(call: Call) -> None:
    """Refuse to explain what an operation gives besides its result for its backward pass alone.

    Raises:
        UsageError: it is not the first result.
    """
    if call.output:
        raise UsageError(f"result {call.output} of {call.op} is kept for a backward pass; no rule explains it.")
