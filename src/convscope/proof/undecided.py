"""Undecided: numbers beyond a type's range, where a definition does not say what a sound kernel returns.

An infinite operand, or an overflow on the way, ends as an infinity or as nan by the order in which a kernel subtracts,
multiplies and divides. Such a number is neither proved nor wrong. Where IEEE arithmetic settles it, as in one addition
or in a sum whose terms are small, it is judged like any other. Knows calls and the reference's table.
"""

import math
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Call
from convscope.expr.precision import Precision
from convscope.reference.operation import exact
from convscope.reference.table import OPERATIONS
from convscope.typing import Array, Numbers

SETTLED = frozenset(
    {
        "abs", "ceil", "clamp", "clamp_max", "clamp_min", "div", "dropout", "exp", "exp2", "floor", "hardtanh",
        "leaky_relu", "log", "log10", "log2", "masked_fill", "maximum", "minimum", "mul", "native_dropout", "neg",
        "reciprocal", "relu", "round", "sign", "sqrt", "square", "threshold", "trunc", "where",
    }
)  # fmt: skip
"""Operations of one rounding at most: what they make of infinities and nan is settled. So are all that only move."""
SUMS = frozenset(
    {
        "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_convolution", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
        "adaptive_avg_pool3d", "add", "addbmm", "addcmul", "addmm", "addmv", "addr", "avg_pool1d", "avg_pool2d",
        "avg_pool3d", "baddbmm", "bmm", "col2im", "convolution", "cumsum", "dot", "index_add", "linear", "matmul",
        "mean", "mm", "mv", "nansum", "rsub", "scatter_add", "sub", "sum", "trace", "vdot",
    }
)  # fmt: skip
"""Operations that add numbers or products of their operands: settled unless the terms themselves may overflow."""
COMPARING = frozenset(
    {
        "_embedding_bag", "_embedding_bag_forward_only", "_scaled_dot_product_flash_attention_for_cpu",
        "fractional_max_pool2d", "fractional_max_pool3d", "logspace", "scaled_dot_product_attention",
    }
)  # fmt: skip
"""Operations that compare numbers on the way, so that a nan may lose a comparison and disappear."""
COUNTING = frozenset({"_cdist_forward", "_ctc_loss", "_pdist_forward"})
"""Operations that compare and count, where a nan may also win."""
CONVOLUTIONS = frozenset({"_convolution", "convolution"})
"""Operations whose kernels for narrow types multiply numbers by the zeros that pad a block."""


class Reach(NamedTuple):
    """How far the operands of a call take it."""

    special: bool
    """Whether an operand holds an infinity or nan."""
    size: float
    """More than the largest intermediate number that a kernel computes from the finite ones."""


def reach_of(call: Call) -> Reach:
    """The reach of a call: the largest magnitudes multiplied, as often added as there are numbers.

    Sums of products multiply each operand once; all other operations count it twice, as in a variance.

    >>> from convscope.expr.call import Operand
    >>> x = Operand.of(np.array([3.0, np.inf]), "input")
    >>> reach_of(Call("sum", {"self": x}, ())), reach_of(Call("var", {"self": x}, ())).size
    (Reach(special=True, size=6.0), 18.0)
    """
    arrays = [np.abs(operand.array) for operand in call.operands().values() if operand.array.dtype.kind == "f"]
    finite = [np.isfinite(array) for array in arrays]
    largest = [float(array[mask].max(initial=0.0)) for array, mask in zip(arrays, finite, strict=True)]
    largest += [abs(value) for value in call.arguments.values() if isinstance(value, float) and math.isfinite(value)]
    size = 1.0
    for number in largest:
        size *= max(number, 1.0)
    size = size if call.op in SUMS else size * size
    return Reach(not all(mask.all() for mask in finite), size * max((array.size for array in arrays), default=1))


def undecided(call: Call, values: Numbers, recorded: Numbers, reach: Reach | None = None) -> Array:
    """For which numbers neither the exact value nor the recorded one settles what is right; of arrays, for each.

    One of the two is an infinity or nan, and either the terms on the way may overflow, in the kernel's type or in the
    float64 of the witness, or an operand holds an infinity or nan and so do both values.

    Args:
        values: What a witness gives.
        recorded: The recorded numbers, of the same shape.
        reach: Of this call, if it is known already.
    """
    values, recorded = np.asarray(values), np.asarray(recorded)
    none = ~np.isfinite(values), ~np.isfinite(recorded)
    precision = Precision.of(call.dtype)
    with np.errstate(all="ignore"):
        beyond = np.isinf(recorded) & (np.sign(recorded) * values >= 0.999 * precision.largest)
    apart = (none[0] | none[1]) & ~(beyond | (values == recorded) | (np.isnan(values) & np.isnan(recorded)))
    if not apart.any() or math.isinf(precision.largest) or _settled(call.op):
        return np.zeros(apart.shape, bool)
    reach = reach or reach_of(call)
    if reach.size >= precision.largest:
        return np.asarray(apart)
    if not reach.special:
        return np.zeros(apart.shape, bool)
    if call.op in SUMS:
        filled = call.op in CONVOLUTIONS and precision.stored > 0
        return np.asarray(apart & np.isnan(recorded) & filled)
    lost = np.isnan(values) & (call.op in COMPARING | COUNTING)
    won = np.isnan(recorded) & (call.op in COUNTING)
    return np.asarray(apart & (lost | won | (none[0] & none[1])))


def _settled(op: str) -> bool:
    return op in SETTLED or (op in OPERATIONS and OPERATIONS[op].error is exact)
