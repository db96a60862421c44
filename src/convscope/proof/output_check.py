"""Answer: whether what the model returned is what its steps hold, bit for bit. Knows traces; no rules, no reference."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.proof.verification_report import Returned
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

CHUNK = 2**18
"""Cells that are looked up at a time, so that their places take little memory."""


def returned(trace: Trace) -> tuple[Returned, ...]:
    """Each tensor of a trace's output against the step, parameter or input that it came from.

    Where steps wrote into its memory later, each of its numbers is held against the last that wrote it.

    >>> import torch, convscope as cs
    >>> [str(one) for one in returned(cs.trace(torch.nn.ReLU(), torch.ones(1, 2)))]
    ['the output is what relu holds, bit for bit']
    """
    tensors, plain = list[tuple[str, Array]](), list[str]()
    for name, value in _parts(trace.output, "the output"):
        if isinstance(value, np.ndarray):
            tensors.append((name, value))
        elif isinstance(value, float | complex):
            plain.append(name)
    refs = trace.returned
    found = [
        _held(trace, name, array) if refs is None else _compared(trace, name, array, refs[place])
        for place, (name, array) in enumerate(tensors)
    ]
    found += [Returned(name, "", False, "is a plain number that no step holds") for name in plain]
    return tuple(found) or (Returned("the output", "", False, "has no tensor, so nothing of it is proved"),)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The parts of an output and what to call them, in order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(item, f"{name}[{key!r}]")
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from _parts(item, f"{name}[{place}]")
    else:
        yield name, value


def _compared(trace: Trace, name: str, array: Array, ref: Ref) -> Returned:
    """A tensor of the output against the one that it was."""
    numbers = final(trace, ref)
    if numbers is None:
        return Returned(name, ref.name, False, f"comes from {ref.name}, into which was written what no step holds")
    return Returned(name, ref.name, _same(array, numbers))


def _held(trace: Trace, name: str, array: Array) -> Returned:
    """A tensor of the output against all that a trace holds, the latest first: the first format does not say more."""
    for step in reversed(trace.all_steps):
        for ref in step.results:
            if ref.shape != array.shape:
                continue
            later = tuple(s.id for s in trace.all_steps[step.id + 1 :] if _wrote(s, ref.memory))
            numbers = final(trace, replace(ref, rewritten=later))
            if numbers is not None and _same(array, numbers):
                return Returned(name, step.name, True)
    for ref in trace.outside.values():
        if ref.shape == array.shape and _same(array, _outside(trace, ref)):
            return Returned(name, ref.name, True)
    return Returned(name, "", False, "is held by no step, parameter or input of the trace")


def _wrote(step: Step, memory: int) -> bool:
    return not step.view and any(ref.memory == memory for ref in step.results)


def final(trace: Trace, ref: Ref) -> Array | None:
    """The final values of a tensor: those it was created with, and everything written into its memory since.

    None where they are not recorded: writes that are not a step's result, or that have another data type.
    """
    whole, base = _made(trace, ref)
    if not ref.rewritten and (ref.kind == "step" or _lie_alike(base, ref)):
        return whole
    addresses = _addresses(ref)
    numbers, known = np.zeros(len(addresses), whole.dtype), np.zeros(len(addresses), bool)
    written = [(base, whole)]
    for writer in map(trace.all_steps.__getitem__, ref.rewritten):
        results = [made for made in writer.results if made.memory == ref.memory]
        if not results:
            return None
        written += [(made, writer.outputs[made.output]) for made in results]
    if any(made.dtype != ref.dtype for made, _ in written):
        return None
    for made, array in written:
        for start in range(0, len(addresses), CHUNK):
            part = slice(start, start + CHUNK)
            cells, inside = made.cells_at(addresses[part])
            numbers[part][inside] = array[tuple(cells[inside].T)]
            known[part] |= inside
    return numbers.reshape(ref.shape) if known.all() else None


def _lie_alike(one: Ref, other: Ref) -> bool:
    return (one.shape, one.stride, one.offset) == (other.shape, other.stride, other.offset)


def _made(trace: Trace, ref: Ref) -> tuple[Array, Ref]:
    """The numbers of the whole tensor that a reference refers to, and a reference that gives their memory layout."""
    if ref.kind == "step":
        step = trace.all_steps[ref.id]
        return step.outputs[ref.output], step.results[ref.output]
    whole = trace.outside[ref.kind, ref.id]
    return _outside(trace, whole), whole


def _outside(trace: Trace, ref: Ref) -> Array:
    if ref.kind == "constant":
        return trace.constants[ref.id]
    numbers: Array = trace.parameters[ref.name] if ref.kind == "parameter" else trace.inputs[ref.name]
    return numbers


def _addresses(ref: Ref) -> NDArray[np.int64]:
    """The memory offset of each cell of a tensor, in the order of its cells."""
    place = np.full((), ref.offset, np.int64)
    for n, stride in zip(ref.shape, ref.stride, strict=True):
        place = place[..., None] + np.arange(n, dtype=np.int64) * stride
    return np.ravel(place)


def _same(one: Array, other: Array) -> bool:
    """Whether two arrays have the same shape, type and bits: NaN is the same NaN, 0.0 is not -0.0."""
    return one.shape == other.shape and one.dtype == other.dtype and bool((_bits(one) == _bits(other)).all())


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(f"u{min(array.itemsize, 8)}")
