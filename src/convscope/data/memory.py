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
    needed, left = copies * count * math.prod(shape), available()
    if needed > left:
        raise DataError(
            f"{count:,} images of {name} need about {needed / 1e9:,.0f} GB of memory, and {left / 1e9:,.0f} GB are "
            f"free here. {remedy}"
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
