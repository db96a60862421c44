"""VJP by parts: the vector-Jacobian product of a large result some of its cells at a time.

Weights on some cells of a result give the gradients by themselves, and those of all cells add up. So an operation is
taken as the same operation on slices of its operands: single cells, images or channels that read nothing of each other.
Uses rules and boxes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Call, Operand
from convscope.ops.op import Op
from convscope.ops.pointwise import pointwise_dependencies
from convscope.ops.vjp import Varies
from convscope.reference.parts import ALL, CELLS, Box, boxes
from convscope.typing import Array


class Piece(NamedTuple):
    """Some cells of a result."""

    box: Box
    inside: Mapping[str, Box]
    """The slices of the operands that make them; the other operands are taken whole."""
    changed: Mapping[str, object] = MappingProxyType({})
    """Arguments that are others for these cells."""


Pieces = Callable[[Call, int], Iterator[Piece]]
"""(call, cells) -> pieces of about this number of cells."""


def gradients_of(op: Op, call: Call, weights: Array, varies: Varies, cells: int = CELLS) -> Mapping[str, Array]:
    """The gradients of the operands that vary, as `op.vjp` gives them, float64.

    >>> from convscope.ops import OPS
    >>> x, y = Operand.of(np.array([1.0, 2.0]), "x"), Operand.of(np.array([3.0]), "y")
    >>> call = Call("mul", {"self": x, "other": y}, (2,))
    >>> gradients_of(OPS["mul"], call, np.ones(2), frozenset(["other"]), cells=1)
    {'other': array([3.])}

    Args:
        op: Of an operation with a vector-Jacobian product.
        call: The operation.
        weights: On the first result, of any float type; widened some at a time where the operation falls into pieces.
        varies: Which operands.
        cells: Of the result that are taken at a time, where the operation can be cut so finely.
    """
    assert op.vjp is not None
    pieces = _pieces(op, call, weights, cells)
    if len(pieces) < 2:
        return op.vjp(call, weights.astype(np.float64, copy=False), varies).gradients
    gradients: dict[str, Array] = {}
    for piece in pieces:
        part, part_weights = _part(call, piece), weights[piece.box].astype(np.float64, copy=False)
        for name, gradient in op.vjp(part, part_weights, varies).gradients.items():
            if name not in gradients:
                gradients[name] = np.zeros(call[name].shape)
            gradients[name][piece.inside.get(name, ...)] += gradient
    return gradients


def _pieces(op: Op, call: Call, weights: Array, cells: int) -> list[Piece]:
    """The pieces of a large call; none where it is taken whole."""
    shapes = [operand.shape for operand in call.operands().values()]
    if call.output or weights.shape != call.shape or max(map(math.prod, (weights.shape, *shapes))) <= cells:
        return []
    if op.dependencies is pointwise_dependencies:
        return [*_per_cell(call, cells)] if np.broadcast_shapes(*shapes) == call.shape else []
    return [*CUTS[call.op](call, cells)] if call.op in CUTS else []


def _part(call: Call, piece: Piece) -> Call:
    """The call on slices of its operands."""
    sliced = {name: replace(call[name], array=call[name].array[box]) for name, box in piece.inside.items()}
    drawn = {
        name: replace(value, array=value.array[piece.box])  # the mask of a dropout
        for name, value in call.extra.items()
        if isinstance(value, Operand) and value.shape == call.shape
    }
    shape = tuple(len(range(n)[part]) for n, part in zip(call.shape, piece.box, strict=True))
    arguments = {**call.arguments, **sliced, **piece.changed}
    return replace(call, arguments=arguments, shape=shape, extra={**call.extra, **drawn})


def _per_cell(call: Call, cells: int) -> Iterator[Piece]:
    """Each cell by itself; an operand that is broadcast has the cells behind it."""
    for box in boxes(call.shape, range(len(call.shape)), cells):
        inside = {
            name: tuple(
                ALL if n == 1 else part for n, part in zip(o.shape, box[len(box) - len(o.shape) :], strict=True)
            )
            for name, o in call.operands().items()
            if o.shape
        }
        yield Piece(box, inside)


def _along(axes: Callable[[Call], Sequence[int]], name: str) -> Pieces:
    """Along axes of the result that the operand `name` has too, at the same place and of the same length."""

    def pieces(call: Call, cells: int) -> Iterator[Piece]:
        shape = call[name].shape
        fits = [axis for axis in axes(call) if shape[axis] == call.shape[axis]]
        size, largest = math.prod(call.shape), math.prod(shape)
        for box in boxes(call.shape, fits, max(1, cells * size // max(size, largest, 1))):
            yield Piece(box, {name: tuple(box[axis] if axis in fits else ALL for axis in range(len(shape)))})

    return pieces


def _images(_call: Call) -> range:
    return range(1)


def _channels(call: Call, cells: int) -> Iterator[Piece]:
    """Batch norm: each channel by itself, with its weight, its bias and its statistics."""
    vectors = ("weight", "bias", "running_mean", "running_var")
    for box in boxes(call.shape, (1,), cells):
        sliced = {name: (box[1],) for name in vectors if isinstance(call.get(name), Operand)}
        yield Piece(box, {"input": box, **sliced})


def _groups(call: Call, cells: int) -> Iterator[Piece]:
    """Group norm: each image and each group by itself, with the weight and the bias of its channels."""
    images, channels, *rest = call.shape
    per_group = channels // call["group"]
    for box in boxes((images, call["group"], per_group * math.prod(rest)), (0, 1), cells):
        first, end, _ = box[1].indices(call["group"])
        together = slice(first * per_group, end * per_group)
        piece = (box[0], together, *[ALL] * len(rest))
        sliced = {name: (together,) for name in ("weight", "bias") if isinstance(call.get(name), Operand)}
        yield Piece(piece, {"input": piece, **sliced}, {"group": end - first})


def _planes(rank: int) -> Callable[[Call], range]:
    return lambda call: range(len(call.shape) - rank)


def _except_dim(call: Call) -> list[int]:
    dim = int(call["dim"]) % max(1, len(call.shape))
    return [axis for axis in range(len(call.shape)) if axis != dim]


def _unnormalized(call: Call) -> range:
    return range(len(call.shape) - len(call["normalized_shape"]))


CUTS: Mapping[str, Pieces] = {
    "convolution": _along(_images, "input"),
    "native_batch_norm": _channels,
    "_native_batch_norm_legit": _channels,
    "_native_batch_norm_legit_no_training": _channels,
    "native_group_norm": _groups,
    "native_layer_norm": _along(_unnormalized, "input"),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _along(_except_dim, "self")),
    **{f"max_pool{rank}d_with_indices": _along(_planes(rank), "self") for rank in (2, 3)},
    **{f"{name}_pool{rank}d": _along(_planes(rank), "self") for name in ("avg", "_adaptive_avg") for rank in (2, 3)},
    "upsample_linear1d": _along(_planes(1), "self"),
    "upsample_bilinear2d": _along(_planes(2), "self"),
    "upsample_bicubic2d": _along(_planes(2), "self"),
    "upsample_trilinear3d": _along(_planes(3), "self"),
    **{f"upsample_nearest{rank}d": _along(_planes(rank), "self") for rank in (1, 2, 3)},
    **{f"_upsample_nearest_exact{rank}d": _along(_planes(rank), "self") for rank in (1, 2, 3)},
}  # fmt: skip
"""ATen name -> how its vector-Jacobian product falls into pieces, besides operations that work cell by cell."""
