"""Products of more than two matrices or vectors: addbmm, addr, and the bilinear layer's product of three tensors."""

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import broadcast, outer
from convscope.expr.expr import Apply, Cells, Dot, Leaf, number
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Varies, fitted, wide
from convscope.typing import Array


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
    one, other = outer(call["vec1"], [[cell[0]]]), outer(call["vec2"], [[cell[1]]])
    scale = float(call["alpha"])
    return Dot(one, other, _scaled(call, cell), scale=scale, note="their product", extra=scale != 1, kind=call.kind)


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
    one, other = wide(call["vec1"]), wide(call["vec2"])
    scaled = weights * float(call["alpha"])
    gradients = {"vec1": scaled @ other, "vec2": one @ scaled}
    return _plus_vjp(call, weights, varies, gradients, float(np.sum(scaled * np.outer(one, other))))


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
    at: list[int | Array] = [0 if a in summed else next(spots) for a in range(len(sizes))]
    where = np.indices([sizes[a] for a in summed]).reshape(len(summed), -1)
    for axis, positions in zip(summed, where, strict=True):
        at[axis] = positions
    first, weight, second = (_read(call[name], _axes(call, axes), at, where.shape[1]) for axes, name in _tensors())
    products = first.values * second.values

    def derive(index: int) -> Apply:
        return Apply("mul", {"x": first.leaf(index), "y": second.leaf(index)}, note="the product of both inputs")

    source = Source("product", "computed", (len(products),), call.dtype)
    errors = np.abs(products) * call.precision.sum
    both = Cells(products, source, np.arange(len(products))[:, None], (len(products),), errors=errors, derive=derive)
    unrolled = sizes[call["unroll_dim"]] if call["unroll_dim"] in summed else 1
    note = f"{len(products):,} products of both inputs, each times its weight"
    return Dot(weight, both, note=note, extra=2, narrow=2 + unrolled)


def _tensors() -> tuple[tuple[str, str], ...]:
    return ("expand1", "i1"), ("expand2", "i2"), ("expand3", "i3")


def _sizes(call: Call) -> tuple[int, ...]:
    """The lengths of all axes, before any is summed."""
    shapes = []
    for expanded, name in _tensors():
        rest = iter(call[name].shape)
        count = len(call[name].shape) + len(call[expanded])
        shapes.append(tuple(1 if a in call[expanded] else next(rest) for a in range(count)))
    return tuple(np.broadcast_shapes(*shapes))


def _summed(call: Call) -> tuple[int, ...]:
    return tuple(sorted(call["sumdim"]))


def _axes(call: Call, place: str) -> list[int]:
    """The axes that a tensor has of all."""
    return [a for a in range(len(_sizes(call))) if a not in call[place]]


def _read(operand: Operand, axes: Sequence[int], at: Sequence[int | Array], count: int) -> Cells:
    columns = [np.broadcast_to(np.asarray(0 if operand.shape[i] == 1 else at[a]), (count,)) for i, a in enumerate(axes)]
    cells = np.stack(columns, axis=1).astype(np.int64)
    return Cells(operand.array[tuple(cells.T)].astype(np.float64), operand.source, cells, (count,))


def _spread(call: Call) -> dict[str, Array]:
    """The three tensors with all axes."""
    return {name: np.expand_dims(wide(call[name]), tuple(call[expanded])) for expanded, name in _tensors()}


def trilinear_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass to each tensor the product of the other two."""
    tensors, summed = _spread(call), _summed(call)
    kept = np.expand_dims(weights, summed)
    gradients = {}
    for expanded, name in _tensors():
        if name in varies:
            one, other = (tensor for other_name, tensor in tensors.items() if other_name != name)
            full = np.broadcast_to(kept * one * other, _sizes(call))
            gradients[name] = fitted(full, tensors[name].shape).squeeze(tuple(call[expanded]))
    one, two, three = tensors.values()
    product = float(np.sum(kept * (one * two * three)))
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


OUTER_PRODUCTS: Mapping[str, Op] = {
    "addbmm": Op(addbmm, addbmm_dependencies, addbmm_vjp, rounding="stores between"),
    "addr": Op(addr, addr_dependencies, addr_vjp, rounding="narrow"),
    "_trilinear": Op(trilinear, trilinear_dependencies, trilinear_vjp, rounding="stores between"),
}
