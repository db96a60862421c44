"""Sampling at the coordinates of a grid, and the grids of affine maps. Uses precision and NumPy.

A grid holds positions between -1 and 1, columns before rows before slices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from convscope.errors import UsageError
from convscope.reference.operation import Operation
from convscope.reference.precision import gamma
from convscope.typing import Array

Curve = Callable[[Array], Array]


def grid_sample(x: Array, grid: Array, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Array:
    """grid_sampler_{2,3}d: the input, interpolated at the positions of a grid.

    >>> image = np.array([[[[0.0, 2.0], [4.0, 6.0]]]])
    >>> grid_sample(image, np.array([[[[0.0, 0.0], [1.0, -1.0]]]]), 0, 0, True)
    array([[[[3., 2.]]]])

    Args:
        x: Shape (N, C, H, W) or (N, C, D, H, W).
        grid: Shape (N, P, Q, 2) or (N, P, Q, R, 3).
        interpolation_mode: 0 bilinear, 1 nearest, 2 bicubic.
        padding_mode: Beyond the border 0 is zeros, 1 the border's own cells, 2 their reflection.
        align_corners: -1 and 1 are the middles of the corner cells; otherwise their outer edges.

    Raises:
        UsageError: a coordinate is not finite.
    """
    places = [coordinate for coordinate, _ in places_of(x, grid, interpolation_mode, padding_mode, align_corners)]
    total = np.zeros(())
    for cells, weight, _ in taps_of(x, places, interpolation_mode, padding_mode, align_corners):
        with np.errstate(invalid="ignore"):
            total = total + np.where(cells.inside, weight * cells.values, 0.0)
    return total


def grid_sample_error(
    _y: Array, u: float, x: Array, grid: Array, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Array:
    """The products and sums, and coordinates that are a few roundings off.

    A sum of T weighted cells, each weight a product over the axes: gamma(T + 2·axes + 2) of the magnitudes. A place
    that is off by d moves each weight of its axis by at most 1.5·d, those of the cells beside the window, which it may
    cross to, included; and the weights round themselves, 24 times where they are cubic. Of the nearest cell nothing is
    known where a coordinate is that close to the middle between two, and of any where d is half a cell.

    Kernels do all of this in the type of the tensors, narrow ones too.
    """
    coordinates_and_errors = places_of(x, grid, interpolation_mode, padding_mode, align_corners)
    places, doubts = (
        [coordinate for coordinate, _ in coordinates_and_errors],
        [u * doubt for _, doubt in coordinates_and_errors],
    )
    if interpolation_mode == 1:
        ties = [
            np.abs(np.abs(coordinate - np.rint(coordinate)) - 0.5) <= doubt
            for coordinate, doubt in zip(places, doubts, strict=True)
        ]
        return np.where(np.any(ties, axis=0)[:, None], np.inf, np.zeros(x.shape[1:2] + (1,) * len(ties)))
    size, weight_error = np.abs(x), 24 * u if interpolation_mode == 2 else 2 * u
    sways = [1.5 * doubt + weight_error for doubt in doubts]
    terms = (4 if interpolation_mode == 2 else 2) ** len(places) + 2 * len(places) + 2
    error = np.zeros(())
    for cells, weight, largest_weight in taps_of(size, places, interpolation_mode, padding_mode, align_corners, sways):
        cell_error = gamma(terms, u) * np.abs(weight) + 1.01 * (largest_weight - np.abs(weight))
        error = error + np.where(cells.inside, cell_error * cells.values, 0)
    coarse = np.any([doubt > 0.5 for doubt in doubts], axis=0)[:, None]
    return np.where(np.isnan(error) | coarse, np.inf, error)


class SampledCells:
    """One tap of every place: its cells' numbers, shape (N, C, places...), and whether they are inside the input."""

    def __init__(self, x: Array, cells: Sequence[Array]) -> None:
        sizes = x.shape[2:]
        within = [(coordinate >= 0) & (coordinate < n) for coordinate, n in zip(cells, sizes, strict=True)]
        self.inside = np.all(within, axis=0)[:, None]
        reachable = [
            np.clip(coordinate, 0, n - 1).astype(np.int64)[:, None] for coordinate, n in zip(cells, sizes, strict=True)
        ]
        batch = np.arange(len(x)).reshape(-1, *[1] * (1 + len(sizes)))
        channel = np.arange(x.shape[1]).reshape(1, -1, *[1] * len(sizes))
        self.index = (batch, channel, *reachable)
        """Where they are in the input; cells outside it at its border."""
        self.values = x[self.index]


def places_of(x: Array, grid: Array, mode: int, padding: int, align_corners: bool) -> list[tuple[Array, Array]]:
    """For each axis of the input its coordinates, shape (N, places...), and how far they may be off, in units of u."""
    if not np.isfinite(grid).all():
        raise UsageError("the reference has no sample at a coordinate that is not finite.")
    places = []
    for axis, n in enumerate(x.shape[2:]):
        coordinate = grid[..., grid.shape[-1] - 1 - axis]
        position = (coordinate + 1) / 2 * (n - 1) if align_corners else ((coordinate + 1) * n - 1) / 2
        doubt = 2 * (np.abs(coordinate) + 1) * n + 2
        if padding and mode != 2:
            doubt = doubt + (4 * (np.abs(position) + n) if padding == 2 else 0)
            position = np.clip(mirrored(position, n, align_corners) if padding == 2 else position, 0, n - 1)
        places.append((position, doubt))
    return places


def mirrored(coordinate: Array, n: int, align_corners: bool) -> Array:
    """Coordinates reflected at the middles, or the outer edges, of the border cells: a wave of period 2·span."""
    low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
    if not span:
        return np.zeros_like(coordinate)
    wave = np.mod(coordinate - low, 2 * span)
    return np.minimum(wave, 2 * span - wave) + low


def taps_of(
    x: Array,
    places: Sequence[Array],
    mode: int,
    padding: int,
    align_corners: bool,
    sways: Sequence[Array] | None = None,
) -> Iterator[tuple[SampledCells, Array, Array]]:
    """Every cell around a place with its weight, shape (N, 1, places...), and that weight at its largest.

    Args:
        sways: How far places and weights of each axis may be off; then also the cells on either side, with weight 0.
    """
    curve, reach = ((_triangle, range(2)), (_constant_curve, range(1)), (keys, range(-1, 3)))[mode]
    start = [np.rint(coordinate) if mode == 1 else np.floor(coordinate) for coordinate in places]
    more = sways is not None
    for steps in product(range(reach[0] - more, reach[-1] + 1 + more), repeat=len(places)):
        cells = [first + step for first, step in zip(start, steps, strict=True)]
        weight, largest_weight = np.ones(()), np.ones(())
        for axis, (coordinate, cell, step) in enumerate(zip(places, cells, steps, strict=True)):
            distance = np.abs(coordinate - cell)
            factor = curve(distance) if step in reach else np.zeros_like(coordinate)
            sway = np.zeros(()) if sways is None else sways[axis]
            if step not in reach and mode != 1:  # read only where rounding moves the place across a cell
                sway = np.where(distance <= reach[-1] + sway, sway, 0.0)
            weight, largest_weight = weight * factor, largest_weight * (np.abs(factor) + sway)
        if mode == 2 and padding:
            cells = [
                np.clip(mirrored(cell, n, align_corners) if padding == 2 else cell, 0, n - 1)
                for cell, n in zip(cells, x.shape[2:], strict=True)
            ]
        full = [np.broadcast_to(factor, places[0].shape)[:, None] for factor in (weight, largest_weight)]
        yield SampledCells(x, cells), full[0], full[1]


def _triangle(d: Array) -> Array:
    return 1 - d


def _constant_curve(d: Array) -> Array:
    return np.ones_like(d)


def keys(d: Array, a: float = -0.75) -> Array:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981)."""
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    return np.where(d <= 1, near, a * (d**3 - 5 * d**2 + 8 * d - 4))


def affine_grid(theta: Array, size: Sequence[int], align_corners: bool) -> Array:
    """affine_grid_generator: the source position of each position of a result of this size, by an affine map.

    >>> affine_grid(np.array([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]]), [1, 1, 1, 2], True)
    array([[[[-1. ,  0.5],
             [ 1. ,  0.5]]]])

    Args:
        theta: Shape (N, 2, 3), or (N, 3, 4) for volumes.
        size: (N, C, H, W) or (N, C, D, H, W).
        align_corners: -1 and 1 are the middles of the corner cells; otherwise their outer edges.
    """
    base = _base(size, align_corners)
    return np.asarray(np.einsum("...j,nij->n...i", base, theta))


def affine_grid_error(
    _y: Array, u: float, theta: Array, size: Sequence[int], align_corners: bool, u_out: float = 0.0
) -> Array:
    """A sum of three or four products, of places that are 8 roundings of 1 off: a step, a product, a sum, a scale."""
    base, map_ = np.abs(_base(size, align_corners)), np.abs(theta)
    magnitude = np.einsum("...j,nij->n...i", base, map_)
    moving = np.einsum("...j,nij->n...i", np.ones_like(base)[..., :-1], map_[..., :-1])
    return np.asarray(gamma(theta.shape[-1], u) * magnitude + 8 * (u + u_out) * moving)


def _base(size: Sequence[int], align_corners: bool) -> Array:
    """(places..., axes + 1): column, row, 1."""
    axes = [np.linspace(-1, 1, n) * (1 if align_corners else (n - 1) / n) if n > 1 else np.zeros(n) for n in size[2:]]
    grids = np.meshgrid(*axes, indexing="ij")
    return np.stack([*reversed(grids), np.ones_like(grids[0])], -1)


_GRID = Operation(grid_sample, grid_sample_error)
SAMPLING: Mapping[str, Operation] = {
    "grid_sampler_2d": _GRID,
    "grid_sampler_3d": _GRID,
    "affine_grid_generator": Operation(affine_grid, affine_grid_error),
}
