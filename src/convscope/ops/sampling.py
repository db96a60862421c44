"""Sampling at coordinates given by a grid: grid_sample, and the grids of affine maps (spatial transformers)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Source
from convscope.expr.cells import leaf, outer
from convscope.expr.expr import Cells, Dot, Leaf, number
from convscope.ops.dependencies import as_mask
from convscope.ops.op import Op
from convscope.ops.titles import named
from convscope.ops.vjp import VJP, Varies, only, wide
from convscope.typing import Array

BILINEAR, NEAREST, BICUBIC = range(3)
ZEROS, BORDER, REFLECTION = range(3)
"""Modes of interpolation and of padding, as ATen numbers them."""


class AxisTaps(NamedTuple):
    """The cells around coordinates on one axis; all of shape (..., T)."""

    positions: Array
    """Cells; outside the input where it is padded with zeros."""
    weights: Array
    errors: Array
    """How far the kernel's weights may be from these: its coordinates are rounded."""
    slopes: Array
    """The slope of each weight by the grid's coordinate, as the kernel has it."""
    slope_errors: Array
    """How far the kernel's slopes may be from these."""
    core: Array
    """Whether the kernel reads this cell; others it may read where rounding moves a coordinate across a cell."""
    doubt: Array
    """How far the kernel's coordinate may be off, in cells; shape (...)."""


def grid_sample(call: Call, cell: Cell) -> Dot | Leaf:
    """The cells around a grid position, each times its interpolation weight.

    A grid holds positions between -1 and 1, columns first.

    Source: PyTorch documentation, torch.nn.functional.grid_sample; aten/src/ATen/native/GridSampler.h.

    Raises:
        UsageError: a coordinate is not finite, or a cell around is not and rounding decides whether it counts.
    """
    image, grid = call["input"], call["grid"]
    position = (cell[0], *cell[2:])
    taps = taps_of(call, wide(grid)[position])
    if max(float(t.doubt) for t in taps) > 0.5:
        raise UsageError(f"no rule explains this sample: {call.dtype} holds its position only to half a cell.")
    used_taps = [t.core | (t.errors > 0) for t in taps]
    window = outer(image, [*cell[:2], *(t.positions[k] for t, k in zip(taps, used_taps, strict=True))])
    if not np.isfinite(window.values).all():  # then a product with 0 counts
        if any(np.any(t.errors[~t.core] > 0) for t in taps):
            raise UsageError("which cells the kernel reads depends on its rounding, and not all of them are finite.")
        used_taps = [t.core for t in taps]
        window = outer(image, [*cell[:2], *(t.positions[k] for t, k in zip(taps, used_taps, strict=True))])
    weights, errors = np.ones(1), np.zeros(1)
    for axis, k in zip(taps, used_taps, strict=True):
        weight, error = axis.weights[k], axis.errors[k]
        errors = np.outer(np.abs(weights) + errors, error).ravel() + np.outer(errors, np.abs(weight)).ravel()
        weights = np.outer(weights, weight).ravel()
    if len(weights) == 1 and not errors.any():
        inside = window.inside is None or bool(window.inside[0])
        return leaf(image, tuple(map(int, window.cells[0]))) if inside else number(0, "padding")
    source = Source("nearness", "computed", weights.shape)
    nearness = Cells(weights, source, np.arange(len(weights))[:, None], window.grid, errors=errors)
    return Dot(window, nearness, note=f"{len(weights)} cells around it, each × its interpolation weight", skips=True)


def taps_of(call: Call, coordinates: Array) -> list[AxisTaps]:
    """For each axis of the input the taps at coordinates (..., axes), whose last axis has the columns first."""
    sizes = call["input"].shape[2:]
    if not np.isfinite(coordinates).all():
        raise UsageError("no rule explains a sample at a coordinate that is not finite.")
    return [_axis_taps(call, size, coordinates[..., -1 - axis]) for axis, size in enumerate(sizes)]


@np.errstate(all="ignore")  # far coordinates leave the kernel's type
def _axis_taps(call: Call, size: int, named_at: Array) -> AxisTaps:
    padding, aligned, mode = call["padding_mode"], call["align_corners"], call["interpolation_mode"]
    u = call.precision.sum
    scale = (size - 1) / 2 if aligned else size / 2
    coordinate = (named_at + 1) * scale - (0.0 if aligned else 0.5)
    doubt = u * (4 * (np.abs(named_at) + 1) * size / 2 + 2)
    computed = _as_computed(call, size, named_at, doubt)
    if padding == REFLECTION and mode != BICUBIC:
        doubt = doubt + 4 * u * (np.abs(coordinate) + size)
    coordinate = np.asarray(_padded(call, size, coordinate)[0])[..., None]
    shape = {BILINEAR: _bilinear, NEAREST: _nearest, BICUBIC: _bicubic}[mode]
    candidates = []
    for candidate in computed:
        at, turned = _padded(call, size, candidate)
        taps = shape(coordinate, np.asarray(doubt)[..., None], u, np.floor(at)[..., None])
        candidates.append(taps._replace(slopes=taps.slopes * np.asarray(turned * scale, np.float64)[..., None]))
    taps, other = candidates
    positions = taps.positions
    if mode == BICUBIC and padding != ZEROS:
        reflected = _reflected(positions, size, aligned=aligned)[0] if padding == REFLECTION else positions
        positions = np.clip(reflected, 0, size - 1)
    clipped = np.clip(positions, -3, size + 2).astype(np.int64)  # zeros are zeros, however far out
    slope_errors = taps.slope_errors * scale + np.abs(taps.slopes - other.slopes)
    return taps._replace(positions=clipped, slope_errors=slope_errors)


def _as_computed(call: Call, size: int, named_at: Array, doubt: Array) -> tuple[Array, Array]:
    """A coordinate as the kernel calculates it, number by number in its type: with a fused multiply-add and without.

    In narrow types both ends of its range. Slopes change at the middle of a cell, so the last bit decides.
    """
    scale, shift = ((size - 1) / 2, 0.0) if call["align_corners"] else (size / 2, 0.5)
    if call.dtype not in {"float32", "float64"}:
        coordinate = (named_at + 1) * scale - shift
        return coordinate - doubt, coordinate + doubt
    kind = np.dtype(call.dtype).type
    moved = named_at.astype(kind) + kind(1)
    fused = moved.astype(np.longdouble) * np.longdouble(scale) - np.longdouble(shift)
    return fused.astype(kind), moved * kind(scale) - kind(shift)


def _padded(call: Call, size: int, coordinate: Array) -> tuple[Array, Array]:
    """A coordinate moved into the input as the padding says, and its slope by the one before: 1, -1 or 0."""
    padding, slope = call["padding_mode"], np.ones_like(coordinate)
    if padding == ZEROS or call["interpolation_mode"] == BICUBIC:
        return coordinate, slope
    if padding == REFLECTION:
        coordinate, slope = _reflected(coordinate, size, aligned=call["align_corners"])
    inside = (coordinate > 0) & (coordinate < size - 1)
    return np.clip(coordinate, 0, size - 1), np.where(inside, slope, 0)


def _reflected(coordinate: Array, size: int, *, aligned: bool) -> tuple[Array, Array]:
    """A coordinate mirrored at the borders until it is inside, and 1 or -1: the way it moves with the original.

    In the type of the coordinate, rounded as the kernel's are.
    """
    kind = coordinate.dtype.type
    low, span = (kind(0), kind(size - 1)) if aligned else (kind(-0.5), kind(size))
    if span == 0:
        return np.zeros_like(coordinate), np.zeros_like(coordinate)
    moved = coordinate - low
    distance = np.mod(np.abs(moved), 2 * span)
    back = 2 * span - distance
    sign = np.where(moved < 0, kind(-1), kind(1)) * np.where(distance > back, kind(-1), kind(1))
    return np.minimum(distance, back) + low, sign


def _bilinear(coordinate: Array, doubt: Array, u: float, cell: Array) -> AxisTaps:
    """The cell below and the cell above, weighted by nearness.

    Args:
        cell: The cell below, as the kernel has it.
    """
    first = np.floor(coordinate)
    share = coordinate - first
    nothing = np.zeros_like(coordinate)
    weight_error = doubt + 2 * u
    positions = first + np.arange(-1, 3)
    return AxisTaps(
        positions,
        np.concatenate([nothing, 1 - share, share, nothing], -1),
        np.concatenate([doubt * (share < doubt), weight_error, weight_error, doubt * (1 - share < doubt)], -1),
        1.0 * (positions == cell + 1) - 1.0 * (positions == cell),
        np.zeros(positions.shape),
        np.broadcast_to([False, True, True, False], positions.shape),
        doubt[..., 0],
    )


def _nearest(coordinate: Array, doubt: Array, u: float, cell: Array) -> AxisTaps:  # noqa: ARG001  # one signature
    """The nearest cell, of two equally near ones the even; both where rounding decides."""
    nearest = np.rint(coordinate)
    beside = coordinate - nearest
    below, above = (0.5 + side * beside <= doubt for side in (1, -1))
    flags = np.concatenate([below, below | above, above], -1)
    return AxisTaps(
        nearest + np.arange(-1, 2),
        np.broadcast_to([0.0, 1.0, 0.0], flags.shape),
        flags.astype(np.float64),
        np.zeros(flags.shape),
        np.zeros(flags.shape),
        np.broadcast_to([False, True, False], flags.shape),
        doubt[..., 0],
    )


def _bicubic(coordinate: Array, doubt: Array, u: float, cell: Array) -> AxisTaps:  # noqa: ARG001  # one signature
    """The four cells around, weighted by Keys' curve with A = -0.75.

    Its slope changes by at most 4.5 times the coordinate's doubt, and is calculated from numbers that add up to 44
    roundings: of products up to 10.5 and of sums up to 6.
    """
    first, offsets = np.floor(coordinate), np.arange(-2, 4)
    share = coordinate - first
    offset = share - offsets
    d = np.abs(offset)
    near, tail = (1.25 * d - 2.25) * d * d + 1, ((-0.75 * d + 3.75) * d - 6) * d + 3
    slopes = np.where(d <= 1, (3.75 * d - 4.5) * d, (-2.25 * d + 7.5) * d - 6)
    core = np.broadcast_to([False, True, True, True, True, False], d.shape)
    crossed = np.concatenate([share < doubt, *[np.ones_like(share, bool)] * 4, 1 - share < doubt], -1)
    errors = np.where(crossed, 1.5 * doubt + 24 * u * core, 0.0)
    weights = np.where(core, np.where(d <= 1, near, tail), 0.0)
    return AxisTaps(
        first + offsets,
        weights,
        errors,
        np.where(core, slopes * np.sign(offset), 0.0),
        np.where(crossed, 4.5 * doubt + 44 * u * core, 0.0),
        core,
        doubt[..., 0],
    )


def grid_sample_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Pass the weights to the cells around each position, and to the coordinates of the grid."""
    only(call, varies, "input", "grid")
    image, taps = wide(call["input"]), taps_of(call, wide(call["grid"]))
    axes = len(taps)
    padded = np.pad(image, [(0, 0), (0, 0), *[(3, 3)] * axes])
    places = np.stack(np.meshgrid(*map(np.arange, (len(image), *call.shape[2:])), indexing="ij"))
    batch = places[0].reshape(places[0].shape + (1,) * axes)
    spots = [_across(t.positions + 3, axis, axes) for axis, t in enumerate(taps)]
    numbers = padded[(batch, slice(None), *spots)]  # (N, places..., taps..., C)
    by_place = np.moveaxis(weights, 1, -1).reshape(*places[0].shape, *[1] * axes, -1)
    shares = [_across(t.weights, axis, axes) for axis, t in enumerate(taps)]
    share = _multiplied(shares)[..., None]
    value = float(np.sum(by_place * share * numbers))
    gradients: dict[str, Array] = {}
    if "input" in varies:
        back = np.zeros_like(padded)
        np.add.at(back, (batch, slice(None), *spots), by_place * share)
        gradients["input"] = back[(slice(None), slice(None), *[slice(3, -3)] * axes)]
    if "grid" in varies:
        columns = []
        for axis, t in enumerate(taps):
            factors = [_across(t.slopes, axis, axes) if a == axis else s for a, s in enumerate(shares)]
            changes = by_place * _multiplied(factors)[..., None] * numbers
            columns.append(changes.sum(axis=tuple(range(places[0].ndim, changes.ndim))))
        gradients["grid"] = np.stack(columns[::-1], axis=-1)
    if "grid" not in varies:
        return VJP(gradients)
    explained = sum(float(np.sum(gradient * wide(call[name]))) for name, gradient in gradients.items())
    return VJP(gradients, value - explained, linear=False)


def _across(taps: Array, axis: int, axes: int) -> Array:
    """(..., T) with the taps on axis number `axis` of `axes` new ones."""
    return taps.reshape(*taps.shape[:-1], *[taps.shape[-1] if a == axis else 1 for a in range(axes)])


def _multiplied(factors: Sequence[Array]) -> Array:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


def grid_sample_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cells around each position with a nonzero weight, and its coordinates."""
    mask, masks = as_mask(mask), {}
    if "input" in varies:
        taps = taps_of(call, wide(call["grid"]))
        axes = len(taps)
        shape = call["input"].shape
        padded = np.zeros((*shape[:2], *(n + 6 for n in shape[2:])), np.float32)
        batch = np.arange(shape[0]).reshape(-1, *[1] * (2 * axes))
        spots = [_across(t.positions + 3, axis, axes) for axis, t in enumerate(taps)]
        share = _multiplied([_across(t.weights != 0, axis, axes) for axis, t in enumerate(taps)])
        result_mask = np.moveaxis(mask, 1, -1).reshape(*share.shape[: axes + 1], *[1] * axes, -1)
        index: Any = (batch, slice(None), *spots)  # NumPy's stubs of `ufunc.at` know no tuples
        np.maximum.at(padded, index, (share[..., None] * result_mask).astype(np.float32))
        masks["input"] = padded[(slice(None), slice(None), *[slice(3, -3)] * axes)]
    if "grid" in varies:
        reached = mask.max(axis=1, initial=0.0)[..., None]
        masks["grid"] = np.broadcast_to(reached, call["grid"].shape).copy()
    return masks


def affine_grid(call: Call, cell: Cell) -> Dot:
    """One coordinate of one position: a row of the affine map times (column, row, 1).

    Source: Jaderberg and others, Spatial Transformer Networks, NeurIPS 2015; PyTorch, AffineGridGenerator.cpp.
    """
    theta = call["theta"]
    row = outer(theta, [cell[0], cell[-1], range(theta.shape[-1])])
    coordinates = [*(_base(call, size)[i] for size, i in zip(call["size"][2:], cell[1:-1], strict=True))][::-1]
    precision = call.precision
    errors = np.array([8 * (precision.sum + precision.inner)] * len(coordinates) + [0.0])
    source = Source("place", "computed", (len(coordinates) + 1,))
    position = Cells(
        np.array([*coordinates, 1.0]),
        source,
        np.arange(len(coordinates) + 1)[:, None],
        (len(coordinates) + 1,),
        errors=errors,
    )
    return Dot(row, position, note="a row of the affine map, times the position between -1 and 1, and 1")


def _base(call: Call, size: int) -> Array:
    """The places of an axis between -1 and 1: of the corner cells' middles, or of their outer edges."""
    if size <= 1:
        return np.zeros(size)
    places = np.linspace(-1.0, 1.0, size)
    return places if call["align_corners"] else places * (size - 1) / size


def affine_grid_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """Each position times the weight of its coordinate."""
    only(call, varies, "theta")
    grids = np.meshgrid(*(_base(call, size) for size in call["size"][2:]), indexing="ij")
    places = np.stack([*grids[::-1], np.ones_like(grids[0])], axis=-1).reshape(-1, len(grids) + 1)
    flat = weights.reshape(len(weights), -1, len(grids))  # (N, places, axes)
    return VJP({"theta": np.swapaxes(flat, 1, 2) @ places})


def affine_grid_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The row of the map."""
    if not varies:
        return {}
    rows = as_mask(mask).max(axis=tuple(range(1, mask.ndim - 1)), initial=0.0)
    return {"theta": np.broadcast_to(rows[..., None], call["theta"].shape).copy()}


_GRID = Op(
    grid_sample,
    grid_sample_dependencies,
    grid_sample_vjp,
    title=named("samples of a grid"),
    rounding="narrow",
    selected_by=("grid",),
)
SAMPLING: Mapping[str, Op] = {
    "grid_sampler_2d": _GRID,
    "grid_sampler_3d": _GRID,
    "affine_grid_generator": Op(
        affine_grid, affine_grid_dependencies, affine_grid_vjp, title=named("affine grid"), rounding="stores between"
    ),
}
