"""Creation: tensors of constants and of numbers that follow from their index."""

from collections.abc import Mapping

import numpy as np

from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import broadcast
from convscope.expr.expr import Apply, Expr, Leaf, number
from convscope.ops.dependencies import MovedCells, everything
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Varies
from convscope.typing import Array


def filled(call: Call, cell: Cell) -> Leaf:
    """A constant everywhere: zeros, ones, full, fill."""
    if call.op in {"zeros", "zeros_like", "zero", "new_zeros", "_efficientzerotensor"}:
        return number(0, "zero")
    if call.op in {"ones", "ones_like", "new_ones"}:
        return number(1, "one")
    name = {"scalar_tensor": "s", "fill": "value"}.get(call.op, "fill_value")
    return broadcast(call[name], cell, "value")


def fill_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the one number that is written everywhere; what was there before no longer counts.

    >>> value = Operand.of(np.array(7.0), "value")
    >>> call = Call("fill", {"self": Operand.of(np.zeros(3), "x"), "value": value}, (3,))
    >>> fill_vjp(call, np.array([1.0, 2.0, 4.0]), frozenset({"value"})).gradients["value"]
    array(7.)
    """
    value, total = call["value"], float(weights.sum())
    if isinstance(value, Operand):
        gradients = {"value": np.array(total), "self": np.zeros(call["self"].shape)}
        return VJP({name: gradients[name] for name in varies}, 0.0 if "value" in varies else total * float(value.array))
    return VJP({name: np.zeros(call[name].shape) for name in varies}, total * float(value))


def counted(call: Call, cell: Cell) -> Expr:
    """arange, linspace, logspace, eye: a number that follows from its index."""
    if call.op == "eye":
        return number(float(cell[-1] == cell[-2]), "one on the diagonal")
    index = number(cell[0], "index")
    if call.op in {"linspace", "logspace"}:
        ends: dict[str, Expr] = {name: broadcast(call[name], (), name) for name in ("start", "end")}
        if call.kind:
            ends = {name: Apply("trunc", {"x": end}) if end.value() % 1 else end for name, end in ends.items()}
        even = Apply("evenly", {**ends, "index": index, "last": number(max(call["steps"] - 1, 1), "last")})
        if call.op == "logspace":
            even = Apply("pow", {"x": number(call["base"], "base"), "exponent": even})
        return Apply("cut", {"x": even}) if call.kind else even
    start, step = call.get("start") or 0, call.get("step")
    return Apply(
        "add_scaled", {"x": number(start, "start"), "alpha": number(1 if step is None else step, "step"), "y": index}
    )


CREATION: Mapping[str, Op] = {
    **dict.fromkeys(
        (
            "zeros",
            "zeros_like",
            "new_zeros",
            "_efficientzerotensor",
            "zero",
            "ones",
            "ones_like",
            "new_ones",
            "full",
            "full_like",
            "new_full",
            "scalar_tensor",
        ),
        Op(filled, everything, role="create"),
    ),
    "fill": Op(filled, MovedCells(fill_vjp), fill_vjp, role="create"),
    **dict.fromkeys(("arange", "eye"), Op(counted, everything, role="create")),
    **dict.fromkeys(("linspace", "logspace"), Op(counted, everything, role="create", rounding="narrow")),
}
