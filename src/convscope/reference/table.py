"""The table: every operation that convscope can recompute, by its ATen name, with its definition and its error.

Knows every file of this room. A name has no `aten::`, no overload, no in-place `_`, no `_out`; `lookup` removes them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from convscope.reference import activations as act
from convscope.reference import (
    attention,
    backward_attention,
    backward_convolution,
    backward_normalization,
    convolution,
    indexing,
    losses,
    matmul,
    movement,
    normalization,
    resampling,
    selection,
    softmax,
    updates,
)
from convscope.reference import backward_activations as act_back
from convscope.reference import backward_loss as loss_back
from convscope.reference import backward_pooling as pool_back
from convscope.reference import backward_resampling as up_back
from convscope.reference import padding as pads
from convscope.reference import pointwise as point
from convscope.reference import pooling as pool
from convscope.reference import reductions as red
from convscope.reference.erf import erf, erfc
from convscope.reference.operation import Operation, exact, first, ulps, wide
from convscope.reference.roundoff import FUNCTION


def _move(function: object) -> Operation:
    return Operation(function, exact)  # type: ignore[arg-type]  # every entry below is a function


def _carry(function: object) -> Operation:
    return Operation(function, exact, moves=True)  # type: ignore[arg-type]  # every entry below is a function


def _smooth(function: np.ufunc) -> Operation:
    return Operation(point.unary(lambda x: function(point.floating(x))), wide(ulps(FUNCTION)))


def _update(function: Callable[..., Any]) -> Operation:
    return Operation(updates.values_of(function), updates.errors_of(function))


_CONVOLUTION = Operation(
    convolution.convolution, convolution.convolution_error, normwise=convolution.convolution_normwise
)
_TRANSPOSED = Operation(
    partial(convolution.convolution, transposed=True), partial(convolution.convolution_error, transposed=True)
)
_BATCH_NORM = Operation(normalization.batch_norm, normalization.batch_norm_error)
_PRODUCT = Operation(matmul.product, wide(matmul.product_error))
_ADDED_PRODUCT = Operation(matmul.addmm, matmul.addmm_error)
_NLL = Operation(losses.nll_loss, losses.nll_loss_error)
_MAX_POOL = _move(pool.max_pool)
_AVG_POOL = Operation(pool.avg_pool, wide(pool.avg_pool_error))
_MAX_UNPOOL = _move(pool.max_unpool)
_ADAPTIVE_MAX = _move(pool.adaptive_max_pool)
_ADAPTIVE_AVG = Operation(pool.adaptive_avg_pool, wide(pool.adaptive_avg_pool_error))
_ADAPTIVE_AVG_3D = Operation(pool.adaptive_avg_pool, pool.adaptive_avg_pool_error)
_CLAMP = Operation(point.clamp, point.clamp_error)
_LINEAR_UP = Operation(resampling.linear, resampling.linear_error)
_NEAREST = _move(resampling.nearest)
_NEAREST_EXACT = _move(partial(resampling.nearest, shift=0.5))
_REFLECT, _REPLICATE = (_carry(pads.bordered(place)) for place in (pads.reflected, pads.repeated))
_MAX_BACK = Operation(pool_back.max_pool_backward, pool_back.max_pool_backward_error)
_ADAPTIVE_MAX_BACK = Operation(pool_back.adaptive_max_pool_backward, pool_back.adaptive_max_pool_backward_error)
_AVG_BACK = Operation(pool_back.avg_pool_backward, pool_back.avg_pool_backward_error)
_ADAPTIVE_AVG_BACK = Operation(pool_back.adaptive_avg_pool_backward, pool_back.adaptive_avg_pool_backward_error)
_NLL_BACK = Operation(loss_back.nll_backward, ulps(4))
_NEAREST_BACK, _NEAREST_EXACT_BACK = up_back.nearest_backward(), up_back.nearest_backward(0.5)
_REFLECT_BACK, _REPLICATE_BACK = (up_back.bordered_backward(place) for place in (pads.reflected, pads.repeated))
_ZEROS, _ONES = indexing.of_value(0.0), indexing.of_value(1.0)
_SAME, _VIEW = _carry(movement.same), _carry(movement.view)

OPERATIONS: Mapping[str, Operation] = {
    # convolution
    "convolution": _CONVOLUTION,
    "_convolution": _CONVOLUTION,
    "conv1d": _CONVOLUTION,
    "conv2d": _CONVOLUTION,
    "conv3d": _CONVOLUTION,
    "conv_transpose1d": _TRANSPOSED,
    "conv_transpose2d": _TRANSPOSED,
    "conv_transpose3d": _TRANSPOSED,
    # matrix products
    "linear": Operation(matmul.linear, wide(matmul.linear_error)),
    "mm": _PRODUCT,
    "bmm": _PRODUCT,
    "mv": _PRODUCT,
    "dot": _PRODUCT,
    "matmul": _PRODUCT,
    "addmm": _ADDED_PRODUCT,
    "addmv": _ADDED_PRODUCT,
    "baddbmm": _ADDED_PRODUCT,
    # attention
    "_scaled_dot_product_flash_attention_for_cpu": Operation(
        attention.flash_attention, attention.flash_attention_error
    ),
    "scaled_dot_product_attention": Operation(attention.attention, attention.attention_error),
    # normalization
    "native_batch_norm": _BATCH_NORM,
    "_native_batch_norm_legit": _BATCH_NORM,
    "_native_batch_norm_legit_no_training": _BATCH_NORM,
    "batch_norm": Operation(first(normalization.batch_norm), first(normalization.batch_norm_error)),
    "native_layer_norm": Operation(normalization.layer_norm, wide(normalization.layer_norm_error)),
    "layer_norm": Operation(first(normalization.layer_norm), first(wide(normalization.layer_norm_error))),
    "native_group_norm": Operation(normalization.group_norm, wide(normalization.group_norm_error)),
    "group_norm": Operation(first(normalization.group_norm), first(wide(normalization.group_norm_error))),
    "_fused_rms_norm": Operation(normalization.rms_norm, wide(normalization.rms_norm_error)),
    "rms_norm": Operation(first(normalization.rms_norm), first(wide(normalization.rms_norm_error))),
    "linalg_vector_norm": Operation(red.vector_norm, wide(red.vector_norm_error)),
    # pooling
    "max_pool1d": Operation(first(pool.max_pool), exact),
    "max_pool2d": Operation(first(pool.max_pool), exact),
    "max_pool3d": Operation(first(pool.max_pool), exact),
    "max_pool1d_with_indices": _MAX_POOL,
    "max_pool2d_with_indices": _MAX_POOL,
    "max_pool3d_with_indices": _MAX_POOL,
    "avg_pool1d": _AVG_POOL,
    "avg_pool2d": _AVG_POOL,
    "avg_pool3d": _AVG_POOL,
    "adaptive_max_pool1d": _ADAPTIVE_MAX,
    "adaptive_max_pool2d": _ADAPTIVE_MAX,
    "adaptive_max_pool3d": _ADAPTIVE_MAX,
    "max_unpool2d": _MAX_UNPOOL,
    "max_unpool3d": _MAX_UNPOOL,
    "adaptive_avg_pool1d": _ADAPTIVE_AVG,
    "adaptive_avg_pool2d": _ADAPTIVE_AVG,
    "adaptive_avg_pool3d": _ADAPTIVE_AVG_3D,
    "_adaptive_avg_pool2d": _ADAPTIVE_AVG,
    "_adaptive_avg_pool3d": _ADAPTIVE_AVG_3D,
    # reductions
    "sum": Operation(red.total, wide(red.total_error)),
    "mean": Operation(red.mean, wide(red.mean_error)),
    "prod": Operation(red.product_of, red.product_of_error),
    "cumsum": Operation(red.running_sum, wide(red.running_sum_error)),
    "var": Operation(red.var, red.var_error),
    "var_mean": Operation(red.var_mean, red.var_mean_error),
    "std": Operation(red.std, red.std_error),
    "std_mean": Operation(red.std_mean, red.std_mean_error),
    "logsumexp": Operation(softmax.log_sum_exp, softmax.log_sum_exp_error),
    "_softmax": Operation(softmax.softmax, softmax.softmax_error),
    "softmax": Operation(softmax.softmax, softmax.softmax_error),
    "_safe_softmax": Operation(softmax.safe_softmax, wide(softmax.safe_softmax_error)),
    "_log_softmax": Operation(softmax.log_softmax, softmax.log_softmax_error),
    "log_softmax": Operation(softmax.log_softmax, softmax.log_softmax_error),
    # selection
    "amax": _move(selection.largest),
    "amin": _move(selection.least),
    "aminmax": _move(selection.range_of),
    "max": Operation(selection.extreme(np.max, np.argmax), selection.extreme_error),
    "min": Operation(selection.extreme(np.min, np.argmin), selection.extreme_error),
    "argmax": _move(selection.arg_extreme(np.argmax)),
    "argmin": _move(selection.arg_extreme(np.argmin)),
    "maximum": Operation(point.binary(np.maximum), point.either_error),
    "minimum": Operation(point.binary(np.minimum), point.either_error),
    "all": _move(selection.every),
    "any": _move(selection.some),
    "sort": Operation(selection.ordered, selection.ordered_error),
    "topk": Operation(selection.top, selection.top_error),
    "where": Operation(selection.choose, selection.choose_error),
    "masked_fill": Operation(selection.fill_masked, selection.fill_masked_error),
    "eq": Operation(point.binary(np.equal), selection.compare_error),
    "ne": Operation(point.binary(np.not_equal), selection.compare_error),
    "lt": Operation(point.binary(np.less), selection.compare_error),
    "le": Operation(point.binary(np.less_equal), selection.compare_error),
    "gt": Operation(point.binary(np.greater), selection.compare_error),
    "ge": Operation(point.binary(np.greater_equal), selection.compare_error),
    "logical_and": _move(point.binary(np.logical_and)),
    "logical_or": _move(point.binary(np.logical_or)),
    "logical_xor": _move(point.binary(np.logical_xor)),
    "logical_not": _move(point.unary(np.logical_not)),
    "bitwise_and": _move(point.binary(np.bitwise_and)),
    "bitwise_or": _move(point.binary(np.bitwise_or)),
    "bitwise_xor": _move(point.binary(np.bitwise_xor)),
    "bitwise_not": _move(point.unary(np.invert)),
    "isnan": _move(point.unary(np.isnan)),
    "isinf": _move(point.unary(np.isinf)),
    "isfinite": _move(point.unary(np.isfinite)),
    # activations
    "relu": _move(act.relu),
    "relu6": _move(partial(act.hardtanh, low=0, high=6)),
    "leaky_relu": Operation(act.leaky_relu, act.leaky_relu_error),
    "_prelu_kernel": Operation(act.prelu, act.prelu_error),
    "elu": Operation(act.elu, wide(act.elu_error)),
    "celu": Operation(act.celu, wide(act.celu_error)),
    "hardtanh": Operation(act.hardtanh, act.hardtanh_error),
    "hardsigmoid": Operation(act.hardsigmoid, wide(act.hardsigmoid_error)),
    "hardswish": Operation(act.hardswish, wide(act.hardswish_error)),
    "sigmoid": Operation(act.sigmoid, wide(act.sigmoid_error)),
    "log_sigmoid_forward": Operation(act.log_sigmoid, wide(act.log_sigmoid_error)),
    "silu": Operation(act.silu, wide(act.silu_error)),
    "mish": Operation(act.mish, wide(act.mish_error)),
    "softplus": Operation(act.softplus, wide(act.softplus_error)),
    "gelu": Operation(act.gelu, wide(act.gelu_error)),
    "glu": Operation(act.glu, wide(act.glu_error)),
    "hardshrink": Operation(act.hardshrink, act.shrink_error),
    "softshrink": Operation(act.softshrink, act.shrink_error),
    "threshold": Operation(act.threshold, act.threshold_error),
    "native_dropout": Operation(point.dropped, point.dropped_error),
    "dropout": Operation(first(point.dropped), point.dropout_error),
    # functions
    "exp": _smooth(np.exp),
    "exp2": _smooth(np.exp2),
    "expm1": _smooth(np.expm1),
    "log": _smooth(np.log),
    "log2": _smooth(np.log2),
    "log10": _smooth(np.log10),
    "log1p": _smooth(np.log1p),
    "sqrt": Operation(point.unary(np.sqrt), ulps(2)),
    "rsqrt": Operation(point.unary(lambda x: 1 / np.sqrt(x)), ulps(4)),
    "reciprocal": Operation(point.unary(lambda x: 1 / point.floating(x)), ulps(2)),
    "square": Operation(point.unary(np.square), ulps(1)),
    "pow": Operation(point.power, point.power_error),
    "sin": _smooth(np.sin),
    "cos": _smooth(np.cos),
    "tan": _smooth(np.tan),
    "asin": _smooth(np.arcsin),
    "acos": _smooth(np.arccos),
    "atan": _smooth(np.arctan),
    "atan2": Operation(point.binary(np.arctan2), ulps(FUNCTION)),
    "sinh": _smooth(np.sinh),
    "cosh": _smooth(np.cosh),
    "tanh": _smooth(np.tanh),
    "erf": Operation(point.unary(erf), point.erf_error),
    "erfc": Operation(point.unary(erfc), ulps(FUNCTION)),
    "neg": _move(point.unary(np.negative)),
    "abs": _move(point.unary(np.abs)),
    "sign": _move(point.sign),
    "sgn": _move(point.sign),
    "floor": _move(point.unary(np.floor)),
    "ceil": _move(point.unary(np.ceil)),
    "trunc": _move(point.unary(np.trunc)),
    "frac": _move(point.unary(lambda x: x - np.trunc(x))),
    "round": Operation(point.rounded, point.rounded_error),
    "clamp": _CLAMP,
    "clamp_min": _CLAMP,
    "clamp_max": _CLAMP,
    # arithmetic
    "add": Operation(point.add, point.add_error),
    "sub": Operation(point.subtract, point.add_error),
    "rsub": Operation(point.subtract_from, point.subtract_from_error),
    "mul": Operation(point.multiply, point.multiply_error),
    "div": Operation(point.divide, point.divide_error),
    "floor_divide": Operation(point.floor_divide, point.floor_divide_error),
    "remainder": Operation(point.remainder, point.remainder_error),
    "fmod": Operation(point.fmod, point.remainder_error),
    "addcmul": Operation(point.add_product, point.add_product_error),
    "addcdiv": Operation(point.add_quotient, point.add_quotient_error),
    "lerp": Operation(point.interpolate, point.interpolate_error),
    # resampling, padding, windows
    "upsample_nearest1d": _NEAREST,
    "upsample_nearest2d": _NEAREST,
    "upsample_nearest3d": _NEAREST,
    "_upsample_nearest_exact1d": _NEAREST_EXACT,
    "_upsample_nearest_exact2d": _NEAREST_EXACT,
    "_upsample_nearest_exact3d": _NEAREST_EXACT,
    "upsample_linear1d": _LINEAR_UP,
    "upsample_bilinear2d": _LINEAR_UP,
    "upsample_trilinear3d": _LINEAR_UP,
    "upsample_bicubic2d": Operation(resampling.cubic, resampling.cubic_error),
    "constant_pad_nd": Operation(pads.constant_pad, pads.constant_pad_error),
    "reflection_pad1d": _REFLECT,
    "reflection_pad2d": _REFLECT,
    "reflection_pad3d": _REFLECT,
    "replication_pad1d": _REPLICATE,
    "replication_pad2d": _REPLICATE,
    "replication_pad3d": _REPLICATE,
    "_pad_circular": _carry(pads.bordered(pads.circular)),
    "im2col": _move(pads.im2col),
    "col2im": Operation(pads.col2im, pads.col2im_error),
    "unfold": _carry(movement.windows),
    # moves
    "clone": _SAME,
    "detach": _SAME,
    "alias": _SAME,
    "contiguous": _SAME,
    "lift": _SAME,
    "lift_fresh": _SAME,
    "copy": _carry(movement.copy),
    "_to_copy": _move(point.converted),
    "view": _VIEW,
    "_unsafe_view": _VIEW,
    "_reshape_alias": _carry(lambda x, size, stride: movement.view(x, size)),  # noqa: ARG005  # the same cells
    "reshape": _carry(movement.reshape),
    "flatten": _carry(movement.flatten),
    "unflatten": _carry(movement.unflatten),
    "squeeze": _carry(movement.squeeze),
    "unsqueeze": _carry(movement.unsqueeze),
    "transpose": _carry(movement.transpose),
    "t": _carry(movement.turned),
    "permute": _carry(movement.permute),
    "movedim": _carry(movement.move_axis),
    "expand": _carry(movement.expand),
    "expand_as": _carry(movement.expand_as),
    "repeat": _carry(movement.repeat),
    "tile": _carry(movement.tile),
    "repeat_interleave": _carry(movement.repeat_each),
    "cat": _carry(movement.cat),
    "stack": _carry(movement.stack),
    "split": _carry(movement.split),
    "unsafe_split": _carry(movement.split),
    "split_with_sizes": _carry(movement.split_sizes),
    "unsafe_split_with_sizes": _carry(movement.split_sizes),
    "chunk": _carry(movement.chunk),
    "unsafe_chunk": _carry(movement.chunk),
    "unbind": _carry(movement.unbind),
    "slice": _carry(movement.part),
    "narrow": _carry(movement.narrow),
    "select": _carry(movement.select),
    "roll": _carry(movement.roll),
    "flip": _carry(movement.flip),
    "diagonal": _carry(movement.diagonal),
    "tril": _carry(movement.lower),
    "triu": _carry(movement.upper),
    "as_strided": _carry(movement.strided),
    "pixel_shuffle": _carry(movement.pixel_shuffle),
    "pixel_unshuffle": _carry(movement.pixel_unshuffle),
    "channel_shuffle": _carry(movement.channel_shuffle),
    "native_channel_shuffle": _carry(movement.channel_shuffle),
    # indexing
    "index": _carry(indexing.index),
    "index_select": _carry(indexing.index_select),
    "index_put": Operation(indexing.write_index, indexing.write_index_error),
    "gather": _carry(indexing.gather),
    "scatter": Operation(indexing.scatter, indexing.scatter_error),
    "scatter_add": Operation(indexing.scatter_add, indexing.scatter_add_error),
    "slice_scatter": _move(indexing.write_part),
    "select_scatter": _move(indexing.write_select),
    "embedding": _carry(indexing.embedding),
    # tensors made of numbers
    "zeros": _move(_ZEROS["plain"]),
    "ones": _move(_ONES["plain"]),
    "full": Operation(indexing.filled, point.written_value),
    "zeros_like": _move(_ZEROS["like"]),
    "zero": _move(_ZEROS["like"]),
    "ones_like": _move(_ONES["like"]),
    "full_like": Operation(indexing.filled_like, point.written_value),
    "fill": Operation(indexing.fill, point.written_value),
    "new_zeros": _move(_ZEROS["new"]),
    "new_ones": _move(_ONES["new"]),
    "new_full": Operation(indexing.new_filled, point.written_value),
    "scalar_tensor": Operation(indexing.number, point.written_value),
    "arange": Operation(indexing.counted, indexing.counted_error),
    "linspace": Operation(indexing.spaced, indexing.spaced_error),
    "eye": _move(indexing.identity),
    # losses
    "nll_loss_forward": _NLL,
    "nll_loss2d_forward": _NLL,
    "mse_loss": Operation(losses.mse_loss, losses.mse_loss_error),
    # updates
    "convscope::sgd": _update(updates.sgd_update),
    "convscope::adam": _update(updates.adam_update),
    "convscope::adamw": _update(partial(updates.adam_update, decoupled=True)),
    "convscope::adadelta": _update(updates.adadelta_update),
    "convscope::rmsprop": _update(updates.rmsprop_update),
    # backward
    "convolution_backward": Operation(
        backward_convolution.convolution_backward, backward_convolution.convolution_backward_error
    ),
    "max_pool2d_with_indices_backward": _MAX_BACK,
    "max_pool3d_with_indices_backward": _MAX_BACK,
    "adaptive_max_pool2d_backward": _ADAPTIVE_MAX_BACK,
    "adaptive_max_pool3d_backward": _ADAPTIVE_MAX_BACK,
    "avg_pool2d_backward": _AVG_BACK,
    "avg_pool3d_backward": _AVG_BACK,
    "_adaptive_avg_pool2d_backward": _ADAPTIVE_AVG_BACK,
    "_adaptive_avg_pool3d_backward": _ADAPTIVE_AVG_BACK,
    "native_batch_norm_backward": Operation(
        backward_normalization.batch_norm_backward, backward_normalization.batch_norm_backward_error
    ),
    "native_layer_norm_backward": Operation(
        backward_normalization.layer_norm_backward, backward_normalization.layer_norm_backward_error
    ),
    "native_group_norm_backward": Operation(
        backward_normalization.group_norm_backward, backward_normalization.group_norm_backward_error
    ),
    **{f"upsample_nearest{rank}d_backward": _NEAREST_BACK for rank in (1, 2, 3)},
    **{f"_upsample_nearest_exact{rank}d_backward": _NEAREST_EXACT_BACK for rank in (1, 2, 3)},
    "upsample_linear1d_backward": up_back.LINEAR,
    "upsample_bilinear2d_backward": up_back.LINEAR,
    "upsample_trilinear3d_backward": up_back.LINEAR,
    "upsample_bicubic2d_backward": up_back.CUBIC,
    **{f"reflection_pad{rank}d_backward": _REFLECT_BACK for rank in (1, 2, 3)},
    **{f"replication_pad{rank}d_backward": _REPLICATE_BACK for rank in (1, 2, 3)},
    "select_backward": _move(up_back.select_backward),
    "slice_backward": _move(up_back.slice_backward),
    "unfold_backward": Operation(up_back.unfold_backward, up_back.unfold_backward_error),
    "embedding_dense_backward": Operation(up_back.embedding_backward, up_back.embedding_backward_error),
    "_scaled_dot_product_flash_attention_for_cpu_backward": Operation(
        backward_attention.flash_attention_backward, backward_attention.flash_attention_backward_error
    ),
    "_log_softmax_backward_data": Operation(loss_back.log_softmax_backward, loss_back.log_softmax_backward_error),
    "_softmax_backward_data": Operation(loss_back.softmax_backward, loss_back.softmax_backward_error),
    "nll_loss_backward": _NLL_BACK,
    "nll_loss2d_backward": _NLL_BACK,
    "mse_loss_backward": Operation(loss_back.mse_backward, ulps(5)),
    "smooth_l1_loss_backward": Operation(loss_back.smooth_l1_backward, ulps(8)),
    "huber_loss_backward": Operation(loss_back.huber_backward, ulps(8)),
    "binary_cross_entropy_backward": Operation(loss_back.binary_cross_entropy_backward, ulps(10)),
    "threshold_backward": act_back.gated(act_back.above),
    "hardtanh_backward": act_back.gated(act_back.between, open_=True),
    "hardshrink_backward": Operation(act_back.shrink_backward, act_back.shrink_backward_error),
    "softshrink_backward": act_back.gated(act_back.outside, open_=True),
    "leaky_relu_backward": Operation(act_back.leaky_relu_backward, wide(act_back.leaky_relu_backward_error)),
    "_prelu_kernel_backward": Operation(act_back.prelu_backward, act_back.prelu_backward_error),
    "hardsigmoid_backward": Operation(act_back.hardsigmoid_backward, wide(ulps(3))),
    "hardswish_backward": Operation(act_back.hardswish_backward, wide(act_back.hardswish_backward_error)),
    "sigmoid_backward": act_back.sloped(act_back.sigmoid_slope, act_back.sigmoid_off, narrow=True),
    "tanh_backward": act_back.sloped(act_back.tanh_slope, act_back.tanh_off, narrow=True),
    "silu_backward": act_back.sloped(act_back.silu_slope, act_back.silu_off),
    "gelu_backward": act_back.sloped(act_back.gelu_slope, act_back.gelu_off),
    "mish_backward": act_back.sloped(act_back.mish_slope, act_back.mish_off),
    "softplus_backward": act_back.sloped(act_back.softplus_slope, act_back.softplus_off),
    "log_sigmoid_backward": Operation(act_back.log_sigmoid_backward, wide(act_back.log_sigmoid_backward_error)),
    "elu_backward": Operation(act_back.elu_backward, wide(act_back.elu_backward_error)),
    "glu_backward": Operation(act_back.glu_backward, act_back.glu_backward_error),
    "native_dropout_backward": Operation(act_back.dropout_backward, wide(ulps(3))),
}
"""ATen name -> Operation."""


def lookup(name: str) -> Operation | None:
    """The operation that an ATen name means, or None if it has no reference.

    >>> lookup("aten::relu_") is lookup("aten.relu.default") is OPERATIONS["relu"]
    True

    Args:
        name: With or without `aten.` or `aten::`, overload, in-place underscore, `_out` or `_copy` (a view, copied).
    """
    plain = name.replace("::", ".").removeprefix("aten.").split(".")[0]
    forms = (plain, plain.removesuffix("_"), plain.removesuffix("_out"), plain.removesuffix("_copy"))
    return next((OPERATIONS[form] for form in forms if form in OPERATIONS), None)
