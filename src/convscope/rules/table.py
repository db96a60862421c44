"""RULES: every operation that convscope can explain, by its ATen name."""

from collections.abc import Callable, Mapping

from convscope.errors import UnknownName
from convscope.rules import (
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
from convscope.rules.call import Call, Cell, full_cell
from convscope.rules.expr import Expr
from convscope.rules.moves import MOVES

Rule = Callable[[Call, Cell], Expr]

RULES: Mapping[str, Rule] = {
    # convolution
    "convolution": convolution.convolution,
    # linear
    "mm": linear.mm,
    "bmm": linear.mm,
    "mv": linear.mm,
    "dot": linear.mm,
    "addmm": linear.addmm,
    "addmv": linear.addmm,
    "baddbmm": linear.addmm,
    # pooling
    "max_pool2d_with_indices": pooling.max_pool,
    "max_pool3d_with_indices": pooling.max_pool,
    "avg_pool2d": pooling.avg_pool,
    "avg_pool3d": pooling.avg_pool,
    "_adaptive_avg_pool2d": pooling.adaptive_avg_pool,
    "_adaptive_avg_pool3d": pooling.adaptive_avg_pool,
    "adaptive_max_pool2d": pooling.adaptive_max_pool,
    "adaptive_max_pool3d": pooling.adaptive_max_pool,
    "max_unpool2d": pooling.max_unpool,
    "max_unpool3d": pooling.max_unpool,
    # normalization
    "native_batch_norm": normalization.batch_norm,
    "_native_batch_norm_legit": normalization.batch_norm,
    "_native_batch_norm_legit_no_training": normalization.batch_norm,
    "native_layer_norm": normalization.layer_norm,
    "native_group_norm": normalization.group_norm,
    # reductions
    "sum": reductions.total,
    "mean": reductions.mean,
    "var": reductions.variance,
    "std": reductions.variance,
    "var_mean": reductions.variance,
    "std_mean": reductions.variance,
    "amax": reductions.largest,
    "amin": reductions.largest,
    "max": reductions.largest,
    "min": reductions.largest,
    "argmax": reductions.largest,
    "argmin": reductions.largest,
    "aminmax": reductions.least_and_largest,
    "sort": reductions.ranked,
    "topk": reductions.ranked,
    "prod": reductions.whole,
    "any": reductions.whole,
    "all": reductions.whole,
    "cumsum": reductions.cumsum,
    "logsumexp": reductions.logsumexp,
    "linalg_vector_norm": reductions.norm,
    # attention
    "_softmax": attention.softmax_cell,
    "_safe_softmax": attention.softmax_cell,
    "_log_softmax": attention.softmax_cell,
    "_scaled_dot_product_flash_attention_for_cpu": attention.attention,
    "_native_multi_head_attention": fused.multi_head_attention,
    "_transformer_encoder_layer_fwd": fused.encoder_layer,
    # pointwise
    **dict.fromkeys((*pointwise.ARGUMENTS, *pointwise.SPECIAL), pointwise.pointwise),
    "log_sigmoid_forward": pointwise.log_sigmoid,
    "_prelu_kernel": pointwise.prelu,
    "glu": pointwise.glu,
    "native_dropout": pointwise.dropout,
    # resampling
    "upsample_nearest1d": resampling.nearest,
    "upsample_nearest2d": resampling.nearest,
    "upsample_nearest3d": resampling.nearest,
    "_upsample_nearest_exact1d": resampling.nearest,
    "_upsample_nearest_exact2d": resampling.nearest,
    "_upsample_nearest_exact3d": resampling.nearest,
    "upsample_linear1d": resampling.linear,
    "upsample_bilinear2d": resampling.linear,
    "upsample_trilinear3d": resampling.linear,
    "upsample_bicubic2d": resampling.cubic,
    # layout
    **dict.fromkeys(MOVES, layout.moved),
    "_to_copy": layout.converted,
    "cat": layout.cat,
    "stack": layout.stack,
    "constant_pad_nd": layout.constant_pad,
    "im2col": layout.im2col,
    "col2im": layout.col2im,
    "tril": layout.triangle,
    "triu": layout.triangle,
    "scatter": layout.scatter,
    "scatter_add": layout.scatter,
    "slice_scatter": layout.scattered_slice,
    "select_scatter": layout.scattered_slice,
    "index_put": layout.index_put,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "zero", "ones", "ones_like", "new_ones"), layout.filled),
    **dict.fromkeys(("full", "full_like", "new_full", "fill", "scalar_tensor"), layout.filled),
    "arange": layout.counted,
    "linspace": layout.counted,
    "eye": layout.counted,
}


def explain_cell(call: Call, cell: Cell, rules: Mapping[str, Rule] = RULES) -> Expr:
    """The expression of one cell of an operation's result.

    >>> from convscope.rules.call import Operand
    >>> import numpy as np
    >>> x = Operand.of(np.array([[-1.0, 2.0]]), "fc")
    >>> explain_cell(Call("relu", {"self": x}, (1, 2)), (1,)).value()
    2.0

    Args:
        cell: An index of the result; leading zeros may be left out.
        rules: A table to use instead, such as `RULES | {"my_op": my_rule}`.

    Raises:
        UnknownName: no rule explains this operation.
        UsageError: the result has no such cell.
    """
    if call.op not in rules:
        raise UnknownName("operation with a rule", call.op, rules)
    return rules[call.op](call, full_cell(cell, call.shape))
