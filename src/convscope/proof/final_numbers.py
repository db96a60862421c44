"""Final numbers: what a tensor holds after all that was written into its memory, by the recorded steps. No rules."""

import numpy as np
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.traces.step import Ref
from convscope.traces.trace import Trace
from convscope.typing import Array

CHUNK = 2**18
"""Cells that are looked up at a time, so that their places take little memory."""


def final(trace: Trace, ref: Ref) -> Array | None:
    """The final values of a tensor: those it was created with, and everything written into its memory since.

    None where they are not recorded: writes that are not a step's result, or that have another data type.
    """
    base_numbers, base = _numbers_made(trace, ref)
    if not ref.rewritten and (ref.kind == "step" or _lie_alike(base, ref)):
        return base_numbers
    addresses = _addresses(ref)
    numbers, is_known = np.zeros(len(addresses), base_numbers.dtype), np.zeros(len(addresses), bool)
    written = [(base, base_numbers)]
    for writer in map(trace.all_steps.__getitem__, ref.rewritten):
        results = [result for result in writer.results if result.memory == ref.memory]
        if not results:
            return None
        written += [(result, writer.outputs[result.output]) for result in results]
    if any(result.dtype != ref.dtype for result, _ in written):
        return None
    for result, array in written:
        for start in range(0, len(addresses), CHUNK):
            part = slice(start, start + CHUNK)
            cells, inside = result.cells_at(addresses[part])
            numbers[part][inside] = array[tuple(cells[inside].T)]
            is_known[part] |= inside
    return numbers.reshape(ref.shape) if is_known.all() else None


def recorded_numbers(trace: Trace, ref: Ref) -> Array:
    """The numbers of a gradient or loss in the type that they have, also where they were written into its memory later.

    Raises:
        UsageError: not all of them are recorded.
    """
    numbers = final(trace, ref) if ref.rewritten else trace.all_steps[ref.id].outputs[ref.output]
    if numbers is None:
        raise UsageError(f"{ref.name} was written into by an operation that no step records.")
    return numbers


def numbers_of(trace: Trace, ref: Ref) -> Array:
    """As `recorded_numbers`, in float64."""
    return recorded_numbers(trace, ref).astype(np.float64)


def _lie_alike(first: Ref, second: Ref) -> bool:
    return (first.shape, first.stride, first.offset) == (second.shape, second.stride, second.offset)


def _numbers_made(trace: Trace, ref: Ref) -> tuple[Array, Ref]:
    """The numbers of the whole tensor that a reference refers to, and a reference that gives their memory layout."""
    if ref.kind == "step":
        step = trace.all_steps[ref.id]
        return step.outputs[ref.output], step.results[ref.output]
    outside = trace.outside[ref.kind, ref.id]
    return outside_numbers(trace, outside), outside


def outside_numbers(trace: Trace, ref: Ref) -> Array:
    """The numbers of a parameter, input or constant, as a whole."""
    if ref.kind == "constant":
        return trace.constants[ref.id]
    numbers: Array = trace.parameters[ref.name] if ref.kind == "parameter" else trace.inputs[ref.name]
    return numbers


def _addresses(ref: Ref) -> NDArray[np.int64]:
    """The memory offset of each cell of a tensor, in the order of its cells."""
    address = np.full((), ref.offset, np.int64)
    for n, stride in zip(ref.shape, ref.stride, strict=True):
        address = address[..., None] + np.arange(n, dtype=np.int64) * stride
    return np.ravel(address)
