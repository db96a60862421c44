"""Losses and softmax backward: where the gradient of a training step begins.

A softmax with cross-entropy is recorded as two operations: the negative log-likelihood passes −1 ÷ N to the label's
log-probability only, and the log-softmax turns it into (p − y) ÷ N, the probability minus 1 at the label."""

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import broadcast, leaf, row
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import gamma
from convscope.ops.dependencies import as_mask
from convscope.ops.losses import Hinges, gaps_of, hinge_of, hinges_of, margin_of, rows_of
from convscope.ops.vjp import VJP, Varies, only, wide
from convscope.typing import Array

MEAN = 1
"""ATen's number for `reduction="mean"`; 0 is none, 2 is the sum."""


def log_softmax_backward(call: Call, cell: Cell) -> Apply:
    """The incoming gradient minus the probability times the row's sum: grad − p × sum of the row.

    >>> grad = Operand.of(np.array([[0.0, -1.0]]), "nll_loss.grad")
    >>> logs = Operand.of(np.log([[0.25, 0.75]]), "log_softmax")
    >>> call = Call("_log_softmax_backward_data", {"grad_output": grad, "output": logs, "dim": 1}, (1, 2), "float64")
    >>> round(log_softmax_backward(call, (0, 0)).value(), 12), round(log_softmax_backward(call, (0, 1)).value(), 12)
    (0.25, -0.25)

    Source: PyTorch, aten/src/ATen/native/cpu/SoftMaxKernel.cpp.
    """
    grad, logs = call["grad_output"], call["output"]
    line = row(grad, cell, _axis(call, cell))
    total = Dot(line, note=f"the sum of the {len(line):,} gradients of this row")
    parts: dict[str, Leaf | Dot] = {"grad": leaf(grad, cell), "log_p": leaf(logs, cell), "total": total}
    return Apply("log_softmax_backward", {**parts}, note=_label_note(line.values, float(grad.array[cell])))


def softmax_backward(call: Call, cell: Cell) -> Apply:
    """The probability times (the incoming gradient − the row's mean gradient, weighted by the probabilities)."""
    grad, shares = call["grad_output"], call["output"]
    axis = _axis(call, cell)
    mean = Dot(row(grad, cell, axis), row(shares, cell, axis), note="the row's mean gradient, weighted by probability")
    parts: dict[str, Leaf | Dot] = {"y": leaf(shares, cell), "grad": leaf(grad, cell), "mean": mean}
    return Apply("softmax_backward", {**parts}, note="raising one probability lowers the others")


def nll_backward(call: Call, cell: Cell) -> Expr:
    """−1 at the label, times the class weight, divided by the sum of these weights where the loss is a mean; else 0."""
    target, grad = call["target"], call["grad_output"]
    axis = 1 if len(cell) > 1 else 0
    position = cell[:axis] + cell[axis + 1 :]
    label = int(target.array[position] if target.shape else target.array)
    if label == call["ignore_index"]:
        return number(0, f"label {label} is ignored")
    if label != cell[axis]:
        return number(0, f"the label is {label}")
    weight = number(1, "weight") if call["weight"] is None else leaf(call["weight"], (label,))
    mean = call["reduction"] == MEAN
    if mean and not float(call["total_weight"].array):
        return number(0, "all labels are ignored")
    total = leaf(call["total_weight"], ()) if mean else number(1, "total")
    parts = {"grad": leaf(grad, position if grad.shape else ()), "weight": weight, "total": total}
    return Apply("nll_backward", {**parts}, note=f"the label is {label}, and the loss is minus its log-probability")


def elementwise(call: Call, cell: Cell) -> Apply:
    """Losses of pairs: the slope of the loss at this cell, divided by the number of cells.

    Sources: the documentation of torch.nn.MSELoss, SmoothL1Loss, HuberLoss, BCELoss, SoftMarginLoss.
    """
    names = {
        "mse_loss_backward": "mse_backward",
        "smooth_l1_loss_backward": "smooth_l1_backward",
        "huber_loss_backward": "huber_backward",
        "binary_cross_entropy_backward": "binary_cross_entropy_backward",
        "soft_margin_loss_backward": "soft_margin_backward",
    }
    parts = {
        "grad": broadcast(call["grad_output"], cell, "grad"),
        "x": broadcast(call["self"], cell, "x"),
        "target": broadcast(call["target"], cell, "target"),
    }
    for setting in ("beta", "delta"):
        if setting in call.arguments:
            parts[setting] = number(float(call[setting]), setting, call.dtype)
    if call.op == "binary_cross_entropy_backward":
        class_weight: Operand | None = call["weight"]
        parts["weight"] = number(1, "weight") if class_weight is None else broadcast(class_weight, cell, "weight")
    mean = call["reduction"] == MEAN
    parts["count"] = number(float(np.prod(call.shape)) if mean else 1.0, "cells", call.dtype)
    return Apply(names[call.op], {**parts}, note=f"one of {int(np.prod(call.shape)):,} cells of the loss")


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def margin_backward(call: Call, cell: Cell) -> Apply:
    """What arrives times the slopes of all open hinges that a class is in: minus those where it is the correct one.

    Source: PyTorch documentation, torch.nn.MultiMarginLoss, MultiLabelMarginLoss.
    """
    image, place = (cell[0], cell[1]) if len(cell) > 1 else (0, cell[0] if cell else 0)
    hinges = hinges_of(call)
    hinges = Hinges(
        *(part[(hinges.image == image) & ((hinges.right == place) | (hinges.wrong == place))] for part in hinges)
    )
    margin, power = margin_of(call)
    gaps, sizes = gaps_of(call, hinges, margin)
    off = 4 * call.precision.sum * sizes
    signs = np.where(hinges.right == place, -1.0, 1.0)
    slopes = hinges.weights if power == 1 else 2 * hinges.weights * np.abs(gaps)
    values = np.where(gaps > 0, signs * slopes, 0.0)  # a gap of nan is not open
    errors = np.where(np.abs(gaps) <= off, slopes, 0.0) + gamma(4, call.precision.sum) * np.abs(values)
    errors = errors + (0.0 if power == 1 else np.where(gaps + off > 0, 2 * hinges.weights * off, 0.0))

    def derive(index: int) -> Apply:
        slope = number(float(signs[index] * power * (gaps[index] > 0)), "slope of an open hinge, 0 of a closed one")
        return Apply("mul", {"x": slope, "y": hinge_of(call, hinges, index, slope=True)})

    images, classes = rows_of(call)
    source = Source("slope", "computed", (images, classes), call.dtype)
    places = np.stack([hinges.image, hinges.wrong], axis=1)
    cells = Cells(values, source, places, (len(values),), None, errors, derive)
    divisor = classes * (images if call["reduction"] == MEAN else 1)
    total = Dot(cells, divisor=divisor, note=f"the slopes of {len(values):,} pairs that this class is in", extra=3)
    grad: Operand = call["grad_output"]
    return Apply("mul", {"x": leaf(grad, (image,) if grad.shape else ()), "y": total})


def _axis(call: Call, cell: Cell) -> list[int]:
    return [call["dim"] % len(cell)] if cell else []


def _label_note(line: Array, label_gradient: float) -> str:
    """A note on p − y, if only one cell of the row has a gradient, as with cross-entropy."""
    if np.count_nonzero(line) != 1:
        return "the incoming gradient − the probability × the row's gradients"
    times = f"{-float(line.sum()):.4g}"
    return f"(p − 1) × {times}: this is the label" if label_gradient else f"(p − 0) × {times}: this is not the label"


def softmax_backward_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Both operations are linear in the incoming gradient."""
    only(call, varies, "grad_output")
    axis = call["dim"] % max(weights.ndim, 1)
    values = wide(call["output"])
    if call.op == "_log_softmax_backward_data":
        return VJP({"grad_output": weights - (weights * np.exp(values)).sum(axis, keepdims=True)})
    weighted = weights * values
    return VJP({"grad_output": weighted - values * weighted.sum(axis, keepdims=True)})


def row_dependencies(call: Call, mask: Array, varies: Varies) -> dict[str, Array]:
    """All gradients along the axis; of a log-softmax's result only the same cell."""
    line = as_mask(mask)
    full = np.broadcast_to(line.max(axis=call["dim"] % line.ndim, keepdims=True), line.shape) if line.ndim else line
    same = call.op == "_log_softmax_backward_data"
    return {name: line if same and name == "output" else full.copy() for name in varies}
