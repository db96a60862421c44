"""Casting: what a number becomes in another type. Knows NumPy alone; types are known by their name."""

from typing import Any

import numpy as np

from convscope.reference.roundoff import Array


def cast(x: Array, dtype: Any = None) -> Array:
    """`x` as a tensor of `dtype` holds it, in float64 where that is a float type.

    >>> cast(np.array([0.1, -2.7]), "int64"), cast(np.array([0.1]), "torch.float32")
    (array([ 0, -2]), array([0.1]))

    Args:
        x: Any array.
        dtype: A type or its name, with or without `torch.` in front; None changes nothing.
    """
    name = type_name(dtype)
    if not name:
        return np.asarray(x)
    if name == "bfloat16":
        return _bfloat16(np.asarray(x))
    rounded = np.asarray(x).astype(name)
    return rounded.astype(np.float64) if rounded.dtype.kind == "f" else rounded


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
    bits = np.atleast_1d(x.astype(np.float32)).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.nan, rounded.reshape(x.shape).astype(np.float64))
