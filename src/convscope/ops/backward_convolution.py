"""Convolution backward: the gradients of its input, its kernels and its bias.

A kernel cell's gradient is the sum, over all images and positions, of the input under it times the gradient of the
output there. An input cell's gradient comes through the kernels that read it."""

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell, Operand, Source
from convscope.expr.cells import Axis, outer, pair
from convscope.expr.expr import Cells, Dot
from convscope.expr.precision import gamma
from convscope.ops.convolution import alike as alike_windows
from convscope.ops.convolution import convolution
from convscope.typing import Array

RESULTS = ("input", "weight", "bias")
"""The gradients that `output_mask` selects, in this order; the recorded call has only these results."""
WALKS = platform.machine().lower() in {"amd64", "i386", "i686", "x86_64"}
"""Whether convolutions add a kernel's gradient place after place here, see `roundings`."""
LANES = 64
Side = tuple[Operand, Sequence[Axis]]
"""A tensor, and the channel and the places that are read of it in each image."""


@np.errstate(all="ignore")  # infinities and no numbers are explained like any number
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

    Raises:
        UsageError: padding meets infinities or no numbers.
    """
    requested = _requested_result(call)
    if requested == "input":
        _refuse_padding(call, call["grad_output"].array, call["weight"].array)
        return _input(call, cell)
    grad: Operand = call["grad_output"]
    if requested == "bias":
        results: list[Axis] = [cell[0], *map(range, grad.shape[2:])]
        arrived = grad.array[:, cell[0]].astype(np.float64)
        _refuse_padding(call, arrived)
        note = f"the gradient of each output of kernel {cell[0]}"
        return over_images(call, arrived, lambda image: Dot(outer(grad, [image, *results])), note, at_once=True)
    note = "the input under this kernel cell × the gradient of the output there"
    (inputs, input_axes), (gradients, outputs) = _sides(call, cell)

    def of_image(image: int) -> Dot:
        return Dot(outer(inputs, [image, *input_axes]), outer(gradients, [image, *outputs]))

    products = _read(inputs, input_axes) * _read(gradients, outputs)
    _refuse_padding(call, products)
    return over_images(call, products, of_image, note)


def alike(call: Call, cell: Cell) -> Array | None:
    """Gradients of the input through the same kernel cells; the others are sums over whole planes."""
    return alike_windows(_forward(call), cell) if _requested_result(call) == "input" else None


def _requested_result(call: Call) -> str:
    return [name for name, is_requested in zip(RESULTS, call["output_mask"], strict=True) if is_requested][call.output]


def _refuse_padding(call: Call, *numbers: Array) -> None:
    """Refuse infinities and no numbers that a kernel may multiply padding by."""
    if (call["transposed"] or any(call["padding"])) and not all(np.isfinite(array).all() for array in numbers):
        raise UsageError("whether a kernel multiplies padding by infinities, which makes nan of them, is not known.")


def _input(call: Call, cell: Cell) -> Dot:
    """The gradients of the outputs that this cell contributes to, each times the kernel number between them.

    That is a convolution of the gradients, transposed where the forward one is not.
    """
    sum_ = convolution(_forward(call), cell)
    if sum_.left.many:
        return sum_
    kernels = len(set(sum_.left.cells[:, 1].tolist()))
    results = f"{len(sum_.left):,} outputs that this cell contributes to, of {kernels} kernels"
    return replace(sum_, note=f"{results}: their gradients × the kernel there")


def _forward(call: Call) -> Call:
    """The convolution of the gradients that gives the gradient of the input."""
    names = ("weight", "stride", "padding", "dilation", "groups")
    settings = {"bias": None, "input": call["grad_output"], "transposed": not call["transposed"]}
    forward = {**{name: call[name] for name in names}, **settings}
    return Call("convolution", forward, call.shape, call.dtype)


def _sides(call: Call, cell: Cell) -> tuple[Side, Side]:
    """The input cells under this kernel cell, and the gradients of the outputs they contribute to, in every image.

    In a transposed convolution the roles are exchanged: the gradients are the shifted side.
    """
    x, grad, groups = call["input"], call["grad_output"], call["groups"]
    first, second, *tap = cell
    axes = len(tap)
    settings = zip(tap, *(pair(call[name], axes) for name in ("stride", "padding", "dilation")), strict=True)
    still, moving = (x, grad) if call["transposed"] else (grad, x)
    shifted = [
        np.arange(count) * stride - padding + dilation * tap_index
        for count, (tap_index, stride, padding, dilation) in zip(still.shape[2:], settings, strict=True)
    ]
    channels_per_group = moving.shape[1] // groups
    group = first // (still.shape[1] // groups)
    moved_side: Side = (moving, [group * channels_per_group + second, *shifted])
    still_side: Side = (still, [first, *map(np.arange, still.shape[2:])])
    return (still_side, moved_side) if call["transposed"] else (moved_side, still_side)


def _read(operand: Operand, axes: Sequence[Axis]) -> Array:
    """One channel at these positions in all images, 0 for padding: (N, P, Q)."""
    plane = operand.array[:, axes[0]]
    positions = [np.asarray(axis) for axis in axes[1:]]
    inside = [(axis >= 0) & (axis < n) for axis, n in zip(positions, plane.shape[1:], strict=True)]
    clipped = [np.clip(axis, 0, n - 1) for axis, n in zip(positions, plane.shape[1:], strict=True)]
    values: Array = plane[np.ix_(np.arange(len(plane)), *clipped)].astype(np.float64)
    for axis, fits in enumerate(inside, start=1):
        if not fits.all():
            values[(slice(None),) * axis + (~fits,)] = 0.0
    return values


def over_images(
    call: Call, products: Array, of_image: Callable[[int], Dot], description: str, *, at_once: bool = False
) -> Dot:
    """A sum over all images: the terms of a single image, or a subtotal for each of several, which can be opened.

    The kernel adds the terms of all images in one sum: each subtotal has its part of that sum's bound. Kernels of
    narrow types may store the sum in their type after each image (`narrow`).

    Args:
        products: What is added, (N, P, Q).
        of_image: The sum of an image.
        description: The terms in words.
        at_once: Whether the kernel may add an image in any order, not row by row.

    Source: PyTorch, aten/src/ATen/native/ConvolutionMM2d.cpp, slow_conv2d_backward_weight_frame: image by image.
    """
    precision, flat = call.precision, products.reshape(len(products), -1)
    added = roundings(products, precision.sum, at_once=at_once)
    note = f"the sum over {flat.shape[1]:,} positions: {description}"
    if len(flat) == 1:
        only_image = of_image(0)
        counted = int(np.count_nonzero(flat)) - (only_image.right is None)
        return replace(only_image, note=note, narrow=1, extra=added - counted)
    errors = (gamma(added, precision.sum) + gamma(len(flat) + 1, precision.inner)) * np.abs(flat).sum(1)
    errors = errors + precision.tiny * np.count_nonzero(flat, axis=1)  # products that underflow
    images = np.arange(len(flat))[:, None]
    source = Source("image", "computed", (len(flat),), call.dtype)

    def derive(image: int) -> Dot:
        return replace(of_image(image), note=f"image {image}, {note}")

    subtotals = Cells(flat.sum(1), source, images, (len(flat),), errors=errors, derive=derive)
    return Dot(subtotals, note=f"the sum over {len(flat):,} images of their {flat.shape[1]:,} positions: {description}")


def roundings(products: Array, u: float, *, at_once: bool = False) -> float:
    """How many roundings of the sum of magnitudes a kernel's sum of these products may be off, shape (N, P, Q).

    In any order: T, the number of products that are not zero. Kernels of x86 processors (oneDNN) keep their vectors for
    channels and walk through the places: image after image, row after row, cut into ranges for tiles and threads, whose
    sums are joined. Whatever the cuts, a partial sum is that of some successive rows and of parts of the rows at both
    ends. With S_k the sum of the first k rows and A the largest part of a row it is at most

        B = max S_k - min S_k + 2·A.

    There are at most T - 1 additions, each rounds by u of what it gives, which is no more than B + E if E is the error
    in the end; products round once unless they are fused. Hence E <= u·(T·(B + E) + sum of magnitudes), or

        E <= u·(T·B + sum of magnitudes) / (1 - T·u).

    Gradients have either sign, so B grows with the root of T where the sum of magnitudes grows with T. A part of a row
    is at most its sum of magnitudes. With `at_once`, the "row" is an image, added in lanes: see `_in_lanes`.

    Sources: Higham 2002, sections 3.1 and 4.2 (running error bounds); oneDNN, src/cpu/x64, backward weights in
    jit_avx2_conv_kernel_f32.cpp, jit_avx512_common_conv_kernel.cpp, jit_avx2_1x1_convolution.cpp, gemm_convolution.cpp.
    """
    rows = products.reshape(-1, math.prod(products.shape[1:]) if at_once else products.shape[-1])
    size, count = float(np.abs(rows).sum()), int(np.count_nonzero(rows))
    if not WALKS or not 0 < size < np.inf or count * u >= 1:
        return float(max(count, 1))
    sums = np.concatenate([[0.0], np.cumsum(rows.sum(1))])
    part = _in_lanes(rows) if at_once else float(np.abs(rows).sum(1).max())
    return min(float(max(count, 1)), (count * (float(np.ptp(sums)) + 2 * part) / size + 1) / (1 - count * u))


def _in_lanes(rows: Array) -> float:
    """The largest partial sum of a row that is added in lanes, 64 at most, each of every 64th cell or oftener.

    64 lanes are 4 vectors of 16, or more of fewer. A lane's partial sum is one of successive cells of it, at most the
    span of its running sums; fewer lanes, and joined ones, are sums of these.
    """
    short = -rows.shape[1] % LANES
    lanes = np.pad(rows, ((0, 0), (0, short))).reshape(len(rows), -1, LANES)
    sums = np.concatenate([np.zeros((len(rows), 1, LANES)), np.cumsum(lanes, 1)], 1)
    return float(min(np.ptp(sums, axis=1).sum(1).max(), np.abs(rows).sum(1).max()))
