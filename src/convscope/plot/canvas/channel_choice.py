"""Choice: which of many channels a figure has room for, and the words that say so."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Choice:
    """Indices along the first axis, in their own order, and what to say where they are not all."""

    count: int
    """How many entries there are."""
    shown: tuple[int, ...]
    said: str
    """Such as `24 of 512 channels, those with the largest range`; empty where all are shown."""


def choose(values: NDArray[Any], most: int, what: str) -> Choice:
    """The `most` entries along the first axis whose numbers reach furthest from their smallest to their largest.

    >>> choose(np.array([[0, 1], [0, 9], [3, 3], [0, 2]]), 2, "channels")
    Choice(count=4, shown=(1, 3), said='2 of 4 channels, those with the largest range')

    Args:
        values: Any array, shape (N, ...).
        most: How many there is room for.
        what: What the entries are called, in the plural.
    """
    count = len(values)
    if count <= most:
        return Choice(count, tuple(range(count)), "")
    flat = np.nan_to_num(np.asarray(values, np.float64).reshape(count, -1))
    reach = np.ptp(flat, axis=1) if flat.shape[1] > 1 else np.abs(flat[:, 0])
    result = np.sort(np.argsort(-reach, kind="stable")[:most])
    how = "the largest range" if flat.shape[1] > 1 else "the largest magnitude"
    return Choice(count, tuple(map(int, result)), f"{most:,} of {count:,} {what}, those with {how}")
