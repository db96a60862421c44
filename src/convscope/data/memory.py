"""Memory: check that the requested images fit into memory before any work is done."""

import math
from collections.abc import Sequence

from convscope.errors import DataError
from convscope.memory import available


def check_memory(name: str, count: int, shape: Sequence[int], remedy: str, *, copies: int) -> None:
    """Raise an error if the images do not fit into memory.

    >>> check_memory("x", 10**12, (1, 28, 28), "Ask for fewer.", copies=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convscope.errors.DataError: 1,000,000,000,000 images of x need about 2,352,000 GB of memory, and ... Ask for fewer.

    Args:
        name: Name of the images in messages.
        count: Number of images.
        shape: (C, H, W) of each image.
        remedy: Advice for the user.
        copies: Number of copies in memory while they are made, one byte per value.

    Raises:
        DataError: they need more memory than is free.
    """
    check_bytes(f"{count:,} images of {name}", copies * count * math.prod(shape), remedy)


def check_bytes(what: str, needed: int, remedy: str) -> None:
    """Raise an error if something needs more memory than is free.

    Args:
        what: Its name in messages, a plural.
        needed: Number of bytes.
        remedy: Advice for the user.

    Raises:
        DataError: it needs more memory than is free.
    """
    left = available()
    if needed > left:
        raise DataError(
            f"{what} need about {needed / 1e9:,.0f} GB of memory, and {left / 1e9:,.0f} GB are free here. {remedy}"
        )
