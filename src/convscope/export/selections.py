"""Selections: formulas for selected numbers, such as the maximum of a window, that follow a change of the selection.

The rules of `ops` use the selection that PyTorch recorded: the label of an image, the largest cell of a window. A
spreadsheet has to select by itself, so these expressions have the same value, but read every candidate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import leaf, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.ops import pooling
from convscope.ops.losses import MEAN, NONE


def label_loss(call: Call, _: Cell) -> Expr:
    """The negative log-likelihood: minus each image's score at its label, and the mean or sum of these."""
    scores, target = _labelled(call)
    if call.output:
        return number(float(target.array.size), "images")
    chosen = [
        Apply(
            "neg",
            {
                "x": Apply(
                    "number_at",
                    {"cells": row(scores, score_cell, [len(score_cell) - 1]), "index": leaf(target, score_cell[:-1])},
                )
            },
        )
        for score_cell in ((*image, 0) for image in np.ndindex(target.shape))
    ]
    return _sum(chosen, "the losses", len(chosen) if call["reduction"] == MEAN else 1)


def label_loss_backward(call: Call, cell: Cell) -> Expr:
    """Its gradient: minus the incoming one at the label, divided by the number of images for a mean; 0 elsewhere."""
    _, target = _labelled(call)
    images = float(target.array.size if call["reduction"] == MEAN else 1)
    grad: Operand = call["grad_output"]
    parts = {"grad": leaf(grad, cell[:-1] if grad.shape else ()), "count": number(images, "images")}
    return Apply("nll_backward_at", {**parts, "label": leaf(target, cell[:-1]), "index": number(cell[-1], "class")})


def _labelled(call: Call) -> tuple[Operand, Operand]:
    """The scores and the labels, one label for each image.

    Raises:
        UsageError: the labels are used in another way.
    """
    scores, target = call["self"], call["target"]
    if len(scores.shape) > 2 or call["weight"] is not None or (target.array == call["ignore_index"]).any():
        raise UsageError("it has labels of pixels, class weights or ignored labels.")
    if call["reduction"] == NONE:
        raise UsageError("it returns the loss of each image separately.")
    return scores, target


def max_pool_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of each window that reads the cell, where the cell is the first of the window's largest numbers."""
    grad: Operand = call["grad_output"]
    windows = [places for places, _ in pooling.readers(call, cell)]
    lead = cell[: -len(windows)]
    terms = [_from_window(call, cell, (*lead, *map(int, window))) for window in product(*windows)]
    if not terms:
        return number(0, "no window reads it")
    return terms[0] if len(terms) == 1 else _sum(terms, f"gradients of {grad.source.name}")


def _from_window(call: Call, cell: Cell, window: Cell) -> Apply | Leaf:
    """The gradient of one window if x is larger than all cells before it, and not smaller than those after it."""
    image, grad = call["self"], call["grad_output"]
    result: Apply | Leaf = leaf(grad, window)
    candidates = _candidates(call, window)
    position = int(np.flatnonzero((candidates.cells == cell).all(axis=1))[0])
    for function, part in (("pass_from", slice(position + 1, None)), ("pass_above", slice(position))):
        if len(other_cells := candidates.cells[part]):
            cells = Cells(candidates.values[part], image.source, other_cells, (len(other_cells),))
            parts = {"grad": result, "x": leaf(image, cell), "threshold": Apply("max", {"cells": cells})}
            result = Apply(function, parts)
    return result


def _candidates(call: Call, window: Cell) -> Cells:
    """The cells of a window, as the forward pass reads them."""
    shape = call["grad_output"].shape
    sizes = {"output_size": shape[2 - len(shape) :]}
    forward = replace(call, arguments={**sizes, **call.arguments}, shape=shape)
    largest = pooling.max_pool if "kernel_size" in call.arguments else pooling.adaptive_max_pool
    cells = largest(forward, window).arguments["cells"]
    assert isinstance(cells, Cells)
    return cells


def _sum(terms: Sequence[Apply | Leaf], words: str, divisor: float = 1) -> Dot:
    """A sum of expressions."""
    values = np.array([term.value() for term in terms])
    source, cells = Source(words, "computed", (len(terms),)), np.arange(len(terms))[:, None]
    return Dot(Cells(values, source, cells, (len(terms),), derive=terms.__getitem__), divisor=divisor)


FOLLOWING: Mapping[str, Callable[[Call, Cell], Expr]] = {
    "nll_loss_forward": label_loss,
    "nll_loss_backward": label_loss_backward,
    **dict.fromkeys(
        (
            "max_pool2d_with_indices_backward",
            "max_pool3d_with_indices_backward",
            "adaptive_max_pool2d_backward",
            "adaptive_max_pool3d_backward",
        ),
        max_pool_backward,
    ),
}
"""Operations that select cells -> an expression that reads every candidate."""
