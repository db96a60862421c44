"""Parts of normalizations: rows, groups and channels that are normalized together, and cells of large ones.

Cells of a row that is too large for one part are normalized by moments that are found before, some cells at a time.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from convscope.reference.backward_normalization import Axes, Statistics, Totals, refuse_large, totals
from convscope.reference.moments import Moments, joined
from convscope.reference.operation import Arguments
from convscope.reference.parts import ALL, Box, Part, Shape, boxes, first_of
from convscope.typing import Array


def batch_norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """In evaluation each cell by itself; in training each channel, of a large one some cells with its moments."""
    name, x = first_of(arguments)
    from_batch = (
        arguments.get("training") or arguments.get("running_mean") is None or arguments.get("running_var") is None
    )
    vectors = ("weight", "bias", "running_mean", "running_var")
    for box in boxes(shape, [1] if from_batch else range(len(shape)), cells):
        for inner, moments in _within(x, box, cells) if from_batch else [(box, {})]:
            sliced = {n: arguments[n][box[1]] for n in vectors if isinstance(arguments.get(n), np.ndarray)}
            yield Part(inner, {**arguments, name: x[inner], **sliced, **moments}, box[1:2])


def group_norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each image and each group by itself, of a large group some cells with its moments."""
    name, x = first_of(arguments)
    key = "num_groups" if "num_groups" in arguments else "group"
    groups, per_group = arguments[key], shape[1] // arguments[key]
    for box in boxes((shape[0], groups, math.prod(shape[2:]) * per_group), (0, 1), cells):
        first, end, _ = box[1].indices(groups)
        together = (box[0], slice(first * per_group, end * per_group), *[ALL] * (len(shape) - 2))
        for piece, moments in _within(x, together, cells, (1, 1, 1)):
            sliced = {n: arguments[n][piece[1]] for n in ("weight", "bias") if isinstance(arguments.get(n), np.ndarray)}
            sliced |= {name: x[piece], key: end - first}
            sizes = ("N", len(x[piece])), ("C", x[piece].shape[1]), ("HxW", math.prod(x[piece].shape[2:]))
            sliced |= {n: size for n, size in sizes if n in arguments}
            yield Part(piece, {**arguments, **sliced, **moments}, box[:2])


def layer_norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each row by itself, of a large one some cells with its moments."""
    name, x = first_of(arguments)
    rows = range(len(shape) - len(arguments["normalized_shape"]))  # the axes that are not normalized
    for box in boxes(shape, rows, cells):
        for piece, moments in _within(x, box, cells):
            inside = piece[len(rows) :]
            sliced = {n: arguments[n][inside] for n in ("weight", "bias") if isinstance(arguments.get(n), np.ndarray)}
            sliced |= {name: x[piece], "normalized_shape": x[piece].shape[len(rows) :]}
            yield Part(piece, {**arguments, **sliced, **moments}, (*box[: len(rows)], *[ALL] * len(inside)))


def batch_norm_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each channel: its cells, its weight and its bias together; of a large one some cells with its totals."""
    x, train = arguments["input"], arguments["train"]
    requested = list(arguments["output_mask"])
    vectors = ("weight", "running_mean", "running_var", "save_mean", "save_invstd")
    for box in boxes(x.shape, [1], cells):
        sliced = {n: arguments[n][box[1]] for n in vectors if isinstance(arguments.get(n), np.ndarray)}
        sliced = {**arguments, **sliced}
        if x[box].size <= cells:
            yield Part(box if requested[0] else box[1:2], _sliced(sliced, box), box[1:2])
            continue
        mean, rate = (
            _wide(sliced[n]) for n in (("save_mean", "save_invstd") if train else ("running_mean", "running_var"))
        )
        row = _row(mean, rate if train else 1 / np.sqrt(rate + arguments["eps"]), sliced.get("weight"), x.ndim)
        pieces, plane = list(_pieces(x, box, cells)), math.prod(x.shape[2:])
        if requested[0]:
            total = {"row_totals": _totals(sliced, [(piece, row) for piece in pieces])._replace(plane=plane)}
            for piece in pieces:
                yield Part(piece, {**_sliced(sliced, piece), **total, "output_mask": ONLY_INPUT}, outputs=(0,))
        if any(requested[1:]):
            alone = row._replace(scale=np.ones(()))
            total = {"row_totals": _totals(sliced, [(piece, alone) for piece in pieces])._replace(plane=plane)}
            yield _learnt(box[1:2], {**_sliced(sliced, (slice(0), *box[1:])), **total}, requested)


def group_norm_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """The gradient of the input by images and groups, those of weight and bias by channels."""
    x, groups, requested = arguments["input"], arguments["group"], list(arguments["output_mask"])
    per_group, statistics = x.shape[1] // groups, ("mean", "rstd")

    def part(piece: Box, mean: Array, rate: Array, group: int) -> dict[str, object]:
        images, channels, *rest = x[piece].shape
        sliced = {"mean": mean, "rstd": rate, "N": images, "C": channels, "HxW": math.prod(rest), "group": group}
        if arguments["weight"] is not None:
            sliced["weight"] = arguments["weight"][piece[1]]
        return {**_sliced(arguments, piece), **sliced}

    if requested[0]:
        for box in boxes((x.shape[0], groups, math.prod(x.shape[2:]) * per_group), (0, 1), cells):
            first, end, _ = box[1].indices(groups)
            together = (box[0], slice(first * per_group, end * per_group), *[ALL] * (x.ndim - 2))
            mean, rate = (arguments[n].reshape(-1, groups)[box[:2]] for n in statistics)
            pieces = list(_pieces(x, together, cells))
            sliced = [part(piece, mean, rate, end - first) for piece in pieces]
            row_totals = {"row_totals": _grouped_totals(sliced)} if len(pieces) > 1 else {}
            for piece, part_arguments in zip(pieces, sliced, strict=True):
                yield Part(piece, {**part_arguments, **row_totals, "output_mask": ONLY_INPUT}, outputs=(0,))
    if any(requested[1:]):
        for box in boxes(x.shape, (1,), cells):
            channels = np.arange(x.shape[1])[box[1]]
            mean, rate = (arguments[n].reshape(-1, groups)[:, channels // per_group] for n in statistics)
            pieces = list(_pieces(x, box, cells))
            sliced = [part(piece, mean[piece[0]], rate[piece[0]], len(channels)) for piece in pieces]
            part_arguments, row_totals = sliced[0], {}
            if len(pieces) > 1:
                row_totals = {"row_totals": _grouped_totals([{**g, "weight": None} for g in sliced])}
                part_arguments = part((slice(0), *box[1:]), mean[:0], rate[:0], 1)
            yield _learnt(box[1:2], {**part_arguments, **row_totals}, requested)


def layer_norm_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """The gradient of the input by rows, those of weight and bias by the places of a row."""
    x, requested = arguments["input"], list(arguments["output_mask"])
    lead = x.ndim - len(arguments["normalized_shape"])

    def part(piece: Box) -> dict[str, object]:
        sliced = {n: arguments[n][piece[lead:]] for n in ("weight", "bias") if isinstance(arguments.get(n), np.ndarray)}
        sliced |= {n: arguments[n][(*piece[:lead], ...)] for n in ("mean", "rstd")}
        return {**_sliced(arguments, piece), **sliced, "normalized_shape": x[piece].shape[lead:]}

    def row(piece: Box, *, weighted: bool) -> Statistics:
        sliced = part(piece)
        return Statistics(
            *(_wide(sliced[n] if n != "weight" or weighted else None) for n in ("mean", "rstd", "weight"))
        )

    if requested[0]:
        for box in boxes(x.shape, range(lead), cells):
            pieces = list(_pieces(x, box, cells))
            row_totals = {"row_totals": _totals(arguments, [(piece, row(piece, weighted=True)) for piece in pieces])}
            for piece in pieces:
                sliced = {**part(piece), "output_mask": ONLY_INPUT}
                yield Part(piece, {**sliced, **row_totals} if len(pieces) > 1 else sliced, outputs=(0,))
    if any(requested[1:]):
        for box in boxes(x.shape, range(lead, x.ndim), cells):
            pieces = list(_pieces(x, box, cells))
            sliced = part(box)
            if len(pieces) > 1:
                axes = tuple(range(lead))
                total = _totals(arguments, [(piece, row(piece, weighted=False)) for piece in pieces], axes)
                sliced = {**part((*[slice(0)] * lead, *box[lead:])), "row_totals": total}
            yield _learnt(box[lead:], sliced, requested)


ONLY_INPUT = [True, False, False]


def _learnt(box: Box, arguments: Arguments, requested: list[bool]) -> Part:
    """The gradients of weight and bias alone."""
    outputs = tuple(range(int(requested[0]), sum(requested)))
    return Part(box, {**arguments, "output_mask": [False, *requested[1:]]}, box, outputs)


def _sliced(arguments: Arguments, piece: Box) -> dict[str, object]:
    return {**arguments, "input": arguments["input"][piece], "grad_out": arguments["grad_out"][piece]}


def _wide(values: object) -> Array:
    return np.ones(()) if values is None else np.asarray(values, np.float64)


def _row(mean: Array, rate: Array, weight: Array | None, axes: int) -> Statistics:
    """Statistics and weights of channels, shaped to broadcast along them."""
    each = [_wide(values) for values in (mean, rate, weight)]
    return Statistics(*(values.reshape(-1, *[1] * (axes - 2)) if values.ndim else values for values in each))


def _totals(arguments: Arguments, pieces: list[tuple[Box, Statistics]], axes: Axes | None = None) -> Totals:
    """The totals of a row, or over the given axes, from its pieces and what normalized them."""
    sums = []
    for piece, row in pieces:
        grad, x = (arguments[name][piece].astype(np.float64) for name in ("grad_out", "input"))
        refuse_large(grad, x)
        sums.append(totals(grad, x, row, tuple(range(x.ndim)) if axes is None else axes))
    return functools.reduce(Totals.plus, sums)


def _grouped_totals(pieces: list[dict[str, Any]]) -> Totals:
    """The same of pieces of a group, or of a channel, as the operation takes them."""
    sums = []
    for one in pieces:
        shape = (one["N"], 1, one["C"], one["HxW"])
        grad, x = (one[name].astype(np.float64).reshape(shape) for name in ("grad_out", "input"))
        refuse_large(grad, x)
        mean, rate = (_wide(one[name]).reshape(-1, 1, 1, 1) for name in ("mean", "rstd"))
        scale = _wide(one["weight"]).reshape(-1, 1)
        sums.append(totals(grad, x, Statistics(mean, rate, scale), (0, 1, 2, 3)))
    return functools.reduce(Totals.plus, sums)


def _pieces(x: Array, box: Box, cells: int) -> Iterator[Box]:
    """A box, or what it falls into where it is too large."""
    whole = x[box]
    for piece in boxes(whole.shape, range(whole.ndim), cells):
        starts = [(axis.start or 0, n) for axis, n in zip(box, whole.shape, strict=True)]
        spans = [axis.indices(n)[:2] for axis, (_, n) in zip(piece, starts, strict=True)]
        yield tuple(slice(s + low, s + high) for (s, _), (low, high) in zip(starts, spans, strict=True))


def _within(x: Array, box: Box, cells: int, kept: Shape | None = None) -> Iterator[tuple[Box, dict[str, Moments]]]:
    """A box of rows that are normalized together; of one that is too large its parts, with the moments of the whole.

    Args:
        kept: What the moments are shaped to; by default 1 along each axis.
    """
    together = x[box]
    if together.size <= cells:
        yield box, {}
        return
    pieces = list(_pieces(x, box, cells))
    moments = {"moments": joined([x[piece] for piece in pieces], kept or (1,) * x.ndim)}
    for piece in pieces:
        yield piece, moments
