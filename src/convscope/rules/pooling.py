"""Pooling: the largest or the mean number of a window, in one to three dimensions, also of adaptive windows."""

import math

import numpy as np

from convscope.errors import UsageError
from convscope.rules.call import Array, Call, Cell, Operand
from convscope.rules.expr import Apply, Cells, Dot
from convscope.rules.gather import outer, pair


def max_pool(call: Call, cell: Cell) -> Apply:
    """The candidates of the window and the winner; padding never wins. The second result is where it stands.

    >>> image = Operand.of(np.array([[[1.0, 3.0, 2.0]]]), "relu1")
    >>> settings = dict(kernel_size=[2], stride=[1], padding=[0], dilation=[1], ceil_mode=False)
    >>> max_pool(Call("max_pool1d", dict(self=image, **settings), (1, 1, 2)), (0, 0, 1)).value()
    3.0

    Source: PyTorch documentation, torch.nn.MaxPool2d; ceil_mode lets the last window hang over the edge.
    """
    image = call["self"]
    sizes, steps, paddings, axes = _window(call)
    dilations = pair(call["dilation"], axes)
    places = zip(cell[-axes:], sizes, steps, paddings, dilations, strict=True)
    under = [at * step - padding + dilation * np.arange(size) for at, size, step, padding, dilation in places]
    return _largest(call, image, outer(image, [*cell[:-axes], *under], drop_padding=True), axes)


def avg_pool(call: Call, cell: Cell) -> Dot:
    """The sum of the window by the number of its cells, padding counted or not, or by a given divisor.

    Source: PyTorch documentation, torch.nn.AvgPool2d; a window never reaches beyond the padding.
    """
    image = call["self"]
    sizes, steps, paddings, axes = _window(call)
    lengths = image.shape[-axes:]
    places = zip(cell[-axes:], sizes, steps, paddings, lengths, strict=True)
    under = [
        np.arange(at * step - pad, min(at * step - pad + size, length + pad)) for at, size, step, pad, length in places
    ]
    counted = math.prod(len(at) for at in under)
    window = outer(image, [*cell[:-axes], *under], drop_padding=not call["count_include_pad"])
    divisor = call.get("divisor_override") or (counted if call["count_include_pad"] else len(window))
    return Dot(window, divisor=divisor, note=_mean_note(window, divisor), extra=2, kind=call.kind)


def adaptive_avg_pool(call: Call, cell: Cell) -> Dot:
    """The mean of a window whose size follows from input and output size.

    Source: PyTorch, aten/src/ATen/native/AdaptivePooling.h: from floor(i·n/m) up to ceil((i + 1)·n/m).
    """
    window, _ = _adaptive(call, cell)
    return Dot(window, divisor=len(window), note=_mean_note(window, len(window)), extra=2)  # by each axis' length


def adaptive_max_pool(call: Call, cell: Cell) -> Apply:
    """The largest number of such a window; the second result is where it stands."""
    window, axes = _adaptive(call, cell)
    return _largest(call, call["self"], window, axes)


def max_unpool(call: Call, cell: Cell) -> Dot:
    """What max pooling took from this cell, put back to where it stood; 0 where it took nothing."""
    axes = len(call["output_size"])
    values, places = call["self"], call["indices"]
    plane = tuple(cell[:-axes])
    flat = np.ravel_multi_index(cell[-axes:], call.shape[-axes:])
    found = np.argwhere(places.array[plane] == flat)[-1:]
    cells = np.column_stack([np.tile(plane, (len(found), 1)).reshape(len(found), len(plane)), found]).astype(np.int64)
    numbers = values.array[tuple(cells.T)].astype(np.float64)
    return Dot(
        Cells(numbers, values.source, cells, (len(found),)),
        note="the cell whose index points here" if len(found) else "no index points here",
    )


def _window(call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    sizes = call["kernel_size"]
    axes = int(call.op.split("pool")[1][0])
    sizes = pair(sizes, axes)
    return sizes, pair(call["stride"], axes) if call["stride"] else sizes, pair(call["padding"], axes), axes


def _adaptive(call: Call, cell: Cell) -> tuple[Cells, int]:
    image, axes = call["self"], len(call["output_size"])
    under = [
        range(at * length // size, -(-(at + 1) * length // size))
        for at, size, length in zip(cell[-axes:], call.shape[-axes:], image.shape[-axes:], strict=True)
    ]
    return outer(image, [*cell[:-axes], *under]), axes


def _largest(call: Call, image: Operand, window: Cells, axes: int) -> Apply:
    if not len(window):  # PyTorch gives -inf, and as its place one outside the image
        raise UsageError("a window that reads padding alone has no largest cell.")
    if call.output == 0:
        return Apply("max", {"cells": window}, note=f"the largest of {len(window)} cells")
    window = _from_last_nan(window)
    flat: Array = np.ravel_multi_index(tuple(window.cells[:, -axes:].T), image.shape[-axes:])
    return Apply(
        "argmax",
        {"cells": window, "positions": window.placed(flat)},
        note=f"where the largest of {len(window)} cells stands",
    )


def _from_last_nan(window: Cells) -> Cells:
    """In pooling each nan takes the place of what was largest before: only the cells from the last nan on compete."""
    nans = np.flatnonzero(np.isnan(window.values))
    if not nans.size:
        return window
    rest = len(window) - int(nans[-1])
    return Cells(window.values[-rest:], window.source, window.cells[-rest:], (rest,))


def _mean_note(window: Cells, divisor: float) -> str:
    padding = 0 if window.inside is None else int(len(window) - window.inside.sum())
    outside = f", {padding} of them padding" if padding else ""
    sum_of = "the mean of" if divisor == len(window) else "the sum of"
    return f"{sum_of} {len(window)} cells{outside}{'' if divisor == len(window) else f', divided by {divisor:g}'}"
