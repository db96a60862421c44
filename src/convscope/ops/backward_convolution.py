"""Convolution on the way back: the gradients of its input, its kernels and its bias.

A kernel cell's gradient is the sum, over all images and places, of what this cell saw times how the loss changes with
the result there. An input cell's gradient runs through the kernels that read it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convscope.expr.call import Call, Cell, Source
from convscope.expr.cells import outer, pair
from convscope.expr.expr import Cells, Dot
from convscope.expr.precision import gamma
from convscope.ops.convolution import convolution

RESULTS = ("input", "weight", "bias")
"""What `output_mask` asks for, in this order; the recorded call has only these results."""
Window = tuple[Cells, Cells]


def convolution_backward(call: Call, cell: Cell) -> Dot:
    """One number of the gradient of the input, of the kernels or of the bias, whichever result this is.

    >>> image = Operand.of(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), "image", "input")
    >>> kernel = Operand.of(np.ones((1, 1, 1, 1)), "conv1.weight", "parameter")
    >>> grad = Operand.of(np.array([[[[0.5, 0.0], [0.0, 1.0]]]]), "conv1.grad")
    >>> settings = dict(stride=[1, 1], padding=[0, 0], dilation=[1, 1], transposed=False, groups=1)
    >>> given = dict(grad_output=grad, input=image, weight=kernel, output_mask=[False, True, False], **settings)
    >>> convolution_backward(Call("convolution_backward", given, (1, 1, 1, 1), "float64"), (0, 0, 0, 0)).value()
    4.5

    Source: PyTorch documentation, torch.nn.grad.conv2d_input and conv2d_weight.
    """
    wanted = [name for name, asked in zip(RESULTS, call["output_mask"], strict=True) if asked][call.output]
    if wanted == "input":
        return _input(call, cell)
    batch = range(call["grad_output"].shape[0])
    if wanted == "bias":
        places = [range(n) for n in call["grad_output"].shape[2:]]
        terms = [(outer(call["grad_output"], [image, cell[0], *places]), None) for image in batch]
        return over_images(call, terms, f"how the loss changes with each result of kernel {cell[0]}")
    windows = [_seen(call, cell, image) for image in batch]
    return over_images(call, windows, "what this kernel cell saw × how the loss changes with the result there")


def _input(call: Call, cell: Cell) -> Dot:
    """The gradients of the results that this cell went into, each times the kernel number it was multiplied by there.

    That is a convolution of the gradients, transposed where the forward one is not.
    """
    names = ("weight", "stride", "padding", "dilation", "groups")
    settings = {"bias": None, "input": call["grad_output"], "transposed": not call["transposed"]}
    there = {**{name: call[name] for name in names}, **settings}
    sum_ = convolution(Call("convolution", there, call.shape, call.dtype), cell)
    kernels = len(set(sum_.left.cells[:, 1].tolist()))
    results = f"{len(sum_.left):,} results that this cell went into, of {kernels} kernels"
    return replace(sum_, note=f"{results}: their gradients × the kernel there")


def _seen(call: Call, cell: Cell, image: int) -> Window:
    """In one image: the input cells that met this kernel cell, and the gradients of the results they went into.

    Of a transposed convolution, the input lays its kernels over the result, so that the gradients are the shifted side.
    """
    x, grad, groups = call["input"], call["grad_output"], call["groups"]
    first, second, *tap = cell
    axes = len(tap)
    settings = zip(tap, *(pair(call[name], axes) for name in ("stride", "padding", "dilation")), strict=True)
    still, moving = (x, grad) if call["transposed"] else (grad, x)
    shifted = [
        np.arange(many) * stride - padding + dilation * at
        for many, (at, stride, padding, dilation) in zip(still.shape[2:], settings, strict=True)
    ]
    each = moving.shape[1] // groups
    group = first // (still.shape[1] // groups)
    there = outer(moving, [image, group * each + second, *shifted])
    here = outer(still, [image, first, *map(range, still.shape[2:])])
    return (here, there) if call["transposed"] else (there, here)


def over_images(call: Call, terms: Sequence[tuple[Cells, Cells | None]], what: str) -> Dot:
    """A sum over all images: of one image its terms, of several one subtotal for each, which can be opened.

    The kernel adds the terms of all images in one sum of its own order: each subtotal carries its part of the bound of
    that sum, gamma(T) of the magnitudes, T counting all terms that are not zero. Kernels of narrow types may put the
    sum down in their type after each image.

    Source: PyTorch, aten/src/ATen/native/ConvolutionMM2d.cpp, slow_conv2d_backward_weight_frame: image by image.
    """
    inner = [Dot(left, right) for left, right in terms]
    places = len(inner[0].left) if inner else 0
    if len(inner) == 1:
        return replace(inner[0], note=f"the sum over {places:,} places: {what}", narrow=1)
    magnitudes = np.array([float(np.abs(one.products).sum()) for one in inner])
    count = sum(int(np.count_nonzero(one.products)) for one in inner)
    precision = call.precision
    errors = (gamma(max(count, 1), precision.sum) + gamma(len(inner) + 1, precision.inner)) * magnitudes
    source = Source("image", "computed", (len(inner),), call.dtype)
    totals = np.array([one.total() for one in inner])

    def derive(index: int) -> Dot:
        return replace(inner[index], note=f"image {index}, the sum over {places:,} places: {what}")

    subtotals = Cells(totals, source, np.arange(len(inner))[:, None], (len(inner),), errors=errors, derive=derive)
    return Dot(subtotals, note=f"the sum over {len(inner):,} images of their {places:,} places: {what}")
