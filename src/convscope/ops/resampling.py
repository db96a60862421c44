"""Resampling: resizing by nearest, linear and cubic interpolation, and with antialiasing."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Source
from convscope.expr.cells import leaf, outer
from convscope.expr.expr import Cells, Dot, Leaf
from convscope.ops.dependencies import as_mask, through_windows
from convscope.ops.op import Op
from convscope.ops.vjp import VJP, Matrix, Varies, along, only
from convscope.typing import Array

Taps = tuple[Array, Array, Array]
"""Positions on one axis, their weights, and how inexact the kernel's weights may be.

The general kernels of bfloat16 and half calculate in float32 but store the weights of each axis in the narrow type
(PyTorch, aten/src/ATen/native/UpSample.h, compute_source_index_and_lambda): `Precision.inner`.
"""


def nearest(call: Call, cell: Cell) -> Leaf:
    """The nearest cell, once from the corner of cells and once (`exact`) from their middle.

    Source: PyTorch, aten/src/ATen/native/UpSample.h, nearest_idx and nearest_exact_idx; always in float32.
    """
    position = [_nearest_at(call, axis, index) for axis, index in _spatial(call, cell)]
    return leaf(call["self"], (*cell[: -len(position)], *position))


def linear(call: Call, cell: Cell) -> Dot:
    """The two nearest cells on each axis, weighted by nearness: linear, bilinear, trilinear.

    Source: PyTorch, aten/src/ATen/native/UpSample.h, area_pixel_compute_source_index.
    """
    return interpolated(call, cell, linear_taps)


def cubic(call: Call, cell: Cell) -> Dot:
    """The four nearest cells on each axis, weighted by a cubic curve with A = -0.75.

    Source: Keys, IEEE Transactions on Acoustics, Speech and Signal Processing 29, 1981.
    """
    return interpolated(call, cell, cubic_taps)


def interpolated(call: Call, cell: Cell, taps: Callable[..., Taps]) -> Dot:
    """The cells around a place, each times the product of its nearness along every axis."""
    axes = [taps(call, axis, index) for axis, index in _spatial(call, cell)]
    window = outer(call["self"], [*cell[: -len(axes)], *(positions for positions, _, _ in axes)])
    if not np.isfinite(window.values).all():  # then a product with 0 counts
        axes = [taps(call, axis, index, as_read=True) for axis, index in _spatial(call, cell)]
        window = outer(call["self"], [*cell[: -len(axes)], *(positions for positions, _, _ in axes)])
    weights: Array = np.ones(1)
    errors: Array = np.zeros(1)
    for _, weight, error in axes:
        errors = np.outer(np.abs(weights) + errors, error).ravel() + np.outer(errors, np.abs(weight)).ravel()
        weights = np.outer(weights, weight).ravel()
    source = Source("nearness", "computed", weights.shape)
    nearness = Cells(weights, source, np.arange(len(weights))[:, None], window.grid, errors=errors)
    return Dot(window, nearness, note=f"{len(weights)} cells around it, each × its interpolation weight")


def _spatial(call: Call, cell: Cell) -> list[tuple[int, int]]:
    """The spatial axes, counted from 0, and the cell's index on each."""
    return list(enumerate(cell[-len(call["output_size"]) :]))


def given_scale(call: Call, axis: int) -> tuple[int, int, float | None]:
    """Input length, output length and the given scale factor of one spatial axis."""
    axes = len(call["output_size"])
    names = ("scales_d", "scales_h", "scales_w")[-axes:] if axes > 1 else ("scales",)
    return call["self"].shape[axis - axes], call.shape[axis - axes], call.get(names[axis])


def _nearest_at(call: Call, axis: int, index: int) -> int:
    length, out_length, scale = given_scale(call, axis)
    exact = "exact" in call.op
    if not exact and out_length in {length, 2 * length}:
        return index * length // out_length
    step = np.float32(1 / scale) if scale else np.float32(length) / np.float32(out_length)
    return min(math.floor(np.float32(index + 0.5 if exact else index) * step), length - 1)


def _settled(call: Call, axis: int, index: int, coordinate: float) -> None:
    """That the kernel reads the cells around `coordinate`, whether it multiplies and adds in one rounding or in two.

    Raises:
        UsageError: the two fall between other cells.
    """
    length, out_length, scale = given_scale(call, axis)
    if call["align_corners"] or call.dtype == "float64":
        return
    step = np.float32(1 / scale) if scale else np.float32(length) / np.float32(out_length)
    fused = float(np.float32(float(step) * (index + 0.5) - 0.5))
    if math.floor(max(fused, 0.0)) != math.floor(max(coordinate, 0.0)):
        raise UsageError("which cells the kernel reads depends on its rounding, and not all of them are finite.")


def _position(call: Call, axis: int, index: int, clip: bool) -> tuple[float, float, int]:
    """Where the result's cell falls on the input's axis, how inexact that is, and the axis' length."""
    length, out_length, scale = given_scale(call, axis)
    if length == out_length and clip:  # linear kernels copy, cubic ones do not
        return float(index), 0.0, length
    kind = np.float64 if call.dtype == "float64" else np.float32
    if call["align_corners"]:
        step = kind(length - 1) / kind(out_length - 1) if out_length > 1 else kind(0)
        coordinate, fine = step * kind(index), float(step) * index
    else:
        step = kind(1 / scale) if scale else kind(length) / kind(out_length)
        coordinate, fine = step * kind(index + 0.5) - kind(0.5), float(step) * (index + 0.5) - 0.5
    doubt = 0.0 if float(coordinate) == fine and kind is np.float32 else 4 * call.precision.sum * (abs(fine) + 1)
    return (max(float(coordinate), 0.0) if clip else float(coordinate)), doubt, length


def nearest_taps(call: Call, axis: int, index: int, *, as_read: bool = False) -> Taps:  # noqa: ARG001  # one cell
    """The nearest cell on one axis."""
    return np.array([_nearest_at(call, axis, index)]), np.ones(1), np.zeros(1)


def linear_taps(call: Call, axis: int, index: int, *, as_read: bool = False) -> Taps:
    """The two cells around a place on one axis.

    Args:
        as_read: Exactly what the kernel reads: both, also where they are the same or one has no weight.
    """
    coordinate, doubt, length = _position(call, axis, index, clip=True)
    first = min(math.floor(coordinate), length - 1)
    share = min(coordinate - first, 1.0)
    second = min(first + 1, length - 1)
    precision = call.precision
    if as_read:
        copied = length == call.shape[axis - len(call["output_size"])]
        if not copied:
            _settled(call, axis, index, coordinate)
        spread = doubt + 2 * precision.sum + precision.inner
        return np.array([first, first if copied else second]), np.array([1 - share, share]), np.full(2, spread)
    taps = {first: 1.0} if first == second else {first: 1 - share, second: share}
    if share < doubt:
        taps.setdefault(max(first - 1, 0), 0.0)
    if 1 - share < doubt:
        taps.setdefault(min(first + 2, length - 1), 0.0)
    positions = np.array(sorted(taps))
    weights = np.array([taps[p] for p in positions])
    stored = np.array([share if p != first else 1.0 for p in positions]) * precision.inner  # share, 1 - stored share
    return positions, weights, doubt + (2 * precision.sum + stored) * (weights > 0) * (share > 0)


def cubic_taps(call: Call, axis: int, index: int, *, as_read: bool = False) -> Taps:
    """The four cells around it.

    Args:
        as_read: Exactly what the kernel reads: four, also where a border repeats one or it has no weight.
    """
    coordinate, doubt, length = _position(call, axis, index, clip=False)
    first = math.floor(coordinate)
    precision = call.precision
    if as_read:
        _settled(call, axis, index, coordinate)
        near = np.arange(-1, 3)
        weights = np.array([_cubic_weight(abs(coordinate - first - offset)) for offset in near])
        inexact = 2 * doubt + 24 * precision.sum + precision.inner * np.abs(weights)
        return np.clip(first + near, 0, length - 1), weights, inexact
    offsets = range(-2, 4) if doubt and min(coordinate - first, 1 - coordinate + first) < doubt else range(-1, 3)
    taps: dict[int, float] = {}
    spread: dict[int, float] = {}
    for offset in offsets:
        position = min(max(first + offset, 0), length - 1)
        weight = _cubic_weight(abs(coordinate - first - offset))
        taps[position] = taps.get(position, 0.0) + weight
        rounded = (24 * precision.sum + precision.inner * abs(weight)) * (coordinate != first)
        spread[position] = spread.get(position, 0.0) + 2 * doubt + rounded
    positions = np.array(sorted(taps))
    return positions, np.array([taps[p] for p in positions]), np.array([spread[p] for p in positions])


def _cubic_weight(distance: float, a: float = -0.75) -> float:
    """The weight of a cell at this distance.

    >>> _cubic_weight(0.0), _cubic_weight(1.0), _cubic_weight(2.5)
    (1.0, 0.0, 0.0)
    """
    d = distance
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0


def nearest_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the nearest cell."""
    return taps_vjp(call, weights, varies, nearest_taps)


def linear_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the two nearest on each axis."""
    return taps_vjp(call, weights, varies, linear_taps)


def cubic_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """To the four nearest on each axis."""
    return taps_vjp(call, weights, varies, cubic_taps)


def taps_vjp(call: Call, weights: Array, varies: Varies, taps: Callable[[Call, int, int], Taps]) -> VJP:
    """Each weight of the result shared out among the cells around its place."""
    only(call, varies, "self")
    axes = len(call["output_size"])
    matrices: list[Matrix] = []
    for axis in range(axes):
        length, out_length = call["self"].shape[axis - axes], weights.shape[axis - axes]
        matrix = np.zeros((out_length, length))
        for index in range(out_length):
            positions, shares, _ = taps(call, axis, index)
            matrix[index, positions] = shares
        matrices.append(matrix)
    return VJP({"self": along(weights, matrices)})


def resampling_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cells around a place that have a share in it."""
    taps = cubic_taps if "cubic" in call.op else linear_taps if "linear" in call.op else nearest_taps
    return taps_dependencies(call, mask, varies, taps)


def taps_dependencies(
    call: Call, mask: Array, varies: frozenset[str], taps: Callable[[Call, int, int], Taps]
) -> dict[str, Array]:
    """The cells that `taps` names for each place, but those without weight."""
    axes = len(call["output_size"])
    shape = call["self"].shape[-axes:]
    matrices = []
    for axis in range(axes):
        matrix = np.zeros((call.shape[axis - axes], shape[axis]), np.float32)
        for index in range(len(matrix)):
            positions, shares, _ = taps(call, axis, index)
            matrix[index, positions[shares != 0]] = 1.0
        matrices.append(matrix)
    return {"self": through_windows(as_mask(mask), matrices, shape)} if varies else {}


# Antialiasing: a filter as wide as the cells of the result, as image libraries resize; each axis by itself.
# Where a cell of the result is larger than one of the input, the filter is stretched to its size.

SLOPE = 1.4
"""The steepest slope of these filters."""


def antialiased(call: Call, cell: Cell) -> Dot:
    """The cells under a triangle, a cubic curve or a windowed sinc, whose weights add up to 1.

    Source: PyTorch, aten/src/ATen/native/cpu/UpSampleKernel.cpp, HelperInterpBase::_compute_indices_weights_aa.
    """
    return interpolated(call, cell, antialiased_taps)


def antialiased_taps(call: Call, axis: int, index: int, *, as_read: bool = False) -> Taps:
    """The cells under the filter on one axis, their weights, and how far the kernel's may be from these.

    Where rounding moves the end of the filter across a cell, that cell's weight is next to nothing.

    Args:
        as_read: Exactly the cells that the kernel reads, without those that rounding might add.
    """
    length, out_length, factor = given_scale(call, axis)
    kind = np.float64 if call.dtype == "float64" else np.float32
    step = _step(length, out_length, factor, aligned=call["align_corners"], kind=kind)
    width = max(step, 1.0)
    support, shape = FILTERS[call.op]
    reach = support * width
    middle = step * (index + 0.5)
    first, end = max(int(middle - reach + 0.5), 0), min(int(middle + reach + 0.5), length)
    u = call.precision.sum
    position_error = 4 * u * (middle + reach + 1)
    if not as_read:
        first, end = max(first - (position_error > 0), 0), min(end + 1, length)
    positions = np.arange(first, end)
    distance = np.abs(positions - middle + 0.5) / width
    curve = shape(distance)
    beyond = distance > reach / width + position_error / width
    curve_error = np.where(beyond, 0.0, SLOPE * (position_error / width + 3 * u * distance) + 24 * u)
    total, total_error = float(curve.sum()), float(curve_error.sum() + len(curve) * u * np.abs(curve).sum())
    weights = curve / total
    errors = (curve_error + np.abs(weights) * total_error) / abs(total) + (2 * u + call.precision.inner) * np.abs(
        weights
    )
    inside = ~beyond
    return positions[inside], weights[inside], errors[inside]


def _step(length: int, out_length: int, factor: float | None, *, aligned: bool, kind: type[np.floating]) -> float:
    """How many cells of the input a cell of the result is wide, in the kernel's type."""
    if aligned:
        return float(kind(length - 1) / kind(out_length - 1)) if out_length > 1 else 0.0
    return float(kind(1 / factor) if factor else kind(length) / kind(out_length))


def _cubic(distance: Array) -> Array:
    """Keys' curve with A = -0.5, as image libraries have it."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    tail = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1, near, np.where(distance < 2, tail, 0.0))


def _lanczos(distance: Array) -> Array:
    """A sinc under a wider sinc (Duchon, Journal of Applied Meteorology 18, 1979)."""
    return np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


FILTERS: Mapping[str, tuple[float, Callable[[Array], Array]]] = {
    "_upsample_bilinear2d_aa": (1.0, lambda far: np.maximum(1.0 - far, 0.0)),
    "_upsample_bicubic2d_aa": (2.0, _cubic),
    "_upsample_lanczos2d_aa": (3.0, _lanczos),
}
"""Operation -> where its filter ends, and the filter."""


def antialiased_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the cells under the filter."""
    return taps_vjp(call, weights, varies, antialiased_taps)


def antialiased_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cells under the filter with a nonzero weight."""
    return taps_dependencies(call, mask, varies, antialiased_taps)


_AA = Op(antialiased, antialiased_dependencies, antialiased_vjp, rounding="stores between")
ANTIALIASING: Mapping[str, Op] = dict.fromkeys(FILTERS, _AA)
