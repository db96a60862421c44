"""Names for the types that appear throughout the package, as `numpy.typing` has them for NumPy."""

from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
"""A NumPy array of any number type."""
Row: TypeAlias = NDArray[np.float64]
"""The numbers that a function of many takes, float64: shape (T,), or (n, T) for n cells at once."""
Numbers: TypeAlias = float | Array
"""One number, or an array of them: whatever broadcasts."""
DType: TypeAlias = DTypeLike | None
"""A number type or its name; None for the type that the numbers have."""
Index: TypeAlias = tuple[int | slice | EllipsisType | Array | None, ...]
"""What an array takes in brackets: for each axis a position, a slice or an array of positions."""
