"""Parts of normalizations: rows, groups and channels that are normalized together, and cells of large ones.

Cells of a row that is too large for one part are normalized by moments that are found before, some cells at a time.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from convscope.reference.backward_normalization import Axes, Row, Totals, refuse_large, totals
from convscope.reference.moments import Moments, joined
from convscope.reference.operation import Arguments
from convscope.reference.parts import ALL, Box, Part, Shape, boxes, first_of
from convscope.typing import Array


def batch_norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """In evaluation each cell by itself; in training each channel, of a large one some cells with its moments."""
    name, x = first_of(arguments)
    own = arguments.get("training") or arguments.get("running_mean") is None or arguments.get("running_var") is None
    vectors = ("weight", "bias", "running_mean", "running_var")
    for box in boxes(shape, [1] if own else range(len(shape)), cells):
        for inner, known in _within(x, box, cells) if own else [(box, {})]:
            given = {n: arguments[n][box[1]] for n in vectors if isinstance(arguments.get(n), np.ndarray)}
            yield Part(inner, {**arguments, name: x[inner], **given, **known}, box[1:2])


def group_norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each image and each group by itself, of a large group some cells with its moments."""
    name, x = first_of(arguments)
    key = "num_groups" if "num_groups" in arguments else "group"
    groups, each = arguments[key], shape[1] // arguments[key]
    for box in boxes((shape[0], groups, math.prod(shape[2:]) * each), (0, 1), cells):
        first, end, _ = box[1].indices(groups)
        whole = (box[0], slice(first * each, end * each), *[ALL] * (len(shape) - 2))
        for at, known in _within(x, whole, cells, (1, 1, 1)):
            given = {n: arguments[n][at[1]] for n in ("weight", "bias") if isinstance(arguments.get(n), np.ndarray)}
            given |= {name: x[at], key: end - first}
            sizes = ("N", len(x[at])), ("C", x[at].shape[1]), ("HxW", math.prod(x[at].shape[2:]))
            given |= {n: size for n, size in sizes if n in arguments}
            yield Part(at, {**arguments, **given, **known}, box[:2])


def layer_norm(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each row by itself, of a large one some cells with its moments."""
    name, x = first_of(arguments)
    rows = range(len(shape) - len(arguments["normalized_shape"]))  # the axes that are not normalized
    for box in boxes(shape, rows, cells):
        for at, known in _within(x, box, cells):
            inside = at[len(rows) :]
            given = {n: arguments[n][inside] for n in ("weight", "bias") if isinstance(arguments.get(n), np.ndarray)}
            given |= {name: x[at], "normalized_shape": x[at].shape[len(rows) :]}
            yield Part(at, {**arguments, **given, **known}, (*box[: len(rows)], *[ALL] * len(inside)))


def batch_norm_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """Each channel: its cells, its weight and its bias together; of a large one some cells with its totals."""
    x, train = arguments["input"], arguments["train"]
    asked = list(arguments["output_mask"])
    vectors = ("weight", "running_mean", "running_var", "save_mean", "save_invstd")
    for box in boxes(x.shape, [1], cells):
        given = {n: arguments[n][box[1]] for n in vectors if isinstance(arguments.get(n), np.ndarray)}
        given = {**arguments, **given}
        if x[box].size <= cells:
            yield Part(box if asked[0] else box[1:2], _sliced(given, box), box[1:2])
            continue
        mean, rate = (
            _wide(given[n]) for n in (("save_mean", "save_invstd") if train else ("running_mean", "running_var"))
        )
        row = _row(mean, rate if train else 1 / np.sqrt(rate + arguments["eps"]), given.get("weight"), x.ndim)
        pieces, plane = list(_pieces(x, box, cells)), math.prod(x.shape[2:])
        if asked[0]:
            total = {"known": _totals(given, [(at, row) for at in pieces])._replace(plane=plane)}
            for at in pieces:
                yield Part(at, {**_sliced(given, at), **total, "output_mask": ONLY_INPUT}, outputs=(0,))
        if any(asked[1:]):
            alone = row._replace(scale=np.ones(()))
            total = {"known": _totals(given, [(at, alone) for at in pieces])._replace(plane=plane)}
            yield _learnt(box[1:2], {**_sliced(given, (slice(0), *box[1:])), **total}, asked)


def group_norm_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """The gradient of the input by images and groups, those of weight and bias by channels."""
    x, groups, asked = arguments["input"], arguments["group"], list(arguments["output_mask"])
    each, statistics = x.shape[1] // groups, ("mean", "rstd")

    def part(at: Box, mean: Array, rate: Array, group: int) -> dict[str, object]:
        images, channels, *rest = x[at].shape
        given = {"mean": mean, "rstd": rate, "N": images, "C": channels, "HxW": math.prod(rest), "group": group}
        if arguments["weight"] is not None:
            given["weight"] = arguments["weight"][at[1]]
        return {**_sliced(arguments, at), **given}

    if asked[0]:
        for box in boxes((x.shape[0], groups, math.prod(x.shape[2:]) * each), (0, 1), cells):
            first, end, _ = box[1].indices(groups)
            whole = (box[0], slice(first * each, end * each), *[ALL] * (x.ndim - 2))
            mean, rate = (arguments[n].reshape(-1, groups)[box[:2]] for n in statistics)
            pieces = list(_pieces(x, whole, cells))
            given = [part(at, mean, rate, end - first) for at in pieces]
            known = {"known": _grouped_totals(given)} if len(pieces) > 1 else {}
            for at, one in zip(pieces, given, strict=True):
                yield Part(at, {**one, **known, "output_mask": ONLY_INPUT}, outputs=(0,))
    if any(asked[1:]):
        for box in boxes(x.shape, (1,), cells):
            channels = np.arange(x.shape[1])[box[1]]
            mean, rate = (arguments[n].reshape(-1, groups)[:, channels // each] for n in statistics)
            pieces = list(_pieces(x, box, cells))
            given = [part(at, mean[at[0]], rate[at[0]], len(channels)) for at in pieces]
            one, known = given[0], {}
            if len(pieces) > 1:
                known = {"known": _grouped_totals([{**g, "weight": None} for g in given])}
                one = part((slice(0), *box[1:]), mean[:0], rate[:0], 1)
            yield _learnt(box[1:2], {**one, **known}, asked)


def layer_norm_backward(arguments: Arguments, shape: Shape, cells: int) -> Iterator[Part]:
    """The gradient of the input by rows, those of weight and bias by the places of a row."""
    x, asked = arguments["input"], list(arguments["output_mask"])
    lead = x.ndim - len(arguments["normalized_shape"])

    def part(at: Box) -> dict[str, object]:
        given = {n: arguments[n][at[lead:]] for n in ("weight", "bias") if isinstance(arguments.get(n), np.ndarray)}
        given |= {n: arguments[n][(*at[:lead], ...)] for n in ("mean", "rstd")}
        return {**_sliced(arguments, at), **given, "normalized_shape": x[at].shape[lead:]}

    def row(at: Box, *, weighted: bool) -> Row:
        given = part(at)
        return Row(*(_wide(given[n] if n != "weight" or weighted else None) for n in ("mean", "rstd", "weight")))

    if asked[0]:
        for box in boxes(x.shape, range(lead), cells):
            pieces = list(_pieces(x, box, cells))
            known = {"known": _totals(arguments, [(at, row(at, weighted=True)) for at in pieces])}
            for at in pieces:
                given = {**part(at), "output_mask": ONLY_INPUT}
                yield Part(at, {**given, **known} if len(pieces) > 1 else given, outputs=(0,))
    if any(asked[1:]):
        for box in boxes(x.shape, range(lead, x.ndim), cells):
            pieces = list(_pieces(x, box, cells))
            given = part(box)
            if len(pieces) > 1:
                axes = tuple(range(lead))
                total = _totals(arguments, [(at, row(at, weighted=False)) for at in pieces], axes)
                given = {**part((*[slice(0)] * lead, *box[lead:])), "known": total}
            yield _learnt(box[lead:], given, asked)


ONLY_INPUT = [True, False, False]


def _learnt(box: Box, arguments: Arguments, asked: list[bool]) -> Part:
    """The gradients of weight and bias alone."""
    outputs = tuple(range(int(asked[0]), sum(asked)))
    return Part(box, {**arguments, "output_mask": [False, *asked[1:]]}, box, outputs)


def _sliced(arguments: Arguments, at: Box) -> dict[str, object]:
    return {**arguments, "input": arguments["input"][at], "grad_out": arguments["grad_out"][at]}


def _wide(values: object) -> Array:
    return np.ones(()) if values is None else np.asarray(values, np.float64)


def _row(mean: Array, rate: Array, weight: Array | None, axes: int) -> Row:
    """Statistics and weights of channels, shaped to broadcast along them."""
    each = [_wide(values) for values in (mean, rate, weight)]
    return Row(*(values.reshape(-1, *[1] * (axes - 2)) if values.ndim else values for values in each))


def _totals(arguments: Arguments, pieces: list[tuple[Box, Row]], axes: Axes | None = None) -> Totals:
    """The totals of a row, or over the given axes, from its pieces and what normalized them."""
    sums = []
    for at, row in pieces:
        grad, x = (arguments[name][at].astype(np.float64) for name in ("grad_out", "input"))
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
        sums.append(totals(grad, x, Row(mean, rate, scale), (0, 1, 2, 3)))
    return functools.reduce(Totals.plus, sums)


def _pieces(x: Array, box: Box, cells: int) -> Iterator[Box]:
    """A box, or what it falls into where it is too large."""
    whole = x[box]
    for at in boxes(whole.shape, range(whole.ndim), cells):
        starts = [(one.start or 0, n) for one, n in zip(box, whole.shape, strict=True)]
        spans = [one.indices(n)[:2] for one, (_, n) in zip(at, starts, strict=True)]
        yield tuple(slice(s + low, s + high) for (s, _), (low, high) in zip(starts, spans, strict=True))


def _within(x: Array, box: Box, cells: int, kept: Shape | None = None) -> Iterator[tuple[Box, dict[str, Moments]]]:
    """A box of rows that are normalized together; of one that is too large its parts, with the moments of the whole.

    Args:
        kept: What the moments are shaped to; by default 1 along each axis.
    """
    whole = x[box]
    if whole.size <= cells:
        yield box, {}
        return
    pieces = list(_pieces(x, box, cells))
    known = {"known": joined([x[at] for at in pieces], kept or (1,) * x.ndim)}
    for at in pieces:
        yield at, known
