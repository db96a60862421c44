"""OPS: every operation that convscope can explain, by its ATen name without overload or in-place mark."""

from collections.abc import Mapping

from convscope.ops import (
    attention,
    backward_activations,
    backward_attention,
    backward_convolution,
    backward_indexing,
    backward_loss,
    backward_normalization,
    backward_pooling,
    backward_resampling,
    convolution,
    creation,
    indexing,
    joining,
    losses,
    matmul,
    movement,
    normalization,
    pointwise,
    pooling,
    reductions,
    resampling,
    titles,
    updates,
)
from convscope.ops.dependencies import MovedCells, everything
from convscope.ops.op import Op, Role
from convscope.ops.titles import Title

OPS: Mapping[str, Op] = {
    # convolution
    "convolution": Op(
        convolution.convolution,
        convolution.convolution_dependencies,
        convolution.convolution_vjp,
        title=titles.convolution,
    ),
    # matmul
    "mm": Op(matmul.mm, matmul.product_dependencies, matmul.mm_vjp, title=titles.linear("self")),
    **dict.fromkeys(("bmm", "mv", "dot"), Op(matmul.mm, matmul.product_dependencies, matmul.mm_vjp)),
    "addmm": Op(
        matmul.addmm,
        matmul.product_dependencies,
        matmul.addmm_vjp,
        title=titles.linear("mat1"),
        rounding="stores between",
    ),
    **dict.fromkeys(
        ("addmv", "baddbmm"), Op(matmul.addmm, matmul.product_dependencies, matmul.addmm_vjp, rounding="stores between")
    ),
    # pooling
    **dict.fromkeys(
        ("max_pool2d_with_indices", "max_pool3d_with_indices"),
        Op(pooling.max_pool, pooling.pool_dependencies, pooling.max_pool_vjp, title=titles.pooling("max pooling")),
    ),
    "avg_pool2d": Op(
        pooling.avg_pool, pooling.pool_dependencies, pooling.avg_pool_vjp, title=titles.pooling("average pooling")
    ),
    "avg_pool3d": Op(
        pooling.avg_pool,
        pooling.pool_dependencies,
        pooling.avg_pool_vjp,
        title=titles.pooling("average pooling"),
        rounding="narrow",
    ),
    "_adaptive_avg_pool2d": Op(
        pooling.adaptive_avg_pool,
        pooling.adaptive_pool_dependencies,
        pooling.adaptive_avg_pool_vjp,
        title=titles.to_size("average pooling"),
    ),
    "_adaptive_avg_pool3d": Op(
        pooling.adaptive_avg_pool,
        pooling.adaptive_pool_dependencies,
        pooling.adaptive_avg_pool_vjp,
        title=titles.to_size("average pooling"),
        rounding="narrow",
    ),
    **dict.fromkeys(
        ("adaptive_max_pool2d", "adaptive_max_pool3d"),
        Op(
            pooling.adaptive_max_pool,
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
            normalization.batch_norm,
            normalization.batch_norm_dependencies,
            normalization.batch_norm_vjp,
            title=titles.named("batch norm"),
            rounding="stores between",
        ),
    ),
    "_native_batch_norm_legit_no_training": Op(
        normalization.batch_norm,
        normalization.batch_norm_dependencies,
        normalization.batch_norm_vjp,
        title=titles.named("batch norm"),
    ),
    "native_layer_norm": Op(
        normalization.layer_norm,
        normalization.layer_norm_dependencies,
        normalization.layer_norm_vjp,
        title=titles.named("layer norm"),
    ),
    "native_group_norm": Op(
        normalization.group_norm,
        normalization.group_norm_dependencies,
        normalization.group_norm_vjp,
        title=titles.named("group norm"),
    ),
    # reductions
    "sum": Op(reductions.total, reductions.reduction_dependencies, reductions.total_vjp),
    "mean": Op(
        reductions.mean, reductions.reduction_dependencies, reductions.total_vjp, title=titles.over_axes("mean")
    ),
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean"),
        Op(reductions.variance, reductions.reduction_dependencies, reductions.variance_vjp),
    ),
    **dict.fromkeys(
        ("amax", "amin", "max", "min"),
        Op(reductions.largest, reductions.reduction_dependencies, reductions.extreme_vjp),
    ),
    **dict.fromkeys(("argmax", "argmin"), Op(reductions.largest, reductions.reduction_dependencies)),
    "aminmax": Op(reductions.least_and_largest, reductions.reduction_dependencies, reductions.least_and_largest_vjp),
    **dict.fromkeys(
        ("sort", "topk"),
        Op(reductions.ranked, reductions.along_axis_dependencies, reductions.ranked_vjp, selected_by=("self",)),
    ),
    "prod": Op(reductions.whole, reductions.reduction_dependencies, reductions.product_vjp, rounding="narrow"),
    **dict.fromkeys(("any", "all"), Op(reductions.whole, reductions.reduction_dependencies)),
    "cumsum": Op(reductions.cumsum, reductions.cumsum_dependencies, reductions.cumsum_vjp, rounding="narrow"),
    "logsumexp": Op(
        reductions.logsumexp, reductions.reduction_dependencies, reductions.logsumexp_vjp, rounding="stores between"
    ),
    "linalg_vector_norm": Op(reductions.norm, reductions.reduction_dependencies, reductions.norm_vjp),
    # attention
    "_softmax": Op(
        attention.softmax_cell,
        reductions.along_axis_dependencies,
        attention.softmax_vjp,
        title=titles.over_axes("softmax"),
        rounding="stores between",
    ),
    "_safe_softmax": Op(
        attention.softmax_cell, reductions.along_axis_dependencies, attention.softmax_vjp, rounding="stores between"
    ),
    "_log_softmax": Op(
        attention.softmax_cell,
        reductions.along_axis_dependencies,
        attention.softmax_vjp,
        title=titles.over_axes("log-softmax"),
        rounding="stores between",
    ),
    "_scaled_dot_product_flash_attention_for_cpu": Op(
        attention.attention, attention.attention_dependencies, attention.attention_vjp, title=titles.named("attention")
    ),
    # pointwise
    **dict.fromkeys(
        (
            "relu",
            "hardsigmoid",
            "hardswish",
            "silu",
            "mish",
            "sigmoid",
            "tanh",
            "leaky_relu",
            "threshold",
            "elu",
            "celu",
            "hardtanh",
            "softplus",
            "clamp",
            "clamp_min",
            "gelu",
        ),
        Op(pointwise.pointwise, pointwise.pointwise_dependencies, pointwise.pointwise_vjp, role="activation"),
    ),
    **dict.fromkeys(
        (
            "neg",
            "abs",
            "sign",
            "floor",
            "ceil",
            "trunc",
            "reciprocal",
            "sqrt",
            "exp",
            "exp2",
            "expm1",
            "log",
            "log2",
            "log10",
            "log1p",
            "erf",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "sinh",
            "cosh",
            "erfc",
            "frac",
            "atan",
            "logical_not",
            "isnan",
            "isinf",
            "sgn",
            "atan2",
            "hardshrink",
            "softshrink",
            "maximum",
            "minimum",
            "addcmul",
            "addcdiv",
            "lerp",
            "where",
            "masked_fill",
            "logical_and",
            "logical_or",
            "logical_xor",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "remainder",
            "fmod",
            "clamp_max",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "round",
            "bitwise_not",
        ),
        Op(pointwise.pointwise, pointwise.pointwise_dependencies, pointwise.pointwise_vjp),
    ),
    **dict.fromkeys(
        ("rsqrt", "pow"),
        Op(pointwise.pointwise, pointwise.pointwise_dependencies, pointwise.pointwise_vjp, rounding="narrow"),
    ),
    "mul": Op(
        pointwise.pointwise, pointwise.pointwise_dependencies, pointwise.pointwise_vjp, title=titles.named("product")
    ),
    "add": Op(
        pointwise.pointwise,
        pointwise.pointwise_dependencies,
        pointwise.pointwise_vjp,
        title=titles.named("sum"),
        rounding="stores between",
    ),
    **dict.fromkeys(
        ("sub", "rsub", "div", "floor_divide"),
        Op(pointwise.pointwise, pointwise.pointwise_dependencies, pointwise.pointwise_vjp, rounding="stores between"),
    ),
    "log_sigmoid_forward": Op(pointwise.log_sigmoid, pointwise.pointwise_dependencies, pointwise.log_sigmoid_vjp),
    "_prelu_kernel": Op(pointwise.prelu, pointwise.pointwise_dependencies, pointwise.prelu_vjp, role="activation"),
    "glu": Op(pointwise.glu, pointwise.glu_dependencies, pointwise.glu_vjp, role="activation"),
    "native_dropout": Op(
        pointwise.dropout, pointwise.pointwise_dependencies, pointwise.dropout_vjp, title=titles.named("dropout")
    ),
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
    # movement
    **dict.fromkeys(
        ("view", "_unsafe_view"),
        Op(movement.moved, movement.moved_dependencies, movement.moved_vjp, title=titles.reshape, role="view"),
    ),
    **dict.fromkeys(
        ("alias", "clone", "detach", "copy"),
        Op(movement.moved, movement.moved_dependencies, movement.moved_vjp, role="copy"),
    ),
    "lift_fresh": Op(
        movement.moved,
        movement.moved_dependencies,
        movement.moved_vjp,
        title=titles.named("tensor made without PyTorch operations"),
        role="copy",
    ),
    **dict.fromkeys(
        (
            "expand",
            "transpose",
            "t",
            "permute",
            "select",
            "slice",
            "unsqueeze",
            "squeeze",
            "as_strided",
            "split",
            "split_with_sizes",
            "unsafe_split",
            "unbind",
            "unfold",
            "diagonal",
        ),
        Op(movement.moved, movement.moved_dependencies, movement.moved_vjp, role="view"),
    ),
    **dict.fromkeys(
        (
            "flip",
            "roll",
            "repeat",
            "unsafe_split_with_sizes",
            "pixel_shuffle",
            "pixel_unshuffle",
            "channel_shuffle",
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "replication_pad2d",
            "replication_pad3d",
        ),
        Op(movement.moved, movement.moved_dependencies, movement.moved_vjp),
    ),
    **dict.fromkeys(
        ("index_select", "gather"),
        Op(movement.moved, movement.moved_dependencies, movement.moved_vjp, role="index", selected_by=("index",)),
    ),
    **dict.fromkeys(
        ("embedding", "index"),
        Op(movement.moved, movement.moved_dependencies, movement.moved_vjp, role="index", selected_by=("indices",)),
    ),
    "_to_copy": Op(movement.converted, movement.moved_dependencies, movement.moved_vjp),
    # joining
    "cat": Op(joining.cat, MovedCells(joining.cat_vjp), joining.cat_vjp, title=titles.named("concatenate")),
    "stack": Op(joining.stack, MovedCells(joining.stack_vjp), joining.stack_vjp),
    "constant_pad_nd": Op(joining.constant_pad, MovedCells(joining.constant_pad_vjp), joining.constant_pad_vjp),
    "im2col": Op(joining.im2col, MovedCells(joining.im2col_vjp), joining.im2col_vjp),
    "col2im": Op(joining.col2im, MovedCells(joining.col2im_vjp), joining.col2im_vjp, rounding="narrow"),
    **dict.fromkeys(("tril", "triu"), Op(joining.triangle, MovedCells(joining.triangle_vjp), joining.triangle_vjp)),
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
    # creation
    **dict.fromkeys(
        (
            "zeros",
            "zeros_like",
            "new_zeros",
            "zero",
            "ones",
            "ones_like",
            "new_ones",
            "full",
            "full_like",
            "new_full",
            "fill",
            "scalar_tensor",
        ),
        Op(creation.filled, everything, role="create"),
    ),
    **dict.fromkeys(("arange", "eye"), Op(creation.counted, everything, role="create")),
    "linspace": Op(creation.counted, everything, role="create", rounding="narrow"),
    # losses
    **dict.fromkeys(
        ("nll_loss_forward", "nll_loss2d_forward"),
        Op(
            losses.nll_loss,
            losses.loss_dependencies,
            losses.nll_loss_vjp,
            title=titles.named("negative log-likelihood of the labels"),
            rounding="narrow",
            selected_by=("target",),
        ),
    ),
    "mse_loss": Op(
        losses.mse_loss,
        losses.loss_dependencies,
        losses.mse_loss_vjp,
        title=titles.named("mean squared error"),
        rounding="narrow",
    ),
    # updates: one operation for each parameter that an optimizer moves
    **{name: Op(rule, pointwise.pointwise_dependencies, title=titles.update) for name, rule in updates.RULES.items()},
    # backward
    "convolution_backward": Op(
        backward_convolution.convolution_backward,
        everything,
        title=titles.backward(titles.convolution),
        rounding="stores between",
    ),
    **dict.fromkeys(
        (
            "max_pool2d_with_indices_backward",
            "max_pool3d_with_indices_backward",
            "adaptive_max_pool2d_backward",
            "adaptive_max_pool3d_backward",
        ),
        Op(
            backward_pooling.max_pool_backward,
            everything,
            title=titles.backward(titles.named("max pooling")),
            rounding="narrow",
            selected_by=("indices",),
        ),
    ),
    **dict.fromkeys(
        (
            "avg_pool2d_backward",
            "avg_pool3d_backward",
            "_adaptive_avg_pool2d_backward",
            "_adaptive_avg_pool3d_backward",
        ),
        Op(
            backward_pooling.avg_pool_backward,
            everything,
            title=titles.backward(titles.named("average pooling")),
            rounding="narrow",
        ),
    ),
    "native_batch_norm_backward": Op(
        backward_normalization.batch_norm_backward,
        everything,
        title=titles.backward(titles.named("batch norm")),
        rounding="stores between",
    ),
    "native_layer_norm_backward": Op(
        backward_normalization.layer_norm_backward,
        everything,
        title=titles.backward(titles.named("layer norm")),
        rounding="stores between",
    ),
    "native_group_norm_backward": Op(
        backward_normalization.group_norm_backward,
        everything,
        title=titles.backward(titles.named("group norm")),
        rounding="stores between",
    ),
    **dict.fromkeys(
        (
            "upsample_nearest1d_backward",
            "upsample_nearest2d_backward",
            "upsample_nearest3d_backward",
            "_upsample_nearest_exact1d_backward",
            "_upsample_nearest_exact2d_backward",
            "_upsample_nearest_exact3d_backward",
        ),
        Op(backward_resampling.resampling_backward, everything, rounding="narrow"),
    ),
    **dict.fromkeys(
        (
            "upsample_linear1d_backward",
            "upsample_bilinear2d_backward",
            "upsample_trilinear3d_backward",
            "upsample_bicubic2d_backward",
        ),
        Op(backward_resampling.resampling_backward, everything, rounding="stores between"),
    ),
    **dict.fromkeys(
        (
            "reflection_pad1d_backward",
            "reflection_pad2d_backward",
            "reflection_pad3d_backward",
            "replication_pad1d_backward",
            "replication_pad2d_backward",
            "replication_pad3d_backward",
        ),
        Op(backward_resampling.padding_backward, everything, rounding="narrow"),
    ),
    **dict.fromkeys(("select_backward", "slice_backward"), Op(backward_indexing.part_backward, everything)),
    "unfold_backward": Op(backward_indexing.unfold_backward, everything, rounding="narrow"),
    "embedding_dense_backward": Op(
        backward_indexing.embedding_backward, everything, rounding="narrow", selected_by=("indices",)
    ),
    "_scaled_dot_product_flash_attention_for_cpu_backward": Op(
        backward_attention.attention_backward,
        everything,
        title=titles.backward(titles.named("attention")),
        rounding="stores between",
    ),
    "_log_softmax_backward_data": Op(
        backward_loss.log_softmax_backward,
        backward_loss.row_dependencies,
        backward_loss.softmax_backward_vjp,
        title=titles.backward(titles.over_axes("log-softmax")),
        rounding="stores between",
    ),
    "_softmax_backward_data": Op(
        backward_loss.softmax_backward,
        backward_loss.row_dependencies,
        backward_loss.softmax_backward_vjp,
        title=titles.backward(titles.over_axes("softmax")),
        rounding="stores between",
    ),
    **dict.fromkeys(
        ("nll_loss_backward", "nll_loss2d_backward"),
        Op(
            backward_loss.nll_backward,
            everything,
            title=titles.backward(titles.named("negative log-likelihood")),
            rounding="narrow",
            selected_by=("target",),
        ),
    ),
    **dict.fromkeys(
        (
            "mse_loss_backward",
            "smooth_l1_loss_backward",
            "huber_loss_backward",
            "binary_cross_entropy_backward",
        ),
        Op(backward_loss.elementwise, pointwise.pointwise_dependencies, rounding="narrow"),
    ),
    **dict.fromkeys(
        (
            "threshold_backward",
            "hardtanh_backward",
            "hardshrink_backward",
            "softshrink_backward",
            "leaky_relu_backward",
            "hardsigmoid_backward",
            "hardswish_backward",
            "silu_backward",
            "mish_backward",
            "gelu_backward",
            "softplus_backward",
            "log_sigmoid_backward",
            "elu_backward",
            "native_dropout_backward",
        ),
        Op(
            backward_activations.activation,
            pointwise.pointwise_dependencies,
            backward_activations.activation_vjp,
        ),
    ),
    **dict.fromkeys(
        ("sigmoid_backward", "tanh_backward"),
        Op(
            backward_activations.activation,
            pointwise.pointwise_dependencies,
            backward_activations.activation_vjp,
            rounding="narrow",
        ),
    ),
    "_prelu_kernel_backward": Op(backward_activations.prelu, pointwise.pointwise_dependencies),
    "glu_backward": Op(backward_activations.glu, everything, rounding="narrow"),
}

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
