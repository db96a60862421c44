"""Adjoints of moves and joins: each weight goes back to the cell its number came from."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from convscope.rules import moves
from convscope.rules.adjoints.pulled import Pulled, Varies, only, wide
from convscope.rules.call import Array, Call, Operand
from convscope.rules.gather import pair
from convscope.rules.moves import MOVES, SOURCES

_RELAID = {name for name, move in MOVES.items() if move in {moves.view, moves.squeeze, moves.unsqueeze}}
_SAME = {"_to_copy", *(name for name, move in MOVES.items() if move is moves.same)}


def moved(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Any of MOVES: found by asking where every cell with a weight came from."""
    name = SOURCES.get(call.op, "self")
    only(call, varies, name)
    shape = call[name].shape
    if call.op in _SAME:
        return Pulled({name: weights})
    if call.op in _RELAID:
        return Pulled({name: weights.reshape(shape)})
    cells = np.argwhere(weights)
    found = np.zeros(shape)
    np.add.at(found, tuple(MOVES[call.op](call, cells).T), weights[tuple(cells.T)])
    return Pulled({name: found})


def cat(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Each tensor its own part; those that do not vary are constants."""
    axis, at, gradients, constant = call["dim"] % weights.ndim, 0, {}, 0.0
    for index, operand in enumerate(call["tensors"]):
        if operand.shape == (0,):
            continue
        part = np.take(weights, range(at, at + operand.shape[axis]), axis=axis)
        at += operand.shape[axis]
        if f"tensors.{index}" in varies:
            gradients[f"tensors.{index}"] = part
        else:
            constant += float(np.sum(part * wide(operand)))
    return Pulled(gradients, constant)


def stack(call: Call, weights: Array, varies: Varies) -> Pulled:
    """As above, along the new axis."""
    axis, gradients, constant = call["dim"] % weights.ndim, {}, 0.0
    for index, operand in enumerate(call["tensors"]):
        part = np.take(weights, index, axis=axis)
        if f"tensors.{index}" in varies:
            gradients[f"tensors.{index}"] = part
        else:
            constant += float(np.sum(part * wide(operand)))
    return Pulled(gradients, constant)


def constant_pad(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The inside; the padding's number is a constant."""
    only(call, varies, "self")
    shape, pads = call["self"].shape, call["pad"]
    inner, target = [slice(None)] * weights.ndim, [slice(None)] * weights.ndim
    for back in range(len(pads) // 2):
        axis, before, after = weights.ndim - 1 - back, pads[2 * back], pads[2 * back + 1]
        inner[axis] = slice(max(before, 0), weights.shape[axis] - max(after, 0))
        target[axis] = slice(max(-before, 0), shape[axis] - max(-after, 0))
    found = np.zeros(shape)
    found[tuple(target)] = weights[tuple(inner)]
    outside = weights.sum() - weights[tuple(inner)].sum()
    return Pulled({"self": found}, float(call["value"]) * float(outside) if call["value"] else 0.0)


def im2col(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Windows laid back over the image."""
    only(call, varies, "self")
    shape = call["self"].shape
    image = np.zeros(shape)
    sizes, counts = pair(call["kernel_size"], 2), _windows(call, shape[-2:])
    columns = weights.reshape(*shape[:-2], *sizes, *counts)
    for tap, target, source in _taps(call, shape[-2:]):
        image[(..., *target)] += columns[(..., *tap, *source)]
    return Pulled({"self": image})


def col2im(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Every window cell takes the weight of its pixel."""
    only(call, varies, "self")
    shape, size = call["self"].shape, tuple(call["output_size"])
    columns = np.zeros((*weights.shape[:-2], *pair(call["kernel_size"], 2), *_windows(call, size)))
    for tap, target, source in _taps(call, size):
        columns[(..., *tap, *source)] = weights[(..., *target)]
    return Pulled({"self": columns.reshape(shape)})


def _windows(call: Call, size: tuple[int, ...]) -> tuple[int, ...]:
    settings = zip(size, *(pair(call[n], 2) for n in ("kernel_size", "dilation", "padding", "stride")), strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in settings)


def _taps(call: Call, size: tuple[int, ...]) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]]:
    """For each place in the window: which pixels it lies on, and in which windows."""
    dilations, paddings, strides = (pair(call[n], 2) for n in ("dilation", "padding", "stride"))
    counts = _windows(call, size)
    for tap in np.ndindex(*pair(call["kernel_size"], 2)):
        places = [
            np.arange(n) * s - p + d * t
            for n, s, p, d, t in zip(counts, strides, paddings, dilations, tap, strict=True)
        ]
        inside = [(at >= 0) & (at < n) for at, n in zip(places, size, strict=True)]
        target = np.ix_(*[at[i] for at, i in zip(places, inside, strict=True)])
        yield tap, target, np.ix_(*[np.flatnonzero(i) for i in inside])


def triangle(call: Call, weights: Array, varies: Varies) -> Pulled:
    """What was kept."""
    only(call, varies, "self")
    return Pulled({"self": (np.tril if call.op == "tril" else np.triu)(weights, call["diagonal"])})


def scattered_slice(call: Call, weights: Array, varies: Varies) -> Pulled:
    """slice_scatter and select_scatter: the replaced part to the one, the rest to the other."""
    axis = call["dim"] % weights.ndim
    at: list[slice | int] = [slice(None)] * weights.ndim
    at[axis] = call["index"] if call.op == "select_scatter" else slice(call.get("start"), call.get("end"), call["step"])
    rest = weights.copy()
    rest[tuple(at)] = 0.0
    return _split(call, varies, {"self": rest, "src": weights[tuple(at)]})


def scatter(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Cells that were sent somewhere take that weight; written cells lose theirs."""
    axis, at = call["dim"] % max(weights.ndim, 1), call["index"].array
    rest = weights.copy()
    sent = np.take_along_axis(
        weights[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(at.shape))], at, axis
    )
    if call.op == "scatter":
        np.put_along_axis(
            rest[tuple(slice(n) if a != axis else slice(None) for a, n in enumerate(at.shape))], at, 0.0, axis
        )
        only(call, varies, "self")
        value = call.get("src", call.get("value"))
        given = wide(value)[tuple(map(slice, at.shape))] if isinstance(value, Operand) else float(value)
        return Pulled({"self": rest}, float(np.sum(sent * given)))
    whole = np.zeros(call["src"].shape)
    whole[tuple(map(slice, at.shape))] = sent
    return _split(call, varies, {"self": rest, "src": whole})


def index_put(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Written cells to the values, the others to the tensor."""
    only(call, varies, "self")
    at = tuple(slice(None) if i is None else i.array for i in call["indices"])
    rest = weights.copy()
    if not call["accumulate"]:
        rest[at] = 0.0
    written = float(np.sum(weights[at] * wide(call["values"])))
    return Pulled({"self": rest}, written)


def _split(call: Call, varies: Varies, parts: dict[str, Array]) -> Pulled:
    constant = sum(float(np.sum(part * wide(call[name]))) for name, part in parts.items() if name not in varies)
    return Pulled({name: part for name, part in parts.items() if name in varies}, constant)
