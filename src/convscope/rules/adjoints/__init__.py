"""Adjoints: a weighted sum of an operation's results, as a weighted sum of its inputs plus a constant.

One vector-Jacobian product for each operation, in plain NumPy and float64, found in `ADJOINTS` by operation name; the
slopes at kinks are PyTorch's. Following a number back through them, step by step, ends at the image.
"""

from collections.abc import Callable, Mapping

from convscope.rules.adjoints import (
    attention,
    convolution,
    fused,
    layout,
    linear,
    normalization,
    pointwise,
    pooling,
    reductions,
    resampling,
)
from convscope.rules.adjoints.pulled import Pulled as Pulled
from convscope.rules.adjoints.pulled import Varies as Varies
from convscope.rules.call import Array, Call
from convscope.rules.moves import MOVES
from convscope.rules.pointwise import ARGUMENTS, SPECIAL

Adjoint = Callable[[Call, Array, Varies], Pulled]

ADJOINTS: Mapping[str, Adjoint] = {
    "convolution": convolution.convolution,
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), linear.mm),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), linear.addmm),
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), pooling.max_pool),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d"), pooling.avg_pool),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), pooling.adaptive_avg_pool),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), pooling.adaptive_max_pool),
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), pooling.max_unpool),
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
        normalization.batch_norm,
    ),
    "native_layer_norm": normalization.layer_norm,
    "native_group_norm": normalization.group_norm,
    **dict.fromkeys(("sum", "mean"), reductions.total),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), reductions.variance),
    **dict.fromkeys(("amax", "amin", "max", "min"), reductions.extreme),
    "aminmax": reductions.least_and_largest,
    **dict.fromkeys(("sort", "topk"), reductions.ranked),
    "prod": reductions.product,
    "linalg_vector_norm": reductions.norm,
    "logsumexp": reductions.logsumexp,
    "cumsum": reductions.cumsum,
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), attention.softmax),
    "_scaled_dot_product_flash_attention_for_cpu": attention.attention,
    "_native_multi_head_attention": fused.multi_head_attention,
    "_transformer_encoder_layer_fwd": fused.encoder_layer,
    **dict.fromkeys((*ARGUMENTS, *SPECIAL), pointwise.pointwise),
    "_prelu_kernel": pointwise.prelu,
    "glu": pointwise.glu,
    "log_sigmoid_forward": pointwise.log_sigmoid,
    "native_dropout": pointwise.dropout,
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), resampling.nearest),
    **dict.fromkeys(
        ("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"), resampling.nearest
    ),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), resampling.linear),
    "upsample_bicubic2d": resampling.cubic,
    **dict.fromkeys((*MOVES, "_to_copy"), layout.moved),
    "cat": layout.cat,
    "stack": layout.stack,
    "constant_pad_nd": layout.constant_pad,
    "im2col": layout.im2col,
    "col2im": layout.col2im,
    **dict.fromkeys(("tril", "triu"), layout.triangle),
    **dict.fromkeys(("scatter", "scatter_add"), layout.scatter),
    **dict.fromkeys(("slice_scatter", "select_scatter"), layout.scattered_slice),
    "index_put": layout.index_put,
}
"""Operations of RULES that are not here give constants, integers or truth values: nothing to follow."""
