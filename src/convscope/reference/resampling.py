"""Resampling: resizing by nearest, linear, cubic interpolation and with antialiasing, on any number of spatial axes.

Uses precision and NumPy. Every output cell looks back at a coordinate of the input; with several axes, every axis is
resampled by itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, Unpack

import numpy as np

from convscope.errors import UsageError
from convscope.reference.operation import Operation
from convscope.reference.precision import gamma
from convscope.typing import Array

CUBIC = -0.75
"""The free number of the cubic kernel, as PyTorch has it (Keys, IEEE Trans. ASSP 29, 1981, uses -0.5)."""


class Scales(TypedDict, total=False):
    """Output cells per input cell: for all axes, or as a schema of that rank names them. None follows the sizes."""

    scale_factors: Sequence[float] | None
    scales: float | None
    scales_d: float | None
    scales_h: float | None
    scales_w: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """What one axis of an output is made from."""

    cells: Array
    """Input cells, shape (P, T)."""
    weights: Array
    """What each is multiplied by, shape (P, T)."""
    drift: Array
    """How far the coordinate may be off after a few roundings, shape (P,), in units of u."""
    slack: Array
    """How far each weight may be off besides, shape (P, T), in units of u."""
    stored: Array
    """How far it may be off where a kernel stores it in the type of the result, shape (P, T), in units of that type."""
    crosses: Array
    """Whether rounding may move a kernel's coordinate across a cell, and so to another window, shape (P,)."""


def nearest(x: Array, output_size: Sequence[int] | None, shift: float = 0.0, **scales: Unpack[Scales]) -> Array:
    """upsample_nearest{1,2,3}d: the cell at floor((o + shift)·scale); a shift of 1/2 is _upsample_nearest_exact.

    PyTorch calculates the coordinate in float32 whatever the type of the tensor, and so does this, because
    rounding decides which cell it is.
    """
    sizes, factors = sizes_of(x, output_size, scales)
    for axis, (out_size, factor) in enumerate(zip(sizes, factors, strict=True), start=x.ndim - len(sizes)):
        in_size = x.shape[axis]
        scale = np.float32(1.0 / factor) if factor else np.float32(in_size) / np.float32(out_size)
        cell = np.floor((np.arange(out_size, dtype=np.float32) + np.float32(shift)) * scale).astype(np.int64)
        x = x.take(np.minimum(cell, in_size - 1), axis)
    return x


def linear(
    x: Array,
    output_size: Sequence[int] | None,
    align_corners: bool,
    **scales: Unpack[Scales],
) -> Array:
    """upsample_linear1d, bilinear2d, trilinear3d: the two nearest cells of each axis, weighted by nearness.

    >>> linear(np.array([[[0.0, 4.0]]]), [4], False)
    array([[[0., 1., 3., 4.]]])

    Args:
        x: Shape (N, C, ...).
        output_size: Cells per spatial axis, or None if `scale_factors` say it.
        align_corners: The corner cells' centres coincide; otherwise their outer edges do.
        **scales: Output cells per input cell, as `scale_factors` or one `scales_...` per axis; coordinates follow them.
    """
    return _resampled(x, _linear_taps, output_size, align_corners, scales)


def linear_error(
    _y: Array,
    u: float,
    x: Array,
    output_size: Sequence[int] | None,
    align_corners: bool,
    u_out: float = 0.0,
    **scales: Unpack[Scales],
) -> Array:
    """See `_resampled_error`; the weights have slope 1 in the coordinate."""
    return _resampled_error(x, u, u_out, _linear_taps, 1.0, output_size, align_corners, scales)


def cubic(
    x: Array,
    output_size: Sequence[int] | None,
    align_corners: bool,
    **scales: Unpack[Scales],
) -> Array:
    """upsample_bicubic2d: four cells of each axis, weighted by Keys' cubic kernel; edges repeat."""
    return _resampled(x, _cubic_taps, output_size, align_corners, scales)


def cubic_error(
    _y: Array,
    u: float,
    x: Array,
    output_size: Sequence[int] | None,
    align_corners: bool,
    u_out: float = 0.0,
    **scales: Unpack[Scales],
) -> Array:
    """See `_resampled_error`; the weights have slope at most 1.4 in the coordinate."""
    return _resampled_error(x, u, u_out, _cubic_taps, 1.4, output_size, align_corners, scales)


def sizes_of(x: Array, output_size: Sequence[int] | None, scales: Scales) -> tuple[list[int], list[float | None]]:
    """Output cells per axis, and the factor that was given for it, in any of the forms of ATen."""
    if unknown := scales.keys() - {"scale_factors", "scales", "scales_d", "scales_h", "scales_w"}:
        raise UsageError(f"no upsampling takes {', '.join(sorted(unknown))}; give scale_factors.")
    rank = x.ndim - 2
    factors: list[float | None] = list(scales.get("scale_factors") or factors_of(scales, rank))
    if output_size is not None:
        return list(output_size), factors
    return [int(np.floor(h * f)) for h, f in zip(x.shape[2:], factors, strict=True)], factors


def factors_of(scales: Scales, rank: int) -> list[float | None]:
    """The factor of each spatial axis, as the schemas of this rank name them."""
    if rank == 1:
        return [scales.get("scales")]
    return [scales.get("scales_d"), scales.get("scales_h"), scales.get("scales_w")][-rank:]


def _coordinates(in_size: int, out_size: int, align_corners: bool, factor: float | None) -> Array:
    """Coordinate of each output cell on the input axis, shape (P,)."""
    steps = np.arange(out_size, dtype=np.float64)
    if align_corners:
        return steps * ((in_size - 1) / (out_size - 1)) if out_size > 1 else np.zeros(out_size)
    return (steps + 0.5) * (1.0 / factor if factor else in_size / out_size) - 0.5


def _crossing(coordinates: Array, in_size: int, out_size: int, align_corners: bool, factor: float | None) -> Array:
    """Where float32 coordinates, fused or not, fall between other cells than `coordinates`, shape (P,)."""
    steps = np.arange(out_size, dtype=np.float32)
    single = np.float32
    if align_corners:
        scale = single(in_size - 1) / single(max(1, out_size - 1))
        forms = [steps * scale]
    else:
        scale = single(1.0 / factor) if factor else single(in_size) / single(out_size)
        middles = steps + single(0.5)
        forms = [middles * scale - single(0.5), (middles * np.float64(scale) - 0.5).astype(single)]
    return np.asarray(np.any([np.floor(form) != np.floor(coordinates) for form in forms], axis=0) & (coordinates >= 0))


def _linear_taps(in_size: int, out_size: int, align_corners: bool, factor: float | None) -> Taps:
    if in_size == out_size:  # kernels copy such an axis, whatever factor was given
        cells = np.arange(out_size)[:, None].repeat(2, 1)
        weights = np.stack([np.ones(out_size), np.zeros(out_size)], 1)
        return Taps(cells, weights, np.zeros(out_size), 0 * weights, 0 * weights, np.zeros(out_size, bool))
    coordinates = _coordinates(in_size, out_size, align_corners, factor)
    crosses = _crossing(coordinates, in_size, out_size, align_corners, factor)
    coordinates = np.maximum(coordinates, 0.0)
    first = np.minimum(np.floor(coordinates).astype(np.int64), in_size - 1)
    share = np.clip(coordinates - first, 0.0, 1.0)
    cells = np.stack([first, np.minimum(first + 1, in_size - 1)], 1)
    weights = np.stack([1 - share, share], 1)
    stored = np.stack([np.where(share > 0, 1.0, 0.0), share], 1)  # share is stored, and 1 minus what was stored
    return Taps(cells, weights, 4 * (np.abs(coordinates) + 1), np.zeros_like(weights), stored, crosses)


def _cubic_taps(in_size: int, out_size: int, align_corners: bool, factor: float | None) -> Taps:
    coordinates = _coordinates(in_size, out_size, align_corners, factor)
    first = np.floor(coordinates).astype(np.int64)
    distance = np.abs((coordinates - first)[:, None] - np.arange(-1, 3))  # (P, 4)
    inner_weights = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance**2 + 1
    outer_weights = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    cells = np.clip(first[:, None] + np.arange(-1, 3), 0, in_size - 1)
    terms = np.where(distance <= 1, 4.5, ((distance + 5) * distance + 8) * distance * -CUBIC - 4 * CUBIC)
    weights = np.where(distance <= 1, inner_weights, outer_weights)
    crosses = _crossing(coordinates, in_size, out_size, align_corners, factor)
    return Taps(cells, weights, 4 * (np.abs(coordinates) + 1), 7 * terms, np.abs(weights), crosses)


def _resampled(
    x: Array, taps: Callable[..., Taps], output_size: Sequence[int] | None, align_corners: bool, scales: Scales
) -> Array:
    for axis, axis_taps in _each_axis(x, taps, output_size, align_corners, scales):
        x = _weighted(x, axis, axis_taps.cells, axis_taps.weights)
    return x


def _resampled_error(
    x: Array, u: float, u_out: float, taps: Callable[..., Taps], slope: float, output_size: Sequence[int] | None,
    align_corners: bool, scales: Scales,
) -> Array:  # fmt: skip
    """Three reasons: the products and sums, the coordinates, and weights in a narrow type.

    A sum of T weighted cells, T = 2 or 4 per axis: gamma(T + 2) of the magnitudes per axis; and each weight's own
    `slack`, 7 roundings of each term of a cubic, where large terms leave a small weight. A coordinate that is off by
    `drift` changes each weight by at most `slope` times that; if it crosses a cell, the window moves by one, but what
    it leaves and what it enters has a weight as small.

    Of float16 and bfloat16, kernels calculate coordinates and sums in float32; the general kernel stores the weights of
    each axis in the narrow type, the one for few or channels-last pixels does not (PyTorch, aten/src/ATen/native/
    UpSample.h, compute_source_index_and_lambda; native/cpu/UpSampleKernel.cpp, HelperInterpLinear, HelperInterpCubic).
    """
    total, error = np.abs(x), np.zeros_like(x)
    for axis, axis_taps in _each_axis(x, taps, output_size, align_corners, scales):
        reach = np.concatenate([axis_taps.cells[:, :1] - 1, axis_taps.cells, axis_taps.cells[:, -1:] + 1], 1)
        reach = np.clip(reach, 0, x.shape[axis] - 1)
        drift = u * slope * axis_taps.drift[:, None]
        sway = drift + u * axis_taps.slack + u_out * axis_taps.stored
        size = np.abs(axis_taps.weights)
        share = gamma(axis_taps.cells.shape[1] + 2, u)
        crossing_error = _beside(total + error, axis, reach[:, [0, -1]], drift.repeat(2, 1), axis_taps.crosses)
        error = (
            _weighted(error, axis, axis_taps.cells, size)
            + _weighted(total + error, axis, axis_taps.cells, sway)
            + crossing_error
        )
        total = _weighted(total, axis, axis_taps.cells, size)
        error = error + share * total
    return np.where(np.isnan(error), np.inf, error)


def _beside(size: Array, axis: int, cells: Array, sway: Array, crosses: Array) -> Array:
    """What the cells on both sides of a window may add; without limit where one is not finite and may be crossed to."""
    finite = np.isfinite(size)
    added = _weighted(np.where(finite, size, 0.0), axis, cells, sway)
    if finite.all() or not crosses.any():
        return added
    reached = _weighted(np.where(finite, 0.0, 1.0), axis, cells, crosses[:, None].repeat(2, 1).astype(float))
    return np.where(reached > 0, np.inf, added)


def _each_axis(
    x: Array, taps: Callable[..., Taps], output_size: Sequence[int] | None, align_corners: bool, scales: Scales
) -> Iterator[tuple[int, Taps]]:
    sizes, factors = sizes_of(x, output_size, scales)
    for axis, (out_size, factor) in enumerate(zip(sizes, factors, strict=True), start=x.ndim - len(sizes)):
        yield axis, taps(x.shape[axis], out_size, align_corners, factor)


def _weighted(x: Array, axis: int, cells: Array, weights: Array) -> Array:
    """Sum over the taps of weight times cell, along `axis`."""
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    total = np.zeros(())
    for tap in range(cells.shape[1]):
        total = total + x.take(cells[:, tap], axis) * weights[:, tap].reshape(shape)
    return total


TAPS: Mapping[str, Callable[..., Taps]] = {"linear": _linear_taps, "cubic": _cubic_taps}
"""Kind of interpolation -> the taps of one axis: (input cells, output cells, align_corners, factor)."""


# Antialiasing: weights under a filter that is stretched where the result is coarser


Filter = Callable[[Array], Array]


def triangle(d: Array) -> Array:
    """1 at 0, 0 from 1 on."""
    return np.maximum(0.0, 1.0 - np.abs(d))


def keys(d: Array, a: float = -0.5) -> Array:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29, 1981), 0 from 2 on."""
    d = np.abs(d)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    return np.where(d <= 1, near, np.where(d < 2, a * (d**3 - 5 * d**2 + 8 * d - 4), 0.0))


def lanczos(d: Array, a: int = 3) -> Array:
    """The sinc function under its own main lobe, stretched to a; 0 from there on."""
    near = np.abs(d) < a
    angle = np.pi * np.where(near & (d != 0), d, 1.0)
    return np.where(near, np.where(d == 0, 1.0, a * np.sin(angle) * np.sin(angle / a) / angle**2), 0.0)


def antialiased(
    x: Array,
    output_size: Sequence[int] | None,
    align_corners: bool,
    curve: Filter,
    support: int,
    **scales: Unpack[Scales],
) -> Array:
    """_upsample_{bilinear,bicubic,lanczos}2d_aa: each axis times a matrix of weights that add up to 1.

    >>> antialiased(np.array([[[[0.0, 4.0, 8.0, 12.0]]]]), [1, 1], False, triangle, 1)
    array([[[[6.]]]])

    Args:
        x: Shape (N, C, H, W).
        curve, support: The filter, and where it ends.
        output_size, align_corners, scales: As for `resampling.linear`.
    """
    sizes, factors = sizes_of(x, output_size, scales)
    for axis, (out_size, factor) in enumerate(zip(sizes, factors, strict=True), start=2):
        weights, _ = filter_weights(x.shape[axis], out_size, factor, align_corners, curve, support)
        x = times(x, weights, axis)
    return x


def antialiased_error(
    _y: Array, u: float, x: Array, output_size: Sequence[int] | None, align_corners: bool, curve: Filter, support: int,
    u_out: float = 0.0, **scales: Unpack[Scales],
) -> Array:  # fmt: skip
    """Per axis: a sum of T products, the weights' own error (`filter_weights`), and narrow types' store in between."""
    sizes, factors = sizes_of(x, output_size, scales)
    total, error = np.abs(x), np.zeros_like(x)
    for axis, (out_size, factor) in enumerate(zip(sizes, factors, strict=True), start=2):
        weights, slack = filter_weights(x.shape[axis], out_size, factor, align_corners, curve, support)
        size = np.abs(weights)
        terms = int((slack > 0).sum(1).max(initial=1))
        error = times(error, size, axis) + times(total + error, u * slack + u_out * size, axis)
        total = times(total, size, axis)
        error = error + (gamma(terms + 1, u) + u_out) * total
    return error


def filter_weights(
    in_size: int, out_size: int, factor: float | None, align_corners: bool, curve: Filter, support: int
) -> tuple[Array, Array]:
    """(P, H): the weight of each input cell, and how far it may be off, in units of u.

    The middle of the filter is off by a few roundings of its place, which moves a weight by at most 1.4 times that
    (the steepest slope of these filters); the curve itself rounds 24 times 1; the sum that divides carries all of this.
    Cells where the filter ends may enter or leave: their weight is as small as that error.
    """
    aligned_step = (in_size - 1) / (out_size - 1) if out_size > 1 else 0.0
    step = aligned_step if align_corners else 1.0 / (factor or out_size / in_size)
    width = max(1.0, step)
    middle = (step * (np.arange(out_size) + 0.5))[:, None]
    distance = (np.arange(in_size) + 0.5 - middle) / width
    raw = curve(distance)
    error = 6 * (middle + support * width + 1) / width
    near = np.abs(distance) <= support + 2.0**-24 * error
    slack = np.where(near, 1.4 * error + 4 * np.abs(distance) + 24, 0.0)
    total = raw.sum(1, keepdims=True)
    spread = slack.sum(1, keepdims=True) + near.sum(1, keepdims=True) * np.abs(raw).sum(1, keepdims=True)
    share = raw / total
    return share, (slack + np.abs(share) * spread) / np.abs(total) + 2 * np.abs(share)


def times(x: Array, weights: Array, axis: int) -> Array:
    """`axis` of x through a matrix (P, H); only what has a weight is multiplied, so that others may be infinite."""
    rows = np.moveaxis(x, axis, -1)
    if np.isfinite(x).all():
        return np.moveaxis(rows @ weights.T, -1, axis)
    parts = [rows[..., used] @ row[used] for row in weights for used in [row != 0]]
    return np.moveaxis(np.stack(parts, -1), -1, axis)


def _with(curve: Filter, support: int) -> Operation:
    return Operation(
        partial(antialiased, curve=curve, support=support), partial(antialiased_error, curve=curve, support=support)
    )


ANTIALIASING: Mapping[str, Operation] = {
    "_upsample_bilinear2d_aa": _with(triangle, 1),
    "_upsample_bicubic2d_aa": _with(keys, 2),
    "_upsample_lanczos2d_aa": _with(lanczos, 3),
}
