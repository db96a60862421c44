"""Casting: what a number becomes in another type. Knows errors and NumPy; types are known by their name."""

from typing import Any

import numpy as np

from convscope.errors import UsageError
from convscope.typing import Array


def cast(x: Array, dtype: Any = None) -> Array:
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
    whole = np.trunc(x)
    inside = (whole >= float(limits.min)) & (whole < 2.0**63) & (whole <= float(limits.max))
    if not inside.all():
        lost = float(x[~inside].ravel()[0])
        raise UsageError(f"what {lost:g} becomes in {name} is left open by the C standard.")
    return whole.astype(limits.dtype).astype(name)


def wrapped(x: Array, dtype: str) -> Array:
    """Integers in the type of a result, around at the ends of its range; anything else as it is.

    >>> wrapped(np.array([300, -1]), "uint8")
    array([ 44, 255], dtype=uint8)
    """
    whole = dtype.removeprefix("u") in {"int8", "int16", "int32", "int64"} and x.dtype.kind in "iub"
    return x.astype(dtype) if whole else x


def type_name(dtype: Any) -> str:
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
