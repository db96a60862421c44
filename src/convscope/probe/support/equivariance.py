"""Motion: do a network's maps move along with the image? Equivariance, layer by layer, and where borders break it.

Knows torch; a layer is any module that gives maps. Invariance of the answer is another question: see shift.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.probe.support.transforms import translated

TOLERANCE = 1e-4
"""Of a layer's spread: what differs by less moves along."""


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
        ring = (
            f"all but the outermost {self.border} ring{'s' * (self.border != 1)} of cells"
            if self.border
            else "every cell"
        )
        where = (
            ring if self.border is not None else f"{100 * self.along:.0f} % of the cells, no ring is free of the border"
        )
        moves = f"{self.layer} ({self.kind}) moves along in {where}"
        if self.stride > 1:
            moves += (
                f", in steps of {self.stride} pixels; after one pixel its maps are off by {100 * self.between:.0f} %"
            )
        return moves

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
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
    conv2d (Conv2d) moves along in all but the outermost 1 ring of cells

    Args:
        model: In evaluation mode.
        images: Shape (n, C, H, W).
        fill: The background, shape (C, 1, 1).
    """
    still = _maps(model, images)
    found = []
    cache: dict[int, dict[str, tuple[str, Tensor]]] = {}
    for name, (kind, maps) in still.items():
        stride = max(1, round(images.shape[2] / maps.shape[2]))
        for by in {1, stride} - cache.keys():
            cache[by] = _maps(model, translated(images, (by, by), fill))
        moved, nudged = cache[stride][name][1], cache[1][name][1]
        spread = float(maps.std()) or 1.0
        if min(maps.shape[2:]) < 2:
            continue
        wrong = ((moved[:, :, 1:, 1:] - maps[:, :, :-1, :-1]).abs() > TOLERANCE * spread).any(dim=1).any(dim=0)
        found.append(
            Motion(
                name,
                kind,
                stride,
                float((~wrong).float().mean()),
                _border(wrong),
                _between(nudged, maps, stride, spread),
            )
        )
    return tuple(found)


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
    """What each module without children gives that gives maps: its class and them, shape (n, K, h, w)."""
    found: dict[str, tuple[str, Tensor]] = {}

    def keep(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == len(images) and name not in found:
            found[name] = type(module).__name__, output.detach().clone()

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
    return found
