"""Moving: what is done to a picture to ask whether the answer stays: shifted, turned, scaled, made noisy, covered.

Knows torch; no models, no data sets. What leaves the picture is lost, what becomes free is filled with the background.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Level = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageChange:
    """One kind of change."""

    unit: str
    """What a level is, in words."""
    unmoved: Level
    """The level that changes nothing."""
    apply: Callable[[Tensor, Level, Tensor, torch.Generator], Tensor]
    """(images (n, C, H, W), level, background (C, 1, 1), generator) -> images."""


def translated(images: Tensor, level: Level, fill: Tensor, _: Any = None) -> Tensor:
    """Each image moved down and right by whole pixels.

    >>> translated(torch.eye(3)[None, None], (1, 0), torch.zeros(1, 1, 1))[0, 0].int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    """
    down, right = (int(part) for part in level)
    height, width = images.shape[2:]
    moved = fill.expand_as(images).clone()
    if abs(down) < height and abs(right) < width:
        rows, columns = _overlap(down, height), _overlap(right, width)
        moved[:, :, rows[1], columns[1]] = images[:, :, rows[0], columns[0]]
    return moved


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    """From where to where, along one axis."""
    return slice(max(0, -by), size - max(0, by)), slice(max(0, by), size + min(0, by))


def _turned(images: Tensor, level: Level, fill: Tensor, _: Any) -> Tensor:
    angle = math.radians(level[0])
    return _resampled(images, fill, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _scaled(images: Tensor, level: Level, fill: Tensor, _: Any) -> Tensor:
    return _resampled(images, fill, [[1 / level[0], 0.0], [0.0, 1 / level[0]]])


def _resampled(images: Tensor, fill: Tensor, matrix: list[list[float]]) -> Tensor:
    """Bilinear, around the centre; `matrix` takes a place in the new picture to the one it is read from."""
    height, width = images.shape[2:]
    down, right = (matrix[0][1] * height / width, matrix[1][0] * width / height)  # grids count in half sides
    theta = images.new_tensor([[matrix[0][0], down, 0], [right, matrix[1][1], 0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images - fill, grid, align_corners=False) + fill


def _noisy(images: Tensor, level: Level, _: Tensor, generator: torch.Generator) -> Tensor:
    if not level[0]:
        return images
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float32)
    return images + level[0] * noise.to(images)


def _covered(images: Tensor, level: Level, fill: Tensor, _: Any) -> Tensor:
    top, left, side = (int(part) for part in level)
    covered = images.clone()
    covered[:, :, top : top + side, left : left + side] = fill
    return covered


CHANGES: Mapping[str, ImageChange] = {
    "translation": ImageChange("pixels down, pixels right", (0, 0), translated),
    "rotation": ImageChange("degrees counterclockwise", (0,), _turned),
    "scale": ImageChange("times as large", (1,), _scaled),
    "noise": ImageChange("standard deviation, in the unit of the model's input", (0,), _noisy),
    "erase": ImageChange("row and column of the patch, side in pixels", (0, 0, 0), _covered),
}
"""Kind -> what it does."""


def levels_of(kind: str, size: tuple[int, int], reach: int) -> list[Level]:
    """The levels that are measured where none are given.

    >>> len(levels_of("translation", (28, 28), 10)), len(levels_of("erase", (28, 28), 10))
    (441, 49)

    Args:
        kind: A name of `CHANGES`.
        size: (H, W) of the images.
        reach: Of translations, the largest in each direction; of other kinds it has no meaning.
    """
    if kind == "translation":
        steps = range(-reach, reach + 1)
        return [(float(down), float(right)) for down in steps for right in steps]
    if kind == "erase":
        side = max(1, min(size) // 4)
        starts = [[round(k * (edge - side) / 6) for k in range(7)] for edge in size]
        return [(float(top), float(left), float(side)) for top in starts[0] for left in starts[1]]
    fixed: Mapping[str, Sequence[float]] = {
        "rotation": range(-180, 181, 15),
        "scale": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0),
        "noise": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    }
    return [(float(value),) for value in fixed[kind]]
