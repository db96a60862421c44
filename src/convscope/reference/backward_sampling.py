"""Sampling at the coordinates of a grid, backward: the gradients of the input and of the grid. Uses sampling, NumPy.

The gradient of a coordinate jumps where the coordinate is the middle of a cell. So it is found from the coordinate as
kernels round it, operation by operation. Where kernels without a fused multiply-add round it into another cell, its
bound holds the gradient there, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.precision import gamma
from convscope.reference.sampling import SampledCells, keys, mirrored, places_of, taps_of
from convscope.typing import Array

LINEAR, NEAREST, CUBIC = range(3)
ZEROS, _, REFLECTION = range(3)
Both = tuple[Array, ...]


class _Place(NamedTuple):
    """The coordinates of one axis as kernels calculate them, shape (N, places...)."""

    position: Array
    slope: Array
    """By the grid's coordinate."""
    doubt: Array
    """How far another kernel's coordinate may be off."""
    others: tuple[tuple[Array, Array], ...]
    """The positions and slopes of kernels that round otherwise."""


def grid_sample_backward(
    grad_output: Array, x: Array, grid: Array, interpolation_mode: int, padding_mode: int, align_corners: bool,
    output_mask: Sequence[bool] = (True, True),
) -> Both:  # fmt: skip
    """grid_sampler_{2,3}d_backward: every gradient, weighted, to the cells that its sample reads; and to its position.

    >>> image, middle = np.array([[[[0.0, 2.0]]]]), np.zeros((1, 1, 1, 2))
    >>> for gradient in grid_sample_backward(np.ones((1, 1, 1, 1)), image, middle, 0, 0, True):
    ...     print(gradient.tolist())
    [[[[0.5, 0.5]]]]
    [[[[1.0, 0.0]]]]

    Args:
        grad_output: Shape (N, C, P, Q) or (N, C, P, Q, R).
        x, grid, interpolation_mode, padding_mode, align_corners: As `grid_sample` takes them.
        output_mask: Whether the input's is asked for; kernels calculate that of the grid in any case.

    Raises:
        UsageError: a coordinate is not finite.
    """
    grad, image, wide_grid = (array.astype(np.float64) for array in (grad_output, x, grid))
    how = interpolation_mode, padding_mode, align_corners
    of_input, of_grid = None, np.zeros(grid.shape)
    if output_mask[0]:
        places = [coordinate for coordinate, _ in places_of(image, wide_grid, *how)]
        of_input = np.zeros(image.shape)
        for cells, weight, _ in taps_of(image, places, *how):
            np.add.at(of_input, cells.index, np.where(cells.inside, grad * weight, 0.0))
    computed = _computed_places(grid, image.shape[2:], *how, 0.0)
    for cells, factors in _slopes(image, computed, *how):
        for axis, factor in enumerate(factors):
            change = grad * np.where(cells.inside, cells.values, 0.0) * factor[:, None]
            counted = np.where(cells.inside, change, 0.0) if image.ndim == 5 else change  # that of images reads zeros
            of_grid[..., -1 - axis] += counted.sum(1)
    return (of_grid,) if of_input is None else (of_input, of_grid)


def grid_sample_backward_error(
    _y: Both, u: float, grad_output: Array, x: Array, grid: Array, interpolation_mode: int, padding_mode: int,
    align_corners: bool, output_mask: Sequence[bool] = (True, True),
) -> Both:  # fmt: skip
    """The weights are as far off as those of `grid_sample_error`; then products and a sum of all that a cell gets.

    A coordinate's gradient is a sum over channels and cells, of five roundings more. The slope of a linear weight is
    1 or -1; that of a cubic one turns by at most 4.5 times the coordinate's error, and has 44 roundings.
    """
    grad, image = np.abs(grad_output.astype(np.float64)), np.abs(x.astype(np.float64))
    how = interpolation_mode, padding_mode, align_corners
    of_input = _input_error(u, grad, image, grid.astype(np.float64), *how) if output_mask[0] else None
    places = _computed_places(grid, image.shape[2:], *how, u)
    of_grid = np.zeros(grid.shape)
    for axis in range(len(places)):
        of_grid[..., -1 - axis] = _coordinate_error(u, grad, image, places, axis, *how)
    return (of_grid,) if of_input is None else (of_input, of_grid)


def _input_error(u: float, grad: Array, image: Array, grid: Array, mode: int, padding: int, align: bool) -> Array:
    coordinates_and_errors = places_of(image, grid, mode, padding, align)
    places = [coordinate for coordinate, _ in coordinates_and_errors]
    doubts = [u * doubt for _, doubt in coordinates_and_errors]
    if mode == NEAREST:
        near_middle = zip(places, doubts, strict=True)
        sways = [1.0 * (np.abs(np.abs(at - np.rint(at)) - 0.5) <= doubt) for at, doubt in near_middle]
    else:
        sways = [1.5 * doubt + (24 if mode == CUBIC else 2) * u for doubt in doubts]
    error, magnitude, reads = np.zeros((3, *image.shape))
    for cells, weight, largest_weight in taps_of(image, places, mode, padding, align, sways):
        size = np.where(cells.inside, grad * np.abs(weight), 0.0)
        spread = np.where(cells.inside & (largest_weight > np.abs(weight)), grad * (largest_weight - np.abs(weight)), 0)
        np.add.at(magnitude, cells.index, size)
        np.add.at(error, cells.index, 1.01 * spread)
        np.add.at(reads, cells.index, np.where(cells.inside, 1.0, 0.0))
    roundings = gamma(float(reads.max(initial=0.0)) + 2 * len(places) + 2, u) if mode != NEAREST else 0.0
    added = (gamma(float(reads.max(initial=0.0)), u) if mode == NEAREST else roundings) * magnitude
    coarse = np.any([(doubt > 0.5).reshape(len(image), -1).any(1) for doubt in doubts], axis=0)
    total = np.where(np.isnan(error + added), np.inf, error + added)
    return np.where(coarse.reshape(-1, *[1] * (image.ndim - 1)), np.inf, total)


def _coordinate_error(
    u: float, grad: Array, image: Array, places: Sequence[_Place], along: int, mode: int, padding: int, align: bool
) -> Array:
    terms = image.shape[1] * (4 if mode == CUBIC else 2) ** len(places)
    error = np.zeros(places[0].position.shape)
    if mode == NEAREST:
        return error
    for cells, factors, spreads in _spread_slopes(u, image, places, along, mode, padding, align):
        weight, wider = np.ones(()), np.ones(())
        for factor, spread in zip(factors, spreads, strict=True):
            weight, wider = weight * np.abs(factor), wider * (np.abs(factor) + spread)
        share = gamma(terms + 8, u) * weight + 1.01 * (wider - weight)
        product_ = np.where(cells.inside & (share > 0)[:, None], grad * cells.values, 0.0)
        error = error + product_.sum(1) * share
    coarse = np.any([place.doubt > 0.5 for place in places], axis=0)
    return np.where(np.isnan(error) | coarse, np.inf, error)


def _slopes(
    x: Array, places: Sequence[_Place], mode: int, padding: int, align: bool
) -> Iterator[tuple[SampledCells, list[Array]]]:
    """Every cell around a position, and how the sample's share of it changes with each coordinate of the grid."""
    if mode == NEAREST:
        return
    for cells, _, distances in _around(x, places, mode, padding, align, beside=0):
        weights = [_weight(distance, mode) for distance in distances]
        factors = []
        for axis, place in enumerate(places):
            factor = _slope(distances[axis], mode) * place.slope
            for other, weight in enumerate(weights):
                factor = factor if other == axis else factor * weight
            factors.append(factor)
        yield cells, factors


def _spread_slopes(
    u: float, x: Array, places: Sequence[_Place], along: int, mode: int, padding: int, align: bool
) -> Iterator[tuple[SampledCells, list[Array], list[Array]]]:
    """The same for one coordinate, with the cells beside: the slope or weight by each axis, and how far it may be off.

    Beside them a weight or slope may be different from 0 only where the coordinate is that close to the next cell.
    """
    reach = (-1, 2) if mode == CUBIC else (0, 1)
    for cells, steps, distances in _around(x, places, mode, padding, align, beside=1):
        slopes = [_slope(distances[along], mode) * places[along].slope]
        for at, slope in places[along].others:  # which may be on the other side of a cell's middle
            away = at - np.floor(places[along].position) - steps[along]
            slopes.append(np.where(np.abs(away) <= reach[1], _slope(away, mode), 0.0) * slope)
        factors, spreads = [], []
        for axis, (place, step, distance) in enumerate(zip(places, steps, distances, strict=True)):
            core = reach[0] <= step <= reach[1]
            doubt = place.doubt * (core | (np.abs(distance) <= reach[1] + place.doubt))
            if axis == along:
                factor, spread = slopes[0], (4.5 * doubt + 44 * u * core) * (mode == CUBIC) * np.abs(place.slope)
                if mode == LINEAR:
                    spread = np.max([np.abs(slope - factor * core) for slope in slopes[1:]], axis=0)
            else:
                factor, spread = _weight(distance, mode), 1.5 * doubt + (24 if mode == CUBIC else 2) * u * core
            factors.append(factor if core else np.zeros_like(factor))
            spreads.append(np.broadcast_to(spread, distance.shape))
        yield cells, factors, spreads


def _around(
    x: Array, places: Sequence[_Place], mode: int, padding: int, align: bool, *, beside: int
) -> Iterator[tuple[SampledCells, tuple[int, ...], list[Array]]]:
    """Cells around each position, the step to them from the one below it, and position minus cell on each axis."""
    first, last = (-1, 2) if mode == CUBIC else (0, 1)
    below = [np.floor(place.position) for place in places]
    for steps in product(range(first - beside, last + beside + 1), repeat=len(places)):
        cells = [start + step for start, step in zip(below, steps, strict=True)]
        distances = [place.position - cell for place, cell in zip(places, cells, strict=True)]
        if mode == CUBIC and padding != ZEROS:
            sized = zip(cells, x.shape[2:], strict=True)
            cells = [
                np.clip(mirrored(cell, n, align) if padding == REFLECTION else cell, 0, n - 1) for cell, n in sized
            ]
        yield SampledCells(x, cells), steps, distances


def _weight(distance: Array, mode: int) -> Array:
    return keys(np.abs(distance)) if mode == CUBIC else np.maximum(0.0, 1 - np.abs(distance))


def _slope(distance: Array, mode: int, a: float = -0.75) -> Array:
    """The derivative of a weight by the coordinate; of a linear one at the middle of a cell, that to its right."""
    if mode == LINEAR:
        return np.where((distance >= 0) & (distance < 1), -1.0, np.where((distance < 0) & (distance >= -1), 1.0, 0.0))
    d = np.abs(distance)
    near, far = 3 * (a + 2) * d**2 - 2 * (a + 3) * d, a * (3 * d**2 - 10 * d + 8)
    return np.sign(distance) * np.where(d <= 1, near, far)


@np.errstate(all="ignore")  # far coordinates leave the kernel's type
def _computed_places(grid: Array, sizes: Sequence[int], mode: int, padding: int, align: bool, u: float) -> list[_Place]:
    """Positions calculated in the grid's type, and whether a fused multiply-add, or a narrower type, differs."""
    wide = places_of(np.zeros((len(grid), 1, *sizes)), grid.astype(np.float64), mode, padding, align)
    places = []
    for axis, n in enumerate(sizes):
        kind = grid.dtype.type
        moved = grid[..., grid.shape[-1] - 1 - axis] + kind(1)
        half = kind(n - 1) / kind(2) if align else kind(n) / kind(2)
        shift = kind(0) if align else kind(0.5)
        fused = (moved.astype(np.longdouble) * np.longdouble(half) - np.longdouble(shift)).astype(kind)
        doubt = u * wide[axis][1]
        candidates = [fused, moved * half - shift]
        if u > 2.0**-20:  # a narrow type, whose numbers come in float32
            candidates += [fused - doubt.astype(kind), fused + doubt.astype(kind)]
        moved_inside = [
            (at.astype(np.float64), turn.astype(np.float64) * float(half))
            for at, turn in (_inside(candidate, n, mode, padding, align) for candidate in candidates)
        ]
        places.append(_Place(*moved_inside[0], doubt, tuple(moved_inside[1:])))
    return places


def _inside(coordinate: Array, n: int, mode: int, padding: int, align: bool) -> tuple[Array, Array]:
    """A coordinate moved into the input, in its own type, and 1, -1 or 0: how it moves with the original."""
    direction = np.ones_like(coordinate)
    if padding == ZEROS or mode == CUBIC:
        return coordinate, direction
    kind = coordinate.dtype.type
    if padding == REFLECTION:
        low, span = (kind(0), kind(n - 1)) if align else (kind(-0.5), kind(n))
        if not span:
            return np.zeros_like(coordinate), np.zeros_like(coordinate)
        distance = np.abs(coordinate - low)
        wave = distance - np.trunc(distance / (2 * span)) * (2 * span)
        direction = np.where((wave > 2 * span - wave) ^ (coordinate < low), kind(-1), kind(1))
        coordinate = np.minimum(wave, 2 * span - wave) + low
    held = (coordinate <= 0) | (coordinate >= n - 1)
    return np.clip(coordinate, 0, n - 1), np.where(held, kind(0), direction)


_GRID = Operation(grid_sample_backward, grid_sample_backward_error, widens=True)
BACKWARD_SAMPLING: Mapping[str, Operation] = {"grid_sampler_2d_backward": _GRID, "grid_sampler_3d_backward": _GRID}
