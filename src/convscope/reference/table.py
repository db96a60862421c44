"""The table: every operation that convscope can recompute, by its ATen name, with its definition and its error.

Uses every file of this room. A name has no `aten::`, no overload, no in-place `_`, no `_out`; `lookup` removes them.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from convscope.plugins import PluginTable
from convscope.reference import (
    attention,
    convolution,
    counting,
    indexing,
    matmul,
    movement,
    normalization,
    resampling,
    selection,
    writing,
)
from convscope.reference import padding as pads
from convscope.reference import pointwise as point
from convscope.reference import pooling as pool
from convscope.reference import reductions as red
from convscope.reference.backward_indexing import BACKWARD_INDEXING
from convscope.reference.backward_sampling import BACKWARD_SAMPLING
from convscope.reference.backward_table import BACKWARD
from convscope.reference.creation import CREATION
from convscope.reference.ctc import CTC
from convscope.reference.distances import DISTANCES
from convscope.reference.indexing import EMBEDDING_BAG
from convscope.reference.losses import LOSSES
from convscope.reference.matmul import OUTER_PRODUCTS
from convscope.reference.operation import Operation, Result, exact, first, flushing, moved, wide
from convscope.reference.plugin_results import CHECKS
from convscope.reference.pointwise_table import POINTWISE
from convscope.reference.quantization import QUANTIZATION
from convscope.reference.randomized import RANDOMIZED
from convscope.reference.recurrent import RECURRENT
from convscope.reference.resampling import ANTIALIASING
from convscope.reference.sampling import SAMPLING
from convscope.reference.updates import UPDATES
from convscope.type_checks import takes


def _carry(function: Callable[..., Result]) -> Operation:
    return Operation(function, exact, moves=True)


_CONVOLUTION = Operation(
    convolution.convolution,
    flushing(convolution.convolution_error, convolution.convolution, "x", "weight"),
    normwise=convolution.convolution_normwise,
)
_UP = partial(convolution.convolution, transposed=True)
_TRANSPOSED = Operation(_UP, flushing(partial(convolution.convolution_error, transposed=True), _UP, "x", "weight"))
_BATCH_NORM = Operation(normalization.batch_norm, normalization.batch_norm_error)
_PRODUCT = Operation(matmul.product, flushing(matmul.product_error, matmul.product, "x", "right"))
_ADDED_PRODUCT = Operation(matmul.addmm, flushing(matmul.addmm_error, matmul.addmm, "left", "right"))
_MAX_POOL = moved(pool.max_pool)
_AVG_POOL = Operation(pool.avg_pool, wide(pool.avg_pool_error))
_MAX_UNPOOL = moved(pool.max_unpool)
_ADAPTIVE_MAX = moved(pool.adaptive_max_pool)
_ADAPTIVE_AVG = Operation(pool.adaptive_avg_pool, wide(pool.adaptive_avg_pool_error))
_ADAPTIVE_AVG_3D = Operation(pool.adaptive_avg_pool, pool.adaptive_avg_pool_error)
_LINEAR_UP = Operation(resampling.linear, resampling.linear_error)
_NEAREST = moved(resampling.nearest)
_NEAREST_EXACT = moved(partial(resampling.nearest, shift=0.5))
_REFLECT, _REPLICATE = (_carry(pads.bordered(place)) for place in (pads.reflected, pads.repeated))
_SAME, _VIEW = _carry(movement.same), _carry(movement.view)

_VIEWS: Mapping[str, Operation] = {
    "alias": _SAME,
    "detach": _SAME,
    "view": _VIEW,
    "squeeze": _carry(movement.squeeze),
    "unsqueeze": _carry(movement.unsqueeze),
    "transpose": _carry(movement.transpose),
    "t": _carry(movement.turned),
    "permute": _carry(movement.permute),
    "expand": _carry(movement.expand),
    "split": _carry(movement.split),
    "split_with_sizes": _carry(movement.split_sizes),
    "unbind": _carry(movement.unbind),
    "slice": _carry(movement.part),
    "narrow": _carry(movement.narrow),
    "select": _carry(movement.select),
    "diagonal": _carry(movement.diagonal),
    "as_strided": _carry(movement.strided),
    "unfold": _carry(movement.windows),
}
"""Views, of each of which PyTorch has a twin that copies."""

_ROWS: Mapping[str, Operation] = {
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
    "linear": Operation(matmul.linear, flushing(matmul.linear_error, matmul.linear, "x", "weight")),
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
    "nansum": Operation(red.nansum, wide(red.nansum_error)),
    "trace": Operation(red.trace, red.trace_error),
    "logsumexp": Operation(red.log_sum_exp, red.log_sum_exp_error),
    "_softmax": Operation(attention.softmax, attention.softmax_error),
    "softmax": Operation(attention.softmax, attention.softmax_error),
    "_safe_softmax": Operation(attention.safe_softmax, attention.safe_softmax_error),
    "_log_softmax": Operation(attention.log_softmax, attention.log_softmax_error),
    "log_softmax": Operation(attention.log_softmax, attention.log_softmax_error),
    # selection
    "amax": moved(selection.largest),
    "amin": moved(selection.least),
    "aminmax": moved(selection.range_of),
    "max": Operation(selection.extreme(np.max, np.argmax), selection.extreme_error),
    "min": Operation(selection.extreme(np.min, np.argmin), selection.extreme_error),
    "argmax": moved(selection.arg_extreme(np.argmax)),
    "argmin": moved(selection.arg_extreme(np.argmin)),
    "maximum": Operation(point.binary(np.maximum), point.either_error),
    "minimum": Operation(point.binary(np.minimum), point.either_error),
    "all": moved(selection.every),
    "any": moved(selection.some),
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
    "logical_and": moved(point.binary(np.logical_and)),
    "logical_or": moved(point.binary(np.logical_or)),
    "logical_xor": moved(point.binary(np.logical_xor)),
    "logical_not": moved(point.unary(np.logical_not)),
    "bitwise_and": moved(point.binary(np.bitwise_and)),
    "bitwise_or": moved(point.binary(np.bitwise_or)),
    "bitwise_xor": moved(point.binary(np.bitwise_xor)),
    "bitwise_not": moved(point.unary(np.invert)),
    "isnan": moved(point.unary(np.isnan)),
    "isinf": moved(point.unary(np.isinf)),
    "isfinite": moved(point.unary(np.isfinite)),
    **POINTWISE,
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
    "im2col": moved(pads.im2col),
    "col2im": Operation(pads.col2im, pads.col2im_error),
    # moves
    **_VIEWS,
    **{f"{name}_copy": operation for name, operation in _VIEWS.items()},
    "rot90": _carry(movement.quarter_turns),
    "take": _carry(indexing.take),
    "masked_select": _carry(indexing.select_masked),
    "clone": _SAME,
    "contiguous": _SAME,
    "lift": _SAME,
    "lift_fresh": _SAME,
    "copy": _carry(movement.copy),
    "_to_copy": moved(point.converted),
    "_unsafe_view": _VIEW,
    "_reshape_alias": _carry(lambda x, size, stride: movement.view(x, size)),  # noqa: ARG005  # the same cells
    "reshape": _carry(movement.reshape),
    "flatten": _carry(movement.flatten),
    "unflatten": _carry(movement.unflatten),
    "movedim": _carry(movement.move_axis),
    "expand_as": _carry(movement.expand_as),
    "repeat": _carry(movement.repeat),
    "tile": _carry(movement.tile),
    "repeat_interleave": _carry(movement.repeat_interleave),
    "cat": _carry(movement.cat),
    "stack": _carry(movement.stack),
    "unsafe_split": _carry(movement.split),
    "unsafe_split_with_sizes": _carry(movement.split_sizes),
    "chunk": _carry(movement.chunk),
    "unsafe_chunk": _carry(movement.chunk),
    "roll": _carry(movement.roll),
    "flip": _carry(movement.flip),
    "tril": _carry(movement.lower),
    "triu": _carry(movement.upper),
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
    "slice_scatter": moved(indexing.write_part),
    "select_scatter": moved(indexing.write_select),
    "embedding": _carry(indexing.embedding),
    # ranks, counts and places
    "median": Operation(counting.median, counting.place_error),
    "nanmedian": Operation(counting.nanmedian, counting.place_error),
    "kthvalue": Operation(counting.kth_value, counting.kth_error),
    "mode": Operation(counting.mode, counting.mode_error),
    "cummax": moved(counting.running_extreme(np.maximum)),
    "cummin": moved(counting.running_extreme(np.minimum)),
    "cumprod": Operation(counting.running_product, counting.running_product_error),
    "logcumsumexp": Operation(counting.running_log_sum, counting.running_log_sum_error),
    "count_nonzero": moved(counting.count_nonzero),
    "nonzero": moved(counting.nonzero),
    "nonzero_static": moved(counting.nonzero_static),
    "_unique2": Operation(counting.unique, counting.unique_error),
    "unique_dim": moved(counting.unique_slices),
    "unique_consecutive": moved(counting.unique_runs),
    "searchsorted": Operation(counting.search, counting.search_error),
    "bucketize": Operation(counting.bucket, counting.bucket_error),
    "isin": moved(counting.is_among),
    "histc": Operation(counting.fixed_histogram, counting.fixed_histogram_error),
    "histogram": Operation(counting.histogram, counting.histogram_error),
    "segment_reduce": Operation(red.segment_reduce, red.segment_reduce_error),
    # writing
    "index_add": Operation(writing.add_slices, writing.add_slices_error),
    "index_copy": moved(writing.copy_slices),
    "index_fill": Operation(writing.fill_slices, writing.fill_slices_error),
    "scatter_reduce": Operation(writing.scatter_reduced, writing.scatter_reduced_error),
    "index_reduce": Operation(writing.reduced_slices, writing.reduced_slices_error),
    "put": Operation(writing.put, writing.put_error),
    "masked_scatter": moved(writing.write_masked),
    "diagonal_scatter": moved(writing.write_diagonal),
    "as_strided_scatter": moved(writing.write_strided),
    "diag_embed": moved(writing.embed_diagonal),
    "block_diag": moved(writing.block_diagonal),
    # families that have their rows beside their definitions
    **BACKWARD,
    **UPDATES,
    **CREATION,
    "vdot": _PRODUCT,
    **DISTANCES,
    **CTC,
    **RECURRENT,
    **SAMPLING,
    **BACKWARD_INDEXING,
    **BACKWARD_SAMPLING,
    **ANTIALIASING,
    **QUANTIZATION,
    **EMBEDDING_BAG,
    **RANDOMIZED,
    **LOSSES,
    **OUTER_PRODUCTS,
}
OPERATIONS: PluginTable[Operation] = PluginTable(_ROWS, "convscope.reference", Operation, CHECKS)
"""ATen name -> Operation."""


@takes()
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
