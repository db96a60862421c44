"""Features: numbers that can be computed without recognizing anything: area, mean, position, colour count, ...

Knows NumPy and Dataset; no models, no rules.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.errors import DataError
from convscope.progress import Progress, silent

Pictures = NDArray[np.float32]
"""Shape (n, C, H, W), from 0 to 1."""
Numbers = NDArray[np.float64]
"""One per image, shape (n,)."""

BATCH = 1000


def _lit(pictures: Pictures) -> NDArray[np.bool_]:
    """Pixels brighter than half in any channel: (n, H, W)."""
    lit: NDArray[np.bool_] = pictures.max(axis=1) > 0.5
    return lit


def _area(pictures: Pictures) -> Numbers:
    return np.asarray(_lit(pictures).sum(axis=(1, 2)), np.float64)


def _mean(pictures: Pictures) -> Numbers:
    return np.asarray(pictures.mean(axis=(1, 2, 3)), np.float64)


def _contrast(pictures: Pictures) -> Numbers:
    return np.asarray(pictures.std(axis=(1, 2, 3)), np.float64)


def _position(pictures: Pictures, axis: int) -> Numbers:
    """Centre of the light along rows (axis 1) or columns (axis 2); the middle of a black picture."""
    light = pictures.sum(axis=1, dtype=np.float64).sum(axis=3 - axis)  # (n, H) or (n, W)
    places = np.arange(light.shape[1])
    total = light.sum(axis=1)
    return np.asarray(np.where(total > 0, light @ places / np.where(total > 0, total, 1), places.mean()), np.float64)


def _extent(pictures: Pictures, axis: int) -> Numbers:
    """From the first to the last row (axis 1) or column (axis 2) with a lit pixel, in pixels; 0 where there is none."""
    any_lit: NDArray[np.bool_] = np.asarray(_lit(pictures).any(axis=3 - axis))  # (n, H) or (n, W)
    first, last = any_lit.argmax(axis=1), any_lit.shape[1] - any_lit[:, ::-1].argmax(axis=1)
    return np.where(any_lit.any(axis=1), last - first, 0).astype(np.float64)


def _border(pictures: Pictures) -> Numbers:
    ring = np.ones(pictures.shape[2:], bool)
    ring[1:-1, 1:-1] = False
    return np.asarray(pictures[:, :, ring].mean(axis=(1, 2)), np.float64)


def _colors(pictures: Pictures) -> Numbers:
    """How many different colours, in steps of 1/255."""
    levels = np.rint(pictures * 255).astype(np.int64)  # (n, C, H, W)
    packed = np.zeros((levels.shape[0], levels.shape[2] * levels.shape[3]), np.int64)
    for channel in range(levels.shape[1]):
        packed = packed * 256 + levels[:, channel].reshape(packed.shape)
    packed.sort(axis=1)
    return np.asarray(1.0 + (np.diff(packed, axis=1) != 0).sum(axis=1), np.float64)


FEATURES: Mapping[str, Callable[[Pictures], Numbers]] = {
    "area": _area,
    "mean": _mean,
    "contrast": _contrast,
    "row": lambda pictures: _position(pictures, 1),
    "column": lambda pictures: _position(pictures, 2),
    "height": lambda pictures: _extent(pictures, 1),
    "width": lambda pictures: _extent(pictures, 2),
    "border": _border,
    "colours": _colors,
}
"""Of every picture; those of three channels have `red`, `green` and `blue` too, the mean of each."""

MEANS: Mapping[str, str] = {
    "area": "pixels brighter than half, in any channel",
    "mean": "mean brightness, 0 to 1",
    "contrast": "standard deviation of the brightness",
    "row": "row of the centre of the light",
    "column": "column of the centre of the light",
    "height": "rows from the first to the last lit pixel",
    "width": "columns from the first to the last lit pixel",
    "border": "mean brightness of the outermost ring of pixels",
    "colours": "how many different colours",
    "red": "mean of the red channel",
    "green": "mean of the green channel",
    "blue": "mean of the blue channel",
}


def features_of(data: Dataset, *, progress: Progress = silent) -> tuple[dict[str, Numbers], NDArray[np.intp]]:
    """Every feature of every image, a thousand images at a time.

    >>> data = Dataset("one", np.full((1, 1, 4, 4), 255, np.uint8), np.array([0]), ("white",))
    >>> numbers, read = features_of(data)
    >>> {name: float(numbers[name][0]) for name in ("area", "row", "colours")}, read
    ({'area': 16.0, 'row': 1.5, 'colours': 1.0}, array([0]))

    Args:
        data: The images; how they are normalized for a model plays no part.
        progress: Told how many images are done.

    Returns:
        Name -> numbers, shape (n,), and the indices of the images that they are of: those that can be read.

    Raises:
        DataError: no image can be read.
    """
    found: dict[str, list[Numbers]] = {}
    read: list[NDArray[np.intp]] = []
    for start in range(0, len(data), BATCH):
        progress("features", start, len(data))
        raw, indices = data.readable(slice(start, start + BATCH))
        if not len(raw):
            continue
        read.append(indices)
        pictures = np.asarray(raw / np.float32(data.preprocess.scale), np.float32)
        for name, feature in FEATURES.items():
            found.setdefault(name, []).append(feature(pictures))
        if pictures.shape[1] == 3:
            for channel, name in enumerate(("red", "green", "blue")):
                found.setdefault(name, []).append(_mean(pictures[:, channel : channel + 1]))
    progress("features", len(data), len(data))
    if not read:
        raise DataError(f"no image of {data.name}:{data.split} can be read.")
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.concatenate(read)
