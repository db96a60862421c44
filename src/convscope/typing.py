"""Names for the types that appear throughout the package, as `numpy.typing` has them for NumPy."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""A NumPy array of any number type."""
