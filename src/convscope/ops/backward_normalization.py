"""Normalization on the way back: a number counts itself, in the mean of all and in their variance.

Hence three paths: straight through the division, through the mean and through the variance. Where recorded statistics
are used, batch norm in evaluation, only the straight one is left."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import Axis, leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number

RESULTS = ("input", "weight", "bias")
"""What `output_mask` asks for, in this order."""


def batch_norm_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the input, of the weight or of the bias of a channel.

    In training the statistics are the batch's own, as the forward pass recorded them, and all cells of a channel share
    them; in evaluation they are constants.

    Source: Ioffe and Szegedy 2015, section 3; PyTorch, aten/src/ATen/native/cpu/batch_norm_kernel.cpp.
    """
    wanted = _wanted(call)
    channel = cell[1] if wanted == "input" else cell[0]
    training = bool(call["train"])
    mean = leaf(call["save_mean"] if training else call["running_mean"], (channel,))
    rate: Leaf | Apply
    if training:
        rate = leaf(call["save_invstd"], (channel,))
    else:
        parts = {"var": leaf(call["running_var"], (channel,)), "eps": number(call["eps"], "eps")}
        rate = Apply("inverse_std", {**parts}, note="1 ÷ the standard deviation")
    line = [range(n) if axis != 1 else channel for axis, n in enumerate(call["input"].shape)]
    if wanted != "input":
        return _scale(call, line, mean, rate) if wanted == "weight" else _shift(call, line)
    weight = number(1, "weight") if call["weight"] is None else leaf(call["weight"], (channel,))
    grad = leaf(call["grad_out"], cell)
    if not training:
        return Apply("normalize_backward_fixed", {"grad": grad, "rate": rate, "weight": weight}, note=FIXED)
    return _through(call, cell, line, {"mean": mean, "rate": rate, "weight": weight}, scaled=False)


FIXED = "with recorded statistics, the straight path alone: the gradient × weight ÷ standard deviation"


def _wanted(call: Call) -> str:
    return [name for name, asked in zip(RESULTS, call["output_mask"], strict=True) if asked][call.output]


def _through(call: Call, cell: Cell, line: Sequence[Axis], parts: dict[str, Leaf | Apply], *, scaled: bool) -> Apply:
    """The three paths of a cell whose statistics are taken over `line`.

    Args:
        scaled: Whether the weights differ along the line, so that gradients are multiplied by theirs before all else.
    """
    x: Operand = call["input"]
    grads = _gradients(call, line, scaled=scaled)
    count = len(grads)
    distances = _distances(x, line, parts["mean"], call)
    mean_note = f"through the mean: the mean of the {count:,} gradients"
    slope = f"through the variance: the mean of gradient × distance from the mean, of {count:,} cells"
    through_mean = _added(Dot(grads, divisor=count, note=mean_note, extra=2), call)
    through_variance = _added(Dot(distances, grads, divisor=count, note=slope, extra=2), call)
    grad: Expr = leaf(call["grad_out"], cell)
    if scaled and call["weight"] is not None:
        weight = leaf(call["weight"], _weight_place(call, cell))
        grad = Apply("mul", {"x": grad, "y": weight}, note="the gradient × the weight here")
    given: dict[str, Expr] = {
        "grad": grad,
        "from_mean": through_mean,
        "x": leaf(x, cell),
        "mean": parts["mean"],
        "rate": parts["rate"],
        "from_variance": through_variance,
    }
    if not scaled:
        given["weight"] = parts["weight"]
    name = "normalize_backward_scaled" if scaled else "normalize_backward"
    return Apply(name, {**given}, note="straight, less what comes back through the mean and through the variance")


def _added(total: Dot, call: Call) -> Dot:
    """The sum as the kernel adds it: a term is in at most `depth` additions of its own type.

    Batch norm of contiguous float32 adds each image's plane in the lanes of a vector, at least 4, then the lanes, and
    the images in float64. All others are taken to add one after the other, through all images.

    Source: PyTorch, aten/src/ATen/native/cpu/batch_norm_kernel.cpp, batch_norm_cpu_backward_contiguous_impl.
    """
    plane = int(np.prod(call["input"].shape[2:]))
    if call.dtype != "float32" or call.extra.get("layout") != "contiguous" or plane == 1:
        return total
    counted = int(np.count_nonzero(total.products))
    depth = plane // 4 + 16
    return replace(total, extra=total.extra + min(depth, counted) - counted)


def _gradients(call: Call, line: Sequence[Axis], *, scaled: bool) -> Cells:
    """The gradients along a line, times the weights where these differ along it."""
    grads = outer(call["grad_out"], line)
    if not scaled or call["weight"] is None:
        return grads
    places = [_weight_place(call, tuple(map(int, place))) for place in grads.cells]
    weight: Operand = call["weight"]
    values = grads.values * weight.array[tuple(np.array(places, np.int64).T)].astype(np.float64)

    def derive(index: int) -> Apply:
        parts = {"x": grads.leaf(index), "y": leaf(weight, places[index])}
        return Apply("mul", {**parts}, note="the gradient × the weight there")

    source = Source("grad × weight", "computed", (len(values),), call.dtype)
    errors = call.precision.sum * np.abs(values)
    return Cells(values, source, np.arange(len(values))[:, None], grads.grid, errors=errors, derive=derive)


def _weight_place(call: Call, cell: Cell) -> Cell:
    """Where the weight of a cell is: of layer norm at its last axes, else at its channel."""
    return cell[len(cell) - len(call["normalized_shape"]) :] if "normalized_shape" in call.arguments else (cell[1],)


def _distances(x: Operand, line: Sequence[Axis], mean: Leaf | Apply, call: Call) -> Cells:
    """How far the cells of a line are from their mean."""
    cells = outer(x, line)
    values = cells.values - mean.value()
    source = Source("distance from the mean", "computed", (len(values),), call.dtype)

    def derive(index: int) -> Apply:
        return Apply("sub", {"x": cells.leaf(index), "y": mean}, note="its distance from the mean")

    errors = call.precision.sum * np.abs(values)
    return Cells(values, source, np.arange(len(values))[:, None], cells.grid, errors=errors, derive=derive)


def _scale(call: Call, line: Sequence[Axis], mean: Leaf, rate: Leaf | Apply) -> Apply:
    """The weight multiplied the normalized cells, so its gradient is the sum of these times the gradients."""
    grads = outer(call["grad_out"], line)
    note = f"the sum over {len(grads):,} cells of gradient × distance from the mean"
    total = _added(Dot(_distances(call["input"], line, mean, call), grads, note=note, extra=1), call)
    return Apply("mul", {"x": total, "y": rate}, note="what the weight multiplied × the gradients")


def _shift(call: Call, line: Sequence[Axis]) -> Dot:
    grads = outer(call["grad_out"], line)
    return _added(Dot(grads, note=f"the sum of the {len(grads):,} gradients of this channel", extra=1), call)
