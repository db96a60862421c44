"""Attention: softmax, and the fused attention of one step: scores, their softmax, the weighted sum of the values."""

import numpy as np

from convscope.rules.call import Array, Call, Cell, Operand, Source
from convscope.rules.expr import Apply, Cells, Dot, Expr, number
from convscope.rules.functions.rows import softmax, softmax_error
from convscope.rules.gather import leaf, outer, row
from convscope.rules.precision import gamma


def softmax_cell(call: Call, cell: Cell) -> Apply:
    """softmax, log_softmax and the softmax that gives 0 where everything is masked, along one axis.

    >>> x = Operand.of(np.zeros((1, 4)), "fc")
    >>> softmax_cell(Call("_softmax", {"self": x, "dim": 1}, (1, 4)), (0, 2)).value()
    0.25
    """
    operand = call["self"]
    name = {"_softmax": "softmax", "_log_softmax": "log_softmax", "_safe_softmax": "safe_softmax"}[call.op]
    cells = row(operand, cell, [call["dim"] % len(cell)] if cell else [])
    return Apply(name, {"x": leaf(operand, cell), "cells": cells})


def attention(call: Call, cell: Cell) -> Expr:
    """The values of all positions, weighted by how well their keys fit this query.

    The second result is the logarithm of the sum of the exponentials of the scores.

    Source: Vaswani and others 2017; PyTorch documentation, scaled_dot_product_attention.
    """
    scores = _scores(call, cell[:3])
    if call.output == 1 and not np.any(scores.values > -np.inf):
        return number(0, "nothing to attend to")
    if call.output == 1:
        return Apply("logsumexp", {"cells": scores}, note="of the scores of all keys")
    batch, head, _, unit = cell
    values: Operand = call["value"]
    seen = outer(values, [batch, head * values.shape[1] // call["query"].shape[1], range(values.shape[2]), unit])
    note = f"the values of {len(seen)} positions, each times its share of attention"
    return Dot(seen, shares_of(scores, call), note=note)


def shares_of(scores: Cells, call: Call) -> Cells:
    """The softmax of scores, as intermediate numbers; 0 everywhere where all are masked."""
    masked = not np.any(scores.values > -np.inf)
    shares = np.zeros(len(scores)) if masked else softmax(scores.values)
    errors = (
        shares
        if masked
        else softmax_error(scores.values, shares, scores.errors if scores.errors is not None else 0.0, call.precision)
    )

    def derive(index: int) -> Apply:
        return Apply("safe_softmax", {"x": _one(scores, index), "cells": scores}, note="its share of attention")

    source = Source("share", "computed", (len(scores),), call.dtype)
    stored = errors + shares * call.precision.stored
    return Cells(shares, source, np.arange(len(scores))[:, None], (len(scores),), errors=stored, derive=derive)


def _one(cells: Cells, index: int) -> Dot | Apply:
    assert cells.derive is not None
    found = cells.derive(index)
    assert isinstance(found, Dot | Apply)
    return found


def _scores(call: Call, place: Cell) -> Cells:
    """query · key × scale + mask for every key, with errors and derivations."""
    query, key = call["query"], call["key"]
    batch, head, position = place
    depth, length = query.shape[3], key.shape[2]
    scale = call.get("scale") or depth**-0.5
    key_head = head * key.shape[1] // query.shape[1]
    asked: Array = query.array[batch, head, position].astype(np.float64)
    keys: Array = key.array[batch, key_head].astype(np.float64)
    mask = _mask(call, place, length)
    with np.errstate(invalid="ignore"):
        values = keys @ asked * scale + mask
        sizes = np.abs(keys) @ np.abs(asked) * scale + np.where(np.isfinite(mask), np.abs(mask), 0.0)
    errors = gamma(depth + 4, call.precision.sum) * sizes

    def derive(index: int) -> Dot | Apply:
        product = Dot(
            outer(query, [batch, head, position, range(depth)]),
            outer(key, [batch, key_head, index, range(depth)]),
            scale=scale,
            note=f"how well key {index} fits the query",
        )
        if not mask.any():
            return product
        return Apply("add", {"x": product, "y": number(mask[index], "mask")}, note="its score, masked")

    source = Source("score", "computed", (length,), call.dtype)
    return Cells(values, source, np.arange(length)[:, None], (length,), errors=errors, derive=derive)


def _mask(call: Call, place: Cell, length: int) -> Array:
    """What is added to each score: 0, or minus infinity where a key may not be seen, or a bias."""
    mask: Operand | None = call.get("attn_mask")
    added = np.zeros(length)
    if mask is not None:
        line = mask.array[
            tuple(0 if n == 1 else i for i, n in zip(place[-len(mask.shape) + 1 :], mask.shape[:-1], strict=True))
        ]
        allowed = np.where(line, 0.0, -np.inf) if mask.source.dtype == "bool" else line.astype(np.float64)
        added = np.broadcast_to(allowed, (length,)).copy()
    if call.get("is_causal"):
        added[place[2] + 1 :] = -np.inf
    return added
