"""Numbers written into a tensor: index_add, index_copy, scatter_reduce, put, masked_scatter, diag_embed, block_diag.

`TARGETS` maps each written cell to its position; rule, vector-Jacobian product and dependencies of all operations
follow from that.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import broadcast, leaf
from convscope.expr.expr import Apply, Cells, Dot, Expr, number
from convscope.expr.precision import widened
from convscope.ops.dependencies import as_mask
from convscope.ops.movement import as_type
from convscope.ops.vjp import VJP, Varies, fitted, tangent, wide
from convscope.typing import Array

Targets = Mapping[str, Array]
"""Operand -> for each of its cells the flat position in the result that it is written to; -1: nowhere."""
NOWHERE = -1


def _positions(call: Call) -> Array:
    """The flat position of every cell of the result."""
    return np.arange(int(np.prod(call.shape)), dtype=np.int64).reshape(call.shape)


def _by_slices(call: Call) -> Targets:
    """index_add, index_copy, index_reduce: slice i of the source to slice index[i] of one axis."""
    source = call["source"]
    return {"source": _slices(call).reshape(source.shape)}


def _filled(call: Call) -> Targets:
    """index_fill: one number to the slices that an index selects."""
    return {"value": _slices(call)}


def _slices(call: Call) -> Array:
    positions = _positions(call)
    indices = np.atleast_1d(call["index"].array)
    return positions.take(indices % max(positions.shape[call["dim"]], 1), call["dim"]) if positions.ndim else positions


def _by_cells(call: Call) -> Targets:
    """scatter_reduce, and scatter with `reduce`: each cell along one axis to where a tensor of indices says.

    Raises:
        UsageError: the source is a number, not a tensor.
    """
    if call.get("src") is None:
        raise UsageError(f"no rule explains {call.op} of a number with reduce={call['reduce']!r}.")
    index, source = np.atleast_1d(call["index"].array), call["src"]
    positions, axis = np.atleast_1d(_positions(call)), call["dim"] % max(len(call.shape), 1)
    targets = np.full(source.shape or (1,), NOWHERE, np.int64)
    inside = tuple(slice(n) for n in index.shape)
    lines = positions[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(index.shape))]
    targets[inside] = np.take_along_axis(lines, index, axis)
    return {"src": targets.reshape(source.shape)}


def _put(call: Call) -> Targets:
    """put: by positions in the flattened tensor."""
    size = max(int(np.prod(call.shape)), 1)
    return {"source": np.asarray(call["index"].array % size).reshape(call["source"].shape)}


def _masked(call: Call) -> Targets:
    """masked_scatter: the first number to the first cell of the mask, and so on."""
    places = np.flatnonzero(np.broadcast_to(call["mask"].array, call.shape))
    targets = np.full(int(np.prod(call["source"].shape)), NOWHERE, np.int64)
    targets[: len(places)] = places
    return {"source": targets.reshape(call["source"].shape)}


def _diagonal(call: Call) -> Targets:
    """diagonal_scatter writes to a diagonal, diag_embed to that of zeros."""
    source = "self" if call.op == "diag_embed" else "src"
    return {source: np.diagonal(_positions(call), call["offset"], call["dim1"], call["dim2"])}


def _strided(call: Call) -> Targets:
    """as_strided_scatter: to cells at fixed steps in memory.

    Raises:
        UsageError: the tensor is not laid out row by row.
    """
    shape = call["self"].shape
    row_by_row = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    layout, first = call.extra.get("memory") or (row_by_row, 0)
    if any(a != b and n > 1 for n, a, b in zip(shape, layout, row_by_row, strict=True)):
        raise UsageError("as_strided_scatter is explained for tensors that are laid out row by row.")
    steps, offset = zip(call["size"], call["stride"], strict=True), call.get("storage_offset")
    targets = np.asarray(0 if offset is None else offset - first, np.int64)
    for length, stride in steps:
        targets = targets[..., None] + np.arange(length) * stride
    return {"src": targets}


def _blocks(call: Call) -> Targets:
    """block_diag: matrices as blocks along the diagonal, zeros elsewhere."""
    positions, row, column, targets = _positions(call), 0, 0, {}
    for position, operand in enumerate(call["tensors"]):
        rows, columns = (1, 1, *operand.shape)[-2:]
        block = positions[row : row + rows, column : column + columns]
        targets[f"tensors.{position}"] = block.reshape(operand.shape)
        row, column = row + rows, column + columns
    return targets


TARGETS: Mapping[str, Callable[[Call], Targets]] = {
    "index_add": _by_slices,
    "index_copy": _by_slices,
    "index_reduce": _by_slices,
    "index_fill": _filled,
    "scatter_reduce": _by_cells,
    "scatter": _by_cells,
    "put": _put,
    "masked_scatter": _masked,
    "diagonal_scatter": _diagonal,
    "as_strided_scatter": _strided,
    "diag_embed": _diagonal,
    "block_diag": _blocks,
}
ON_ZEROS = frozenset({"diag_embed", "block_diag"})
"""Operations that write to zeros, not to their first argument."""


def _combining(call: Call) -> str:
    """How several numbers in one cell are combined: the last one ("copy"), or a function of all."""
    if call.op == "index_add" or call.get("accumulate"):
        return "sum"
    return {"add": "sum", "multiply": "prod"}.get(reduce := str(call.get("reduce") or "copy"), reduce)


def _keeps(call: Call) -> bool:
    """Whether the number that is already there counts too."""
    return _combining(call) != "copy" and bool(call.get("include_self", True))


def written(call: Call, cell: Cell) -> Expr:
    """The cell's number, unless others are written to it: the last of them, or their sum, product, mean or extreme."""
    flat = int(np.ravel_multi_index(cell, call.shape)) if cell else 0
    operands = call.operands()
    for name, targets in TARGETS[call.op](call).items():
        hits = np.flatnonzero(targets.reshape(-1) == flat)
        if not len(hits):
            continue
        if name not in operands:  # a number written in the call
            return number(int(call[name]) if call.kind else call[name], name)
        operand = operands[name]
        if not operand.shape:
            hits = np.zeros(1, np.int64)
        return _combined(call, cell, operand, hits)
    return number(0, "zero") if call.op in ON_ZEROS else broadcast(call["self"], cell, "self")


def _combined(call: Call, cell: Cell, operand: Operand, hits: Array) -> Expr:
    places = np.stack(np.unravel_index(hits, operand.shape or (1,)), 1)[:, : len(operand.shape)].astype(np.int64)
    mode, previous = _combining(call), broadcast(call["self"], cell, "self") if _keeps(call) else None
    if mode == "copy":
        return as_type(leaf(operand, tuple(map(int, places[-1]))), call.dtype)
    values = widened(np.asarray(operand.array[tuple(places.T)])).reshape(len(places))
    cells = Cells(values, operand.source, places, (len(places),))
    count = f"{len(places):,} {'number' if len(places) == 1 else 'numbers'} written here"
    if mode == "sum":
        note = f"what was here, plus the {count}" if previous else f"the sum of the {count}"
        return Dot(cells, bias=previous, scale=float(call.get("alpha", 1)), note=note, kind=call.kind)
    if mode == "mean":
        if call.kind:
            raise UsageError("no rule explains the mean of integers, which PyTorch rounds down.")
        total = Dot(cells, bias=previous, note=f"the sum of what was here and the {count}" if previous else "their sum")
        return Apply("div", {"x": total, "y": number(len(places) + (previous is not None), "count")})
    function, pair = {"prod": ("product", "mul"), "amax": ("max", "maximum"), "amin": ("min", "minimum")}[mode]
    kind = call.kind if mode == "prod" else ""
    inner = Apply(function, {"cells": cells}, f"of the {count}", kind)
    return Apply(pair, {"x": previous, "y": inner}, kind=kind) if previous else inner


def written_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the numbers that a cell combines, times the slope of the combination."""
    operands, targets = call.operands(), TARGETS[call.op](call)
    gradients = {name: np.zeros(operands[name].shape) for name in ("self", *targets) if name in operands}
    if call.op not in ON_ZEROS:
        previous_weights = weights.reshape(-1).copy()
        for name, target in targets.items():
            if not (name in operands and _combining(call) == "sum" and _keeps(call)):
                previous_weights[target[target != NOWHERE]] = 0.0
        gradients["self"] += fitted(previous_weights.reshape(weights.shape), operands["self"].shape)
    for position, name, hits in _groups(weights, targets):
        if name in operands:
            _share(call, weights.reshape(-1)[position], position, gradients, (name, hits))
    varying_gradients = {name: gradient for name, gradient in gradients.items() if name in varies}
    if _combining(call) in {"prod", "amax", "amin"}:
        recorded = _results(call, weights)
        return tangent(varying_gradients, call, recorded)
    constant = sum(float(np.sum(g * wide(operands[n]))) for n, g in gradients.items() if n not in varies)
    if "value" in targets and "value" not in operands:
        constant += float(call["value"]) * float(weights.reshape(-1)[np.unique(targets["value"])].sum())
    return VJP(varying_gradients, constant)


def _groups(weights: Array, targets: Targets) -> Iterator[tuple[int, str, Array]]:
    """Each position with a weight, and the cells of an operand that are written there."""
    for name, target in targets.items():
        flat = target.reshape(-1)
        for position in np.flatnonzero(weights.reshape(-1)):
            hits = np.flatnonzero(flat == position)
            if len(hits):
                yield int(position), name, hits


def _share(call: Call, weight: float, position: int, gradients: dict[str, Array], source: tuple[str, Array]) -> None:
    """Pass a cell's weight to the numbers written to it and, if it counts, to its previous number."""
    (name, hits), operands = source, call.operands()
    to = gradients[name].reshape(-1)
    mode = _combining(call)
    if not operands[name].shape:
        hits = np.zeros(1, np.int64)
    if mode == "copy":
        to[hits[-1]] += weight
        return
    if mode == "sum":
        to[hits] += weight * float(call.get("alpha", 1))
        return
    values = wide(operands[name]).reshape(-1)[hits]
    previous = wide(call["self"]).reshape(-1)[position : position + 1] if _keeps(call) else np.zeros(0)
    slopes = weight * _slopes(mode, np.concatenate([previous, values]))
    to[hits] += slopes[len(previous) :]
    gradients["self"].reshape(-1)[position] += slopes[: len(previous)].sum()


def _slopes(mode: str, numbers: Array) -> Array:
    """The slope by each of the numbers; equal extremes share it."""
    if mode == "mean":
        return np.full(len(numbers), 1 / len(numbers))
    if mode == "prod":
        return np.array([np.delete(numbers, i).prod() for i in range(len(numbers))])
    best = numbers == (numbers.max() if mode == "amax" else numbers.min())
    return np.asarray(best / best.sum())


def _results(call: Call, weights: Array) -> float:
    """The weighted sum of the results, calculated from the recorded inputs."""
    cells = np.argwhere(weights)
    return float(sum(weights[tuple(cell)] * written(call, tuple(map(int, cell))).value() for cell in cells))


def written_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """The previous numbers, if they count, and every number that is written to these cells."""
    mask, targets, result = as_mask(mask), TARGETS[call.op](call), {}
    operands = call.operands()
    flat = np.append(mask.reshape(-1), np.float32(0))  # NOWHERE is its last cell
    for name, target in targets.items():
        if name in varies:
            reached = flat[target]
            result[name] = reached if operands[name].shape == target.shape else np.full((), reached.max(initial=0.0))
    if "self" in varies and "self" not in targets:
        previous_mask = mask.reshape(-1).copy()
        if not _keeps(call):
            for target in targets.values():
                previous_mask[target[target != NOWHERE]] = 0.0
        result["self"] = as_mask(fitted(previous_mask.reshape(mask.shape), operands["self"].shape))
    return result
