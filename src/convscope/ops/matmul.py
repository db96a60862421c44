"""Matrix products: plain and batched ones, what is added to them, and products of more than two."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source, broadcast_cell
from convscope.expr.cells import broadcast, gather, outer
from convscope.expr.expr import Apply, Cells, Dot, Leaf, number
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
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
    index = list(cell)
    column = [index.pop()] if len(right.shape) > 1 else []
    line = [index.pop()] if len(left.shape) > 1 else []
    depth = range(left.shape[-1])
    row = gather(left, [*broadcast_cell(tuple(index), left.shape[:-2]), *line, depth])
    across = gather(right, [*broadcast_cell(tuple(index), right.shape[:-2]), depth, *column])
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
    left_matrix = left[None] if left.ndim == 1 else left
    right_matrix = right[:, None] if right.ndim == 1 else right
    full = weights[..., None, :] if left.ndim == 1 and right.ndim > 1 else weights
    full = full[..., None] if right.ndim == 1 else full
    full = full.reshape(1, 1) if left.ndim == right.ndim == 1 else full
    gradients = {}
    if first in varies:
        gradients[first] = fitted(full @ np.swapaxes(right_matrix, -1, -2), left_matrix.shape).reshape(left.shape)
    if second in varies:
        gradients[second] = fitted(np.swapaxes(left_matrix, -1, -2) @ full, right_matrix.shape).reshape(right.shape)
    if len(gradients) == 1:
        return VJP(gradients)
    product = float(np.sum(full * (left_matrix @ right_matrix)))
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


# Products of more than two: addbmm, addr, and the bilinear layer's product of three tensors


def addbmm(call: Call, cell: Cell) -> Dot:
    """A row times a column, added up over all matrices of a batch, scaled by alpha, plus what is added times beta.

    The kernel adds one matrix after the other to the result, in the type of the result.
    Source: PyTorch, aten/src/ATen/native/LinearAlgebra.cpp, addbmm_impl_.
    """
    left, right = call["batch1"], call["batch2"]
    batches, _, depth = left.shape
    rows = outer(left, [range(batches), cell[0], range(depth)])
    columns = outer(right, [range(batches), range(depth), cell[1]])
    note = f"{len(rows):,} numbers of {batches} matrices, each times its weight"
    scale, extra = float(call["alpha"]), batches * (call["alpha"] != 1)
    bias = _scaled(call, cell)
    return Dot(rows, columns, bias, scale=scale, note=note, extra=extra, narrow=2 + 2 * batches, kind=call.kind)


def addr(call: Call, cell: Cell) -> Dot:
    """A number of one vector times a number of the other, scaled by alpha, plus what is added times beta."""
    first, second = outer(call["vec1"], [[cell[0]]]), outer(call["vec2"], [[cell[1]]])
    scale = float(call["alpha"])
    return Dot(first, second, _scaled(call, cell), scale=scale, note="their product", extra=scale != 1, kind=call.kind)


def _scaled(call: Call, cell: Cell) -> Leaf | Apply | None:
    """The added tensor times beta; nothing if beta is 0, even for nan."""
    beta = float(call["beta"])
    if not beta:
        return None
    added = broadcast(call["self"], cell, "self")
    if beta == 1:
        return added
    return Apply("mul", {"x": number(beta, "beta"), "y": added}, "the added tensor × beta", call.kind)


def addbmm_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to every matrix of the batch."""
    left, right = wide(call["batch1"]), wide(call["batch2"])
    scaled = weights * float(call["alpha"])
    gradients = {"batch1": scaled @ np.swapaxes(right, -1, -2), "batch2": np.swapaxes(left, -1, -2) @ scaled}
    return _plus_vjp(call, weights, varies, gradients, float(np.sum(scaled * (left @ right).sum(0))))


def addr_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to both vectors."""
    first, second = wide(call["vec1"]), wide(call["vec2"])
    scaled = weights * float(call["alpha"])
    gradients = {"vec1": scaled @ second, "vec2": first @ scaled}
    return _plus_vjp(call, weights, varies, gradients, float(np.sum(scaled * np.outer(first, second))))


def _plus_vjp(call: Call, weights: Array, varies: Varies, products: Mapping[str, Array], product: float) -> VJP:
    """Add the contribution of the added tensor: its gradient, or a constant if it does not vary."""
    beta = float(call["beta"])
    gradients = {name: gradient for name, gradient in products.items() if name in varies}
    constant = product if not gradients else 0.0 if len(gradients) == 1 else -product
    linear = len(gradients) < 2
    if "self" in varies:
        gradients["self"] = fitted(weights, call["self"].shape) * beta
    elif beta:
        constant += float(np.sum(weights * beta * wide(call["self"])))
    return VJP(gradients, constant, linear)


def addbmm_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The row of every first matrix, the column of every second, and the same cell of what is added."""
    mask = as_mask(mask)
    masks = {
        "batch1": np.broadcast_to(mask.max(axis=1, initial=0.0)[None, :, None], call["batch1"].shape).copy(),
        "batch2": np.broadcast_to(mask.max(axis=0, initial=0.0)[None, None, :], call["batch2"].shape).copy(),
        "self": as_mask(fitted(mask, call["self"].shape)),
    }
    return {name: masks[name] for name in varies}


def addr_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """One number of each vector, and the same cell of what is added."""
    mask = as_mask(mask)
    masks = {
        "vec1": mask.max(axis=1, initial=0.0),
        "vec2": mask.max(axis=0, initial=0.0),
        "self": as_mask(fitted(mask, call["self"].shape)),
    }
    return {name: masks[name] for name in varies}


def trilinear(call: Call, cell: Cell) -> Dot:
    """The sum of products of three tensors, as a bilinear layer has it: each weight times a number of both inputs.

    Kernels of narrow types store the sums over one input, and add parts to the result one after the other.
    Source: PyTorch, aten/src/ATen/native/Linear.cpp, _trilinear.
    """
    sizes, summed = _sizes(call), _summed(call)
    spots = iter(cell)
    axis_index: list[int | Array] = [0 if a in summed else next(spots) for a in range(len(sizes))]
    summed_positions = np.indices([sizes[a] for a in summed]).reshape(len(summed), -1)
    for axis, positions in zip(summed, summed_positions, strict=True):
        axis_index[axis] = positions
    first, weight, second = (
        _read(call[name], _axes(call, axes), axis_index, summed_positions.shape[1]) for axes, name in _tensors()
    )
    products = first.values * second.values

    def derive(index: int) -> Apply:
        return Apply("mul", {"x": first.leaf(index), "y": second.leaf(index)}, note="the product of both inputs")

    source = Source("product", "computed", (len(products),), call.dtype)
    errors = np.abs(products) * call.precision.sum + call.precision.tiny * (products != 0)
    product_cells = Cells(
        products, source, np.arange(len(products))[:, None], (len(products),), errors=errors, derive=derive
    )
    unrolled = sizes[call["unroll_dim"]] if call["unroll_dim"] in summed else 1
    note = f"{len(products):,} products of both inputs, each times its weight"
    return Dot(weight, product_cells, note=note, extra=2, narrow=2 + unrolled)


def _tensors() -> tuple[tuple[str, str], ...]:
    return ("expand1", "i1"), ("expand2", "i2"), ("expand3", "i3")


def _sizes(call: Call) -> tuple[int, ...]:
    """The lengths of all axes, before any is summed."""
    shapes = []
    for expanded, name in _tensors():
        remaining = iter(call[name].shape)
        count = len(call[name].shape) + len(call[expanded])
        shapes.append(tuple(1 if a in call[expanded] else next(remaining) for a in range(count)))
    return tuple(np.broadcast_shapes(*shapes))


def _summed(call: Call) -> tuple[int, ...]:
    return tuple(sorted(call["sumdim"]))


def _axes(call: Call, argument: str) -> list[int]:
    """The axes that a tensor has of all."""
    return [a for a in range(len(_sizes(call))) if a not in call[argument]]


def _read(operand: Operand, axes: Sequence[int], axis_index: Sequence[int | Array], count: int) -> Cells:
    columns = [
        np.broadcast_to(np.asarray(0 if operand.shape[i] == 1 else axis_index[a]), (count,)) for i, a in enumerate(axes)
    ]
    cells = np.stack(columns, axis=1).astype(np.int64)
    return Cells(operand.array[tuple(cells.T)].astype(np.float64), operand.source, cells, (count,))


def _spread(call: Call) -> dict[str, Array]:
    """The three tensors with all axes."""
    return {name: np.expand_dims(wide(call[name]), tuple(call[expanded])) for expanded, name in _tensors()}


def trilinear_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass to each tensor the product of the other two."""
    tensors, summed = _spread(call), _summed(call)
    expanded_weights = np.expand_dims(weights, summed)
    gradients = {}
    for expanded, name in _tensors():
        if name in varies:
            first, second = (tensor for other_name, tensor in tensors.items() if other_name != name)
            full = np.broadcast_to(expanded_weights * first * second, _sizes(call))
            gradients[name] = fitted(full, tensors[name].shape).squeeze(tuple(call[expanded]))
    first, two, three = tensors.values()
    product = float(np.sum(expanded_weights * (first * two * three)))
    return VJP(gradients, product * (1 - len(gradients)), linear=len(gradients) < 2)


def trilinear_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cells that meet in it along the summed axes."""
    full = np.broadcast_to(np.expand_dims(as_mask(mask), _summed(call)), _sizes(call))
    masks = {}
    for expanded, name in _tensors():
        if name in varies:
            shape = np.expand_dims(np.empty(call[name].shape, bool), tuple(call[expanded])).shape
            masks[name] = as_mask(fitted(full, shape)).squeeze(tuple(call[expanded]))
    return masks


def cross(call: Call, cell: Cell) -> Apply:
    """One number of a cross product: the products of the two others, crosswise, and their difference."""
    axis = call["dim"] % len(cell)
    first, second = (tuple((i + k) % 3 if a == axis else i for a, i in enumerate(cell)) for k in (1, 2))
    left, right = call["self"], call["other"]
    products = [
        Apply("mul", {"x": broadcast(left, one, "x"), "y": broadcast(right, other, "y")})
        for one, other in ((first, second), (second, first))
    ]
    return Apply("sub", {"x": products[0], "y": products[1]}, note="the two other numbers, crosswise")


def cross_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The cross product of the weights and the other factor."""
    left, right, axis = wide(call["self"]), wide(call["other"]), call["dim"] % weights.ndim
    full_left, full_right = np.broadcast_to(left, weights.shape), np.broadcast_to(right, weights.shape)
    slopes = {
        "self": lambda: fitted(np.cross(full_right, weights, axis=axis), left.shape),
        "other": lambda: fitted(np.cross(weights, full_left, axis=axis), right.shape),
    }
    gradients = {name: slopes[name]() for name in varies}
    value = float(np.sum(weights * np.cross(full_left, full_right, axis=axis)))
    return VJP(gradients, value * (1 - len(gradients)), linear=len(gradients) < 2)


def cross_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The two other numbers of both vectors."""
    mask = as_mask(mask)
    axis = call["dim"] % mask.ndim
    others = np.maximum(np.roll(mask, 1, axis), np.roll(mask, 2, axis))
    return {name: as_mask(fitted(others, call[name].shape)) for name in varies}


OUTER_PRODUCTS: Mapping[str, Op] = {
    "linalg_cross": Op(cross, cross_dependencies, cross_vjp, rounding="narrow"),
    "addbmm": Op(addbmm, addbmm_dependencies, addbmm_vjp, rounding="stores between"),
    "addr": Op(addr, addr_dependencies, addr_vjp, rounding="narrow"),
    "_trilinear": Op(trilinear, trilinear_dependencies, trilinear_vjp, rounding="stores between"),
}
