"""Gradient propagation: weights on results of forward steps as weights on their operands, step by step, by their VJPs.

Uses traces and rules.
"""

from collections.abc import Callable, Mapping

import numpy as np

from convscope.errors import UsageError
from convscope.ops import Op
from convscope.proof.backward import WRITES, operands_of
from convscope.proof.calls import call_of
from convscope.proof.vjp_parts import gradients_of
from convscope.traces.step import Kind, Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array

Layout = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and offset."""
Tensor = tuple[Kind, int, int, Layout | None]
"""Kind, id and output of a result or an input; of a parameter also its layout, because steps read it through views,
and of a tensor that a step wrote into a part of."""
IDLE = "dropout"
"""A dropout layer in evaluation mode; an active one is recorded as the operations that it consists of."""
STOPS = frozenset({"detach"})
"""Forward operations through which no gradient goes."""
UNFOLLOWED_WRITES = frozenset({"native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit"})
"""Operations that write running statistics, which autograd takes for constants."""


def addresses_of(layout: Layout) -> Array:
    """The address of every cell, in the tensor's shape."""
    shape, stride, offset = layout
    return np.asarray(offset + sum(i * s for i, s in zip(np.indices(shape), stride, strict=True)), np.int64)


def layout_of(ref: Ref) -> Layout:
    """The memory layout of a tensor."""
    return ref.shape, ref.stride, ref.offset


def pull(
    trace: Trace,
    weights: Mapping[Tensor, Array],
    is_target: Callable[[Tensor], bool],
    *,
    through: bool,
    ops: Mapping[str, Op],
) -> dict[Tensor, list[Array]]:
    """Propagate weights on results back to the targets: one array for each operand.

    Args:
        weights: Result -> weights on its cells, of any float type.
        is_target: Whether to stop at a source and collect its weights.
        through: Whether to continue through the steps in between; otherwise only operands that are targets count.

    Raises:
        UsageError: a step on the way cannot be followed.
    """
    pending = dict(weights)
    collected: dict[Tensor, list[Array]] = {}
    varies = _varying(trace, is_target) if through else frozenset()
    while pending:
        key = max(pending, key=lambda result: result[1])
        weight, step = pending.pop(key), trace.all_steps[key[1]]
        if key[0] == "step" and key[3] is not None:
            raise UsageError(f"{step.name} wrote into a part of a tensor that other steps read, which is not followed.")
        operands = ((name, ref) for name, ref in operands_of(step) if _counts(step, name, ref))
        sources = {name: source_of_operand(trace, ref, partly=True) for name, ref in operands}
        followed = {name: s for name, s in sources.items() if is_target(s) or (s[0] == "step" and s[1:3] in varies)}
        if not followed or step.op in STOPS:
            continue
        op = ops.get(step.op)
        if op is None or op.vjp is None:
            raise UsageError(f"{step.name} is a {step.op}, which has no vector-Jacobian product.")
        gradients = dict(gradients_of(op, call_of(trace, step, key[2]), weight, frozenset(followed)))
        del weight
        for name, source in followed.items():
            if name not in gradients:
                continue
            gradient = gradients.pop(name)
            if is_target(source):
                collected.setdefault(source, []).append(gradient)
            else:
                pending[source] = pending[source] + gradient if source in pending else gradient
    return collected


def _varying(trace: Trace, is_target: Callable[[Tensor], bool]) -> frozenset[tuple[int, int]]:
    """The results that depend on a target through steps that pass gradients on."""
    varies: set[tuple[int, int]] = set()
    for step in trace.all_steps:
        if step.op in STOPS or step.role in {"create", "random"}:
            continue
        sources = [source_of_operand(trace, ref, partly=True) for n, ref in operands_of(step) if _counts(step, n, ref)]
        if any(is_target(source) or (source[0] == "step" and source[1:3] in varies) for source in sources):
            varies |= {(step.id, output) for output, result in enumerate(step.results) if "float" in result.dtype}
    return frozenset(varies)


def _counts(step: Step, name: str, ref: Ref) -> bool:
    return "float" in ref.dtype and not (step.op in WRITES and name == "self")


def target_of(trace: Trace, operand: Ref) -> Tensor:
    """The tensor of a gradient as the forward steps read it: a view of a parameter counts as that parameter."""
    if operand.kind == "step" and trace.all_steps[operand.id].view:
        viewed = next(ref for _, _, ref in trace.all_steps[operand.id].refs())
        if viewed.kind == "parameter":
            return ("parameter", viewed.id, 0, layout_of(operand))
    return result_key(trace, operand)


def result_key(trace: Trace, ref: Ref) -> Tensor:
    """A result of a step, or a tensor as a whole after a step wrote into a part of it."""
    return source_of_operand(trace, ref, partly=True) if ref.rewritten else key_of(ref)


def source_of_operand(trace: Trace, ref: Ref, *, partly: bool = False) -> Tensor:
    """The step that made an operand's numbers: its own, or the last that overwrote it in place.

    With `partly` that may have written into a part of it: then the operand's layout is named, too.

    Raises:
        UsageError: only a part of it was written, unless `partly`.
    """
    ref = _before_idle(trace, ref)
    if not ref.rewritten:
        return key_of(ref)
    for number in reversed(ref.rewritten):
        if trace.all_steps[number].op in UNFOLLOWED_WRITES:
            continue
        written = [result for result in trace.all_steps[number].results if result.memory == ref.memory]
        alike = next((result for result in written if layout_of(result) == layout_of(ref)), None)
        if alike is not None:
            return ("step", number, alike.output, None)
        part = next((result for result in written if _overlap(result, ref)), None)
        if partly and part is not None:
            return ("step", number, part.output, layout_of(ref))
        if not written or part is not None:
            break
    else:  # only other parts of this memory were written, such as the other gates of a GRU, or running statistics
        return key_of(ref)
    raise UsageError(f"{ref.name} was written into in parts, which is not followed.")


def _overlap(first: Ref, second: Ref) -> bool:
    """Whether two tensors of the same memory share a cell."""
    _, inside = second.cells_at(addresses_of(layout_of(first)).reshape(-1))
    return bool(inside.any())


def _before_idle(trace: Trace, ref: Ref) -> Ref:
    """The tensor that inactive dropout layers returned as it was: autograd sees only this one."""
    while ref.kind == "step" and not ref.rewritten and trace.all_steps[ref.id].op == IDLE:
        ref = trace.all_steps[ref.id].arguments["input"]
    return ref


def key_of(ref: Ref) -> Tensor:
    """What tells a tensor from others: of a parameter also its layout, because steps read it through views."""
    return (
        ref.kind,
        ref.id,
        ref.output if ref.kind == "step" else 0,
        layout_of(ref) if ref.kind == "parameter" else None,
    )
