"""Convolution: the window under the kernel, in any number of dimensions, strided, dilated, grouped, transposed.

Convolution here means cross-correlation, as in PyTorch: the kernel is not flipped."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, step_label
from convscope.expr.cells import Span, gather, leaf, pair
from convscope.expr.expr import Cells, Dot
from convscope.ops.dependencies import as_mask, through_windows, window_matrix
from convscope.ops.op import fractions_together
from convscope.ops.vjp import VJP, Matrix, Varies, only, wide
from convscope.typing import Array


def convolution(call: Call, cell: Cell) -> Dot:
    """The window of every channel of the group, times the kernel, plus the bias.

    >>> from convscope.expr.call import Operand
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
    """The error bound of kernels that use another basis (Fourier, Winograd) instead of adding products.

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
    batch, unit, *position = cell
    channels = kernels.shape[1]
    first = unit // (kernels.shape[0] // call["groups"]) * channels
    settings = _settings(call, len(position))
    under = [
        Span(index * stride - padding, dilation * np.arange(size))
        for index, size, (stride, padding, dilation) in zip(position, kernels.shape[2:], settings, strict=True)
    ]
    window = gather(image, [batch, Span(first, np.arange(channels)), *under])
    kernel = gather(kernels, [unit, *map(range, kernels.shape[1:])])
    return _products(call, window, kernel, unit, skips=not call.extra.get("multiplies padding", True))


def _transposed(call: Call, cell: Cell) -> Dot:
    """Each input cell lays a scaled kernel over the result; these are the ones that reach this cell.

    Kernels of narrow types may put the sum over the channels of each tap down in their type, and add the taps and the
    bias up in it, tap by tap (`narrow`). Source: PyTorch, native/NaiveConvolutionTranspose2d.cpp: gemm, col2im.
    """
    image, kernels = call["input"], call["weight"]
    batch, unit, *position = cell
    per_group = kernels.shape[1]
    channels = kernels.shape[0] // call["groups"]
    group, within = divmod(unit, per_group)
    inputs, taps = [], []
    for starts, reaches, stride in _reached(call, tuple(position)):
        reached_taps = np.flatnonzero(reaches.reshape(-1, reaches.shape[-1])[0])
        inputs.append(Span(0, starts[..., reached_taps] // stride))
        taps.append(Span(0, reached_taps))
    rows = Span(group * channels, np.arange(channels))
    parts = math.prod(len(tap.offsets) for tap in taps)
    window, kernel = gather(image, [batch, rows, *inputs]), gather(kernels, [rows, within, *taps])
    return replace(_products(call, window, kernel, unit), narrow=parts + 1, parts=parts)


def _reached(call: Call, position: Cell) -> Iterator[tuple[Array, Array, int]]:
    """For each spatial axis: where each tap would begin times the stride, whether an input cell is there; the stride.

    Both have shape (R,), of n cells (n, R).
    """
    sizes, lengths = call["weight"].shape[2:], call["input"].shape[2:]
    settings = _settings(call, len(position))
    for index, size, length, (stride, padding, dilation) in zip(position, sizes, lengths, settings, strict=True):
        starts = Span(index + padding, -dilation * np.arange(size)).positions()
        yield starts, (starts % stride == 0) & (starts >= 0) & (starts < length * stride), stride


def alike(call: Call, cell: Cell) -> Array | None:
    """All windows have the same form; of a transposed convolution, those that the same taps reach."""
    if call.kind or not call["transposed"]:
        return fractions_together(call, cell)
    return np.hstack([reaches for _, reaches, _ in _reached(call, cell[2:])])


def _settings(call: Call, axes: int) -> list[tuple[int, int, int]]:
    """(stride, padding, dilation) of each spatial axis."""
    return list(zip(pair(call["stride"], axes), pair(call["padding"], axes), pair(call["dilation"], axes), strict=True))


def _products(call: Call, window: Cells, kernel: Cells, unit: int, *, skips: bool = False) -> Dot:
    bias = None if call["bias"] is None else leaf(call["bias"], (unit,))
    note = _note(call, window, unit, bias is not None)
    return Dot(window, kernel, bias, note=note, kind=call.kind, skips=skips)


def _note(call: Call, window: Cells, unit: int, biased: bool) -> str:
    if window.many:
        return ""
    name = call["weight"].source.name
    layer = "" if name == "weight" else f" of {step_label(name.removesuffix('.weight'))}"
    padding = 0 if window.inside is None else int(len(window) - window.inside.sum())
    outside = f" ({padding:,} of them padding)" if padding else ""
    cells = "input cells whose kernel reaches here" if call["transposed"] else f"window cells{outside}"
    return f"{len(window):,} {cells} × kernel {unit}{layer}{', plus its bias' if biased else ''}"


def convolution_vjp(call: Call, weights: Array, varies: Varies) -> VJP:
    """By the image, and for gradients by kernels and bias; the constant is each bias times its channel's weights."""
    only(call, varies, "input", "weight", "bias")
    bias = call["bias"]
    bias_gradient = weights.sum(axis=(0, *range(2, weights.ndim)))  # (K,)
    gradients: dict[str, Array] = {}
    if "input" in varies:
        gradients["input"] = (_transposed_vjp if call["transposed"] else _direct_vjp)(call, weights)
    if "weight" in varies:
        gradients["weight"] = _kernels_vjp(call, weights)
    if "bias" in varies:
        gradients["bias"] = bias_gradient
    constant = 0.0 if bias is None or "bias" in varies else float(wide(bias) @ bias_gradient)
    if {"input", "weight"} <= varies:  # a product of the two: its tangent counts it twice
        return VJP(gradients, constant - float(np.sum(gradients["weight"] * wide(call["weight"]))), linear=False)
    return VJP(gradients, constant)


def _kernels_vjp(call: Call, weights: Array) -> Array:
    """For every kernel position, what it met times the weights there; transposed, result and input change places."""
    image, transposed = wide(call["input"]), bool(call["transposed"])
    strides, paddings, dilations, _ = _settings_vjp(call)
    wider, narrower = (weights, image) if transposed else (image, weights)
    kernels, groups = call["weight"].shape, call["groups"]
    edges = [
        (p, max(0, (n - 1) * s + (r - 1) * d + 1 - size - p))
        for p, n, s, d, r, size in zip(
            paddings, narrower.shape[2:], strides, dilations, kernels[2:], wider.shape[2:], strict=True
        )
    ]
    padded = np.pad(wider, [(0, 0), (0, 0), *edges])
    padded = padded.reshape(padded.shape[0], groups, -1, *padded.shape[2:])
    still = narrower.reshape(narrower.shape[0], groups, -1, int(np.prod(narrower.shape[2:])))  # (N, G, K, P)
    result = np.empty((groups, still.shape[2], padded.shape[2], *kernels[2:]))
    for tap in np.ndindex(*kernels[2:]):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilations, narrower.shape[2:], strides, strict=True)
        )
        inputs_met = padded[(slice(None), slice(None), slice(None), *window)].reshape(
            *padded.shape[:3], -1
        )  # (N, G, C, P)
        result[(slice(None), slice(None), slice(None), *tap)] = (still @ inputs_met.swapaxes(-1, -2)).sum(0)
    return result.reshape(kernels)


def _direct_vjp(call: Call, weights: Array) -> Array:
    """Add up, for every kernel position, its weight times the result's, at the input cells that it covers.

    Only the smallest box of the result that holds all weights is visited: for one deep cell, its receptive field.
    """
    shape = call["input"].shape
    strides, paddings, dilations, count = _settings_vjp(call)
    box = _box(weights)
    kernels = _by_group(call, wide(call["weight"]))  # (G, Kg, Cg, *R)
    grouped = weights[(slice(None), slice(None), *box)]
    batch, places = weights.shape[0], grouped.shape[2:]
    grouped = grouped.reshape(batch, call["groups"], -1, int(np.prod(places)))  # (N, G, Kg, P)
    padded_shape = [n + 2 * p for n, p in zip(shape[2:], paddings, strict=True)]
    result = np.zeros((*shape[:2], *padded_shape))
    for tap in np.ndindex(kernels.shape[3:]):
        part = kernels[(slice(None), slice(None), slice(None), *tap)].transpose(0, 2, 1) @ grouped  # (N, G, Cg, P)
        window = tuple(
            slice(b.start * s + t * d, (b.stop - 1) * s + t * d + 1, s)
            for b, s, d, t in zip(box, strides, dilations, tap, strict=True)
        )
        result[(slice(None), slice(None), *window)] += part.reshape(batch, shape[1], *places)
    inner = tuple(slice(p, p + n) for p, n in zip(paddings, shape[2:], strict=True))
    assert count == len(inner)
    return result[(slice(None), slice(None), *inner)]


def _transposed_vjp(call: Call, weights: Array) -> Array:
    """Gather, for every kernel position, the weights of the result cells that it reached."""
    shape = call["input"].shape
    strides, paddings, dilations, _ = _settings_vjp(call)
    kernels = wide(call["weight"])  # (C, Kg, *R)
    groups, per_group = call["groups"], kernels.shape[1]
    kernels = kernels.reshape(groups, -1, *kernels.shape[1:])  # (G, Cg, Kg, *R)
    reach = [
        (n - 1) * s + (r - 1) * d + 1
        for n, s, d, r in zip(shape[2:], strides, dilations, kernels.shape[3:], strict=True)
    ]
    padded = np.zeros(
        (*weights.shape[:2], *(max(n, w + p) for n, w, p in zip(reach, weights.shape[2:], paddings, strict=True)))
    )
    inner = tuple(slice(p, p + n) for p, n in zip(paddings, weights.shape[2:], strict=True))
    padded[(slice(None), slice(None), *inner)] = weights
    result = np.zeros((shape[0], groups, shape[1] // groups, int(np.prod(shape[2:]))))
    for tap in np.ndindex(kernels.shape[3:]):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for n, s, d, t in zip(shape[2:], strides, dilations, tap, strict=True)
        )
        result_weights = padded[(slice(None), slice(None), *window)].reshape(shape[0], groups, per_group, -1)
        result += kernels[(slice(None), slice(None), slice(None), *tap)] @ result_weights
    return result.reshape(shape)


def _settings_vjp(call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    axes = len(call.shape) - 2
    return pair(call["stride"], axes), pair(call["padding"], axes), pair(call["dilation"], axes), axes


def _by_group(call: Call, kernels: Array) -> Array:
    return kernels.reshape(call["groups"], -1, *kernels.shape[1:])


def _box(weights: Array) -> tuple[slice, ...]:
    """The smallest box of places that holds every weight that is not zero."""
    used = np.any(weights != 0, axis=(0, 1))
    box = []
    for axis in range(used.ndim):
        result = np.flatnonzero(used.any(axis=tuple(a for a in range(used.ndim) if a != axis)))
        box.append(slice(int(result[0]), int(result[-1]) + 1) if len(result) else slice(0, 1))
    return tuple(box)


def convolution_dependencies(call: Call, mask: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All channels of the group, under the kernel; if the kernel varies, all of it and its bias."""
    mask, results = as_mask(mask), {}
    if "input" in varies:
        shape, groups = call["input"].shape, call["groups"]
        grouped = mask.reshape(mask.shape[0], groups, -1, *mask.shape[2:]).max(axis=2)  # (N, G, *P)
        spread = through_windows(grouped, _kernel_dependencies(call), shape[2:])
        results["input"] = np.repeat(spread, shape[1] // groups, axis=1)
    if "weight" in varies:
        results["weight"] = _kernels(call, mask)
    if "bias" in varies:
        results["bias"] = mask.max(axis=(0, *range(2, mask.ndim)))
    return results


def _kernels(call: Call, mask: Array) -> Array:
    """Mask of the kernels used by the masked channels."""
    used = mask.max(axis=(0, *range(2, mask.ndim)))  # (K,)
    shape = call["weight"].shape
    if call["transposed"]:  # (C, K / G, ...): a kernel for each input channel
        by_group = used.reshape(call["groups"], -1)  # (G, K / G)
        used = np.repeat(by_group, shape[0] // call["groups"], axis=0)  # (C, K / G)
    return np.broadcast_to(used.reshape(used.shape + (1,) * (len(shape) - used.ndim)), shape).copy()


def _kernel_dependencies(call: Call) -> list[Matrix]:
    """For each axis, the input cells that each cell of the result covers."""
    axes = len(call.shape) - 2
    settings = zip(
        call["input"].shape[2:],
        call.shape[2:],
        call["weight"].shape[2:],
        *(pair(call[name], axes) for name in ("stride", "padding", "dilation")),
        strict=True,
    )
    if not call["transposed"]:
        return [window_matrix(length, out_length, window) for length, out_length, *window in settings]
    return [window_matrix(out_length, length, window).T for length, out_length, *window in settings]
