"""Arrays as small pictures of bounded size, and packs, which carry many arrays in one response.

Uses NumPy; no models, no traces, no requests.
"""

import json
import math
import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convscope.server.http.message import Number
from convscope.typing import Array

SAMPLE = 100_000
"""About how many numbers of a large result are looked at for their distribution."""


def number(value: float) -> Number:
    """A float; "nan", "inf" and "-inf" for values that JSON cannot express."""
    if math.isfinite(value):
        return float(value)
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def base64url(values: Array) -> str:
    """The bytes of an array, little-endian, as URL-safe base64."""
    return urlsafe_b64encode(np.ascontiguousarray(values).tobytes()).rstrip(b"=").decode()


def pack(header: Mapping[str, object], parts: Iterable[bytes]) -> bytes:
    """Concatenate the header's length as uint32, the header as JSON, and the parts.

    The header is padded with spaces so that the parts start at a multiple of 4.

    >>> pack({}, [b"ab"])
    b'\\x04\\x00\\x00\\x00{}  ab'
    """
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return b"".join([struct.pack("<I", len(text)), text, *parts])


def pack_of_pictures(items: Sequence[tuple[Mapping[str, object], Array]]) -> bytes:
    """Pack uint8 pictures (n, h, w), each with a description; shape and offset are added to it."""
    descriptions, parts, offset = [], [], 0
    for about, picture in items:
        descriptions.append({**about, "shape": list(picture.shape), "offset": offset})
        parts.append(picture.tobytes())
        offset += picture.size
    return pack({"items": descriptions}, parts)


def planes_of(output: Array) -> Array:
    """A step's result as planes (n, h, w): feature maps, a matrix of tokens, or one row of units.

    >>> [planes_of(np.zeros(shape)).shape for shape in ((1, 8, 5, 4), (1, 7, 6), (1, 10), (1, 9, 1, 1), ())]
    [(8, 5, 4), (1, 7, 6), (1, 1, 10), (1, 1, 9), (1, 1, 1)]
    """
    first = first_image(output)
    if not first.size:
        return np.zeros((0, 1, 1))
    if first.ndim < 2 or all(n == 1 for n in first.shape[1:]):
        return first.reshape(1, 1, -1)
    return first.reshape(-1, *first.shape[-2:])


def first_image(output: Array) -> Array:
    """A result without its batch axis, if the batch has one image; complex numbers become magnitudes."""
    output = np.abs(output) if output.dtype.kind == "c" else output
    return output[0] if output.ndim > 1 and output.shape[0] == 1 else output


def extent(values: Array) -> tuple[float, float]:
    """The minimum and maximum of the finite numbers; (nan, nan) if there are none."""
    if not values.size:
        return math.nan, math.nan
    values = np.abs(values) if values.dtype.kind == "c" else values
    low, high = float(values.min()), float(values.max())
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)


def typical(values: Array) -> float:
    """The magnitude that 99 % of the finite numbers do not exceed; NaN if there are none. Of many, an even sample.

    >>> typical(np.array([*[0.5] * 99, -80.0]))
    0.5
    """
    sample = values.reshape(-1)[:: values.size // SAMPLE + 1]
    sizes = np.abs(sample[np.isfinite(sample)])
    return float(np.quantile(sizes, 0.99, method="lower")) if sizes.size else math.nan


def shrunk(planes: Array, side: int) -> Array:
    """Average planes (n, h, w) down to at most `side` rows and columns, or a single row to `side` squared columns.

    Every number contributes to exactly one average. Proportions are preserved; smaller planes are unchanged.

    >>> shrunk(np.arange(16.0).reshape(1, 4, 4), 2)[0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    shape = planes.shape[1:]
    limit, longest = side * side if shape[0] == 1 else side, max(shape)
    for axis, size in enumerate(shape, 1):
        target_size = max(1, round(size * min(1, limit / longest)))
        if size > target_size:
            starts = np.arange(target_size) * size // target_size
            counts = np.diff([*starts.tolist(), size])
            counts = counts[:, None] if axis == 1 else counts
            with np.errstate(all="ignore"):
                planes = np.add.reduceat(planes, starts, axis=axis, dtype=np.float64) / counts
    return planes


def shades(planes: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Map numbers from `low` to `high` to 0 to 255; NaN becomes 0."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return np.zeros(planes.shape, np.uint8)
    with np.errstate(all="ignore"):
        scaled = (np.asarray(planes, np.float64) - low) * (255 / span)
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)).astype(np.uint8)


def as_float32(values: Array) -> bytes:
    """The numbers as little-endian float32."""
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(values, "<f4").tobytes()
