"""Names for the types that appear throughout the package, as `numpy.typing` has them for NumPy."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""A NumPy array of any number type."""
Row: TypeAlias = NDArray[np.float64]
"""The numbers that a function of many takes, float64: shape (T,), or (n, T) for n cells at once."""
Numbers: TypeAlias = float | Array
"""One number, or an array of them: whatever broadcasts."""
