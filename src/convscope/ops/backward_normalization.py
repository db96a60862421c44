"""Normalization backward: an input affects its own result, the mean and the variance.

Hence three paths: direct, through the mean and through the variance. With fixed statistics (batch norm in evaluation),
only the direct one remains."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import Axis, leaf, outer
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf, number
from convscope.expr.precision import gamma
from convscope.typing import Array

RESULTS = ("input", "weight", "bias")
"""The gradients that `output_mask` selects, in this order."""


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def batch_norm_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the input, of the weight or of the bias of a channel.

    In training the statistics are the batch's own, as the forward pass recorded them, and all cells of a channel share
    them; in evaluation they are constants.

    Source: Ioffe and Szegedy 2015, section 3; PyTorch, aten/src/ATen/native/cpu/batch_norm_kernel.cpp.
    """
    requested = _requested_result(call)
    channel = cell[1] if requested == "input" else cell[0]
    training = bool(call["train"])
    mean = leaf(call["save_mean"] if training else call["running_mean"], (channel,))
    rate: Leaf | Apply
    if training:
        rate = leaf(call["save_invstd"], (channel,))
    else:
        parts = {"var": leaf(call["running_var"], (channel,)), "eps": number(call["eps"], "eps")}
        rate = Apply("inverse_std", {**parts}, note="1 ÷ the standard deviation")
    line = [range(n) if axis != 1 else channel for axis, n in enumerate(call["input"].shape)]
    if requested != "input":
        return _scale(call, line, mean, rate) if requested == "weight" else _shift(call, line)
    weight = number(1, "weight") if call["weight"] is None else leaf(call["weight"], (channel,))
    grad = leaf(call["grad_out"], cell)
    if not training:
        return Apply("normalize_backward_fixed", {"grad": grad, "rate": rate, "weight": weight}, note=FIXED)
    return _through(call, cell, line, {"mean": mean, "rate": rate, "weight": weight}, scaled=False)


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def layer_norm_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the input, or of the weight or bias of a place, of a layer norm over the last axes.

    Source: Ba, Kiros and Hinton 2016; PyTorch, aten/src/ATen/native/cpu/layer_norm_kernel.cpp.
    """
    requested, shape = _requested_result(call), call["input"].shape
    lead = len(shape) - len(call["normalized_shape"])
    if requested != "input":
        line: list[Axis] = [*map(range, shape[:lead]), *cell]
        statistics = outer(call["mean"], [*map(range, shape[:lead]), *[0] * len(cell)])
        return _affine(call, line, requested, np.arange(len(statistics)), statistics.cells)
    row_index = (*cell[:lead], *[0] * (len(shape) - lead))
    parts: dict[str, Leaf | Apply] = {"mean": leaf(call["mean"], row_index), "rate": leaf(call["rstd"], row_index)}
    return _through(call, cell, [*cell[:lead], *map(range, shape[lead:])], parts, scaled=True)


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
def group_norm_backward(call: Call, cell: Cell) -> Expr:
    """The gradient of the input, or of the weight or bias of a channel, of a normalization by groups of channels.

    Source: Wu and He 2018; PyTorch, aten/src/ATen/native/cpu/group_norm_kernel.cpp.
    """
    requested, shape = _requested_result(call), call["input"].shape
    size = shape[1] // call["group"]
    spatial = [range(n) for n in shape[2:]]
    channel = cell[1] if requested == "input" else cell[0]
    group = channel // size
    if requested != "input":
        plane = int(np.prod(shape[2:]))
        images = np.repeat(np.arange(shape[0]), plane)
        statistics = np.array([[image, group] for image in range(shape[0])], np.int64)
        return _affine(call, [range(shape[0]), channel, *spatial], requested, images, statistics)
    group_index = (cell[0], group)
    parts: dict[str, Leaf | Apply] = {"mean": leaf(call["mean"], group_index), "rate": leaf(call["rstd"], group_index)}
    return _through(call, cell, [cell[0], range(group * size, (group + 1) * size), *spatial], parts, scaled=True)


FIXED = "with fixed statistics, only the direct path: the gradient × weight ÷ standard deviation"


def _requested_result(call: Call) -> str:
    return [name for name, is_requested in zip(RESULTS, call["output_mask"], strict=True) if is_requested][call.output]


def _through(call: Call, cell: Cell, line: Sequence[Axis], parts: dict[str, Leaf | Apply], *, scaled: bool) -> Apply:
    """The three paths of a cell whose statistics are taken over `line`.

    Args:
        scaled: Whether the weights differ along the line, so that gradients are multiplied by theirs before all else.
    """
    x: Operand = call["input"]
    grads = _gradients(call, line, scaled=scaled)
    count = len(grads)
    distances = _distances(x, line, parts["mean"], call, separate=scaled)
    mean_note = f"through the mean of {count:,} cells"
    slope = f"through the variance of {count:,} cells"
    through_mean = _added(Dot(grads, divisor=count, note=mean_note, extra=2), call)
    through_variance = _added(Dot(distances, grads, divisor=count, note=slope, extra=2), call)
    grad: Expr = leaf(call["grad_out"], cell)
    if scaled and call["weight"] is not None:
        weight = leaf(call["weight"], cell[_weight_axes(call)])
        grad = Apply("mul", {"x": grad, "y": weight}, note="the gradient × the weight here")
    operands: dict[str, Expr] = {
        "grad": grad,
        "from_mean": through_mean,
        "x": leaf(x, cell),
        "mean": parts["mean"],
        "rate": parts["rate"],
        "from_variance": through_variance,
    }
    if not scaled:
        operands["weight"] = parts["weight"]
    name = "normalize_backward_scaled" if scaled else "normalize_backward"
    return Apply(name, {**operands}, note="three paths")


def _added(total: Dot, call: Call) -> Dot:
    """The sum as the kernel adds it: a term is in at most `_depth` additions of its own type."""
    counted = int(np.count_nonzero(total.products))
    return replace(total, extra=total.extra + min(_depth(call, len(total.left)), counted) - counted)


def _depth(call: Call, terms: int) -> int:
    """In how many additions a term of a sum over the cells that are normalized together is at most.

    Batch norm of contiguous float32 adds each image's plane in the lanes of a vector, at least 4, then the lanes, and
    the images in float64. Layer norm adds a row so, group norm of contiguous memory each channel and then the channels.
    All others are taken to add one after the other, through all images.

    Source: PyTorch, aten/src/ATen/native/cpu/batch_norm_kernel.cpp, batch_norm_cpu_backward_contiguous_impl;
    layer_norm_kernel.cpp, layer_norm_backward_frame; group_norm_kernel.cpp, ComputeInternalGradients.
    """
    contiguous = call.extra.get("layout") == "contiguous"
    if call.op == "native_batch_norm_backward":
        plane = int(np.prod(call["input"].shape[2:]))
        return plane // 4 + 16 if call.dtype == "float32" and contiguous and plane > 1 else terms
    in_lanes = contiguous or call.op == "native_layer_norm_backward"
    return terms // 4 + 32 if in_lanes and call.dtype != "float64" else terms


def _gradients(call: Call, line: Sequence[Axis], *, scaled: bool) -> Cells:
    """The gradients along a line, times the weights where these differ along it."""
    grads = outer(call["grad_out"], line)
    if not scaled or call["weight"] is None:
        return grads
    places = grads.cells[:, _weight_axes(call)]
    weight: Operand = call["weight"]
    values = grads.values * weight.array[tuple(places.T)].astype(np.float64)

    def derive(index: int) -> Apply:
        parts = {"x": grads.leaf(index), "y": leaf(weight, tuple(places[index].tolist()))}
        return Apply("mul", {**parts}, note="the gradient × the weight there")

    source = Source("grad × weight", "computed", grads.source.shape, call.dtype)
    errors = call.precision.sum * np.abs(values) + call.precision.tiny * (values != 0)
    return Cells(values, source, grads.cells, grads.grid, errors=errors, derive=derive)


def _weight_axes(call: Call) -> slice:
    """The axes of a cell that are the index of its weight: the last for layer norm, otherwise the channel."""
    return slice(-len(call["normalized_shape"]), None) if "normalized_shape" in call.arguments else slice(1, 2)


def _distances(x: Operand, line: Sequence[Axis], mean: Leaf | Apply, call: Call, *, separate: bool = False) -> Cells:
    """The distances of the cells of a line from their mean.

    Args:
        separate: Whether the kernel sums gradient × cell and gradient × mean separately, and subtracts the sums.
    """
    cells = outer(x, line)
    values = cells.values - mean.value()
    source = Source("distance from the mean", "computed", x.shape, call.dtype)

    def derive(index: int) -> Apply:
        return Apply("sub", {"x": cells.leaf(index), "y": mean}, note="its distance from the mean")

    if separate:
        errors = gamma(min(len(cells), _depth(call, len(cells))) + 4, call.precision.sum) * (
            np.abs(cells.values) + abs(mean.value())
        )
    else:
        errors = call.precision.sum * np.abs(values)
    return Cells(values, source, cells.cells, cells.grid, errors=errors, derive=derive)


def _scale(call: Call, line: Sequence[Axis], mean: Leaf, rate: Leaf | Apply) -> Apply:
    """The gradient of the weight: the sum of the normalized cells times their gradients."""
    grads = outer(call["grad_out"], line)
    note = f"the sum over {len(grads):,} cells of gradient × distance from the mean"
    total = _added(Dot(_distances(call["input"], line, mean, call), grads, note=note, extra=1), call)
    return Apply("mul", {"x": total, "y": rate}, note="the normalized input × the gradients")


def _shift(call: Call, line: Sequence[Axis]) -> Dot:
    grads = outer(call["grad_out"], line)
    return _added(Dot(grads, note=f"the sum of the {len(grads):,} gradients of this channel", extra=1), call)


def _affine(call: Call, line: Sequence[Axis], requested: str, row_of_cell: Array, statistics: Array) -> Dot:
    """The gradient of a weight or bias whose cells were normalized by several means.

    Args:
        line: The cells that the weight multiplied.
        requested: "weight" or "bias".
        row_of_cell: For each of these cells a row of `statistics`.
        statistics: Cells of the recorded means and rates.
    """
    grads = outer(call["grad_out"], line)
    depth = _shared_depth(call, len(grads))
    if requested == "bias":
        counted = int(np.count_nonzero(grads.values))
        note = f"the sum of the {len(grads):,} gradients here"
        return Dot(grads, note=note, narrow=1, extra=min(depth, counted) - counted + 1)
    cells = outer(call["input"], line)
    places = [tuple(map(int, position)) for position in statistics]
    statistic_index = tuple(statistics.T)
    mean, rate = (call[name].array[statistic_index].astype(np.float64)[row_of_cell] for name in ("mean", "rstd"))
    values = (cells.values - mean) * rate
    source = Source("normalized", "computed", call["input"].shape, call.dtype)

    def derive(index: int) -> Apply:
        statistic = places[int(row_of_cell[index])]
        parts = {"x": cells.leaf(index), "mean": leaf(call["mean"], statistic), "rate": leaf(call["rstd"], statistic)}
        return Apply("normalized_by", {**parts}, note="the number that the weight multiplied")

    errors = gamma(depth + 6, call.precision.sum) * (np.abs(cells.values) + np.abs(mean)) * np.abs(rate)
    normalized = Cells(values, source, cells.cells, cells.grid, errors=errors, derive=derive)
    note = f"the {len(grads):,} numbers that this weight multiplied × their gradients"
    total = Dot(normalized, grads, note=note, narrow=1)
    counted = int(np.count_nonzero(total.products))
    return replace(total, extra=min(depth, counted) - counted)


def _shared_depth(call: Call, terms: int) -> int:
    """In how many additions a term of the gradient of a weight or bias is at most.

    Group norm of contiguous memory adds each channel in the lanes of a vector, then the images. Layer norm adds one row
    after the other.
    """
    plane = int(np.prod(call["input"].shape[2:]))
    contiguous = call.op == "native_group_norm_backward" and call.extra.get("layout") == "contiguous"
    return min(terms, plane // 4 + terms // plane + 24) if contiguous and call.dtype != "float64" else terms
