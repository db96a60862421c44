"""Data movement: each cell is a copy of one cell of an input; casts to another type, joined tensors, triangles."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, indices, stacked
from convscope.expr.cells import leaf
from convscope.expr.expr import Apply, Leaf, number
from convscope.expr.precision import BITS, Precision, wrapped
from convscope.ops import source_cells, titles
from convscope.ops.dependencies import MovedCells, as_mask
from convscope.ops.op import Op, Vectorized, together
from convscope.ops.source_cells import MOVES, SOURCES
from convscope.ops.vjp import VJP, Varies, only, wide
from convscope.typing import Array


def moved(call: Call, cell: Cell) -> Leaf | Apply:
    """The cell of the input that is moved here, unchanged unless the new type is coarser.

    >>> x = Operand.of(np.arange(6.0).reshape(2, 3), "x")
    >>> moved(Call("t", {"self": x}, (3, 2), "float64"), (2, 1)).label
    'x (1, 2)'
    """
    operand: Operand = call[SOURCES.get(call.op, "self")]
    cells = stacked(cell)
    result = MOVES[call.op](call, np.atleast_2d(cells))
    source: Any = tuple(map(int, result[0])) if cells.ndim == 1 else indices(result)
    return as_type(leaf(operand, source), call.dtype)


def alike(call: Call, cell: Cell) -> Array | None:
    """All cells; numbers that are cut to integers are looked at one at a time."""
    source = call[SOURCES.get(call.op, "self")].source.dtype
    return together(call, cell) if source == call.dtype or call.dtype not in BITS else None


def converted(call: Call, cell: Cell) -> Leaf | Apply:
    """Another type: rounded to a coarser one, cut to an integer, exact otherwise."""
    return as_type(leaf(call["self"], cell), call.dtype)


def as_type(operand: Leaf, dtype: str) -> Leaf | Apply:
    """The number in the type of the result, with the rounding that this costs."""
    source = operand.source.dtype
    if source == dtype:
        return operand
    if dtype == "bool":
        return Apply("ne", {"x": operand, "y": number(0, "zero")})
    if dtype in BITS:
        return _as_integer(operand, dtype)
    target_precision = Precision.of(dtype)
    source_precision = Precision.of(source)
    coarse = (
        max(target_precision.stored, target_precision.sum) > max(source_precision.stored, source_precision.sum)
        or target_precision.tiny > source_precision.tiny
    )
    return Apply(f"to_{dtype}", {"x": operand}) if coarse or source in BITS else operand


def _as_integer(operand: Leaf, dtype: str) -> Leaf | Apply:
    """A number cut to an integer; one of a wider integer type modulo 2**bits.

    Raises:
        UsageError: C leaves open what becomes of nan, infinities and fractions beyond the type, and so does PyTorch.
            Into uint8 they go by way of int64.
    """
    if operand.source.dtype in BITS or operand.source.dtype == "bool":
        fits = wrapped(int(operand.number), dtype) == operand.number
        return operand if fits else Apply("identity", {"x": operand}, f"held by {dtype}, which counts around", dtype)
    if not math.isfinite(operand.number) or not _holds(int(operand.number), "int64" if dtype == "uint8" else dtype):
        raise UsageError(f"what {operand.number:g} becomes in {dtype} is left open by the C standard.")
    cut = Apply("trunc", {"x": operand})
    return cut if _holds(int(operand.number), dtype) else Apply("identity", {"x": cut}, kind=dtype)


def _holds(value: int, dtype: str) -> bool:
    return wrapped(value, dtype) == value


_RELAID = {
    name for name, move in MOVES.items() if move in {source_cells.view, source_cells.squeeze, source_cells.unsqueeze}
}
_SAME = {"_to_copy", *(name for name, move in MOVES.items() if move is source_cells.same)}


def moved_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Any of MOVES: found by asking where every cell with a weight came from."""
    name = SOURCES.get(call.op, "self")
    only(call, varies, name)
    shape = call[name].shape
    if call.op in _SAME:
        return VJP({name: weights})
    if call.op in _RELAID:
        return VJP({name: weights.reshape(shape)})
    cells = np.argwhere(weights)
    moved_weights = weights[tuple(cells.T)]
    if not shape:
        return VJP({name: np.asarray(np.sum(moved_weights))})
    result = np.zeros(shape)
    if len(cells):
        np.add.at(result, tuple(MOVES[call.op](call, cells).T), moved_weights)
    return VJP({name: result})


def embedding_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the rows that were read; the padding row has none, its numbers are constants.

    With `scale_grad_by_freq` a row's weights are divided by how often it was read, and what is left is constant too.
    Source: PyTorch documentation, torch.nn.Embedding.
    """
    rows, padding = call["indices"].array, call["padding_idx"]
    if not call["scale_grad_by_freq"] and not np.any(rows == padding):
        return moved_vjp(call, weights, varies)
    passed = np.where(rows == padding, 0.0, 1.0)
    if call["scale_grad_by_freq"]:
        passed = passed / np.bincount(rows.ravel(), minlength=1)[rows]
    kept = weights * passed[..., None]
    constant = float(np.sum((weights - kept) * call["weight"].array[rows]))
    return VJP(moved_vjp(call, kept, varies).gradients, constant)


def moved_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cell that was moved."""
    if not varies:
        return {}
    if call.op in {"permute", "transpose", "t"}:
        return {"self": _turned_back(call, as_mask(mask))}
    with np.errstate(invalid="ignore"):  # constants beside it may be infinite
        vjp = moved_vjp(call, as_mask(mask), varies)
    return {name: as_mask(gradient) for name, gradient in vjp.gradients.items()}


def _turned_back(call: Call, mask: Array) -> Array:
    """Axes in their old order."""
    if call.op == "permute":
        return np.transpose(mask, np.argsort([axis % mask.ndim for axis in call["dims"]]))
    if mask.ndim < 2:
        return mask
    return np.swapaxes(mask, *((call["dim0"], call["dim1"]) if call.op == "transpose" else (0, 1)))


# Several tensors joined to one, and triangles of matrices


def cat(call: Call, cell: Cell) -> Leaf | Apply:
    """The tensor along the axis that contains this cell."""
    axis, offset = call["dim"], 0
    tensors = [t for t in call["tensors"] if t.shape != (0,)]
    axis %= len(cell)
    for operand in tensors:
        if np.max(cell[axis]) < offset + operand.shape[axis]:
            return as_type(leaf(operand, tuple(i - offset if a == axis else i for a, i in enumerate(cell))), call.dtype)
        offset += operand.shape[axis]
    raise AssertionError("the cell is outside all of the tensors")


def stack(call: Call, cell: Cell) -> Leaf | Apply:
    """The tensor that this index of the new axis names."""
    axis = call["dim"] % len(cell)
    operand = call["tensors"][np.max(cell[axis])]
    return as_type(leaf(operand, cell[:axis] + cell[axis + 1 :]), call.dtype)


def alike_joined(call: Call, cell: Cell) -> Array | None:
    """Cells of the same tensor."""
    axis = call["dim"] % len(cell)
    if call.op == "stack":
        return np.asarray(cell[axis]).reshape(-1, 1)
    ends = np.cumsum([operand.shape[axis] for operand in call["tensors"] if operand.shape != (0,)])
    return np.asarray(np.searchsorted(ends, cell[axis], side="right")).reshape(-1, 1)


def triangle(call: Call, cell: Cell) -> Leaf:
    """tril and triu: one side of a diagonal kept, 0 on the other."""
    row, column = cell[-2:]
    distance = column - row - call["diagonal"]
    is_inside = distance <= 0 if call.op == "tril" else distance >= 0
    return leaf(call["self"], cell) if is_inside else number(0, "outside the triangle")


def joined_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """cat and stack: each tensor gets its own part of the weights; those that do not vary are constants."""
    tensors, axis = call["tensors"], call["dim"] % weights.ndim
    if call.op == "stack":
        parts = list(np.moveaxis(weights, axis, 0))
    else:
        lengths = [0 if operand.shape == (0,) else operand.shape[axis] for operand in tensors]
        parts = np.split(weights, np.cumsum(lengths)[:-1], axis)
    gradients, constant = {}, 0.0
    for index, (operand, part) in enumerate(zip(tensors, parts, strict=True)):
        if f"tensors.{index}" in varies:
            gradients[f"tensors.{index}"] = part.reshape(operand.shape)
        else:
            constant += float(np.sum(part.reshape(operand.shape) * wide(operand)))
    return VJP(gradients, constant)


def triangle_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """What was kept."""
    only(call, varies, "self")
    return VJP({"self": (np.tril if call.op == "tril" else np.triu)(weights, call["diagonal"])})


_RULE = Vectorized(moved, alike)

MOVEMENT: Mapping[str, Op] = {
    **dict.fromkeys(
        ("view", "_unsafe_view"),
        Op(_RULE, moved_dependencies, moved_vjp, title=titles.reshape, role="view"),
    ),
    **dict.fromkeys(
        ("alias", "clone", "detach", "copy"),
        Op(_RULE, moved_dependencies, moved_vjp, role="copy"),
    ),
    "lift_fresh": Op(
        _RULE,
        moved_dependencies,
        moved_vjp,
        title=titles.named("tensor made without PyTorch operations"),
        role="copy",
    ),
    **dict.fromkeys(
        (
            "expand",
            "transpose",
            "t",
            "permute",
            "select",
            "slice",
            "unsqueeze",
            "squeeze",
            "as_strided",
            "split",
            "split_with_sizes",
            "unsafe_split",
            "unbind",
            "unfold",
            "diagonal",
        ),
        Op(_RULE, moved_dependencies, moved_vjp, role="view"),
    ),
    **dict.fromkeys(
        (
            "flip",
            "roll",
            "repeat",
            "unsafe_split_with_sizes",
            "pixel_shuffle",
            "pixel_unshuffle",
            "channel_shuffle",
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "replication_pad2d",
            "replication_pad3d",
        ),
        Op(_RULE, moved_dependencies, moved_vjp),
    ),
    **dict.fromkeys(
        ("index_select", "gather"),
        Op(_RULE, moved_dependencies, moved_vjp, role="index", selected_by=("index",)),
    ),
    "embedding": Op(_RULE, moved_dependencies, embedding_vjp, role="index", selected_by=("indices",)),
    "index": Op(_RULE, moved_dependencies, moved_vjp, role="index", selected_by=("indices",)),
    **dict.fromkeys(
        (
            "alias_copy",
            "as_strided_copy",
            "detach_copy",
            "diagonal_copy",
            "expand_copy",
            "narrow_copy",
            "permute_copy",
            "rot90",
            "select_copy",
            "slice_copy",
            "split_copy",
            "split_with_sizes_copy",
            "squeeze_copy",
            "t_copy",
            "transpose_copy",
            "unbind_copy",
            "unfold_copy",
            "unsqueeze_copy",
            "view_copy",
        ),
        Op(_RULE, moved_dependencies, moved_vjp),
    ),
    "take": Op(_RULE, moved_dependencies, moved_vjp, role="index", selected_by=("index",)),
    "masked_select": Op(_RULE, moved_dependencies, moved_vjp, role="index", selected_by=("mask",)),
    "_to_copy": Op(Vectorized(converted, alike), moved_dependencies, moved_vjp),
    "cat": Op(Vectorized(cat, alike_joined), MovedCells(joined_vjp), joined_vjp, title=titles.named("concatenate")),
    "stack": Op(Vectorized(stack, alike_joined), MovedCells(joined_vjp), joined_vjp),
    **dict.fromkeys(("tril", "triu"), Op(triangle, MovedCells(triangle_vjp), triangle_vjp)),
}
