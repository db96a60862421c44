"""Resizing with antialiasing: weights under a filter that is stretched where the result is coarser. Knows NumPy."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from convscope.reference.operation import Operation
from convscope.reference.resampling import sizes_of
from convscope.reference.roundoff import gamma
from convscope.typing import Array

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
    at = np.pi * np.where(near & (d != 0), d, 1.0)
    return np.where(near, np.where(d == 0, 1.0, a * np.sin(at) * np.sin(at / a) / at**2), 0.0)


def antialiased(
    x: Array, output_size: Sequence[int] | None, align_corners: bool, curve: Filter, support: int, **scales: Any
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
    for axis, (many, factor) in enumerate(zip(sizes, factors, strict=True), start=2):
        weights, _ = _weights(x.shape[axis], many, factor, align_corners, curve, support)
        x = _times(x, weights, axis)
    return x


def antialiased_error(
    _y: Array, u: float, x: Array, output_size: Any, align_corners: bool, curve: Filter, support: int,
    u_out: float = 0.0, **scales: Any,
) -> Array:  # fmt: skip
    """Per axis: the sum of T products, the weights' own error (`_weights`), and a store in between of narrow types."""
    sizes, factors = sizes_of(x, output_size, scales)
    total, moved = np.abs(x), np.zeros_like(x)
    for axis, (many, factor) in enumerate(zip(sizes, factors, strict=True), start=2):
        weights, slack = _weights(x.shape[axis], many, factor, align_corners, curve, support)
        size = np.abs(weights)
        terms = int((slack > 0).sum(1).max(initial=1))
        moved = _times(moved, size, axis) + _times(total + moved, u * slack + u_out * size, axis)
        total = _times(total, size, axis)
        moved = moved + (gamma(terms + 1, u) + u_out) * total
    return moved


def _weights(
    have: int, many: int, factor: float | None, align_corners: bool, curve: Filter, support: int
) -> tuple[Array, Array]:
    """(P, H): the weight of each input cell, and how far it may be off, in units of u.

    The middle of the filter is off by a few roundings of its place, which moves a weight by at most 1.4 times that
    (the steepest slope of these filters); the curve itself rounds 24 times 1; the sum that divides carries all of this.
    Cells where the filter ends may enter or leave: their weight is as small as that error.
    """
    apart = (have - 1) / (many - 1) if many > 1 else 0.0
    step = apart if align_corners else 1.0 / (factor or many / have)
    width = max(1.0, step)
    middle = (step * (np.arange(many) + 0.5))[:, None]
    far = (np.arange(have) + 0.5 - middle) / width
    raw = curve(far)
    error = 6 * (middle + support * width + 1) / width
    near = np.abs(far) <= support + 2.0**-24 * error
    slack = np.where(near, 1.4 * error + 4 * np.abs(far) + 24, 0.0)
    total = raw.sum(1, keepdims=True)
    spread = slack.sum(1, keepdims=True) + near.sum(1, keepdims=True) * np.abs(raw).sum(1, keepdims=True)
    share = raw / total
    return share, (slack + np.abs(share) * spread) / np.abs(total) + 2 * np.abs(share)


def _times(x: Array, weights: Array, axis: int) -> Array:
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
