"""Losses of pairs of numbers: each prediction with its target, unreduced, summed or averaged."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import broadcast
from convscope.expr.expr import Apply, Cells, Dot
from convscope.expr.primitives.losses import LOSSES as FUNCTIONS
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.pointwise import through_vjp
from convscope.ops.vjp import VJP, Varies, fitted, only
from convscope.typing import Array

NONE, MEAN = 0, 1
"""How a loss is reduced, as ATen numbers it; 2 is a sum."""
APPLIED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "mse_loss": ("squared_error", {"x": "self", "y": "target"}),
    "smooth_l1_loss": ("smooth_l1", {"x": "self", "y": "target", "beta": "beta"}),
    "huber_loss": ("huber", {"x": "self", "y": "target", "delta": "delta"}),
    "soft_margin_loss": ("soft_margin", {"x": "self", "y": "target"}),
    "binary_cross_entropy": ("binary_cross_entropy", {"x": "self", "y": "target", "weight": "weight"}),
    "binary_cross_entropy_with_logits": (
        "binary_cross_entropy_of_logit",
        {"x": "self", "y": "target", "weight": "weight", "positive": "pos_weight"},
    ),
}
"""Operation -> the loss of one pair, and where its arguments are in the call."""


def paired_loss(call: Call, cell: Cell) -> Apply | Dot:
    """The loss of one pair, or the sum or the mean of the losses of all.

    >>> x, y = (Operand.of(np.array(numbers), "x") for numbers in ([1.0, 2.0], [0.0, 5.0]))
    >>> paired_loss(Call("mse_loss", {"self": x, "target": y, "reduction": 1}, ()), ()).value()
    5.0
    """
    if call["reduction"] == NONE:
        return _of_pair(call, cell)
    name, arguments = _arguments(call)
    shape = _shape(arguments)
    values = {key: np.broadcast_to(_numbers(argument), shape).ravel() for key, argument in arguments.items()}
    losses = np.asarray(FUNCTIONS[name].value(*values.values()), np.float64).ravel()
    errors = np.asarray(FUNCTIONS[name].errors(call.precision, losses, *values.values()))
    places = np.stack(np.unravel_index(np.arange(len(losses)), shape), axis=1) if shape else np.zeros((1, 0), np.int64)

    def derive(index: int) -> Apply:
        return _of_pair(call, tuple(map(int, places[index])))

    source = Source("loss", "computed", shape, call.dtype)
    cells = Cells(losses, source, places, (len(losses),), errors=errors, derive=derive)
    averaged = call["reduction"] == MEAN
    note = f"the {'mean' if averaged else 'sum'} of {len(losses):,} losses"
    return Dot(cells, divisor=len(losses) if averaged else 1.0, note=note)


def _of_pair(call: Call, cell: Cell) -> Apply:
    name, arguments = _arguments(call)
    return Apply(
        name, {key: broadcast(argument, cell, key) for key, argument in arguments.items()}, note="the loss of a pair"
    )


def _arguments(call: Call) -> tuple[str, dict[str, Operand | float]]:
    """The loss and its arguments; a weight that is not given is 1."""
    name, places = APPLIED[call.op]
    arguments: dict[str, Any] = {key: call[parameter] for key, parameter in places.items()}
    return name, {key: 1.0 if value is None else value for key, value in arguments.items()}


def _shape(arguments: Mapping[str, Operand | float]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(argument.shape for argument in arguments.values() if isinstance(argument, Operand)))


def _numbers(given: Operand | float) -> Array:
    return np.asarray(given.array if isinstance(given, Operand) else given, np.float64)


def paired_loss_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The slope of each pair's loss, times the weight of its result."""
    only(call, varies, "self", "target")
    name, arguments = _arguments(call)
    shape = _shape(arguments)
    if call["reduction"] == MEAN:
        weights = weights / max(int(np.prod(shape)), 1)
    names = {
        key: APPLIED[call.op][1][key] if isinstance(argument, Operand) else "" for key, argument in arguments.items()
    }
    values = {key: _numbers(argument) for key, argument in arguments.items()}
    shapes = {parameter: call[parameter].shape for parameter in names.values() if parameter}
    return through_vjp(name, values, names, np.broadcast_to(weights, shape), varies=varies, shapes=shapes)


def paired_loss_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """One pair, or all."""
    shape = _shape(_arguments(call)[1])
    full = np.broadcast_to(as_mask(mask), shape)
    return {name: as_mask(fitted(full, call[name].shape)) for name in varies}


_PAIRED = Op(paired_loss, paired_loss_dependencies, paired_loss_vjp, rounding="stores between")
LOSSES: Mapping[str, Op] = {
    "mse_loss": _PAIRED,
    "smooth_l1_loss": _PAIRED,
    "huber_loss": _PAIRED,
    "soft_margin_loss": _PAIRED,
    "binary_cross_entropy": _PAIRED,
    "binary_cross_entropy_with_logits": _PAIRED,
}
