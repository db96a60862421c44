"""Ranges: a set of indices in as few words as a person needs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ranges(indices: Sequence[int] | NDArray[np.int64], most: int = 8) -> str:
    """Runs of indices, with their step where it is not 1.

    >>> ranges([3]), ranges([2, 3, 4, 5]), ranges([0, 2, 4, 6, 8]), ranges([1, 2, 3, 7, 8, 9])
    ('3', '2 to 5', '0 to 8 by 2', '1 to 3, 7 to 9')

    Args:
        indices: In ascending order.
        most: How many runs are named; the others are only counted.
    """
    left, runs = [int(index) for index in indices], []
    while left:
        step = left[1] - left[0] if len(left) > 1 else 1
        length = 1
        while length < len(left) and left[length] - left[length - 1] == step:
            length += 1
        if length == 2 and step > 1:
            length = 1
        by = "" if step == 1 else f" by {step}"
        runs.append(str(left[0]) if length == 1 else f"{left[0]} to {left[length - 1]}{by}")
        left = left[length:]
    shown = runs if len(runs) <= most else [*runs[: most - 1], f"and {len(runs) - most + 1} runs more"]
    return ", ".join(shown)
