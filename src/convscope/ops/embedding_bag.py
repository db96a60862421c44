"""Bags of embeddings: the sum, mean or cell-wise maximum of rows of a table, for each bag."""

from collections.abc import Mapping

import numpy as np

from convscope.expr.call import Call, Cell, Operand
from convscope.expr.cells import outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, number
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Varies, first_result, kept_for_backward, only, wide
from convscope.typing import Array

SUM, MEAN, MAX = range(3)
"""ATen's numbers for the modes of reduction."""


def embedding_bag(call: Call, cell: Cell) -> Expr:
    """One unit of a bag: the weighted sum, mean or maximum of the rows that its indices select.

    An empty bag is 0; `padding_idx` does not count. Source: PyTorch documentation, torch.nn.EmbeddingBag.

    Raises:
        UsageError: another result, which only a backward pass reads.
    """
    kept_for_backward(call)
    bag, unit = cell
    places = np.flatnonzero(_bags(call) == bag)
    if not len(places):
        return number(0, "an empty bag")
    rows = call["indices"].array[places].astype(np.int64)
    cells = outer(call["weight"], [rows, [unit]])
    words = f"{len(places)} row{'s' if len(places) != 1 else ''} of the table"
    if call["mode"] == MAX:
        return Apply("max", {"cells": cells}, note=f"the largest of {words}")
    scales: Operand | None = call.get("per_sample_weights")
    weights: Cells | None = None if scales is None else outer(scales, [places])
    if call["mode"] == MEAN:
        return Dot(cells, weights, divisor=len(places), note=f"the mean of {words}", extra=2)
    return Dot(cells, weights, note=f"the sum of {words}")


def _bags(call: Call) -> Array:
    """The bag of each index, shape (L,); −1 where it does not count."""
    indices, offsets = call["indices"].array, call["offsets"].array
    starts = offsets[:-1] if call["include_last_offset"] else offsets
    result: Array = np.searchsorted(starts, np.arange(len(indices)), side="right") - 1
    padding = call["padding_idx"]
    return np.where(indices == padding, -1, result) if padding >= 0 else result


def embedding_bag_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the rows of each bag, and to the weights of its rows."""
    first_result(call)
    only(call, varies, "weight", "per_sample_weights")
    table, bags = wide(call["weight"]), _bags(call)
    rows = call["indices"].array.astype(np.int64)
    places = np.flatnonzero(bags >= 0)
    rows, bags = rows[places], bags[places]
    scales = np.ones(len(places))
    if call.get("per_sample_weights") is not None:
        scales = wide(call["per_sample_weights"])[places]
    if call["mode"] == MEAN:
        scales = scales / np.bincount(bags, minlength=len(weights))[bags]
    shares = np.repeat(scales[:, None], table.shape[1], axis=1)
    if call["mode"] == MAX:
        shares = _winners(table[rows], bags)
    gradients: dict[str, Array] = {}
    if "weight" in varies:
        gradients["weight"] = np.zeros_like(table)
        np.add.at(gradients["weight"], rows, shares * weights[bags])
    value = float(np.sum(shares * weights[bags] * table[rows]))
    if "per_sample_weights" in varies:
        by_scale: Array = np.zeros(call["per_sample_weights"].shape)
        by_scale[places] = (weights[bags] * table[rows]).sum(axis=1)
        gradients["per_sample_weights"] = by_scale
    return VJP(gradients, value * (1 - len(gradients)), linear=len(gradients) < 2)


def _winners(rows: Array, bags: Array) -> Array:
    """1 at the first largest cell of each bag and unit."""
    result = np.zeros_like(rows)
    for bag in np.unique(bags):
        places = np.flatnonzero(bags == bag)
        result[places[np.argmax(rows[places], axis=0)], np.arange(rows.shape[1])] = 1.0
    return result


def embedding_bag_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same unit of the rows in the bag, their weights, and all indices."""
    mask = as_mask(mask)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if call.output:
        return masks
    bags = _bags(call)
    places = np.flatnonzero(bags >= 0)
    if "weight" in varies:
        masks["weight"] = np.zeros(call["weight"].shape, np.float32)
        np.maximum.at(masks["weight"], call["indices"].array[places].astype(np.int64), mask[bags[places]])
    if "per_sample_weights" in varies:
        masks["per_sample_weights"] = np.zeros(call["per_sample_weights"].shape, np.float32)
        masks["per_sample_weights"][places] = mask[bags[places]].max(axis=1, initial=0.0)
    return masks


_BAG = Op(
    embedding_bag,
    embedding_bag_dependencies,
    embedding_bag_vjp,
    rounding="narrow",
    selected_by=("indices", "offsets"),
)
EMBEDDING_BAG: Mapping[str, Op] = {"_embedding_bag": _BAG, "_embedding_bag_forward_only": _BAG}
