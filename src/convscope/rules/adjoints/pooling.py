"""Adjoints of pooling: a maximum passes its weight to the winner, a mean shares it."""

from typing import Any

import numpy as np

from convscope.errors import UsageError
from convscope.rules.adjoints.pulled import Pulled, Varies, only, wide
from convscope.rules.adjoints.separable import Matrix, along
from convscope.rules.call import Array, Call
from convscope.rules.gather import pair


def max_pool(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Each window's weight goes to its first largest cell.

    Raises:
        UsageError: a window with a weight reads padding alone.
    """
    only(call, varies, "self")
    image = wide(call["self"])
    axes = int(call.op.split("pool")[1][0])
    sizes = pair(call["kernel_size"], axes)
    strides = pair(call["stride"], axes) if call["stride"] else sizes
    paddings, dilations = pair(call["padding"], axes), pair(call["dilation"], axes)
    lead = image.shape[:-axes]
    best = np.full(weights.shape, -np.inf)
    winner = np.full(weights.shape, -1)
    for tap in np.ndindex(*sizes):
        places = [
            np.arange(n) * s - p + t * d
            for n, s, p, d, t in zip(weights.shape[-axes:], strides, paddings, dilations, tap, strict=True)
        ]
        inside = [(at >= 0) & (at < n) for at, n in zip(places, image.shape[-axes:], strict=True)]
        target: tuple[Any, ...] = np.ix_(*[np.flatnonzero(i) for i in inside])
        source: tuple[Any, ...] = np.ix_(*[at[i] for at, i in zip(places, inside, strict=True)])
        seen = image[(..., *source)]
        flat = np.ravel_multi_index(source, image.shape[-axes:])
        wins = (seen > best[(..., *target)]) | np.isnan(seen)
        best[(..., *target)] = np.where(wins, seen, best[(..., *target)])
        winner[(..., *target)] = np.where(wins | (winner[(..., *target)] < 0), flat, winner[(..., *target)])
    if np.any(weights[winner < 0]):
        raise UsageError("a window of the max pooling reads padding alone, so its number comes from no cell.")
    return Pulled({"self": _placed(weights, winner, lead, image.shape)})


def adaptive_max_pool(call: Call, weights: Array, varies: Varies) -> Pulled:
    """As above, over windows whose size follows from the shapes."""
    only(call, varies, "self")
    image, axes = wide(call["self"]), len(call["output_size"])
    winner = np.zeros(weights.shape, np.int64)
    shape = image.shape[-axes:]
    for cell in np.ndindex(weights.shape[-axes:]):
        spans = [
            range(at * n // m, -(-(at + 1) * n // m))
            for at, n, m in zip(cell, shape, weights.shape[-axes:], strict=True)
        ]
        window: tuple[Any, ...] = np.ix_(*spans)
        flat = np.ravel_multi_index(window, shape).ravel()
        seen = image[(..., *window)].reshape(*image.shape[:-axes], -1)
        winner[(..., *cell)] = flat[np.argmax(seen, axis=-1)]
    return Pulled({"self": _placed(weights, winner, image.shape[:-axes], image.shape)})


def avg_pool(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Each window's weight, by its divisor, to all its cells; padding gets none of it."""
    only(call, varies, "self")
    shape = call["self"].shape
    axes = int(call.op.split("pool")[1][0])
    sizes = pair(call["kernel_size"], axes)
    strides = pair(call["stride"], axes) if call["stride"] else sizes
    paddings = pair(call["padding"], axes)
    spans = zip(shape[-axes:], weights.shape[-axes:], sizes, strides, paddings, strict=True)
    matrices, counts = [], []
    for length, wanted, size, stride, padding in spans:
        start = np.arange(wanted) * stride - padding
        end = np.minimum(start + size, length + padding)
        covered = (np.arange(length) >= start[:, None]) & (np.arange(length) < end[:, None])
        matrices.append(covered.astype(np.float64))  # (P, H)
        counts.append((end - start) if call["count_include_pad"] else covered.sum(1))
    divisor: Array = np.ones(())
    for count in counts:
        divisor = np.multiply.outer(divisor, count)
    if call.get("divisor_override"):
        divisor = np.asarray(float(call["divisor_override"]))
    return Pulled({"self": along(weights / divisor, matrices)})


def adaptive_avg_pool(call: Call, weights: Array, varies: Varies) -> Pulled:
    """As above, over windows whose size follows from the shapes."""
    only(call, varies, "self")
    axes = len(call["output_size"])
    matrices: list[Matrix] = []
    for length, wanted in zip(call["self"].shape[-axes:], weights.shape[-axes:], strict=True):
        at = np.arange(wanted)
        start, end = at * length // wanted, -(-(at + 1) * length // wanted)
        covered = (np.arange(length) >= start[:, None]) & (np.arange(length) < end[:, None])
        matrices.append(covered / covered.sum(1, keepdims=True))
    return Pulled({"self": along(weights, matrices)})


def max_unpool(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Each value takes the weight of the cell it was put to."""
    only(call, varies, "self")
    axes = len(call["output_size"])
    places = call["indices"].array
    flat = weights.reshape(*weights.shape[:-axes], -1)
    found = np.take_along_axis(flat, places.reshape(*places.shape[:-axes], -1), axis=-1)
    return Pulled({"self": found.reshape(places.shape)})


def _placed(weights: Array, winner: Array, lead: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    planes = int(np.prod(lead))
    found = np.zeros((planes, int(np.prod(shape)) // max(planes, 1)))
    np.add.at(found, (np.arange(planes)[:, None], winner.reshape(planes, -1)), weights.reshape(planes, -1))
    return found.reshape(shape)
