"""Matrix products, batched ones too, and what is added to them."""

from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Operand, broadcast_cell
from convscope.expr.cells import broadcast, gather
from convscope.expr.expr import Apply, Dot, Leaf, number
from convscope.ops.dependencies import as_mask
from convscope.ops.vjp import VJP, Varies, fitted, wide
from convscope.typing import Array


def mm(call: Call, cell: Cell) -> Dot:
    """A row of the first matrix times a column of the second; batched ones matrix by matrix, vectors too.

    Covers mm, bmm, mv, dot and vdot; a product of more axes arrives as views and bmm.
    """
    second = {"mv": "vec", "dot": "tensor", "vdot": "other"}.get(call.op, "mat2")
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
    row = gather(left, [*broadcast_cell(tuple(at), left.shape[:-2]), *line, depth])
    across = gather(right, [*broadcast_cell(tuple(at), right.shape[:-2]), depth, *column])
    return Dot(row, across, note=_note(len(row), False))


def _plus(product: Dot, call: Call, cell: Cell) -> Dot | Apply:
    """The sum. Kernels of narrow types may round alpha and beta, and both parts before they add them (`narrow`).

    Source: PyTorch, aten/src/ATen/native/BlasKernel.cpp: gemv scales the result in place, then adds to it.
    """
    alpha, beta = float(call["alpha"]), float(call["beta"])
    bias: Leaf | Apply | None = broadcast(call["self"], cell, "self") if beta else None
    if beta not in {0, 1} and bias is not None:
        note = "the added tensor × beta"
        bias = Apply("mul", {"x": number(beta, "beta"), "y": bias}, note, call.kind)
    narrow = 0 if call.op != "addmv" and alpha == beta == 1 else 2
    note = _note(len(product.left), bias is not None)
    return Dot(product.left, product.right, bias, scale=alpha, note=note, narrow=narrow, kind=call.kind)


def _note(count: int, biased: bool) -> str:
    return f"{count:,} number{'s' if count != 1 else ''}, each times its weight{', plus the bias' if biased else ''}"


def mm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """mm, bmm, mv, dot, vdot."""
    second = {"mv": "vec", "dot": "tensor", "vdot": "other"}.get(call.op, "mat2")
    return _product_vjp(call, "self", second, weights, varies)


def addmm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """addmm, addmv, baddbmm: what is added is a constant, or passes its own weights on."""
    names = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}
    beta = float(call["beta"])
    result = _product_vjp(call, *names[call.op], weights * float(call["alpha"]), varies - {"self"})
    if "self" in varies:
        return VJP(
            {**result.gradients, "self": fitted(weights, call["self"].shape) * beta}, result.constant, result.linear
        )
    added = float(np.sum(weights * beta * wide(call["self"]))) if beta else 0.0
    return VJP(result.gradients, result.constant + added, result.linear)


def _product_vjp(call: Call, first: str, second: str, weights: Array, varies: Varies) -> VJP:
    left, right = wide(call[first]), wide(call[second])
    one = left[None] if left.ndim == 1 else left
    two = right[:, None] if right.ndim == 1 else right
    full = weights[..., None, :] if left.ndim == 1 and right.ndim > 1 else weights
    full = full[..., None] if right.ndim == 1 else full
    full = full.reshape(1, 1) if left.ndim == right.ndim == 1 else full
    gradients = {}
    if first in varies:
        gradients[first] = fitted(full @ np.swapaxes(two, -1, -2), one.shape).reshape(left.shape)
    if second in varies:
        gradients[second] = fitted(np.swapaxes(one, -1, -2) @ full, two.shape).reshape(right.shape)
    if len(gradients) == 1:
        return VJP(gradients)
    product = float(np.sum(full * (one @ two)))
    return VJP(gradients, -product, linear=False) if gradients else VJP({}, product)


def product_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The row of the first matrix and the column of the second; what is added, the same cell."""
    names = {
        "mv": ("self", "vec"),
        "dot": ("self", "tensor"),
        "vdot": ("self", "other"),
        "addmm": ("mat1", "mat2"),
        "addmv": ("mat", "vec"),
        "baddbmm": ("batch1", "batch2"),
    }
    first, second = names.get(call.op, ("self", "mat2"))
    mask, results, operands = as_mask(mask), {}, call.operands()
    vector = call.op in {"mv", "dot", "vdot", "addmv"}
    rows = mask if vector else mask.max(axis=-1)
    if first in varies:
        shape = operands[first].shape
        results[first] = np.broadcast_to(rows if call.op in {"dot", "vdot"} else rows[..., None], shape).copy()
    if second in varies:
        shape = operands[second].shape
        columns = mask.max(axis=-1) if vector else mask.max(axis=-2)[..., None, :]
        results[second] = np.broadcast_to(columns, shape).copy()
    if "self" in varies and "self" not in {first, second}:
        results["self"] = as_mask(fitted(mask, operands["self"].shape))
    return results
