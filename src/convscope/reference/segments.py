"""Segments: the sum, mean, product or extreme of each of several runs of an axis. Knows precision and NumPy."""

from collections.abc import Callable

import numpy as np

from convscope.errors import UsageError
from convscope.reference.precision import carried, gamma, scalar
from convscope.typing import Array, Numbers

REDUCE: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.sum, "prod": np.prod, "max": np.max, "min": np.min}
EMPTY = {"sum": 0.0, "mean": np.nan, "prod": 1.0, "max": -np.inf, "min": np.inf}


def segment_reduce(
    data: Array, reduce: str, lengths: Array | None = None, indices: Array | None = None, offsets: Array | None = None,
    axis: int = 0, unsafe: bool = False, initial: float | None = None,
) -> Array:  # fmt: skip
    """Runs of an axis, one after the other, each reduced to one number, starting from an initial one.

    >>> segment_reduce(np.array([1.0, 2.0, 4.0]), "mean", lengths=np.array([1, 2])).tolist()
    [1.0, 3.0]

    Raises:
        UsageError: segments that are named cell by cell.
    """
    del unsafe
    if (lengths is None and offsets is None) or indices is not None:
        raise UsageError("the reference has segment_reduce for lengths and offsets only.")
    starts = offsets if lengths is None else np.concatenate(
        [np.zeros((*lengths.shape[:-1], 1), np.int64), np.cumsum(lengths, -1)], -1)  # fmt: skip
    assert starts is not None
    lead = starts.shape[:-1]
    result = np.empty((*lead, starts.shape[-1] - 1, *data.shape[axis + 1 :]))
    for at in np.ndindex(lead):
        for k, (start, end) in enumerate(zip(starts[at][:-1], starts[at][1:], strict=True)):
            result[(*at, k)] = _reduced(data[at][start:end], reduce, initial)
    return result


def _reduced(cells: Array, reduce: str, initial: float | None) -> Numbers:
    if not len(cells):
        return EMPTY[reduce] if initial is None else initial
    first = {"sum": 0.0, "mean": 0.0, "prod": 1.0}.get(reduce) if initial is None else initial
    values = cells if first is None else np.concatenate([np.full((1, *cells.shape[1:]), first), cells])
    result = REDUCE[reduce](values, axis=0)
    return result / len(cells) if reduce == "mean" else result


def segment_reduce_error(
    y: Array, u: float, data: Array, reduce: str, initial: float | None = None, axis: int = 0,
    lengths: Array | None = None, indices: Array | None = None, offsets: Array | None = None, unsafe: bool = False,
) -> Numbers:  # fmt: skip
    """At most one addition or product for each cell of the axis, and a division; a Python number is rounded."""
    lost = 0.0 if initial is None else float(scalar(initial, u))
    if reduce in {"max", "min"}:
        return np.where(y == initial, lost, 0.0) if initial is not None else 0.0
    terms = data.shape[axis] + 2
    if reduce == "prod":
        return gamma(terms, u) * np.abs(y) * (1 + bool(lost))
    start = None if initial is None else abs(initial)
    size = segment_reduce(np.abs(data), reduce, lengths, indices, offsets, axis, unsafe, start)
    return carried(gamma(terms, u) * size + lost, size, u)
