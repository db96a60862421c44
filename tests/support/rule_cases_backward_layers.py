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


BAGS = torch.tensor([1, 2, 1, 4, 1, 0, 2]), torch.tensor([0, 3, 3, 5])


def _bag(g: Tensor, table: Tensor, *, mode: int, weighted: bool = False, padding: int = -1) -> Any:
    rows, offsets = BAGS
    scales = table.flatten()[:7].clone() if weighted else None
    how = (False, mode, False, scales)
    _, bag_of, sizes, best = aten._embedding_bag(table, rows, offsets, *how, False, padding)
    return aten._embedding_bag_backward(g, rows, offsets, bag_of, sizes, best, len(table), *how, padding)


def _bag_scales(g: Tensor, table: Tensor) -> Any:
    rows, offsets = BAGS
    bag_of = aten._embedding_bag(table, rows, offsets, False, 0, False, table.flatten()[:7].clone())[1]
    return aten._embedding_bag_per_sample_weights_backward(g, table, rows, offsets, bag_of, 0, 2)


def _bags() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    shapes = ((4, 5), (6, 5))
    for mode, word in enumerate(("sum", "mean", "max")):
        yield f"bag of embeddings backward, {word}", (partial(_bag, mode=mode), shapes)
        yield f"bag of embeddings backward with padding, {word}", (partial(_bag, mode=mode, padding=1), shapes)
    yield "bag of weighted embeddings backward", (partial(_bag, mode=0, weighted=True), shapes)
    yield "weights of a bag backward", (_bag_scales, shapes)


def _fractional(g: Tensor, x: Tensor) -> Any:
    axes = x.ndim - 2
    how = ([2, 3, 2][-axes:], list(g.shape[2:]))
    draws = torch.linspace(0.1, 0.8, x.shape[0] * x.shape[1] * axes).reshape(*x.shape[:2], axes).to(x)
    places = getattr(aten, f"fractional_max_pool{axes}d")(x, *how, draws)[1]
    return getattr(aten, f"fractional_max_pool{axes}d_backward")(g, x, *how, places)


def _segments(g: Tensor, x: Tensor, *, reduce: str) -> Any:
    lengths = torch.tensor([2, 0, 3])
    x = x.abs() + 0.5 if reduce == "prod" else (x * 2).round() / 2
    initial = 0 if reduce in {"max", "min"} else None
    result = aten.segment_reduce(x, reduce, lengths=lengths, initial=initial)
    return aten._segment_reduce_backward(g.abs(), result, x, reduce, lengths=lengths, initial=initial)


def _selections() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    yield "fractional max pooling backward", (_fractional, ((2, 3, 4, 5), (2, 3, 9, 11)))
    yield "fractional max pooling backward, 3-d", (_fractional, ((2, 3, 2, 3, 4), (2, 3, 5, 6, 7)))
    for reduce in ("sum", "mean", "max", "min", "prod"):
        yield f"segments backward, {reduce}", (partial(_segments, reduce=reduce), ((3, 4), (5, 4)))
    yield (
        "masked scatter backward",
        (lambda g, x: aten.masked_scatter_backward(g, x > 0, [4, 10]), ((5, 7), (1, 7))),
    )


def _slopes() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    table = ((5, 7), (5, 7))
    yield "logit backward", (lambda g, x: aten.logit_backward(g, x.sigmoid()), table)
    yield "logit backward within", (lambda g, x: aten.logit_backward(g, x.sigmoid(), 0.3), table)
    for training in (True, False):
        does = partial(aten.rrelu_with_noise_backward, lower=0.1, upper=0.3, training=training, self_is_result=False)
        yield f"randomized slope backward, {training}", (lambda g, x, does=does: does(g, x, x.abs()), table)


def backward_of_layers() -> Iterator[tuple[str, tuple[Does, Shapes]]]:
    """The cases of all of these layers."""
    yield from _grids()
    yield from _distances()
    yield from _bags()
    yield from _selections()
    yield from _slopes()
