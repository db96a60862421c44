"""Linear: products of matrices, and what is added to them."""

from dataclasses import replace

from convscope.rules.call import Call, Cell, Operand, broadcast_cell
from convscope.rules.expr import Apply, Dot, Leaf, number
from convscope.rules.gather import broadcast, outer


def mm(call: Call, cell: Cell) -> Dot:
    """A row of the first matrix times a column of the second; batched ones matrix by matrix, vectors too.

    Covers mm, bmm, mv and dot; a product of more axes arrives as views and bmm.
    """
    second = {"mv": "vec", "dot": "tensor"}.get(call.op, "mat2")
    left, right = call["self"], call[second]
    return replace(_product(left, right, cell), kind=call.kind)


def addmm(call: Call, cell: Cell) -> Dot | Apply:
    """A row times a column, scaled by alpha, plus what is added, scaled by beta.

    Covers addmm, addmv and baddbmm. In a linear layer the row is the input and what is added is the bias.
    """
    names = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}
    left, right = (call[name] for name in names[call.op])
    return _plus(_product(left, right, cell), call, cell)


def _product(left: Operand, right: Operand, cell: Cell) -> Dot:
    """Row of `left` times column of `right`, batch axes broadcast."""
    at = list(cell)
    column = [at.pop()] if len(right.shape) > 1 else []
    line = [at.pop()] if len(left.shape) > 1 else []
    depth = range(left.shape[-1])
    row = outer(left, [*broadcast_cell(tuple(at), left.shape[:-2]), *line, depth])
    across = outer(right, [*broadcast_cell(tuple(at), right.shape[:-2]), depth, *column])
    return Dot(row, across, note=_note(len(row), False))


def _plus(product: Dot, call: Call, cell: Cell) -> Dot | Apply:
    """The sum. Kernels of narrow types may round alpha and beta, and both parts before they add them (`narrow`).

    Source: PyTorch, aten/src/ATen/native/BlasKernel.cpp: gemv scales the result in place, then adds to it.
    """
    alpha, beta = float(call["alpha"]), float(call["beta"])
    bias: Leaf | Apply | None = broadcast(call["self"], cell, "self") if beta else None
    if beta not in {0, 1} and bias is not None:
        note = "what is added, times beta"
        bias = Apply("mul", {"x": number(beta, "beta"), "y": bias}, note, call.kind)
    narrow = 0 if call.op != "addmv" and alpha == beta == 1 else 2
    note = _note(len(product.left), bias is not None)
    return Dot(product.left, product.right, bias, scale=alpha, note=note, narrow=narrow, kind=call.kind)


def _note(count: int, biased: bool) -> str:
    return f"{count:,} number{'s' if count != 1 else ''}, each times its weight{', plus the bias' if biased else ''}"
