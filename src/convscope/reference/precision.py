"""Precision: how far a floating-point kernel may be from the exact result, and what a number becomes in another type.

Uses errors, NumPy and no operation; types are known by their name. One rounding to a type of unit roundoff u turns r
into r(1 + d) with |d| <= u (the standard model: N. J. Higham, Accuracy and Stability of Numerical Algorithms, SIAM
2002, section 2.2); u is 2**-24 for float32, 2**-53 for float64, 2**-11 for float16, 2**-8 for bfloat16. A fused
multiply-add makes one rounding where two are counted here, so every bound of this room holds with or without it.
"""

import numpy as np

from convscope.errors import UsageError
from convscope.typing import Array, DType, Numbers

FUNCTION = 8.0
"""Roundings charged for one call of exp, log, tanh, erf, pow, sin, ...: 4 units in the last place.

The C library, SLEEF (its u10 functions), MKL's vector functions and PyTorch's own vectorised exp document 1 to 2.
"""


def gamma(roundings: float, u: float) -> float:
    """The largest relative error of n successive roundings: n·u / (1 - n·u).

    >>> gamma(2, 0.25)
    1.0

    Source: Higham, lemma 3.1. A sum of T products, in any order, is within gamma(T) of the sum of the products'
    magnitudes (section 3.1); a bias, or a division by the count, adds one rounding more.
    """
    share = roundings * u
    return share / (1 - share) if share < 1 else np.inf


def smallest(u: float) -> float:
    """The smallest normal number of the type: what a result that underflows can lose.

    >>> smallest(2.0**-24) == 2.0**-126, smallest(2.0**-53) == 2.0**-1022
    (True, True)
    """
    if u < 2.0**-40:
        return 2.0**-1022
    return 2.0**-24 if 2.0**-12 < u < 2.0**-10 else 2.0**-126  # float16: half its subnormal spacing, and more


def largest(u: float) -> float:
    """The largest number of the type: what exceeds it becomes an infinity.

    >>> largest(2.0**-11), largest(2.0**-53) > 1e308
    (65504.0, True)
    """
    if u < 2.0**-40:
        return float(np.finfo(np.float64).max)
    return 65504.0 if 2.0**-12 < u < 2.0**-10 else 2.0**128 * (1 - max(u, 2.0**-24))


def carried(error: Numbers, size: Numbers, u: float) -> Array:
    """`error`, but without limit where a sum of so large magnitudes may overflow on its way, whatever comes out.

    >>> carried(1e30, np.array([1e37, 1e39]), 2.0**-24).tolist()
    [1e+30, inf]
    """
    return np.where(np.asarray(size) < largest(u), error, np.inf)


def written(value: Numbers, u: float) -> Array:
    """The error of a Python number, or of a tensor of another type, once it is written in the kernel's type.

    >>> float(written(0.5, 2.0**-24)), bool(written(0.1, 2.0**-24) > 0)
    (0.0, True)
    """
    magnitude = np.abs(np.asarray(value, dtype=np.float64))
    mantissa = np.frexp(magnitude)[0] / _unit(u)
    step = 2 * _unit(u) * (2.0**-14 if smallest(u) == 2.0**-24 else smallest(u))  # between the smallest numbers
    is_exact = (mantissa % 1 == 0) & (magnitude % step == 0)
    return np.where(np.isfinite(magnitude) & ~is_exact, np.maximum(u * magnitude, step / 2), 0.0)


def scalar(value: Numbers, u: float) -> Array:
    """`written` for a number, a tensor without axes or one of integers; others are of the kernel's type already."""
    is_integer = np.asarray(value).dtype.kind in "iub"
    return written(value, u) if is_integer or np.ndim(value) == 0 else np.zeros(())


def _unit(u: float) -> float:
    """`u` as the power of two it is meant to be, whatever was added to it for the reference's own rounding."""
    return 2.0**-53 if u < 2.0**-40 else float(2.0 ** np.round(np.log2(u)))


# Casts


def cast(x: Array, dtype: DType = None) -> Array:
    """`x` as a tensor of `dtype` holds it, in float64 where that is a float type.

    >>> cast(np.array([0.1, -2.7]), "int64"), cast(np.array([0.1]), "torch.float32")
    (array([ 0, -2]), array([0.1]))

    Args:
        x: Any array.
        dtype: A type or its name, with or without `torch.` in front; None changes nothing.

    Raises:
        UsageError: a fraction, an infinity or no number that the integer type cannot hold: C leaves open what becomes
            of it, and so does PyTorch.
    """
    name, x = type_name(dtype), np.asarray(x)
    if not name:
        return x
    if name == "bfloat16":
        return _bfloat16(x)
    kind = np.dtype(name).kind
    if kind in "iu":
        return _integers(x, name) if x.dtype.kind == "f" else x.astype(name)
    if name == "float16":
        x = x.astype(np.float32)  # PyTorch converts to the narrow types by way of float32
    rounded = x.astype(name)
    return rounded.astype(np.float64) if kind == "f" else rounded


def _integers(x: Array, name: str) -> Array:
    """Fractions cut to integers; uint8 takes them by way of int64, modulo 256."""
    limits = np.iinfo(np.int64 if name == "uint8" else name)
    truncated = np.trunc(x)
    inside = (truncated >= float(limits.min)) & (truncated < 2.0**63) & (truncated <= float(limits.max))
    if not inside.all():
        number = float(x[~inside].ravel()[0])
        raise UsageError(f"what {number:g} becomes in {name} is left open by the C standard.")
    return truncated.astype(limits.dtype).astype(name)


def wrapped(x: Array, dtype: str) -> Array:
    """Integers in the type of a result, around at the ends of its range; anything else as it is.

    >>> wrapped(np.array([300, -1]), "uint8")
    array([ 44, 255], dtype=uint8)
    """
    is_integer = dtype.removeprefix("u") in {"int8", "int16", "int32", "int64"} and x.dtype.kind in "iub"
    return x.astype(dtype) if is_integer else x


def type_name(dtype: DType) -> str:
    """The plain name of a NumPy or PyTorch type or of a name of one; empty for None.

    >>> type_name("torch.float32"), type_name(np.dtype(np.int64)), type_name(None)
    ('float32', 'int64', '')
    """
    if dtype is None:
        return ""
    if isinstance(dtype, type):
        return np.dtype(dtype).name
    name = str(dtype).removeprefix("torch.")
    return {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}.get(name, name)


def _bfloat16(x: Array) -> Array:
    """Rounded to the upper 16 bits of a float32, ties to even."""
    single = x.astype(np.float32)
    bits = np.atleast_1d(single).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.nan, rounded.reshape(x.shape).astype(np.float64))
