"""OPS: every operation that convscope can explain, by its ATen name without overload or in-place mark."""

from collections.abc import Mapping

from convscope.ops import (
    attention,
    convolution,
    counting,
    indexing,
    matmul,
    normalization,
    padding,
    pooling,
    reductions,
    resampling,
    selection,
    titles,
    writing,
)
from convscope.ops.backward_indexing import BACKWARD_INDEXING
from convscope.ops.backward_sampling import BACKWARD_SAMPLING
from convscope.ops.backward_table import BACKWARD
from convscope.ops.creation import CREATION
from convscope.ops.ctc import CTC
from convscope.ops.dependencies import MovedCells, everything
from convscope.ops.distances import DISTANCES
from convscope.ops.indexing import EMBEDDING_BAG
from convscope.ops.losses import LOSSES
from convscope.ops.matmul import OUTER_PRODUCTS
from convscope.ops.movement import MOVEMENT
from convscope.ops.op import Op, Role, Vectorized, together
from convscope.ops.plugin_results import CHECKS
from convscope.ops.pointwise_table import POINTWISE
from convscope.ops.quantization import QUANTIZATION
from convscope.ops.randomized import RANDOMIZED
from convscope.ops.recurrent import RECURRENT
from convscope.ops.resampling import ANTIALIASING
from convscope.ops.sampling import SAMPLING
from convscope.ops.titles import Title
from convscope.ops.updates import UPDATES
from convscope.plugins import PluginTable

_ROWS: Mapping[str, Op] = {
    # convolution
    "convolution": Op(
        Vectorized(convolution.convolution, convolution.alike),
        convolution.convolution_dependencies,
        convolution.convolution_vjp,
        title=titles.convolution,
    ),
    # matmul
    "mm": Op(Vectorized(matmul.mm), matmul.product_dependencies, matmul.mm_vjp, title=titles.linear("self")),
    **dict.fromkeys(("bmm", "mv", "dot"), Op(Vectorized(matmul.mm), matmul.product_dependencies, matmul.mm_vjp)),
    "addmm": Op(
        Vectorized(matmul.addmm),
        matmul.product_dependencies,
        matmul.addmm_vjp,
        title=titles.linear("mat1"),
        rounding="stores between",
    ),
    **dict.fromkeys(
        ("addmv", "baddbmm"),
        Op(Vectorized(matmul.addmm), matmul.product_dependencies, matmul.addmm_vjp, rounding="stores between"),
    ),
    # pooling
    **dict.fromkeys(
        ("max_pool2d_with_indices", "max_pool3d_with_indices"),
        Op(
            Vectorized(pooling.max_pool, pooling.alike),
            pooling.pool_dependencies,
            pooling.max_pool_vjp,
            title=titles.pooling("max pooling"),
        ),
    ),
    "avg_pool2d": Op(
        Vectorized(pooling.avg_pool, pooling.alike),
        pooling.pool_dependencies,
        pooling.avg_pool_vjp,
        title=titles.pooling("average pooling"),
    ),
    "avg_pool3d": Op(
        Vectorized(pooling.avg_pool, pooling.alike),
        pooling.pool_dependencies,
        pooling.avg_pool_vjp,
        title=titles.pooling("average pooling"),
        rounding="narrow",
    ),
    "_adaptive_avg_pool2d": Op(
        Vectorized(pooling.adaptive_avg_pool, pooling.alike_adaptive),
        pooling.adaptive_pool_dependencies,
        pooling.adaptive_avg_pool_vjp,
        title=titles.to_size("average pooling"),
    ),
    "_adaptive_avg_pool3d": Op(
        Vectorized(pooling.adaptive_avg_pool, pooling.alike_adaptive),
        pooling.adaptive_pool_dependencies,
        pooling.adaptive_avg_pool_vjp,
        title=titles.to_size("average pooling"),
        rounding="narrow",
    ),
    **dict.fromkeys(
        ("adaptive_max_pool2d", "adaptive_max_pool3d"),
        Op(
            Vectorized(pooling.adaptive_max_pool, pooling.alike_adaptive),
            pooling.adaptive_pool_dependencies,
            pooling.adaptive_max_pool_vjp,
            title=titles.to_size("max pooling"),
        ),
    ),
    **dict.fromkeys(
        ("max_unpool2d", "max_unpool3d"),
        Op(
            pooling.max_unpool,
            pooling.max_unpool_dependencies,
            pooling.max_unpool_vjp,
            role="index",
            selected_by=("indices",),
        ),
    ),
    # normalization
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit"),
        Op(
            Vectorized(normalization.batch_norm),
            normalization.batch_norm_dependencies,
            normalization.batch_norm_vjp,
            title=titles.named("batch norm"),
            rounding="stores between",
        ),
    ),
    "_native_batch_norm_legit_no_training": Op(
        Vectorized(normalization.batch_norm),
        normalization.batch_norm_dependencies,
        normalization.batch_norm_vjp,
        title=titles.named("batch norm"),
    ),
    "native_layer_norm": Op(
        Vectorized(normalization.layer_norm),
        normalization.layer_norm_dependencies,
        normalization.layer_norm_vjp,
        title=titles.named("layer norm"),
    ),
    "native_group_norm": Op(
        Vectorized(normalization.group_norm),
        normalization.group_norm_dependencies,
        normalization.group_norm_vjp,
        title=titles.named("group norm"),
    ),
    # reductions
    "sum": Op(Vectorized(reductions.total), reductions.reduction_dependencies, reductions.total_vjp),
    "mean": Op(
        Vectorized(reductions.mean),
        reductions.reduction_dependencies,
        reductions.total_vjp,
        title=titles.over_axes("mean"),
    ),
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean"),
        Op(Vectorized(reductions.variance), reductions.reduction_dependencies, reductions.variance_vjp),
    ),
    "prod": Op(reductions.whole, reductions.reduction_dependencies, reductions.product_vjp, rounding="narrow"),
    **dict.fromkeys(("any", "all"), Op(reductions.whole, reductions.reduction_dependencies)),
    "cumsum": Op(reductions.cumsum, reductions.cumsum_dependencies, reductions.cumsum_vjp, rounding="narrow"),
    "logsumexp": Op(
        Vectorized(reductions.logsumexp),
        reductions.reduction_dependencies,
        reductions.logsumexp_vjp,
        rounding="stores between",
    ),
    "linalg_vector_norm": Op(reductions.norm, reductions.reduction_dependencies, reductions.norm_vjp),
    # selection
    **dict.fromkeys(
        ("amax", "amin", "max", "min"),
        Op(Vectorized(selection.largest, together), reductions.reduction_dependencies, selection.extreme_vjp),
    ),
    **dict.fromkeys(
        ("argmax", "argmin"), Op(Vectorized(selection.largest, together), reductions.reduction_dependencies)
    ),
    "aminmax": Op(
        Vectorized(selection.least_and_largest, together),
        reductions.reduction_dependencies,
        selection.least_and_largest_vjp,
    ),
    **dict.fromkeys(
        ("sort", "topk"),
        Op(selection.ranked, reductions.along_axis_dependencies, selection.ranked_vjp, selected_by=("self",)),
    ),
    # attention
    "_softmax": Op(
        Vectorized(attention.softmax_cell),
        reductions.along_axis_dependencies,
        attention.softmax_vjp,
        title=titles.over_axes("softmax"),
        rounding="stores between",
    ),
    "_safe_softmax": Op(
        Vectorized(attention.softmax_cell),
        reductions.along_axis_dependencies,
        attention.softmax_vjp,
        rounding="stores between",
    ),
    "_log_softmax": Op(
        Vectorized(attention.softmax_cell),
        reductions.along_axis_dependencies,
        attention.softmax_vjp,
        title=titles.over_axes("log-softmax"),
        rounding="stores between",
    ),
    "_scaled_dot_product_flash_attention_for_cpu": Op(
        attention.attention, attention.attention_dependencies, attention.attention_vjp, title=titles.named("attention")
    ),
    **POINTWISE,
    # resampling
    **dict.fromkeys(
        (
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_nearest3d",
            "_upsample_nearest_exact1d",
            "_upsample_nearest_exact2d",
            "_upsample_nearest_exact3d",
        ),
        Op(resampling.nearest, resampling.resampling_dependencies, resampling.nearest_vjp),
    ),
    **dict.fromkeys(
        ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
        Op(resampling.linear, resampling.resampling_dependencies, resampling.linear_vjp, rounding="stores between"),
    ),
    "upsample_bicubic2d": Op(
        resampling.cubic, resampling.resampling_dependencies, resampling.cubic_vjp, rounding="stores between"
    ),
    **MOVEMENT,
    # padding
    "constant_pad_nd": Op(
        Vectorized(padding.constant_pad, padding.alike_padded),
        MovedCells(padding.constant_pad_vjp),
        padding.constant_pad_vjp,
    ),
    "im2col": Op(padding.im2col, MovedCells(padding.im2col_vjp), padding.im2col_vjp),
    "col2im": Op(padding.col2im, MovedCells(padding.col2im_vjp), padding.col2im_vjp, rounding="narrow"),
    # indexing
    "scatter": Op(
        indexing.scatter, indexing.scatter_dependencies, indexing.scatter_vjp, role="index", selected_by=("index",)
    ),
    "scatter_add": Op(
        indexing.scatter,
        indexing.scatter_dependencies,
        indexing.scatter_vjp,
        role="index",
        rounding="narrow",
        selected_by=("index",),
    ),
    **dict.fromkeys(
        ("slice_scatter", "select_scatter"),
        Op(indexing.scattered_slice, MovedCells(indexing.scattered_slice_vjp), indexing.scattered_slice_vjp),
    ),
    "index_put": Op(
        indexing.index_put,
        indexing.index_put_dependencies,
        indexing.index_put_vjp,
        role="index",
        rounding="narrow",
        selected_by=("indices",),
    ),
    # ranks, counts and places
    **dict.fromkeys(
        ("median", "nanmedian", "kthvalue", "mode"),
        Op(counting.ranked_one, reductions.reduction_dependencies, counting.ranked_one_vjp),
    ),
    "cumprod": Op(counting.cumprod, reductions.cumsum_dependencies, counting.cumprod_vjp, rounding="narrow"),
    **dict.fromkeys(
        ("cummax", "cummin"),
        Op(counting.cumulative_extreme, reductions.cumsum_dependencies, counting.cumulative_extreme_vjp),
    ),
    "logcumsumexp": Op(
        counting.logcumsumexp, reductions.cumsum_dependencies, counting.logcumsumexp_vjp, rounding="stores between"
    ),
    "nansum": Op(reductions.nansum, reductions.reduction_dependencies, reductions.nansum_vjp),
    "trace": Op(reductions.trace, everything, reductions.trace_vjp),
    "count_nonzero": Op(counting.count_nonzero, reductions.reduction_dependencies),
    **dict.fromkeys(("nonzero", "nonzero_static"), Op(counting.nonzero, everything)),
    **dict.fromkeys(("_unique2", "unique_dim", "unique_consecutive"), Op(counting.unique, everything)),
    **dict.fromkeys(("searchsorted", "bucketize"), Op(counting.searched, counting.searched_dependencies)),
    "repeat_interleave": Op(counting.repeated, everything),
    "isin": Op(counting.is_among, everything),
    **dict.fromkeys(("histc", "histogram"), Op(counting.histogram, everything, rounding="narrow")),
    "segment_reduce": Op(
        reductions.segment, reductions.segment_dependencies, reductions.segment_vjp, rounding="narrow"
    ),
    # writing
    **dict.fromkeys(
        ("index_add", "index_copy", "index_fill", "index_reduce", "scatter_reduce", "put"),
        Op(
            writing.written,
            writing.written_dependencies,
            writing.written_vjp,
            role="index",
            rounding="narrow",
            selected_by=("index",),
        ),
    ),
    "masked_scatter": Op(
        writing.written, writing.written_dependencies, writing.written_vjp, role="index", selected_by=("mask",)
    ),
    **dict.fromkeys(
        ("diagonal_scatter", "as_strided_scatter", "diag_embed", "block_diag"),
        Op(writing.written, writing.written_dependencies, writing.written_vjp),
    ),
    # families that have their rows beside their rules
    "vdot": Op(Vectorized(matmul.mm), matmul.product_dependencies, matmul.mm_vjp),
    **BACKWARD,
    **UPDATES,
    **CREATION,
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
OPS: PluginTable[Op] = PluginTable(_ROWS, "convscope.ops", Op, CHECKS)

OTHER_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(
        (
            "bernoulli",
            "cauchy",
            "empty",
            "empty_like",
            "empty_strided",
            "exponential",
            "geometric",
            "log_normal",
            "multinomial",
            "new_empty",
            "new_empty_strided",
            "normal",
            "normal_functional",
            "poisson",
            "rand",
            "rand_like",
            "randint",
            "randint_like",
            "randn",
            "randn_like",
            "random",
            "randperm",
            "uniform",
        ),
        "random",
    ),
    **dict.fromkeys(("contiguous", "lift", "resize", "set"), "copy"),
    **dict.fromkeys(("_reshape_alias", "reshape"), "view"),
    **dict.fromkeys(("softsign",), "activation"),
}
"""Roles of operations without a rule: random ones, uninitialized memory, and other names of views and copies."""
OTHER_TITLES: Mapping[str, Title] = {
    "linear": titles.linear("input"),
    "reshape": titles.reshape,
    "adaptive_avg_pool2d": titles.to_size("average pooling"),
    "cudnn_batch_norm": titles.named("batch norm"),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_fused_attention_overrideable",
            "_scaled_dot_product_attention_math",
        ),
        titles.named("attention"),
    ),
}
"""Titles of operations that only other devices record."""
