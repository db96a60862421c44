"""Tolerance: whether a recorded number can be a kernel's result for an expression, and where that is undecided.

A number beyond a type's range is undecided: an infinite operand, or an overflow on the way, ends as an infinity or as
nan depending on the order in which a kernel subtracts, multiplies and divides. Such a number is neither proved nor
wrong. Where IEEE arithmetic determines it, as in one addition or in a sum whose terms are small, it is judged like any
other. Uses the precision of types, calls and the reference's table.
"""

import math
import platform
from collections.abc import Iterator
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from convscope.expr.call import Call
from convscope.expr.precision import Precision
from convscope.proof.verification_report import RESOLVED
from convscope.reference.operation import exact
from convscope.reference.parts import boxes
from convscope.reference.table import OPERATIONS
from convscope.typing import Array, Numbers

MIXES = platform.machine().lower() not in {"amd64", "i386", "i686", "x86_64"}
"""Whether PyTorch's convolutions may go through another basis here; on x86 they add products (oneDNN, direct)."""


def mixes(call: Call) -> bool:
    """Whether the kernel of this call may mix whole planes (Winograd, Fourier)."""
    return MIXES and call.op == "convolution" and not call["transposed"] and call.dtype == "float32"


@overload
def whole_bound(value: Array, error: Array, precision: Precision) -> Array: ...
@overload
def whole_bound(value: float, error: float, precision: Precision) -> float: ...
def whole_bound(value: Numbers, error: Numbers, precision: Precision) -> Numbers:
    """An expression's error, with the rounding of a result that is stored more coarsely than it is added.

    Where the value is not finite, only the same value is accepted: 0. Of arrays, for each number.
    """
    with np.errstate(all="ignore"):
        stored = precision.stored * (np.abs(value) + error) + precision.tiny if precision.stored else 0.0
        bound = np.where(np.isfinite(value), np.where(np.equal(error, 0.0), error, error + stored), 0.0)
    return bound if bound.ndim else float(bound)


@overload
def agree(value: float, recorded: float, bound: float, dtype: str) -> bool: ...
@overload
def agree(value: Array, recorded: Array, bound: Array, dtype: str) -> NDArray[np.bool_]: ...
def agree(value: Numbers, recorded: Numbers, bound: Numbers, dtype: str) -> bool | NDArray[np.bool_]:
    """Whether a recorded number can be what a kernel makes of this value; of arrays, for each number.

    A number beyond the type's largest is recorded as an infinity; nan agrees with nan only.

    >>> agree(1.0, 1.00000001, 6e-8, "float32"), agree(1e39, float("inf"), 1e32, "float32")
    (True, True)
    """
    with np.errstate(all="ignore"):
        near = ~np.greater(np.abs(np.subtract(value, recorded)), bound)  # a bound that is nan excludes no value
    infinite, none = np.isinf(recorded), np.isnan(value) | np.isnan(recorded)
    if np.any(infinite):
        near = np.where(
            infinite, np.equal(value, recorded) | np.any(within_reach(recorded, value, bound, dtype), 0), near
        )
    result = np.where(none, np.isnan(value) & np.isnan(recorded), near)
    return result if result.ndim else bool(result)


def resolves(value: float, recorded: float, bound: float, dtype: str, size: float) -> bool:
    """Whether a bound tells a number from others: it is at most a tenth of the step's root mean square, `size`.

    >>> resolves(1.0, 1.0, 0.05, "float32", 1.0), resolves(1.0, 1.0, float("inf"), "float32", 1.0)
    (True, False)
    """
    if (value == recorded and bound == 0) or math.isnan(recorded):
        return True
    if math.isinf(recorded):
        return value == recorded or bool(within_reach(recorded, value, bound, dtype)[0])
    return bound <= RESOLVED * size


def within_reach(recorded: Numbers, value: Numbers, bound: Numbers, dtype: str) -> tuple[Array, Array]:
    """Masks of recorded infinities that a kernel of this type must produce from these values, or may produce.

    A value that its bound takes beyond the type's largest must; one of an eighth of that may, where the kernel makes
    larger numbers on the way (hardswish multiplies by up to 6 before it divides). A bound that is not finite adds
    nothing to either.

    >>> [tuple(map(bool, within_reach(np.inf, value, 1e32, "float32"))) for value in (1e39, 1e38, 1e30)]
    [(True, False), (False, True), (False, False)]
    """
    with np.errstate(all="ignore"):
        reached = np.sign(recorded) * value + np.where(np.isfinite(bound), bound, 0.0)
        infinite, largest = np.isinf(recorded), Precision.of(dtype).largest
        beyond = infinite & (reached >= 0.999 * largest)
        return beyond, infinite & ~beyond & ((reached >= largest / 8) | ~np.isfinite(bound))


def root_mean_square(numbers: Array) -> float:
    """The root mean square of the finite numbers; nan where there are none.

    >>> root_mean_square(np.array([1e200, -1e200, np.inf]))
    1e+200
    """
    largest, count, squares = 0.0, 0, 0.0
    for part in _finite_parts(numbers):
        largest, count = max(largest, float(np.abs(part).max(initial=0.0))), count + part.size
    if not largest > 0:
        return largest if count else math.nan
    for part in _finite_parts(numbers):
        squares += float(np.square(np.divide(part, largest, dtype=np.float64)).sum())
    return largest * math.sqrt(squares / count)


def _finite_parts(numbers: Array) -> Iterator[Array]:
    """The finite numbers of an array, some at a time."""
    for box in boxes(numbers.shape, range(numbers.ndim)):
        part = numbers[box]
        finite = np.isfinite(part)
        yield part if finite.all() else part[finite]


def _median(numbers: Array) -> float:
    """The median of numbers without nan, which it puts in another order: several times faster than NumPy's."""
    middle = numbers.size // 2
    numbers.partition(middle)
    lower = numbers[middle] if numbers.size % 2 else numbers[:middle].max()
    return float((lower + numbers[middle]) / 2)


def resolution_of(recorded: Array, bounds: Array, *, spend: bool = False) -> float:
    """The median bound as a fraction of the numbers' root mean square; 0 of integers, and where all bounds are 0.

    >>> resolution_of(np.zeros(2), np.float64(1e-9)), resolution_of(np.zeros(2), np.float64(0))
    (inf, 0.0)

    Args:
        spend: Whether the bounds are needed no more, so that they may be put in another order.
    """
    size = root_mean_square(recorded) if recorded.dtype.kind == "f" else math.nan
    if math.isnan(size):
        return 0.0
    finite = np.isfinite(recorded)
    if finite.all():
        counted = bounds if spend and bounds.flags.writeable and bounds.dtype == np.float64 else np.array(bounds, float)
    else:
        counted = np.broadcast_to(bounds, recorded.shape)[finite]
    counted[np.isnan(counted)] = np.inf
    median = _median(counted.reshape(-1))
    return 0.0 if median == 0 else median / size if size > 0 else math.inf


SETTLED = frozenset(
    {
        "abs", "ceil", "clamp", "clamp_max", "clamp_min", "div", "dropout", "exp", "exp2", "floor", "hardtanh",
        "leaky_relu", "log", "log10", "log2", "masked_fill", "maximum", "minimum", "mul", "native_dropout", "neg",
        "reciprocal", "relu", "round", "sign", "sqrt", "square", "threshold", "trunc", "where",
    }
)  # fmt: skip
"""Operations with at most one rounding, and thus one possible result for infinities and nan; so are pure moves."""
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
        "fractional_max_pool2d", "fractional_max_pool3d", "grid_sampler_2d", "grid_sampler_3d", "logspace",
        "scaled_dot_product_attention",
    }
)  # fmt: skip
"""Operations that compare intermediate numbers, so that a nan may lose a comparison and disappear, or that select cells
by coordinates, which rounding may move past an infinite one."""
COUNTING = frozenset({"_cdist_forward", "_ctc_loss", "_pdist_forward"})
"""Operations that compare and count, where the result may also become nan."""
CONVOLUTIONS = frozenset({"_convolution", "convolution"})
"""Operations whose kernels for narrow types multiply numbers by the zeros that pad a block."""


class Reach(NamedTuple):
    """The magnitudes that a call may reach."""

    special: bool
    """Whether an operand holds an infinity or nan."""
    size: float
    """More than the largest intermediate number that a kernel computes from the finite ones."""


def reach_of(call: Call) -> Reach:
    """The reach of a call: the product of the largest magnitudes, times the number of elements.

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
    """Which numbers can be called neither right nor wrong, elementwise.

    One of the two is an infinity or nan, and either the terms on the way may overflow, in the kernel's type or in the
    float64 of the witness, or an operand holds an infinity or nan and so do both values.

    Args:
        values: The values of a witness.
        recorded: The recorded numbers, of the same shape.
        reach: Of this call, if it is known already.
    """
    values, recorded = np.asarray(values), np.asarray(recorded)
    none = ~np.isfinite(values), ~np.isfinite(recorded)
    precision = Precision.of(call.dtype)
    with np.errstate(all="ignore"):
        beyond = np.isinf(recorded) & (np.sign(recorded) * values >= 0.999 * precision.largest)
    one_not_finite = (none[0] | none[1]) & ~(beyond | (values == recorded) | (np.isnan(values) & np.isnan(recorded)))
    if not one_not_finite.any() or math.isinf(precision.largest) or _settled(call.op):
        return np.zeros(one_not_finite.shape, bool)
    reach = reach or reach_of(call)
    if reach.size >= precision.largest:
        return np.asarray(one_not_finite)
    if not reach.special:
        return np.zeros(one_not_finite.shape, bool)
    if call.op in SUMS:
        filled = call.op in CONVOLUTIONS and precision.stored > 0
        return np.asarray(one_not_finite & np.isnan(recorded) & filled)
    nan_expected = np.isnan(values) & (call.op in COMPARING | COUNTING)
    nan_recorded = np.isnan(recorded) & (call.op in COUNTING)
    return np.asarray(one_not_finite & (nan_expected | nan_recorded | (none[0] & none[1])))


def _settled(op: str) -> bool:
    return op in SETTLED or (op in OPERATIONS and OPERATIONS[op].error is exact)
