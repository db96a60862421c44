"""Bags of embeddings: rows of a table, a bag at a time. Knows roundoff and NumPy."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.roundoff import carried, gamma
from convscope.typing import Array

SUM, MEAN, MAX = range(3)


def embedding_bag(
    weight: Array, indices: Array, offsets: Array, mode: int = SUM, per_sample_weights: Array | None = None,
    include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[Array | None, ...]:  # fmt: skip
    """_embedding_bag: the sum, the mean or the largest of the rows of each bag; an empty bag is 0.

    >>> embedding_bag(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 1]), np.array([0, 2]))[0]
    array([[5.],
           [2.]])

    Args:
        weight: The table, shape (V, D).
        indices: Rows of all bags, one bag after the other, shape (L,).
        offsets: Where each bag starts, shape (B,); with `include_last_offset` one more, where the last ends.
        mode: 0 adds, 1 averages, 2 takes the largest.
        per_sample_weights: What each row is multiplied by, shape (L,).
        padding_idx: A row that does not count, or -1.

    Returns:
        Shape (B, D); and three results that only a backward pass reads, as None.
    """
    bags = _bags(weight, indices, offsets, per_sample_weights, include_last_offset, padding_idx)
    return np.array([_one(rows, mode) for rows in bags]).reshape(-1, weight.shape[1]), None, None, None


def embedding_bag_error(
    _y: Any, u: float, weight: Array, indices: Array, offsets: Array, mode: int = SUM,
    per_sample_weights: Array | None = None, include_last_offset: bool = False, padding_idx: int = -1,
) -> tuple[Array, ...]:  # fmt: skip
    """A product and an addition for each row of a bag, and a division; the largest is exact."""
    nothing = np.zeros(())
    if mode == MAX:
        return nothing, nothing, nothing, nothing
    scale = None if per_sample_weights is None else np.abs(per_sample_weights)
    bags = list(_bags(np.abs(weight), indices, offsets, scale, include_last_offset, padding_idx))
    size = np.array([_one(rows, mode) for rows in bags]).reshape(-1, weight.shape[1])
    counts = np.array([len(rows) for rows in bags]).reshape(-1, 1)
    off = np.vectorize(lambda count: gamma(count + 2, u), otypes=[float])(counts) * size
    return carried(off, size * np.maximum(counts, 1), u), nothing, nothing, nothing


def _bags(
    weight: Array, indices: Array, offsets: Array, scale: Array | None, include_last_offset: bool, padding_idx: int
) -> Iterator[Array]:
    """The rows of each bag, shape (n, D)."""
    ends = [*offsets[1:], *([] if include_last_offset else [len(indices)])]
    for start, end in zip(offsets, ends, strict=False):
        part = slice(int(start), int(end))
        counts = indices[part] != padding_idx
        rows = weight[indices[part][counts]]
        yield rows if scale is None else rows * scale[part][counts][:, None]


def _one(rows: Array, mode: int) -> Array:
    if not len(rows):
        return np.zeros(rows.shape[1])
    return np.asarray((rows.sum(0), rows.mean(0), rows.max(0))[mode])


_BAG = Operation(embedding_bag, embedding_bag_error)
EMBEDDING_BAG: Mapping[str, Operation] = {"_embedding_bag": _BAG, "_embedding_bag_forward_only": _BAG}
