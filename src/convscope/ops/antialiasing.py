"""Resizing with antialiasing: a filter as wide as the cells of the result, as image libraries resize.

Each axis by itself. Where a cell of the result is larger than one of the input, the filter is stretched to its size.
"""

from collections.abc import Callable, Mapping

import numpy as np

from convscope.expr.call import Call, Cell
from convscope.expr.expr import Dot
from convscope.ops.op import Op
from convscope.ops.resampling import Taps, given_scale, interpolated, taps_dependencies, taps_vjp
from convscope.ops.vjp import VJP, Varies
from convscope.typing import Array

SLOPE = 1.4
"""The steepest slope of these filters."""


def antialiased(call: Call, cell: Cell) -> Dot:
    """The cells under a triangle, a cubic curve or a windowed sinc, whose weights add up to 1.

    Source: PyTorch, aten/src/ATen/native/cpu/UpSampleKernel.cpp, HelperInterpBase::_compute_indices_weights_aa.
    """
    return interpolated(call, cell, antialiased_taps)


def antialiased_taps(call: Call, axis: int, at: int, *, as_read: bool = False) -> Taps:
    """The cells under the filter on one axis, their weights, and how far the kernel's may lie from these.

    Where rounding moves the end of the filter across a cell, that cell's weight is next to nothing.

    Args:
        as_read: Exactly the cells that the kernel reads, without those that rounding might add.
    """
    length, wanted, factor = given_scale(call, axis)
    kind = np.float64 if call.dtype == "float64" else np.float32
    step = _step(length, wanted, factor, aligned=call["align_corners"], kind=kind)
    width = max(step, 1.0)
    support, shape = FILTERS[call.op]
    reach = support * width
    middle = step * (at + 0.5)
    first, end = max(int(middle - reach + 0.5), 0), min(int(middle + reach + 0.5), length)
    u = call.precision.sum
    moved = 4 * u * (middle + reach + 1)
    if not as_read:
        first, end = max(first - (moved > 0), 0), min(end + 1, length)
    positions = np.arange(first, end)
    far = np.abs(positions - middle + 0.5) / width
    curve = shape(far)
    beyond = far > reach / width + moved / width
    off = np.where(beyond, 0.0, SLOPE * (moved / width + 3 * u * far) + 24 * u)
    total, off_total = float(curve.sum()), float(off.sum() + len(curve) * u * np.abs(curve).sum())
    weights = curve / total
    errors = (off + np.abs(weights) * off_total) / abs(total) + (2 * u + call.precision.inner) * np.abs(weights)
    kept = ~beyond
    return positions[kept], weights[kept], errors[kept]


def _step(length: int, wanted: int, factor: float | None, *, aligned: bool, kind: type[np.floating]) -> float:
    """How many cells of the input a cell of the result is wide, in the kernel's type."""
    if aligned:
        return float(kind(length - 1) / kind(wanted - 1)) if wanted > 1 else 0.0
    return float(kind(1 / factor) if factor else kind(length) / kind(wanted))


def _cubic(far: Array) -> Array:
    """Keys' curve with A = -0.5, as image libraries have it."""
    near = (1.5 * far - 2.5) * far * far + 1.0
    rest = ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0
    return np.where(far < 1, near, np.where(far < 2, rest, 0.0))


def _lanczos(far: Array) -> Array:
    """A sinc under a wider sinc (Duchon, Journal of Applied Meteorology 18, 1979)."""
    return np.where(far < 3, np.sinc(far) * np.sinc(far / 3), 0.0)


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
