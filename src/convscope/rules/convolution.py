"""Convolution: the window under the kernel, in any number of dimensions, strided, dilated, grouped, transposed.

Convolution here means cross-correlation, as in PyTorch: the kernel is not turned over.
"""

import math
from dataclasses import replace

import numpy as np

from convscope.rules.call import Call, Cell, Operand
from convscope.rules.expr import Cells, Dot
from convscope.rules.gather import leaf, outer, pair


def convolution(call: Call, cell: Cell) -> Dot:
    """The window of every channel of the group, times the kernel, plus the bias.

    >>> image = Operand.of(np.ones((1, 1, 4, 4)), "image", "input")
    >>> kernel = Operand.of(np.ones((1, 1, 2, 2)), "conv1.weight", "parameter")
    >>> settings = dict(bias=None, stride=[1, 1], padding=[0, 0], dilation=[1, 1], transposed=False, groups=1)
    >>> call = Call("convolution", dict(input=image, weight=kernel, **settings), (1, 1, 3, 3))
    >>> convolution(call, (0, 0, 1, 1)).value()
    4.0

    Source: PyTorch documentation, torch.nn.Conv2d.
    """
    return _transposed(call, cell) if call["transposed"] else _direct(call, cell)


def normwise(call: Call, cell: Cell) -> float:
    """How far a kernel may lie that goes through another basis (Fourier, Winograd) instead of adding products.

    Such kernels mix whole planes, so their error is a share of the planes' norms, whatever the window holds: a Fourier
    transform of n points is within about 6·log2(n)·u of its norm (Higham 2002, theorem 24.2), and there are three; a
    Winograd tile F(2x2, 3x3) enlarges its numbers by less than 81, in a dozen roundings. Larger tiles are not covered.
    """
    image, kernels = call["input"], call["weight"]
    batch, unit, *_ = cell
    channels = kernels.shape[1]
    first = unit // (kernels.shape[0] // call["groups"]) * channels
    planes = image.array[batch, first : first + channels].reshape(channels, -1).astype(np.float64)
    weights = kernels.array[unit].reshape(channels, -1).astype(np.float64)
    norms = float(np.sqrt((planes**2).sum(1)) @ np.sqrt((weights**2).sum(1)))
    points = planes.shape[1] + weights.shape[1]
    bias = 0.0 if call["bias"] is None else abs(float(call["bias"].array[unit]))
    share = channels + 18 * math.log2(points) + 2 + 12 * 81
    return float(call.precision.sum * (share * norms + 2 * bias))


def _direct(call: Call, cell: Cell) -> Dot:
    image, kernels = call["input"], call["weight"]
    batch, unit, *place = cell
    channels = kernels.shape[1]
    first = unit // (kernels.shape[0] // call["groups"]) * channels
    settings = _settings(call, len(place))
    under = [
        at * stride - padding + dilation * np.arange(size)
        for at, size, (stride, padding, dilation) in zip(place, kernels.shape[2:], settings, strict=True)
    ]
    window = outer(image, [batch, range(first, first + channels), *under])
    skips = not call.extra.get("multiplies padding", True)
    return replace(_products(call, window, _kernel(kernels, unit), unit), skips=skips)


def _transposed(call: Call, cell: Cell) -> Dot:
    """Each input cell lays a scaled kernel over the result; these are the ones that reach this cell.

    Kernels of narrow types may put the sum over the channels of each tap down in their type, and add the taps and the
    bias up in it (`narrow`). Source: PyTorch, aten/src/ATen/native/NaiveConvolutionTranspose2d.cpp: gemm, col2im.
    """
    image, kernels = call["input"], call["weight"]
    batch, unit, *place = cell
    per_group = kernels.shape[1]
    channels = kernels.shape[0] // call["groups"]
    group, within = divmod(unit, per_group)
    inputs, taps = [], []
    settings = _settings(call, len(place))
    for at, size, length, (stride, padding, dilation) in zip(
        place, kernels.shape[2:], image.shape[2:], settings, strict=True
    ):
        tap = np.arange(size)
        start = at + padding - dilation * tap
        reaches = (start % stride == 0) & (start >= 0) & (start < length * stride)
        inputs.append(start[reaches] // stride)
        taps.append(tap[reaches])
    rows = range(group * channels, (group + 1) * channels)
    narrow = math.prod(map(len, taps)) + 1
    return _products(call, outer(image, [batch, rows, *inputs]), outer(kernels, [rows, within, *taps]), unit, narrow)


def _settings(call: Call, axes: int) -> list[tuple[int, int, int]]:
    """(stride, padding, dilation) of each spatial axis."""
    return list(zip(pair(call["stride"], axes), pair(call["padding"], axes), pair(call["dilation"], axes), strict=True))


def _kernel(kernels: Operand, unit: int) -> Cells:
    return outer(kernels, [unit, *map(range, kernels.shape[1:])])


def _products(call: Call, window: Cells, kernel: Cells, unit: int, narrow: int = 0) -> Dot:
    bias = None if call["bias"] is None else leaf(call["bias"], (unit,))
    return Dot(window, kernel, bias, note=_note(call, window, unit, bias is not None), narrow=narrow, kind=call.kind)


def _note(call: Call, window: Cells, unit: int, biased: bool) -> str:
    name = call["weight"].source.name
    layer = "" if name == "weight" else f" of {name.removesuffix('.weight')}"
    padding = 0 if window.inside is None else int(len(window) - window.inside.sum())
    outside = f" ({padding:,} of them padding)" if padding else ""
    cells = "input cells whose kernel reaches here" if call["transposed"] else f"window cells{outside}"
    return f"{len(window):,} {cells} × kernel {unit}{layer}{', plus its bias' if biased else ''}"
