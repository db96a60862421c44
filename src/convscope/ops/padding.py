"""Padding and windows: constant, reflected and repeated borders, im2col and col2im."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from convscope.expr.call import Call, Cell, Operand, stacked
from convscope.expr.cells import leaf, pair
from convscope.expr.expr import Cells, Dot, Leaf, number
from convscope.ops.vjp import VJP, Varies, only
from convscope.typing import Array, Index


def constant_pad(call: Call, cell: Cell) -> Leaf:
    """The image inside, a constant around it; negative padding crops."""
    operand: Operand = call["self"]
    position = list(cell)
    for back, before in enumerate(call["pad"][::2]):
        position[-1 - back] -= before
    inside = all(np.min(i) >= 0 and np.max(i) < n for i, n in zip(position, operand.shape, strict=True))
    return leaf(operand, tuple(position)) if inside else number(call["value"], "padding")


def alike_padded(call: Call, cell: Cell) -> Array | None:
    """Cells of the image, cells of the padding."""
    position = stacked(cell)
    for back, before in enumerate(call["pad"][::2]):
        position[:, -1 - back] -= before
    inside: Array = np.all((position >= 0) & (position < call["self"].shape), axis=1)
    return inside[:, None]


def im2col(call: Call, cell: Cell) -> Leaf:
    """Windows as columns: each row is one place in the window, each column one window."""
    operand: Operand = call["self"]
    *lead, row, column = cell
    sizes, dilations, paddings, strides = (pair(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride"))
    across = _windows(operand.shape[-1], sizes[1], dilations[1], paddings[1], strides[1])
    channel, tap = divmod(row, sizes[0] * sizes[1])
    taps, windows = divmod(tap, sizes[1]), divmod(column, across)
    position = [
        window * stride - padding + dilation * tap_index
        for window, stride, padding, dilation, tap_index in zip(
            windows, strides, paddings, dilations, taps, strict=True
        )
    ]
    inside = all(0 <= i < n for i, n in zip(position, operand.shape[-2:], strict=True))
    return leaf(operand, (*lead, channel, *position)) if inside else number(0, "padding")


def col2im(call: Call, cell: Cell) -> Dot:
    """The sum of all window cells that cover this pixel."""
    *lead, channel, _, _ = cell
    sizes, dilations, paddings, strides = (pair(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride"))
    axes = []
    for axis, index in enumerate(cell[-2:]):
        count = _windows(call["output_size"][axis], sizes[axis], dilations[axis], paddings[axis], strides[axis])
        start = index + paddings[axis] - dilations[axis] * np.arange(sizes[axis])
        hit = (start % strides[axis] == 0) & (start >= 0) & (start // strides[axis] < count)
        axes.append((np.flatnonzero(hit), start[hit] // strides[axis], count))
    (rows, tops, _), (columns, lefts, across) = axes
    taps = (channel * sizes[0] + rows[:, None]) * sizes[1] + columns
    windows = tops[:, None] * across + lefts
    return _scattered(call["self"], tuple(lead), taps.reshape(-1), windows.reshape(-1))


def _scattered(operand: Operand, lead: Cell, rows: Array, columns: Array) -> Dot:
    cells = np.column_stack([np.tile(np.array(lead, np.int64), (len(rows), 1)), rows, columns]).astype(np.int64)
    values = operand.array[tuple(cells.T)].astype(np.float64)
    note = f"the sum of the {len(rows)} window cells that cover this pixel"
    return Dot(Cells(values, operand.source, cells, (len(rows),)), note=note)


def _windows(length: int, size: int, dilation: int, padding: int, stride: int) -> int:
    return (length + 2 * padding - dilation * (size - 1) - 1) // stride + 1


def constant_pad_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The inside; the padding's number is a constant."""
    only(call, varies, "self")
    shape, pads = call["self"].shape, call["pad"]
    inner, target = [slice(None)] * weights.ndim, [slice(None)] * weights.ndim
    for back in range(len(pads) // 2):
        axis, before, after = weights.ndim - 1 - back, pads[2 * back], pads[2 * back + 1]
        inner[axis] = slice(max(before, 0), weights.shape[axis] - max(after, 0))
        target[axis] = slice(max(-before, 0), shape[axis] - max(-after, 0))
    result = np.zeros(shape)
    result[tuple(target)] = weights[tuple(inner)]
    outside = weights.sum() - weights[tuple(inner)].sum()
    return VJP({"self": result}, float(call["value"]) * float(outside) if call["value"] else 0.0)


def im2col_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Windows laid back over the image."""
    only(call, varies, "self")
    shape = call["self"].shape
    image = np.zeros(shape)
    sizes, counts = pair(call["kernel_size"], 2), _windows_vjp(call, shape[-2:])
    columns = weights.reshape(*shape[:-2], *sizes, *counts)
    for tap, target, source in _taps(call, shape[-2:]):
        image[(..., *target)] += columns[(..., *tap, *source)]
    return VJP({"self": image})


def col2im_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Every window cell takes the weight of its pixel."""
    only(call, varies, "self")
    shape, size = call["self"].shape, tuple(call["output_size"])
    columns = np.zeros((*weights.shape[:-2], *pair(call["kernel_size"], 2), *_windows_vjp(call, size)))
    for tap, target, source in _taps(call, size):
        columns[(..., *tap, *source)] = weights[(..., *target)]
    return VJP({"self": columns.reshape(shape)})


def _windows_vjp(call: Call, size: tuple[int, ...]) -> tuple[int, ...]:
    settings = zip(size, *(pair(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride")), strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in settings)


def _taps(call: Call, size: tuple[int, ...]) -> Iterator[tuple[Index, Index, Index]]:
    """For each position in the window: the pixels that it covers, and in which windows."""
    dilations, paddings, strides = (pair(call[n], 2) for n in ("dilation", "padding", "stride"))
    counts = _windows_vjp(call, size)
    for tap in np.ndindex(*pair(call["kernel_size"], 2)):
        places = [
            np.arange(n) * s - p + d * t
            for n, s, p, d, t in zip(counts, strides, paddings, dilations, tap, strict=True)
        ]
        inside = [(positions >= 0) & (positions < n) for positions, n in zip(places, size, strict=True)]
        target = np.ix_(*[positions[i] for positions, i in zip(places, inside, strict=True)])
        yield tap, target, np.ix_(*[np.flatnonzero(i) for i in inside])


# Borders that repeat cells of the image: which cell each result cell is a copy of


def _mirrored(positions: Array, length: int) -> Array:
    last = length - 1
    return np.asarray(last - np.abs(last - np.abs(positions)))


BORDERS: Mapping[str, Callable[[Array, int], Array]] = {
    "reflection": _mirrored,
    "replication": lambda positions, length: np.clip(positions, 0, length - 1),
}
"""The cell that a position inside or outside an axis copies."""


def reflection_pad(call: Call, cells: Array) -> Array:
    """The image is mirrored at its border, which is not repeated."""
    return _padded(call, cells, BORDERS["reflection"])


def replication_pad(call: Call, cells: Array) -> Array:
    """Around the image its border, repeated."""
    return _padded(call, cells, BORDERS["replication"])


def _padded(call: Call, cells: Array, inner: Callable[[Array, int], Array]) -> Array:
    """`padding` names what was added before and after, from the last axis on."""
    result = cells.copy()
    shape = call["self"].shape
    for back, before in enumerate(call["padding"][::2]):
        axis = cells.shape[1] - 1 - back
        result[:, axis] = inner(cells[:, axis] - before, shape[axis])
    return result
