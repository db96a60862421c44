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
    check_bytes(f"{count:,} images of {name}", copies * count * math.prod(shape), remedy)


def check_bytes(what: str, needed: int, remedy: str) -> None:
    """Refuse what takes more memory than is free.

    Args:
        what: What it is called, in the plural.
        needed: Bytes.
        remedy: What to do.

    Raises:
        DataError: it takes more than is left.
    """
    left = available()
    if needed > left:
        raise DataError(
            f"{what} need about {needed / 1e9:,.0f} GB of memory, and {left / 1e9:,.0f} GB are free here. {remedy}"
        )
