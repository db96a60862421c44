"""Partial writes: gradients through operations that write into a part of a tensor, such as `x[:, 0] *= 2`.

Autograd differentiates by the tensor as a whole: after the write, its cells come from the operation where it wrote,
and from the tensor before it elsewhere. Which is which follows from their addresses in memory. Uses traces and rules.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from convscope.errors import UsageError
from convscope.ops import Op
from convscope.proof.backward import WRITES, operands_of
from convscope.proof.calls import call_of
from convscope.proof.gradient_propagation import (
    Tensor,
    addresses_of,
    layout_of,
    pull,
    result_key,
    target_of,
)
from convscope.proof.vjp_parts import gradients_of
from convscope.traces.step import BackwardNode, Ref
from convscope.traces.trace import Trace
from convscope.typing import Array

SLICES = "CopySlices"
"""Node of an operation in place on a view: it continues to the memory behind the view."""


def pull_node(
    trace: Trace, node: BackwardNode, arriving: Mapping[Tensor, Array], ops: Mapping[str, Op]
) -> dict[Tensor, list[Array]]:
    """The gradients that a node gives to what its forward operation read, for those that arrive at its results.

    Raises:
        UsageError: a step on the way cannot be followed.
    """
    targets = {target_of(trace, operand) for operand, _ in node.gave}
    written = _written(trace, node, arriving) if node.kind == SLICES else None
    if written is not None:
        pulled = _through_write(trace, *written, targets, ops)
        return {target: parts for target, parts in pulled.items() if target in targets}
    for result, _ in node.received:  # a view of memory that was written, as a part of the whole tensor
        for operand, _ in node.gave:
            if operand.memory == result.memory and _last_write(operand) == _last_write(result):
                part = arriving[result_key(trace, result)]
                return {target_of(trace, operand): [_scattered(operand, result, part)]}
    pulled = pull(trace, arriving, targets.__contains__, through=node.custom or node.kind == SLICES, ops=ops)
    return _overwritten(trace, node) | pulled if node.kind == SLICES else pulled


def _written(trace: Trace, node: BackwardNode, arriving: Mapping[Tensor, Array]) -> tuple[Ref, Array] | None:
    """The tensor that a write changed a part of, and its gradient; None where the write was the first."""
    for result, _ in node.received:
        gradient = arriving[result_key(trace, result)]
        if _is_part(trace, result):
            return result, gradient
        before = next((operand for operand, _ in node.gave if operand.memory == result.memory), None)
        if before is not None and before.rewritten and layout_of(before) != layout_of(result):  # only the part is read
            whole = replace(before, rewritten=(*before.rewritten, _last_write(result)))
            return whole, _scattered(whole, result, gradient)
    return None


def _overwritten(trace: Trace, node: BackwardNode) -> dict[Tensor, list[Array]]:
    """The gradient of a tensor before a part of it was overwritten, where only that part is read: zeros."""
    return {
        target_of(trace, operand): [np.zeros(operand.shape)]
        for result, _ in node.received
        for operand, _ in node.gave
        if operand.memory == result.memory and trace.all_steps[_last_write(result)].op in WRITES
    }


def _last_write(ref: Ref) -> int:
    """The last step whose numbers a tensor may hold."""
    return (ref.id, *ref.rewritten)[-1]


def _is_part(trace: Trace, ref: Ref) -> bool:
    """Whether a tensor was last written in a part of it."""
    key = result_key(trace, ref)
    return key[0] == "step" and key[3] is not None


def _through_write(
    trace: Trace, whole: Ref, gradient: Array, targets: Collection[Tensor], ops: Mapping[str, Op]
) -> dict[Tensor, list[Array]]:
    """The gradient of a tensor after a write, passed on to what was written and to the tensor before it.

    Raises:
        UsageError: the write has no vector-Jacobian product.
    """
    _, number, output, _ = result_key(trace, whole)
    step = trace.all_steps[number]
    written, op = step.results[output], ops.get(step.op)
    cells, rest = _cells_of(whole, written), np.array(gradient, np.float64)
    arriving = rest[cells]
    rest[cells] = 0.0
    read = {name: ref for name, ref in operands_of(step) if not (step.op in WRITES and name == "self")}
    followed = {name: ref for name, ref in read.items() if name == "self" or target_of(trace, ref) in targets}
    if followed and (op is None or op.vjp is None):
        raise UsageError(f"{step.name} is a {step.op}, which has no vector-Jacobian product.")
    call, names = call_of(trace, step, output), frozenset(followed)
    parts: dict[Tensor, list[Array]] = {}
    for name, part in (gradients_of(op, call, arriving, names) if op is not None and followed else {}).items():
        if name == "self":  # what was there before
            rest[cells] += part
        else:
            parts.setdefault(target_of(trace, followed[name]), []).append(part)
    before = replace(whole, rewritten=whole.rewritten[: whole.rewritten.index(number)])
    parts.setdefault(target_of(trace, before), []).append(rest)
    return parts


def _scattered(whole: Ref, part: Ref, gradient: Array) -> Array:
    """The gradient of a part of a tensor as one of the whole."""
    result = np.zeros(whole.shape)
    np.add.at(result, _cells_of(whole, part), gradient)
    return result


def _cells_of(whole: Ref, part: Ref) -> tuple[Array, ...]:
    """The cells of a tensor that a part of it has in memory: an array for each axis, in the part's shape.

    Raises:
        UsageError: some are outside it.
    """
    addresses = addresses_of(layout_of(part))
    cells, inside = whole.cells_at(addresses.reshape(-1))
    if not inside.all():
        raise UsageError(f"{part.name} is not a part of {whole.name}.")
    return tuple(axis.reshape(addresses.shape) for axis in cells.T)
