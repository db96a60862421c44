"""BACKWARD: the operations of a backward pass that convscope can recompute, rows of the table of all operations."""

from collections.abc import Mapping

from convscope.reference import (
    attention,
    backward_convolution,
    backward_normalization,
    backward_recurrent,
    distances,
    indexing,
    pooling,
)
from convscope.reference import backward_activations as act_back
from convscope.reference import backward_loss as loss_back
from convscope.reference import backward_resampling as up_back
from convscope.reference import padding as pads
from convscope.reference.operation import Operation, flushing, moved, ulps, wide
from convscope.reference.resampling import keys, triangle

_MAX_BACK = Operation(pooling.max_pool_backward, pooling.max_pool_backward_error)
_ADAPTIVE_MAX_BACK = Operation(pooling.adaptive_max_pool_backward, pooling.adaptive_max_pool_backward_error)
_AVG_BACK = Operation(pooling.avg_pool_backward, pooling.avg_pool_backward_error)
_ADAPTIVE_AVG_BACK = Operation(pooling.adaptive_avg_pool_backward, pooling.adaptive_avg_pool_backward_error)
_NLL_BACK = Operation(loss_back.nll_backward, ulps(4))
_NEAREST_BACK, _NEAREST_EXACT_BACK = up_back.nearest_backward(), up_back.nearest_backward(0.5)
_REFLECT_BACK, _REPLICATE_BACK = (up_back.bordered_backward(place) for place in (pads.reflected, pads.repeated))

BACKWARD: Mapping[str, Operation] = {
    "convolution_backward": Operation(
        backward_convolution.convolution_backward,
        flushing(
            backward_convolution.convolution_backward_error,
            backward_convolution.convolution_backward,
            "grad_output",
            "x",
            "weight",
        ),
        widens=True,
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
    "_upsample_bilinear2d_aa_backward": up_back.antialiased_backward(triangle, 1),
    "_upsample_bicubic2d_aa_backward": up_back.antialiased_backward(keys, 2),
    **{f"reflection_pad{rank}d_backward": _REFLECT_BACK for rank in (1, 2, 3)},
    **{f"replication_pad{rank}d_backward": _REPLICATE_BACK for rank in (1, 2, 3)},
    "mkldnn_rnn_layer_backward": Operation(backward_recurrent.lstm_backward, backward_recurrent.lstm_backward_error),
    "_weight_norm_interface_backward": Operation(
        distances.weight_norm_backward, wide(distances.weight_norm_backward_error)
    ),
    "select_backward": moved(indexing.select_backward),
    "slice_backward": moved(indexing.slice_backward),
    "diagonal_backward": moved(indexing.diagonal_backward),
    "unfold_backward": Operation(indexing.unfold_backward, indexing.unfold_backward_error),
    "embedding_dense_backward": Operation(indexing.embedding_backward, indexing.embedding_backward_error),
    "_scaled_dot_product_flash_attention_for_cpu_backward": Operation(
        attention.flash_attention_backward, attention.flash_attention_backward_error
    ),
    "_log_softmax_backward_data": Operation(loss_back.log_softmax_backward, loss_back.log_softmax_backward_error),
    "_softmax_backward_data": Operation(loss_back.softmax_backward, loss_back.softmax_backward_error),
    "nll_loss_backward": _NLL_BACK,
    "nll_loss2d_backward": _NLL_BACK,
    "mse_loss_backward": Operation(loss_back.mse_backward, ulps(5)),
    "smooth_l1_loss_backward": Operation(loss_back.smooth_l1_backward, ulps(8)),
    "huber_loss_backward": Operation(loss_back.huber_backward, ulps(8)),
    "binary_cross_entropy_backward": Operation(loss_back.binary_cross_entropy_backward, ulps(10)),
    "soft_margin_loss_backward": Operation(loss_back.soft_margin_backward, loss_back.soft_margin_backward_error),
    "multi_margin_loss_backward": Operation(loss_back.multi_margin_backward, loss_back.multi_margin_backward_error),
    "multilabel_margin_loss_backward": Operation(
        loss_back.multilabel_margin_backward, loss_back.multilabel_margin_backward_error
    ),
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
    "silu_backward": act_back.sloped(act_back.silu_slope, act_back.silu_off, lost=act_back.steep),
    "gelu_backward": act_back.sloped(act_back.gelu_slope, act_back.gelu_off),
    "mish_backward": act_back.sloped(act_back.mish_slope, act_back.mish_off, lost=act_back.steep),
    "softplus_backward": act_back.sloped(act_back.softplus_slope, act_back.softplus_off),
    "log_sigmoid_backward": Operation(act_back.log_sigmoid_backward, wide(act_back.log_sigmoid_backward_error)),
    "elu_backward": Operation(act_back.elu_backward, wide(act_back.elu_backward_error)),
    "logit_backward": Operation(act_back.logit_backward, act_back.logit_backward_error),
    "rrelu_with_noise_backward": Operation(act_back.rrelu_backward, act_back.rrelu_backward_error),
    "glu_backward": Operation(act_back.glu_backward, act_back.glu_backward_error),
    "native_dropout_backward": Operation(act_back.dropout_backward, wide(ulps(3))),
}
