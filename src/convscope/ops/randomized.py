"""Layers with random numbers: RReLU (in evaluation) and fractional max pooling."""

from collections.abc import Mapping, Sequence

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell
from convscope.expr.cells import from_last_nan, leaf, outer, winner_of
from convscope.expr.expr import Apply, number
from convscope.expr.precision import rounded
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.titles import named
from convscope.ops.vjp import VJP, Varies, first_result, only, wide
from convscope.typing import Array


def rrelu(call: Call, cell: Cell) -> Apply:
    """A leaky relu; in evaluation its slope is the middle of the range used in training.

    Raises:
        UsageError: in training the slopes are random, and the call does not record them.
    """
    return Apply("leaky_relu", {"x": leaf(call["self"], cell), "slope": number(_slope(call), "middle slope")})


def _slope(call: Call) -> float:
    if call["training"]:
        raise UsageError("no rule explains rrelu in training: its random slopes are not recorded.")
    return (float(call["lower"]) + float(call["upper"])) / 2


def rrelu_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """The slope is 1 above zero, the middle slope below."""
    only(call, varies, "self")
    return VJP({"self": weights * np.where(wide(call["self"]) > 0, 1.0, _slope(call))})


def rrelu_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same cell; in evaluation nothing reads the noise."""
    masks = {"self": as_mask(mask), "noise": np.zeros(call["noise"].shape, np.float32)}
    return {name: masks[name] for name in varies}


def fractional_max_pool(call: Call, cell: Cell) -> Apply:
    """The largest cell of a window whose start was drawn; the second result is its position in the plane.

    Source: Graham, Fractional Max-Pooling, 2014; PyTorch, aten/src/ATen/native/FractionalMaxPooling.h.
    """
    starts = _starts(call, _plane_of(call, cell))
    kernel, planes = call["kernel_size"], call["self"].shape[-len(starts) :]
    lead = cell[: -len(starts)]
    window = [range(s[i], s[i] + size) for s, i, size in zip(starts, cell[-len(starts) :], kernel, strict=True)]
    cells = outer(call["self"], [*lead, *window])
    if not call.output:
        return Apply("max", {"cells": cells}, note=f"the largest of {len(cells):,} cells")
    cells = from_last_nan(cells)
    flat = np.ravel_multi_index(tuple(cells.cells[:, -len(starts) :].T), planes)
    note = f"the index of the largest of {len(cells):,} cells"
    return Apply("argmax", {"cells": cells, "positions": cells.placed(flat)}, note=note)


def _plane_of(call: Call, cell: Cell) -> int:
    """The index of a cell's plane among all images and channels; each has its own windows."""
    lead = call["self"].shape[: -len(call["kernel_size"])]
    return int(np.ravel_multi_index(cell[: len(lead)], lead)) if lead else 0


def _starts(call: Call, plane: int) -> list[Array]:
    """The starts of a plane's windows on each axis; in two dimensions the first sample is the columns'."""
    axes = len(call["kernel_size"])
    samples = call["random_samples"].array.reshape(-1, axes)[plane]
    samples = samples[::-1] if axes == 2 else samples
    axis_settings = zip(samples, call["self"].shape[-axes:], call["output_size"], call["kernel_size"], strict=True)
    return [_intervals(call.dtype, *numbers) for numbers in axis_settings]


def _intervals(dtype: str, sample: float, length: int, count: int, size: int) -> Array:
    """Starts of `count` windows, in the arithmetic of the kernel: each step is rounded to the type of the tensor."""

    def short(value: float) -> float:
        return rounded(float(value), dtype)

    if not 0 <= sample <= 1:
        raise UsageError("the samples of a fractional max pooling are numbers from 0 to 1.")
    starts: Array = np.full(count, length - size, np.int64)
    if count > 1:
        step = short((length - size) / (count - 1))
        for index in range(count - 1):
            starts[index] = int(short(short(index + float(sample)) * step)) - int(short(float(sample) * step))
    return starts


def fractional_max_pool_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the largest cell of each window."""
    first_result(call)
    only(call, varies, "self")
    image = wide(call["self"])
    result = np.zeros_like(image)
    for plane, windows in _planes(call):
        for cell, window in windows:
            cells = image[plane][window]
            best = np.unravel_index(int(winner_of(cells.ravel())), cells.shape)
            winner = tuple(part.start + int(i) for part, i in zip(window, best, strict=True))
            result[(*plane, *winner)] += weights[(*plane, *cell)]
    return VJP({"self": result})


def fractional_max_pool_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cells of each window; all random samples."""
    mask = as_mask(mask)
    masks = {name: np.full(call[name].shape, mask.max(initial=0.0), np.float32) for name in varies}
    if "self" in varies:
        masks["self"] = np.zeros(call["self"].shape, np.float32)
        for plane, windows in _planes(call):
            for cell, window in windows:
                if mask[(*plane, *cell)]:
                    masks["self"][plane][window] = 1.0
    return masks


Windows = Sequence[tuple[Cell, tuple[slice, ...]]]


def _planes(call: Call) -> list[tuple[Cell, Windows]]:
    """For every plane its place, and the cells of its result with their windows."""
    axes = len(call["kernel_size"])
    planes: list[tuple[Cell, Windows]] = []
    for plane, index in enumerate(np.ndindex(*call["self"].shape[:-axes])):
        starts = _starts(call, plane)
        windows = [
            (cell, tuple(slice(s[i], s[i] + k) for s, i, k in zip(starts, cell, call["kernel_size"], strict=True)))
            for cell in np.ndindex(*call["output_size"])
        ]
        planes.append((index, windows))
    return planes


_POOL = Op(
    fractional_max_pool,
    fractional_max_pool_dependencies,
    fractional_max_pool_vjp,
    title=named("fractional max pooling"),
    selected_by=("random_samples",),
)
RANDOMIZED: Mapping[str, Op] = {
    "rrelu_with_noise": Op(rrelu, rrelu_dependencies, rrelu_vjp, role="activation"),
    "fractional_max_pool2d": _POOL,
    "fractional_max_pool3d": _POOL,
}
