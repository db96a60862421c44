"""Memory: whether as many images as are asked for can be held here, said before any work. Knows the system's files."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from convscope.errors import DataError


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


def available() -> int:
    """Bytes of memory that can still be had: of the system and, where there is one, of the control group's limit."""
    try:
        said = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(said["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # elsewhere: all that exists
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return free
