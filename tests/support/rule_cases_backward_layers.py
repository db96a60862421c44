"""Cases of backward operations of layers that read by positions: grids, distances, bags, fractional windows, losses."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rule_case import Does

Shapes = tuple[tuple[int, ...], ...]
aten = torch.ops.aten


def _sampled(g: Tensor, x: Tensor, grid: Tensor, *, mode: int, padding: int, align: bool, both: bool = True) -> Any:
    """Of positions that no type's rounding moves to another cell; at a position that is nan the kernel may crash."""
    sizes = grid.new_tensor(x.shape[:1:-1])
    cells = (grid.nan_to_num().clamp(-4, 4) * 3).floor() + 0.3
    grid = cells * 2 / (sizes - 1) - 1 if align else (2 * cells + 1) / sizes - 1
    operation = getattr(aten, f"grid_sampler_{x.ndim - 2}d_backward")
    return operation(g, x, grid, mode, padding, align, [both, True])[not both :]


def _grids() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    plane, solid = ((2, 3, 4, 5), (2, 3, 6, 7), (2, 4, 5, 2)), ((1, 2, 3, 4, 2), (1, 2, 5, 6, 3), (1, 3, 4, 2, 3))
    for mode, word in enumerate(("bilinear", "nearest", "bicubic")):
        for padding, kind in enumerate(("zeros", "border", "reflection")):
            does = partial(_sampled, mode=mode, padding=padding, align=padding == mode)
            yield f"grid sample backward, {word}, {kind}", (does, plane)
    for mode, padding in ((0, 0), (0, 2), (1, 1)):
        does = partial(_sampled, mode=mode, padding=padding, align=padding == 2)
        yield f"3-d grid sample backward, {mode}, {padding}", (does, solid)
    alone = partial(_sampled, mode=0, padding=0, align=True, both=False)
    yield "grid sample backward, grid alone", (alone, plane)


def _cdist(g: Tensor, x: Tensor, y: Tensor, *, p: float) -> Any:
    return aten._cdist_backward(g, x, y, p, aten._cdist_forward(x, y, p, 2))


def _pdist(g: Tensor, x: Tensor, *, p: float) -> Any:
    return aten._pdist_backward(g, x, p, aten._pdist_forward(x, p))


def _distances() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")):
        yield f"distances backward, order {p}", (partial(_cdist, p=p), ((2, 4, 6), (2, 4, 5), (1, 6, 5)))
        yield f"distances of pairs backward, order {p}", (partial(_pdist, p=p), ((10,), (5, 4)))


def backward_of_layers() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    """The cases of all of these layers."""
    yield from _grids()
    yield from _distances()
