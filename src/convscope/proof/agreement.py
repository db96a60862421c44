"""Agreement: whether a recorded number can be what a kernel makes of an expression. Knows the precision of types."""

import math
import platform

from convscope.rules import Call
from convscope.rules.precision import Precision

MIXES = platform.machine().lower() not in {"amd64", "i386", "i686", "x86_64"}
"""Whether PyTorch's convolutions may go through another basis here; on x86 they add products (oneDNN, direct)."""


def mixes(call: Call) -> bool:
    """Whether the kernel of this call may mix whole planes (Winograd, Fourier)."""
    return MIXES and call.op == "convolution" and not call["transposed"] and call.dtype == "float32"


def whole_bound(value: float, error: float, precision: Precision) -> float:
    """An expression's error, with the rounding of a result that is stored more coarsely than it is added.

    Where the value is no finite number only the same will do: 0.
    """
    if not math.isfinite(value):
        return 0.0
    if not precision.stored or error == 0.0:
        return error
    return error + precision.stored * (abs(value) + error) + precision.tiny


def agree(value: float, recorded: float, bound: float, dtype: str) -> bool:
    """Whether a recorded number can be what a kernel makes of this value.

    A number beyond the type's largest is recorded as an infinity; nan agrees with nan only.

    >>> agree(1.0, 1.00000001, 6e-8, "float32"), agree(1e39, float("inf"), 1e32, "float32")
    (True, True)
    """
    if math.isnan(value) or math.isnan(recorded):
        return math.isnan(value) and math.isnan(recorded)
    if math.isinf(recorded):
        beyond = math.copysign(1.0, recorded) * value + bound
        return value == recorded or beyond >= 0.999 * Precision.of(dtype).largest
    return abs(value - recorded) <= bound
