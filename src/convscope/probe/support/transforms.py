"""Transforms: images shifted, turned, scaled, made noisy or covered, and whether a network's maps move along."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Level = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageChange:
    """One kind of change."""

    unit: str
    """A description of a level."""
    unmoved: Level
    """The level that changes nothing."""
    apply: Callable[[Tensor, Level, Tensor, torch.Generator], Tensor]
    """(images (n, C, H, W), level, background (C, 1, 1), generator) -> images."""


def translated(images: Tensor, level: Level, fill: Tensor, _: object = None) -> Tensor:
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


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """From where to where, along one axis."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))


def _turned(images: Tensor, level: Level, fill: Tensor, _: object) -> Tensor:
    angle = math.radians(level[0])
    return _resampled(images, fill, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _scaled(images: Tensor, level: Level, fill: Tensor, _: object) -> Tensor:
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


def _covered(images: Tensor, level: Level, fill: Tensor, _: object) -> Tensor:
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
        reach: The largest translation in each direction; other kinds do not use it.
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


TOLERANCE = 1e-4
"""Tolerance relative to a layer's spread, within which maps count as moving along."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How one layer's maps follow an image that moves."""

    layer: str
    kind: str
    stride: int
    """How many pixels the image has to move for the map to move by one cell."""
    along: float
    """Share of the cells that move along when the image moves by `stride` pixels."""
    border: int | None
    """Rings of cells, counted from the edge of the map, in which some do not; None where no ring is free of it."""
    between: float
    """Root mean square error, as a share of the layer's spread, when the image moves by one pixel; for a larger stride
    that is none of its multiples, and the error is to the nearer of no move and one cell."""

    def __str__(self) -> str:
        if self.border is None:
            share = f" in {100 * self.along:.0f} % of the cells: the border of the image affects every ring of them"
        elif self.border:
            rings = f"{self.border} rings" if self.border > 1 else "ring"
            share = f", except in the outermost {rings} of cells"
        else:
            share = " in every cell"
        moves = f"{self.layer} ({self.kind}) shifts with the image{share}"
        if self.stride > 1:
            moves += (
                f", in steps of {self.stride} pixels; after one pixel its maps are off by {100 * self.between:.0f} %"
            )
        return moves

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "stride": self.stride,
            "along": self.along,
            "border": self.border,
            "between": self.between,
        }


def motions(model: nn.Module, images: Tensor, fill: Tensor) -> tuple[Motion, ...]:
    """Measure it on some images, for a move down and to the right.

    >>> images = torch.rand(1, 1, 12, 12)
    >>> for motion in motions(nn.Conv2d(1, 2, 3, padding=1), images, torch.zeros(1, 1, 1)):
    ...     print(motion)
    conv2d (Conv2d) shifts with the image, except in the outermost ring of cells

    Args:
        model: In evaluation mode.
        images: Shape (n, C, H, W).
        fill: The background, shape (C, 1, 1).
    """
    still = _maps(model, images)
    result = []
    cache: dict[int, dict[str, tuple[str, Tensor]]] = {}
    for name, (kind, maps) in still.items():
        stride = max(1, round(images.shape[2] / maps.shape[2]))
        for distance in {1, stride} - cache.keys():
            cache[distance] = _maps(model, translated(images, (distance, distance), fill))
        moved, nudged = cache[stride][name][1], cache[1][name][1]
        spread = float(maps.std()) or 1.0
        if min(maps.shape[2:]) < 2:
            continue
        wrong = ((moved[:, :, 1:, 1:] - maps[:, :, :-1, :-1]).abs() > TOLERANCE * spread).any(dim=1).any(dim=0)
        result.append(
            Motion(
                name,
                kind,
                stride,
                float((~wrong).float().mean()),
                _border(wrong),
                _between(nudged, maps, stride, spread),
            )
        )
    return tuple(result)


def _between(nudged: Tensor, maps: Tensor, stride: int, spread: float) -> float:
    """After one pixel, against the nearer of no move and one cell; the maps of stride 1 against one cell."""
    inner = (slice(None), slice(None), slice(1, None), slice(1, None))
    errors = [nudged[inner] - maps[:, :, :-1, :-1]] + ([nudged[inner] - maps[inner]] if stride > 1 else [])
    return min(float(error.square().mean().sqrt()) for error in errors) / spread


def _border(wrong: Tensor) -> int | None:
    """How many rings hold cells that do not move along; None where that is all of them.

    Args:
        wrong: Whether the cell one further down and right differs, shape (h - 1, w - 1).
    """
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in wrong.shape)
    ring = np.minimum.outer(rows, columns)  # of a cell before it moved or after, whichever is nearer to its edge
    deepest = int(ring[wrong.cpu().numpy()].max(initial=-1))
    return None if deepest >= ring.max() else deepest + 1


def _maps(model: nn.Module, images: Tensor) -> dict[str, tuple[str, Tensor]]:
    """The class and the maps, shape (n, K, h, w), of each module without children that returns maps."""
    result: dict[str, tuple[str, Tensor]] = {}

    def keep(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == len(images) and name not in result:
            result[name] = type(module).__name__, output.detach().clone()

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: keep(name or type(m).__name__.lower(), m, output))
        for name, module in leaves
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return result
