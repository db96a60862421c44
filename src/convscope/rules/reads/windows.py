"""Reads of windows: convolution, pooling, resampling: the same index sets along each axis, whatever the channel."""

from collections.abc import Sequence

import numpy as np

from convscope.rules.adjoints.separable import Matrix
from convscope.rules.call import Array, Call
from convscope.rules.gather import pair
from convscope.rules.reads.mixing import marked
from convscope.rules.resampling import cubic_taps, linear_taps, nearest_taps


def convolution(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """Of each group of channels all, under the kernel; a kernel that varies is read whole, its bias too."""
    marks, found = marked(marks), {}
    if "input" in varies:
        shape, groups = call["input"].shape, call["groups"]
        grouped = marks.reshape(marks.shape[0], groups, -1, *marks.shape[2:]).max(axis=2)  # (N, G, *P)
        spread = windowed(grouped, _kernel(call), shape[2:])
        found["input"] = np.repeat(spread, shape[1] // groups, axis=1)
    if "weight" in varies:
        found["weight"] = _kernels(call, marks)
    if "bias" in varies:
        found["bias"] = marks.max(axis=(0, *range(2, marks.ndim)))
    return found


def _kernels(call: Call, marks: Array) -> Array:
    """Which kernels the marked channels use."""
    used = marks.max(axis=(0, *range(2, marks.ndim)))  # (K,)
    shape = call["weight"].shape
    if call["transposed"]:  # (C, K / G, ...): a kernel for each input channel
        by_group = used.reshape(call["groups"], -1)  # (G, K / G)
        used = np.repeat(by_group, shape[0] // call["groups"], axis=0)  # (C, K / G)
    return np.broadcast_to(used.reshape(used.shape + (1,) * (len(shape) - used.ndim)), shape).copy()


def _kernel(call: Call) -> list[Matrix]:
    """For each axis which input cells each cell of the result lies over."""
    axes = len(call.shape) - 2
    settings = zip(
        call["input"].shape[2:],
        call.shape[2:],
        call["weight"].shape[2:],
        *(pair(call[name], axes) for name in ("stride", "padding", "dilation")),
        strict=True,
    )
    if not call["transposed"]:
        return [_slid(length, wanted, window) for length, wanted, *window in settings]
    return [_slid(wanted, length, window).T for length, wanted, *window in settings]


def _slid(length: int, wanted: int, window: Sequence[int]) -> Matrix:
    """(wanted, length): 1 where window `row` has a tap on cell `column`.

    >>> _slid(4, 2, (2, 2, 0, 1)).tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]

    Args:
        window: Its size, stride, padding and dilation.
    """
    size, stride, padding, dilation = window
    found = np.zeros((wanted, length), np.float32)
    at = np.arange(wanted)[:, None] * stride - padding + np.arange(size) * dilation  # (P, R)
    inside = (at >= 0) & (at < length)
    found[np.nonzero(inside)[0], at[inside]] = 1.0
    return found


def pool(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The window, of the same channel."""
    axes = int(call.op.split("pool")[1][0])
    sizes = pair(call["kernel_size"], axes)
    strides = pair(call["stride"], axes) if call["stride"] else sizes
    paddings, dilations = pair(call["padding"], axes), pair(call.get("dilation", 1), axes)
    shape = call["self"].shape[-axes:]
    windows = zip(sizes, strides, paddings, dilations, strict=True)
    lengths = zip(shape, call.shape[-axes:], windows, strict=True)
    return {"self": windowed(marked(marks), [_slid(*line) for line in lengths], shape)} if varies else {}


def adaptive_pool(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """Windows whose size follows from the shapes."""
    axes = len(call["output_size"])
    shape = call["self"].shape[-axes:]
    matrices = []
    for length, wanted in zip(shape, call.shape[-axes:], strict=True):
        at = np.arange(wanted)
        start, end = at * length // wanted, -(-(at + 1) * length // wanted)
        matrices.append(((np.arange(length) >= start[:, None]) & (np.arange(length) < end[:, None])).astype(np.float32))
    return {"self": windowed(marked(marks), matrices, shape)} if varies else {}


def resampling(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cells around a place that have a share in it."""
    taps = cubic_taps if "cubic" in call.op else linear_taps if "linear" in call.op else nearest_taps
    axes = len(call["output_size"])
    shape = call["self"].shape[-axes:]
    matrices = []
    for axis in range(axes):
        matrix = np.zeros((call.shape[axis - axes], shape[axis]), np.float32)
        for at in range(len(matrix)):
            positions, shares, _ = taps(call, axis, at)
            matrix[at, positions[shares != 0]] = 1.0
        matrices.append(matrix)
    return {"self": windowed(marked(marks), matrices, shape)} if varies else {}


def windowed(marks: Array, matrices: Sequence[Matrix], shape: Sequence[int]) -> Array:
    """Marks on a result as marks on the cells that it reads along its last axes.

    Only the smallest box that holds all marks is looked at: for one deep cell that is little.

    Args:
        marks: Shape (..., P, Q).
        matrices: For each of these axes (P, H): which cells each place reads.
        shape: (H, W).

    Returns:
        Shape (..., H, W), 1 and 0.
    """
    axes, lead = len(matrices), marks.shape[: marks.ndim - len(matrices)]
    flat = marks.reshape(-1, *marks.shape[marks.ndim - axes :])
    found = np.zeros((len(flat), *shape), np.float32)
    seen: Array = flat.max(axis=0, initial=0.0)
    rows, columns = [], []
    for axis, matrix in enumerate(matrices):
        used = np.flatnonzero(seen.max(axis=tuple(a for a in range(axes) if a != axis), initial=0.0))
        row = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
        reached = np.flatnonzero(matrix[row].any(axis=0))
        rows.append(row)
        columns.append(slice(int(reached[0]), int(reached[-1]) + 1) if len(reached) else slice(0, 0))
    part = flat[(slice(None), *rows)]
    for axis, matrix in enumerate(matrices):
        part = np.moveaxis(np.moveaxis(part, axis + 1, -1) @ matrix[rows[axis], columns[axis]], -1, axis + 1)
    found[(slice(None), *columns)] = part > 0
    return found.reshape(*lead, *shape)
