"""Which input cell each result cell of a data movement operation is a copy of: view, permute, slice, gather, pad."""

from collections.abc import Callable, Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Operand
from convscope.ops.padding import reflection_pad, replication_pad
from convscope.typing import Array

Move = Callable[[Call, Array], Array]


def view(call: Call, cells: Array) -> Array:
    """The same cells in the same order under another shape: view, reshape, flatten."""
    return _relaid(cells, call.shape, call["self"].shape)


def same(_call: Call, cells: Array) -> Array:
    """A copy, an alias, another memory layout or another type: the same cell."""
    return cells


def copy(call: Call, cells: Array) -> Array:
    """Numbers written over a tensor, broadcast to it."""
    return _broadcast(cells, call["src"].shape)


def expand(call: Call, cells: Array) -> Array:
    """Axes of length 1 repeated without copying."""
    return _broadcast(cells, call["self"].shape)


def transpose(call: Call, cells: Array) -> Array:
    """Two axes exchanged."""
    order = list(range(cells.shape[1]))
    if len(order) > 1:
        first, second = (call["dim0"], call["dim1"]) if "dim0" in call.arguments else (0, 1)
        order[first], order[second] = order[second], order[first]
    return cells[:, order]


def permute(call: Call, cells: Array) -> Array:
    """All axes in another order."""
    result = np.empty_like(cells)
    for position, axis in enumerate(call["dims"]):
        result[:, axis % cells.shape[1]] = cells[:, position]
    return result


def select(call: Call, cells: Array) -> Array:
    """One index of one axis, which disappears."""
    shape = call["self"].shape
    axis = call["dim"] % len(shape)
    return np.insert(cells, axis, call["index"] % shape[axis], axis=1)


def slices(call: Call, cells: Array) -> Array:
    """Every `step`-th index of one axis, from `start` on."""
    axis, start = call["dim"] % cells.shape[1], call.get("start") or 0
    length = call["self"].shape[axis]
    first = max(start + length, 0) if start < 0 else min(start, length)
    return _with(cells, axis, first + cells[:, axis] * call["step"])


def narrow(call: Call, cells: Array) -> Array:
    """Some neighbouring indices of one axis."""
    axis = call["dim"] % cells.shape[1]
    return _with(cells, axis, cells[:, axis] + call["start"] % max(call["self"].shape[axis], 1))


def unsqueeze(call: Call, cells: Array) -> Array:
    """A new axis of length 1."""
    return np.delete(cells, call["dim"] % cells.shape[1], axis=1)


def squeeze(call: Call, cells: Array) -> Array:
    """Axes of length 1 removed: the order of the cells is the same."""
    return _relaid(cells, call.shape, call["self"].shape)


def flip(call: Call, cells: Array) -> Array:
    """Axes turned over."""
    result = cells.copy()
    for axis in call["dims"]:
        result[:, axis] = call.shape[axis] - 1 - cells[:, axis]
    return result


def rot90(call: Call, cells: Array) -> Array:
    """A plane turned by quarters: what was a row becomes a column."""
    first, second = (axis % cells.shape[1] for axis in call["dims"])
    rows, columns = cells[:, first], cells[:, second]
    last_row, last_column = (call["self"].shape[axis] - 1 for axis in (first, second))
    turns = {
        0: (rows, columns),
        1: (columns, last_column - rows),
        2: (last_row - rows, last_column - columns),
        3: (last_row - columns, rows),
    }
    result = cells.copy()
    result[:, first], result[:, second] = turns[call["k"] % 4]
    return result


def roll(call: Call, cells: Array) -> Array:
    """Axes shifted; what leaves at one end comes in at the other."""
    shifts, axes = call["shifts"], call["dims"]
    if not axes:
        flat = _flat(cells, call.shape)
        return _unflat((flat - shifts[0]) % max(int(np.prod(call.shape)), 1), call.shape)
    result = cells.copy()
    for shift, axis in zip(shifts, axes, strict=True):
        result[:, axis] = (result[:, axis] - shift) % call.shape[axis]
    return result


def repeat(call: Call, cells: Array) -> Array:
    """The tensor laid side by side, several times along each axis."""
    shape = call["self"].shape
    return (
        cells[:, cells.shape[1] - len(shape) :] % np.array(shape or (1,))[: cells.shape[1]] if shape else cells[:, :0]
    )


def as_strided(call: Call, cells: Array) -> Array:
    """A view by strides in the memory of the tensor; the trace has the tensor's own strides and first cell.

    Raises:
        UsageError: a cell is outside the tensor.
    """
    array: Array = call["self"].array
    steps, first = call.extra.get("memory") or ([stride // array.itemsize for stride in array.strides], 0)
    offset = call.get("storage_offset")
    remainder = cells @ np.array(call["stride"], np.int64).reshape(-1) + ((first if offset is None else offset) - first)
    result = np.zeros((len(cells), array.ndim), np.int64)
    for axis in sorted(range(array.ndim), key=lambda a: -steps[a]):
        if array.shape[axis] > 1 and steps[axis]:
            result[:, axis] = np.clip(remainder // steps[axis], 0, array.shape[axis] - 1)
            remainder = remainder - result[:, axis] * steps[axis]
    if remainder.any() or (len(cells) and not array.size):
        raise UsageError("as_strided reads memory outside its input, which is not recorded.")
    return result


def split(call: Call, cells: Array) -> Array:
    """One of the parts of an axis: split and chunk into equal parts, split_with_sizes into given ones."""
    axis = call["dim"] % cells.shape[1]
    sizes = call.get("split_sizes", call.get("split_size"))
    before = sizes * call.output if isinstance(sizes, int) else sum(sizes[: call.output])
    return _with(cells, axis, cells[:, axis] + before)


def unbind(call: Call, cells: Array) -> Array:
    """One index of an axis, each its own result."""
    axis = call["dim"] % len(call["self"].shape)
    return np.insert(cells, axis, call.output, axis=1)


def unfold(call: Call, cells: Array) -> Array:
    """Overlapping pieces of an axis, each as a new last axis."""
    if not call["self"].shape:  # a number counts as a vector of one
        return cells[:, :0]
    axis = call["dimension"] % (cells.shape[1] - 1)
    return _with(cells[:, :-1], axis, cells[:, axis] * call["step"] + cells[:, -1])


def diagonal(call: Call, cells: Array) -> Array:
    """The cells where two axes have the same index, as a new last axis."""
    count = len(call["self"].shape)
    first, second = call["dim1"] % count, call["dim2"] % count
    result = np.empty((len(cells), count), np.int64)
    result[:, [a for a in range(count) if a not in {first, second}]] = cells[:, :-1]
    result[:, first] = cells[:, -1] + max(-call["offset"], 0)
    result[:, second] = cells[:, -1] + max(call["offset"], 0)
    return result


def pixel_shuffle(call: Call, cells: Array) -> Array:
    """Channels become pixels: factor x factor channels for each new one."""
    factor = call["upscale_factor"]
    *lead, channel, row, column = cells.T
    inner = (row % factor) * factor + column % factor
    return np.stack([*lead, channel * factor**2 + inner, row // factor, column // factor], axis=1)


def pixel_unshuffle(call: Call, cells: Array) -> Array:
    """Pixels become channels, the other way round."""
    factor = call["downscale_factor"]
    *lead, channel, row, column = cells.T
    old, inner = np.divmod(channel, factor**2)
    return np.stack([*lead, old, row * factor + inner // factor, column * factor + inner % factor], axis=1)


def channel_shuffle(call: Call, cells: Array) -> Array:
    """Channels dealt out: the first of each group, then the second of each."""
    groups = call["groups"]
    channel = cells[:, 1]
    return _with(cells, 1, channel % groups * (call.shape[1] // groups) + channel // groups)


def index_select(call: Call, cells: Array) -> Array:
    """The indices of one axis that a list names."""
    if not call["self"].shape:  # a number counts as a vector of one
        return cells[:, :0]
    axis = call["dim"] % cells.shape[1]
    return _with(cells, axis, call["index"].array.reshape(-1)[cells[:, axis]])


def gather(call: Call, cells: Array) -> Array:
    """Along one axis, the index that a tensor of the result's shape names; a number counts as a vector of one."""
    if not call["self"].shape:
        return cells[:, :0]
    indices = np.broadcast_to(call["index"].array[tuple(cells.T)], len(cells))
    return _with(cells, call["dim"] % cells.shape[1], indices) if cells.shape[1] else indices[:, None].astype(np.int64)


def take(call: Call, cells: Array) -> Array:
    """The cell with a number in reading order."""
    shape = call["self"].shape
    indices = np.broadcast_to(call["index"].array[tuple(cells.T)], len(cells)) % max(int(np.prod(shape)), 1)
    return _unflat(indices.astype(np.int64), shape)


def masked_select(call: Call, cells: Array) -> Array:
    """The cells where a mask holds, in reading order."""
    mask, shape = call["mask"].array, call["self"].shape
    selected = np.argwhere(np.broadcast_to(mask, np.broadcast_shapes(mask.shape, shape)))
    return _broadcast(selected[cells[:, 0]], shape)


def embedding(call: Call, cells: Array) -> Array:
    """The row of a table that an index names."""
    *position, unit = cells.T
    rows = np.broadcast_to(call["indices"].array[tuple(position)], len(cells))
    return np.stack([rows, unit], axis=1)


def index(call: Call, cells: Array) -> Array:
    """The cells that tensors of indices, or masks of truth values, name.

    Source: NumPy user guide, advanced indexing: indexed axes come together at the first of them, or in front of all if
    they do not follow each other.
    """
    operand: Operand = call["self"]
    indexed_axes = _axes_named(call["indices"])
    axes = [axis for axis, _ in indexed_axes]
    indices = np.broadcast_arrays(*(array for _, array in indexed_axes))
    width = indices[0].ndim
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    start = axes[0] if together else 0
    position = tuple(cells[:, start : start + width].T)
    other_indices = iter(np.delete(cells, np.s_[start : start + width], axis=1).T)
    by_axis = dict(zip(axes, indices, strict=True))
    columns = []
    for axis, length in enumerate(operand.shape):
        columns.append(by_axis[axis][position] % length if axis in by_axis else next(other_indices))
    return np.stack([np.broadcast_to(column, len(cells)) for column in columns], axis=1).astype(np.int64)


def _axes_named(indices: tuple[Operand | None, ...]) -> list[tuple[int, Array]]:
    """Each indexed axis with its index; a mask names as many axes as it has."""
    indexed_axes: list[tuple[int, Array]] = []
    axis = 0
    for operand in indices:
        if operand is None:
            axis += 1
        elif operand.array.dtype == bool:
            indexed_axes += [(axis + i, result) for i, result in enumerate(np.nonzero(operand.array))]
            axis += operand.array.ndim
        else:
            indexed_axes.append((axis, operand.array))
            axis += 1
    return indexed_axes


def _with(cells: Array, axis: int, values: Array) -> Array:
    result = cells.copy()
    if result.shape[1]:
        result[:, axis] = values
    return result


def _broadcast(cells: Array, shape: tuple[int, ...]) -> Array:
    tail = cells[:, cells.shape[1] - len(shape) :]
    return np.where(np.array(shape, np.int64).reshape(1, -1) == 1, 0, tail)


def _flat(cells: Array, shape: tuple[int, ...]) -> Array:
    """Row-major positions of cells."""
    steps = np.array([int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))], np.int64)
    return cells @ steps


def _unflat(flat: Array, shape: tuple[int, ...]) -> Array:
    result = np.empty((len(flat), len(shape)), np.int64)
    for axis in reversed(range(len(shape))):
        flat, result[:, axis] = np.divmod(flat, max(shape[axis], 1))
    return result


def _relaid(cells: Array, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array:
    return _unflat(_flat(cells, shape), new_shape)


VIEWS: Mapping[str, Move] = {
    "view": view,
    "_unsafe_view": view,
    "alias": same,
    "detach": same,
    "expand": expand,
    "transpose": transpose,
    "t": transpose,
    "permute": permute,
    "select": select,
    "slice": slices,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "as_strided": as_strided,
    "split": split,
    "split_with_sizes": split,
    "unsafe_split": split,
    "unsafe_split_with_sizes": split,
    "unbind": unbind,
    "unfold": unfold,
    "diagonal": diagonal,
    "narrow": narrow,
}
"""Views of a tensor. PyTorch has a twin of each that copies: `expand_copy`, `view_copy`."""
MOVES: Mapping[str, Move] = {
    **VIEWS,
    **{f"{name}_copy": move for name, move in VIEWS.items()},
    "clone": same,
    "lift_fresh": same,
    "copy": copy,
    "flip": flip,
    "roll": roll,
    "rot90": rot90,
    "repeat": repeat,
    "take": take,
    "masked_select": masked_select,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "index_select": index_select,
    "gather": gather,
    "embedding": embedding,
    "reflection_pad1d": reflection_pad,
    "reflection_pad2d": reflection_pad,
    "reflection_pad3d": reflection_pad,
    "replication_pad1d": replication_pad,
    "replication_pad2d": replication_pad,
    "replication_pad3d": replication_pad,
    "index": index,
}
SOURCES: Mapping[str, str] = {"copy": "src", "embedding": "weight"}
"""Operation -> the argument whose cells are moved; by default `self`."""
