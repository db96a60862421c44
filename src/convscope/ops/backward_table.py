"""BACKWARD: the operations of a backward pass that convscope can explain, rows of the table of all operations."""

from collections.abc import Mapping

from convscope.ops import (
    attention,
    backward_activations,
    backward_convolution,
    backward_loss,
    backward_normalization,
    backward_recurrent,
    backward_resampling,
    distances,
    indexing,
    pointwise,
    pooling,
    recurrent,
    titles,
)
from convscope.ops.dependencies import everything
from convscope.ops.op import Op, Vectorized

BACKWARD: Mapping[str, Op] = {
    "convolution_backward": Op(
        Vectorized(backward_convolution.convolution_backward, backward_convolution.alike),
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
            pooling.max_pool_backward,
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
            pooling.avg_pool_backward,
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
            "_upsample_bilinear2d_aa_backward",
            "_upsample_bicubic2d_aa_backward",
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
    "_weight_norm_interface_backward": Op(
        distances.weight_norm_backward,
        everything,
        title=titles.backward(titles.named("weight norm")),
        rounding="stores between",
    ),
    **dict.fromkeys(("select_backward", "slice_backward"), Op(indexing.part_backward, everything)),
    "diagonal_backward": Op(indexing.diagonal_backward, everything),
    **dict.fromkeys(
        ("multi_margin_loss_backward", "multilabel_margin_loss_backward"),
        Op(backward_loss.margin_backward, everything, selected_by=("target",)),
    ),
    "unfold_backward": Op(indexing.unfold_backward, everything, rounding="narrow"),
    "embedding_dense_backward": Op(
        indexing.embedding_backward, everything, rounding="narrow", selected_by=("indices",)
    ),
    "_scaled_dot_product_flash_attention_for_cpu_backward": Op(
        attention.attention_backward,
        everything,
        title=titles.backward(titles.named("attention")),
        rounding="stores between",
    ),
    "mkldnn_rnn_layer_backward": Op(
        Vectorized(backward_recurrent.lstm_backward),
        everything,
        title=titles.backward(recurrent.lstm_title),
        rounding="narrow",
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
            "soft_margin_loss_backward",
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
        ("sigmoid_backward", "tanh_backward", "logit_backward", "rrelu_with_noise_backward"),
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
