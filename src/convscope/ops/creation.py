"""Creation: tensors of constants and of numbers that follow from their index."""

from collections.abc import Mapping

from convscope.expr.call import Call, Cell
from convscope.expr.cells import broadcast
from convscope.expr.expr import Apply, Expr, Leaf, number
from convscope.ops.dependencies import everything
from convscope.ops.op import Op


def filled(call: Call, cell: Cell) -> Leaf:
    """A constant everywhere: zeros, ones, full, fill."""
    if call.op in {"zeros", "zeros_like", "zero", "new_zeros", "_efficientzerotensor"}:
        return number(0, "zero")
    if call.op in {"ones", "ones_like", "new_ones"}:
        return number(1, "one")
    name = {"scalar_tensor": "s", "fill": "value"}.get(call.op, "fill_value")
    return broadcast(call[name], cell, "value")


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
            "fill",
            "scalar_tensor",
        ),
        Op(filled, everything, role="create"),
    ),
    **dict.fromkeys(("arange", "eye"), Op(counted, everything, role="create")),
    **dict.fromkeys(("linspace", "logspace"), Op(counted, everything, role="create", rounding="narrow")),
}
