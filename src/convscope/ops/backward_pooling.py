"""Pooling backward: max pooling passes the gradient to each maximum, average pooling distributes it evenly."""

import math

import numpy as np

from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import outer, pair
from convscope.expr.expr import Cells, Dot
from convscope.typing import Array

Windows = tuple[Array, Array]
"""For one axis: the windows that read a cell, and the divisor of each."""


def max_pool_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of the windows whose maximum is this cell, by the indices that the forward pass recorded.

    >>> image = Operand.of(np.array([[[1.0, 3.0, 2.0]]]), "relu1")
    >>> grad = Operand.of(np.array([[[0.5, 0.25]]]), "pool.grad")
    >>> settings = dict(kernel_size=[2], stride=[1], padding=[0], dilation=[1], ceil_mode=False)
    >>> places = Operand.of(np.array([[[1, 1]]]), "pool")
    >>> given = dict(grad_output=grad, self=image, indices=places, **settings)
    >>> max_pool_backward(Call("max_pool1d_with_indices_backward", given, (1, 1, 3)), (0, 0, 1)).value()
    0.75
    """
    grad, places = call["grad_output"], call["indices"]
    axes = _axes(call)
    plane, shape = tuple(cell[:-axes]), call["self"].shape[-axes:]
    won = np.argwhere(places.array[plane] == np.ravel_multi_index(cell[-axes:], shape))
    cells = np.column_stack([np.tile(np.array(plane, np.int64), (len(won), 1)), won]).astype(np.int64)
    numbers = grad.array[tuple(cells.T)].astype(np.float64)
    windows = _fixed(call, cell, axes) if "kernel_size" in call.arguments else _shares(call, cell, axes)
    note = _won(len(won), math.prod(len(reads) for reads, _ in windows))
    return Dot(Cells(numbers, grad.source, cells, (len(won),)), note=note)


def _won(won: int, windows: int) -> str:
    """A note on how many of the windows that read a cell have it as their maximum."""
    if windows == 1:
        only = "of the window that reads it"
        win, loss = f"{only}: its gradient comes here", f"{only}: no gradient comes here"
    else:
        win, loss = (
            f"in {won} of the {windows} windows that read it: their gradients come here",
            (f"in any of the {windows} windows that read it: no gradient comes here"),
        )
    return f"this cell was the largest {win}" if won else f"this cell was not the largest {loss}"


def avg_pool_backward(call: Call, cell: Cell) -> Dot:
    """The gradients of the windows that read this cell, each divided by the number of cells it averages."""
    axes = _axes(call)
    windows = _shares(call, cell, axes) if "kernel_size" not in call.arguments else _fixed(call, cell, axes)
    grad: Operand = call["grad_output"]
    seen = outer(grad, [*cell[:-axes], *(places for places, _ in windows)])
    counts: Array = np.ones(1)
    for _, count in windows:
        counts = np.outer(counts, count).ravel()
    if call.get("divisor_override"):
        counts = np.full(len(counts), float(call["divisor_override"]))
    note = f"the gradients of the {len(seen)} averages that read this cell, each ÷ the number of cells in its window"
    if not len(seen) or (counts == counts[0]).all():
        return Dot(seen, divisor=float(counts[0]) if len(seen) else 1.0, note=note, extra=len(seen) + 2)
    source = Source("share", "computed", counts.shape)
    shares = Cells(1 / counts, source, np.arange(len(counts))[:, None], seen.grid)
    return Dot(seen, shares, note=note, extra=2)


def _axes(call: Call) -> int:
    return int(call.op.split("pool")[1][0])


def _fixed(call: Call, cell: Cell, axes: int) -> list[Windows]:
    """Sliding windows, as the settings have them."""
    grad, lengths = call["grad_output"].shape, call["self"].shape[-axes:]
    sizes = pair(call["kernel_size"], axes)
    steps = pair(call["stride"], axes) if call["stride"] else sizes
    pads, dilations = pair(call["padding"], axes), pair(call.get("dilation", 1), axes)
    counts_padding = bool(call.get("count_include_pad", True))
    readers = []
    for at, length, many, size, step, pad, dilation in zip(
        cell[-axes:], lengths, grad[-axes:], sizes, steps, pads, dilations, strict=True
    ):
        start = np.arange(many) * step - pad
        end = np.minimum(start + size, length + pad)
        taps, within = np.divmod(at - start, dilation)
        reads = np.flatnonzero((taps >= 0) & (taps < size) & (within == 0))
        counted = end - start if counts_padding else np.minimum(end, length) - np.maximum(start, 0)
        readers.append((reads, counted[reads]))
    return readers


def _shares(call: Call, cell: Cell, axes: int) -> list[Windows]:
    """Adaptive windows: from floor(i·n/m) to ceil((i + 1)·n/m)."""
    readers = []
    for at, length, many in zip(
        cell[-axes:], call["self"].shape[-axes:], call["grad_output"].shape[-axes:], strict=True
    ):
        index = np.arange(many)
        start, end = index * length // many, -(-(index + 1) * length // many)
        reads = np.flatnonzero((start <= at) & (at < end))
        readers.append((reads, (end - start)[reads]))
    return readers
