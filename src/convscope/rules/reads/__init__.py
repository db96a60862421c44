"""Reads: which cells of its operands an operation reads to make some of its result's cells; no numbers but indices.

One function for each family in plain NumPy, found in `READS` by operation name. Marks are arrays that are not 0 where a
cell is meant. Following them back step by step ends at the receptive field. A cell counts as read where the operation's
definition names it, whatever its weight; interpolation reads only what it does not multiply by 0.
"""

from collections.abc import Callable, Mapping

from convscope.rules.adjoints import ADJOINTS
from convscope.rules.call import Array, Call
from convscope.rules.moves import MOVES
from convscope.rules.pointwise import ARGUMENTS, SPECIAL
from convscope.rules.reads import layout, mixing, windows
from convscope.rules.reads.mixing import everything as everything

Reads = Callable[[Call, Array, frozenset[str]], Mapping[str, Array]]
"""From a call, marks on its result and the operands that matter to marks on these operands."""

LAYOUT = {*MOVES, "_to_copy", "cat", "stack", "constant_pad_nd", "im2col", "col2im", "tril", "triu", "slice_scatter",
          "select_scatter"}  # fmt: skip
"""Operations that only move numbers: their adjoints say what they read."""

READS: Mapping[str, Reads] = {
    "convolution": windows.convolution,
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), windows.pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), windows.pool),
    **dict.fromkeys(("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"), windows.adaptive_pool),
    **dict.fromkeys(("adaptive_max_pool2d", "adaptive_max_pool3d"), windows.adaptive_pool),
    **{name: windows.resampling for name in ADJOINTS if name.startswith(("upsample_", "_upsample_"))},
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"), mixing.product),
    **dict.fromkeys(("sum", "mean", "var", "std", "var_mean", "std_mean"), mixing.reduction),
    **dict.fromkeys(("amax", "amin", "max", "min", "aminmax", "argmax", "argmin"), mixing.reduction),
    **dict.fromkeys(("prod", "any", "all", "logsumexp", "linalg_vector_norm"), mixing.reduction),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax", "sort", "topk"), mixing.along_axis),
    "cumsum": mixing.cumsum,
    **dict.fromkeys(
        ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"), mixing.batch_norm
    ),
    "native_layer_norm": mixing.layer_norm,
    "native_group_norm": mixing.group_norm,
    "_scaled_dot_product_flash_attention_for_cpu": mixing.attention,
    **dict.fromkeys(("_native_multi_head_attention", "_transformer_encoder_layer_fwd"), mixing.sequence),
    **dict.fromkeys((*ARGUMENTS, *SPECIAL), mixing.pointwise),
    **dict.fromkeys(("_prelu_kernel", "log_sigmoid_forward", "native_dropout", "isnan", "isinf"), mixing.pointwise),
    "glu": mixing.glu,
    **dict.fromkeys(LAYOUT, layout.moved),
}
"""An operation that is not here is taken to read all of its operands."""

SPREADING = frozenset(
    name
    for name, reads in READS.items()
    if reads not in {windows.convolution, windows.pool, windows.resampling, mixing.pointwise, mixing.glu, layout.moved}
)
"""Operations that may read along a whole axis, not only a window of it."""

CHOOSING: Mapping[str, tuple[str, ...] | None] = {
    "index": ("indices",),
    "index_put": ("indices",),
    "index_select": ("index",),
    "gather": ("index",),
    "scatter": ("index",),
    "scatter_add": ("index",),
    "embedding": ("indices",),
    "max_unpool2d": ("indices",),
    "max_unpool3d": ("indices",),
    "grid_sampler_2d": ("grid",),
    "grid_sampler_3d": ("grid",),
    "masked_select": ("mask",),
    "nonzero": None,
    "sort": None,
    "topk": None,
}
"""Operations that read where numbers tell them to, and which arguments those are; None: their own numbers."""


def is_known(call: Call) -> bool:
    """Whether it is known which cells this call reads; of a view of the bits as another type it is not."""
    return call.op in READS and not (call.op == "view" and "dtype" in call.arguments)


def spreads(call: Call) -> bool:
    """Whether a cell of this call's result may read along whole axes."""
    if call.op in {"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}:
        return mixing.own_statistics(call)
    return call.op in SPREADING or not is_known(call)


def chooses(call: Call, varies: frozenset[str]) -> bool:
    """Whether which cells this call reads depends on the image."""
    if call.op not in CHOOSING:
        return False
    by = CHOOSING[call.op]
    return bool(varies) if by is None else any(name.partition(".")[0] in by for name in varies)


def read(call: Call, marks: Array, varies: frozenset[str]) -> Mapping[str, Array]:
    """Marks on a call's result as marks on those of its operands that vary.

    >>> import numpy as np
    >>> from convscope.rules.call import Operand
    >>> x = Operand.of(np.zeros((1, 1, 5)), "x")
    >>> call = Call("mean", {"self": x, "dim": [-1], "keepdim": False}, (1, 1))
    >>> read(call, np.ones((1, 1)), frozenset({"self"}))["self"].tolist()
    [[[1.0, 1.0, 1.0, 1.0, 1.0]]]

    Args:
        marks: Not 0 where a cell of the result is meant, in its shape.
        varies: The operands to follow, as `Call.operands` names them.
    """
    if not is_known(call) or (CHOOSING.get(call.op) and chooses(call, varies)):
        return everything(call, marks, varies)
    return READS[call.op](call, marks, varies)
