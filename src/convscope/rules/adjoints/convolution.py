"""Adjoint of convolution: each weight of the result, laid back over the window under the kernel."""

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, only, wide
from convscope.rules.call import Array, Call
from convscope.rules.gather import pair


def convolution(call: Call, weights: Array, varies: Varies) -> Pulled:
    """The constant is each kernel's bias times the weights of its channel."""
    only(call, varies, "input")
    bias = call["bias"]
    axes = tuple(range(2, weights.ndim))
    constant = 0.0 if bias is None else float(wide(bias) @ weights.sum(axis=(0, *axes)))
    spread = _transposed if call["transposed"] else _direct
    return Pulled({"input": spread(call, weights)}, constant)


def _direct(call: Call, weights: Array) -> Array:
    """For every place in the kernel: its weight times the result's, at the input cells it was laid on.

    Only the smallest box of the result that holds all weights is visited: for one deep cell, its receptive field.
    """
    shape = call["input"].shape
    strides, paddings, dilations, count = _settings(call)
    box = _box(weights)
    kernels = _by_group(call, wide(call["weight"]))  # (G, Kg, Cg, *R)
    grouped = weights[(slice(None), slice(None), *box)]
    batch, places = weights.shape[0], grouped.shape[2:]
    grouped = grouped.reshape(batch, call["groups"], -1, int(np.prod(places)))  # (N, G, Kg, P)
    room = [n + 2 * p for n, p in zip(shape[2:], paddings, strict=True)]
    found = np.zeros((*shape[:2], *room))
    for tap in np.ndindex(kernels.shape[3:]):
        part = kernels[(slice(None), slice(None), slice(None), *tap)].transpose(0, 2, 1) @ grouped  # (N, G, Cg, P)
        at = tuple(
            slice(b.start * s + t * d, (b.stop - 1) * s + t * d + 1, s)
            for b, s, d, t in zip(box, strides, dilations, tap, strict=True)
        )
        found[(slice(None), slice(None), *at)] += part.reshape(batch, shape[1], *places)
    inner = tuple(slice(p, p + n) for p, n in zip(paddings, shape[2:], strict=True))
    assert count == len(inner)
    return found[(slice(None), slice(None), *inner)]


def _transposed(call: Call, weights: Array) -> Array:
    """For every place in the kernel: the weights of the result cells that it reached, gathered."""
    shape = call["input"].shape
    strides, paddings, dilations, _ = _settings(call)
    kernels = wide(call["weight"])  # (C, Kg, *R)
    groups, per_group = call["groups"], kernels.shape[1]
    kernels = kernels.reshape(groups, -1, *kernels.shape[1:])  # (G, Cg, Kg, *R)
    reach = [
        (n - 1) * s + (r - 1) * d + 1
        for n, s, d, r in zip(shape[2:], strides, dilations, kernels.shape[3:], strict=True)
    ]
    room = np.zeros(
        (*weights.shape[:2], *(max(n, w + p) for n, w, p in zip(reach, weights.shape[2:], paddings, strict=True)))
    )
    inner = tuple(slice(p, p + n) for p, n in zip(paddings, weights.shape[2:], strict=True))
    room[(slice(None), slice(None), *inner)] = weights
    found = np.zeros((shape[0], groups, shape[1] // groups, int(np.prod(shape[2:]))))
    for tap in np.ndindex(kernels.shape[3:]):
        at = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for n, s, d, t in zip(shape[2:], strides, dilations, tap, strict=True)
        )
        seen = room[(slice(None), slice(None), *at)].reshape(shape[0], groups, per_group, -1)
        found += kernels[(slice(None), slice(None), slice(None), *tap)] @ seen
    return found.reshape(shape)


def _settings(call: Call) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    axes = len(call.shape) - 2
    return pair(call["stride"], axes), pair(call["padding"], axes), pair(call["dilation"], axes), axes


def _by_group(call: Call, kernels: Array) -> Array:
    return kernels.reshape(call["groups"], -1, *kernels.shape[1:])


def _box(weights: Array) -> tuple[slice, ...]:
    """The smallest box of places that holds every weight that is not zero."""
    used = np.any(weights != 0, axis=(0, 1))
    box = []
    for axis in range(used.ndim):
        found = np.flatnonzero(used.any(axis=tuple(a for a in range(used.ndim) if a != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 1))
    return tuple(box)
