"""Memory: whether as many images as are asked for can be held here, said before any work."""

import math
from collections.abc import Sequence

from convscope.errors import DataError
from convscope.memory import available


def check_memory(name: str, count: int, shape: Sequence[int], remedy: str, *, copies: int) -> None:
    """Refuse more images than this machine has memory for.

    >>> check_memory("x", 10**12, (1, 28, 28), "Ask for fewer.", copies=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convscope.errors.DataError: 1,000,000,000,000 images of x need about 2,352,000 GB of memory, and ... Ask for fewer.

    Args:
        name: What the images are called.
        count: How many there are.
        shape: (C, H, W) of each.
        remedy: What to do.
        copies: How often they lie in memory while they are made, a byte for each number.

    Raises:
        DataError: they need more than is left.
    """
    needed, left = copies * count * math.prod(shape), available()
    if needed > left:
        raise DataError(
            f"{count:,} images of {name} need about {needed / 1e9:,.0f} GB of memory, and {left / 1e9:,.0f} GB are "
            f"free here. {remedy}"
        )
