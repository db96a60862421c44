"""Partition: how a large result is recomputed some cells at a time, so that its float64 arrays never exist as a whole.

A part is the same operation on slices of its arguments: cells that read nothing of each other may be computed apart.
Uses convolution's sizes and NumPy.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from convscope.reference import backward_partition, normalization_parts
from convscope.reference.attention import row_totals
from convscope.reference.backward_partition import alike
from convscope.reference.convolution import borders_of, per_axis
from convscope.reference.operation import Arguments
from convscope.reference.parts import ALL, CELLS, Box, Cut, Part, Shape, boxes, first_of
from convscope.typing import Array


def parts_of(
    op: str, arguments: Arguments, shape: Shape, cells: int = CELLS, *, normwise: bool = False
) -> Iterator[Part]:
    """The parts of an operation's result; the whole where it is small, or is not known to fall into parts.

    Args:
        normwise: For bounds of kernels that mix whole planes: nothing is cut but the batch.
    """
    cut = CUTS.get(op)
    if cut is None:
        yield Part((ALL,) * len(shape), arguments)
    elif normwise:
        yield from _along(lambda *_: (0,), arguments, shape, cells)
    else:
        yield from cut(arguments, shape, cells)


def _aligned(array: object, box: Box, shape: Shape) -> object:
    """What a broadcast array gives to a box of the result."""
    if not isinstance(array, np.ndarray) or not array.ndim:
        return array
    inside = box[len(shape) - array.ndim :]
    return array[tuple(ALL if n == 1 else part for n, part in zip(array.shape, inside, strict=True))]


def _pointwise(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each cell reads the cells at its place."""
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    if not arrays or np.broadcast_shapes(*(array.shape for array in arrays)) != shape:
        yield Part((ALL,) * len(shape), arguments)
        return
    for box in boxes(shape, range(len(shape)), cells):
        yield Part(box, {name: _aligned(value, box, shape) for name, value in arguments.items()})


def _along(
    axes: Callable[[Arguments, Shape], Sequence[int]], arguments: Arguments, shape: Shape, cells: int
) -> Iterator[Part]:
    """Cells that differ in these axes read nothing of each other; the input has them as the result does."""
    name, x = first_of(arguments)
    cut = [axis for axis in axes(arguments, shape) if axis < x.ndim and x.shape[axis] == shape[axis]]
    for box in boxes(shape, cut, _fewer(cells, shape, x)):
        inside = tuple(box[axis] if axis in cut else ALL for axis in range(x.ndim))
        yield Part(box, {**arguments, name: x[inside]})


def _except_dim(arguments: Arguments, shape: Shape) -> list[int]:
    dim = int(arguments.get("dim", -1)) % max(1, len(shape))
    return [axis for axis in range(len(shape)) if axis != dim]


def _shared_out(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """softmax: the axes that it does not go along; cells of a long row with its totals."""
    name, x = first_of(arguments)
    dim = int(arguments.get("dim", -1)) % max(1, len(shape))
    if not shape or shape[dim] <= cells:
        yield from _along(_except_dim, arguments, shape, cells)
        return
    for box in boxes(shape, _except_dim(arguments, shape), shape[dim]):
        cuts = (slice(start, start + cells) for start in range(0, shape[dim], cells))
        pieces = [(*box[:dim], cut, *box[dim + 1 :]) for cut in cuts]
        row = row_totals([x[piece] for piece in pieces])
        for piece in pieces:
            yield Part(piece, {**arguments, name: x[piece], "row": row})


def _planes(rank: int) -> Cut:
    """Operations with `rank` spatial axes, on each channel by itself."""
    return partial(_along, lambda _, shape: range(len(shape) - rank))


def _padded(arguments: Arguments, shape: Shape) -> range:
    return range(len(shape) - len(arguments["pad"]) // 2)


def _reduced(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """A reduction: the axes that it does not go along."""
    name, x = first_of(arguments)
    dim = arguments.get("dim")
    axes = dim if isinstance(dim, list | tuple) else () if dim is None else (dim,)
    along = {axis % max(1, x.ndim) for axis in axes}
    kept_axes = [axis for axis in range(x.ndim) if axis not in along] if along else []
    places = kept_axes if len(shape) == x.ndim else range(len(kept_axes))
    for box in boxes(shape, places, _fewer(cells, shape, x)):
        inside = [ALL] * x.ndim
        for axis, place in zip(kept_axes, places, strict=True):
            inside[axis] = box[place]
        yield Part(box, {**arguments, name: x[tuple(inside)]})


def _norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """A norm, whose error depends on the largest of all logarithms unless its order is 1 or 2."""
    if arguments.get("ord", 2) in {1, 2}:
        yield from _reduced(arguments, shape, cells)
    else:
        yield Part((ALL,) * len(shape), arguments)


def _ranked(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """sort and topk: all axes but the one that is sorted, of which topk keeps a few cells."""
    yield from _along(_except_dim, arguments, shape, cells)


def _extreme(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """max and min of two tensors, or along an axis."""
    yield from (_pointwise if "other" in arguments else _reduced)(arguments, shape, cells)


def _scattered(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """All axes but the one along which the index points; index and source may be shorter than the result."""
    name, _ = first_of(arguments)
    for box in boxes(shape, _except_dim(arguments, shape), cells):
        yield Part(box, {**arguments, **{n: arguments[n][box] for n in (name, "index", "src") if _cut(arguments, n)}})


def _cut(arguments: Arguments, name: str) -> bool:
    return isinstance(arguments.get(name), np.ndarray) and arguments[name].ndim > 0


def _put(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """index_put: the cells of a box with the entries of the index that point into it, in their order."""
    name, x = first_of(arguments)
    indices = [i if i is None or i.dtype != bool else i.nonzero() for i in arguments["indices"]]
    indices = [part for i in indices for part in (i if isinstance(i, tuple) else (i,))]  # a mask has several axes
    used = [axis for axis, i in enumerate(indices) if i is not None]
    if not used or used != list(range(used[0], used[-1] + 1)) or math.prod(shape) <= cells:
        yield Part((ALL,) * len(shape), arguments)
        return
    first, end = used[0], used[-1] + 1
    spots = np.broadcast_arrays(*(indices[axis] % shape[axis] for axis in used))
    values = np.broadcast_to(arguments["values"], (*shape[:first], *spots[0].shape, *shape[end:]))
    for box in boxes(shape, range(len(shape)), cells):
        starts = [box[axis].indices(shape[axis])[:2] for axis in used]
        inside = np.logical_and.reduce([(i >= low) & (i < high) for i, (low, high) in zip(spots, starts, strict=True)])
        box_indices = [i[inside] - low for i, (low, _) in zip(spots, starts, strict=True)]
        parts = {
            name: x[box],
            "indices": (*[None] * first, *box_indices),
            "values": values[(*box[:first], inside, *box[end:])],
        }
        yield Part(box, {**arguments, **parts})


def _convolution_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """The gradient of the input: each image by itself, and rows with the rows of the result that meet them.

    Those of kernels and bias are sums over everything, which the operation adds up some rows at a time.
    """
    x, grad, weight = (arguments[name] for name in ("input", "grad_output", "weight"))
    asked = list(arguments["output_mask"])
    if any(asked[1:]):
        rest = tuple(range(int(asked[0]), sum(asked)))
        yield Part((ALL,) * len(shape), {**arguments, "output_mask": [False, *asked[1:]]}, outputs=rest)
    if not asked[0]:
        return
    rank = weight.ndim - 2
    stride, padding, dilation = (per_axis(arguments[name], rank) for name in ("stride", "padding", "dilation"))
    s, before, span = stride[0], padding[0], dilation[0] * (weight.shape[2] - 1)
    for box in boxes(x.shape, (0, 2), cells):
        first, end, _ = box[2].indices(x.shape[2])
        if arguments["transposed"]:  # input row i reads the rows i·s - before to i·s - before + span
            start = first * s - before
            low, high = (min(max(0, at), grad.shape[2]) for at in (start, start + (end - 1 - first) * s + span + 1))
            pad = max(0, low - start)
        else:  # result row p reads the rows p·s - before to p·s - before + span
            low = max(0, min(-(-(first + before - span) // s), (first + before) // s, grad.shape[2] - 1))
            high = max(low + 1, min(grad.shape[2], (end - 1 + before) // s + 1))
            pad = first + before - low * s
        given = {"input": x[box], "grad_output": grad[box[0], :, low:high], "padding": [pad, *padding[1:]]}
        yield Part(box, {**arguments, **given, "output_mask": [True, False, False]}, outputs=(0,))


def _fewer(cells: int, shape: Shape, x: Array) -> int:
    """How many cells of a result are calculated from this number of cells of its input."""
    return max(1, min(cells, cells * math.prod(shape) // max(1, x.size)))


def _product(left: str, right: str, arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each row of the left matrix by itself, and each matrix of a batch."""
    x, y = arguments[left], arguments[right]
    added = {n: v for n, v in arguments.items() if isinstance(v, np.ndarray) and n not in {left, right}}
    if x.ndim != len(shape) or y.ndim < 2 or len(shape) < 2:
        yield Part((ALL,) * len(shape), arguments)
        return
    for box in boxes(shape, range(len(shape) - 1), _fewer(cells, shape, x)):
        rows = tuple(ALL if n == 1 else part for n, part in zip(x.shape[:-1], box, strict=False))
        batch = box[len(shape) - y.ndim : -2]
        parts = {
            left: x[rows],
            right: y[tuple(ALL if n == 1 else part for n, part in zip(y.shape[:-2], batch, strict=True))],
            **{n: _aligned(array, box, shape) for n, array in added.items()},
        }
        yield Part(box, {**arguments, **parts})


def _linear(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    name, x = first_of(arguments)
    for box in boxes(shape, range(len(shape) - 1), _fewer(cells, shape, x)):
        yield Part(box, {**arguments, name: x[box[:-1]]})


def _attention(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each head of each image by itself, where query, key and value have as many; rows where all keys are seen."""
    query, key, value, mask = (arguments.get(name) for name in ("query", "key", "value", "attn_mask"))
    lead = len(shape) - 2
    same = [axis for axis in range(lead) if query.shape[axis] == key.shape[axis] == value.shape[axis]]  # type: ignore[union-attr]
    rows = [] if arguments.get("is_causal") else [lead]
    for box in boxes(shape, [*same, *rows], cells):
        parts = {"query": query[box[:-1]], "key": key[box[:lead]], "value": value[box[:lead]]}  # type: ignore[index]
        if mask is not None:
            parts["attn_mask"] = _aligned(mask, (*box[:-1], ALL), shape)
        yield Part(box, {**arguments, **parts}, box[:-1])


def _joined(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """cat: the axes that it does not join along."""
    name, tensors = first_of(arguments)
    cut = _except_dim({"dim": arguments.get("dim", 0)}, shape)
    if any(tensor.ndim != len(shape) for tensor in tensors):
        cut = []
    for box in boxes(shape, cut, cells):
        yield Part(box, {**arguments, name: tuple(tensor[box] for tensor in tensors) if cut else tensors})


def _folded(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """col2im: each image and each channel by itself, which are as many rows of blocks as a kernel has cells."""
    name, x = first_of(arguments)
    rows = x.shape[-2] // shape[-3]
    for box in boxes(shape, range(len(shape) - 2), _fewer(cells, shape, x)):
        first, end, _ = box[-3].indices(shape[-3])
        yield Part(box, {**arguments, name: x[(*box[:-3], slice(first * rows, end * rows))]})


def _convolution(arguments: Arguments, shape: Shape, cells: int, transposed: bool = False) -> Iterator[Part]:
    """Each image by itself, and each row of the result with the rows of the input that it reads."""
    name, x = first_of(arguments)
    weight = arguments["weight"]
    rank = weight.ndim - 2
    if x.ndim != rank + 2:  # without batch axis: no kernel is called so
        yield Part((ALL,) * len(shape), arguments)
        return
    transposed = transposed or bool(arguments.get("transposed"))
    stride, dilation, extra = (
        per_axis(arguments.get(n) or default, rank)
        for n, default in (("stride", 1), ("dilation", 1), ("output_padding", 0))
    )
    borders = borders_of(arguments.get("padding", 0), weight.shape[2:], dilation)
    s, span, (before, _) = stride[0], dilation[0] * (weight.shape[2] - 1), borders[0]
    for box in boxes(shape, (0, 2), cells):
        first, end, _ = box[2].indices(shape[2])
        parts: dict[str, object] = {}
        if transposed:  # input row i is added to rows i·s - before to i·s + span - before
            low = max(0, min(-(-(first + before - span) // s), (first + before) // s))
            high = max(low + 1, min(x.shape[2], (end - 1 + before) // s + 1))
            if low >= x.shape[2]:  # rows that output padding alone makes
                low, high = x.shape[2] - 1, x.shape[2]
            skipped = first + before - low * s
            missing_rows = (high - low - 1) * s + span + 1 - skipped - (end - first)
            pads = (skipped, max(0, missing_rows))
            parts["output_padding"] = [max(0, -missing_rows), *extra[1:]]
        else:
            low, high = (
                min(max(0, row), x.shape[2]) for row in (first * s - before, (end - 1) * s + span + 1 - before)
            )
            pads = (low - (first * s - before), (end - 1) * s + span + 1 - before - high)
            if high == low:
                pads = (0, span + 1 + (end - 1 - first) * s)
        parts["padding"] = [pads, *borders[1:]]
        yield Part(box, {**arguments, name: x[box[0], :, low:high], **parts})


_POINTWISE = (
    "maximum", "minimum", "where", "masked_fill", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "isnan", "isinf",
    "isfinite", "relu", "relu6", "leaky_relu", "_prelu_kernel", "elu", "celu", "hardtanh", "hardsigmoid", "hardswish",
    "sigmoid", "silu", "mish", "softplus", "gelu", "hardshrink", "softshrink", "threshold", "native_dropout", "dropout",
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "pow", "sin",
    "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "erf", "erfc", "neg", "abs", "sign", "sgn",
    "floor", "ceil", "trunc", "frac", "round", "clamp", "clamp_min", "clamp_max", "add", "sub", "rsub", "mul", "div",
    "floor_divide", "remainder", "fmod", "addcmul", "addcdiv", "lerp", "clone", "detach", "alias", "contiguous", "lift",
    "lift_fresh", "_to_copy", "acosh", "asinh", "atanh", "copysign", "deg2rad", "rad2deg", "fmax", "fmin", "heaviside",
    "hypot", "isneginf", "isposinf", "ldexp", "logaddexp", "logaddexp2", "logit", "nan_to_num", "sinc", "signbit",
    "xlogy", *backward_partition.POINTWISE,
)  # fmt: skip
_REDUCTIONS = (
    "sum", "mean", "prod", "amax", "amin", "argmax", "argmin", "var", "std", "logsumexp",
    "nansum", "var_mean", "std_mean", "count_nonzero", "any", "all",
)  # fmt: skip
_NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")

CUTS: Mapping[str, Cut] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(("convolution", "_convolution", "conv1d", "conv2d", "conv3d"), _convolution),
    **{f"conv_transpose{rank}d": partial(_convolution, transposed=True) for rank in (1, 2, 3)},
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "batch_norm"),
        normalization_parts.batch_norm,
    ),
    **dict.fromkeys(("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm"), normalization_parts.layer_norm),
    "native_batch_norm_backward": normalization_parts.batch_norm_backward,
    "native_group_norm_backward": normalization_parts.group_norm_backward,
    "native_layer_norm_backward": normalization_parts.layer_norm_backward,
    **dict.fromkeys(("native_group_norm", "group_norm"), normalization_parts.group_norm),
    **dict.fromkeys(("_softmax", "softmax", "_log_softmax", "log_softmax"), _shared_out),
    **dict.fromkeys(
        ("_safe_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "glu"),
        partial(_along, _except_dim),
    ),
    **{f"{name}{rank}d": _planes(rank) for name in _POOLS for rank in (1, 2, 3)},
    **{f"_adaptive_avg_pool{rank}d": _planes(rank) for rank in (2, 3)},
    **{f"max_pool{rank}d_with_indices": _planes(rank) for rank in (1, 2, 3)},
    **{f"{name}{rank}d": _planes(rank) for name in _NEAREST for rank in (1, 2, 3)},
    **{f"{name}_pad{rank}d": _planes(rank) for name in ("reflection", "replication") for rank in (1, 2, 3)},
    **{f"_upsample_{name}2d_aa": _planes(2) for name in ("bilinear", "bicubic", "lanczos")},
    "upsample_linear1d": _planes(1),
    "upsample_bilinear2d": _planes(2),
    "upsample_bicubic2d": _planes(2),
    "upsample_trilinear3d": _planes(3),
    "constant_pad_nd": partial(_along, _padded),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    "linalg_vector_norm": _norm,
    **dict.fromkeys(("sort", "topk"), _ranked),
    **dict.fromkeys(("max", "min"), _extreme),
    **dict.fromkeys(("median", "nanmedian", "kthvalue", "mode"), _reduced),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), _scattered),
    "index_put": _put,
    "convolution_backward": _convolution_backward,
    "linear": _linear,
    "mm": partial(_product, "self", "mat2"),
    "bmm": partial(_product, "self", "mat2"),
    "matmul": partial(_product, "self", "other"),
    "addmm": partial(_product, "mat1", "mat2"),
    "baddbmm": partial(_product, "batch1", "batch2"),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "scaled_dot_product_attention": _attention,
    "cat": _joined,
    "grid_sampler_2d": alike(lambda *_: (0,), "input", "grid"),
    "grid_sampler_3d": alike(lambda *_: (0,), "input", "grid"),
    "col2im": _folded,
    **backward_partition.BACKWARD_CUTS,
}  # fmt: skip
"""ATen name -> how its result falls into parts."""
