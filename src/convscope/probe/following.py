"""Following: marks on a step's result back to the inputs, step by step, by what each operation reads.

Memory that was written in place is followed by address, as explanations follow it. Knows traces and rules.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.capture import Ref, Step, Trace
from convscope.proof.backward import CONSTANT, WRITES, Backward, Result, onto, operands_of
from convscope.proof.calls import call_of
from convscope.rules.reads import READS, chooses, read, spreads

Marks = NDArray[np.bool_]


@dataclass(slots=True)
class Followed:
    """Where marks got to, and what was met on the way."""

    trace: Trace
    inputs: dict[str, Marks]
    chosen: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    spreading: list[Step] = field(default_factory=list)
    """Steps that may read along whole axes, the last one first."""


def follow(trace: Trace, step: Step, marks: NDArray[np.float32]) -> Followed:
    """Follow marks on a step's result to the inputs."""
    back = Backward(trace, depending(trace, step.id))
    back.inputs = {name: np.zeros(array.shape) for name, array in trace.inputs.items()}
    back.weights[step.id, 0] = marks
    found = Followed(trace, {})
    for at in range(step.id, -1, -1):
        here = trace.all_steps[at]
        for index in range(len(here.results)):
            left = back.weights.pop((at, index), None)
            if left is not None and (at, index) in back.varies and left.any():
                _through(back, found, here, index, left)
    found.inputs = {name: array > 0 for name, array in back.inputs.items()}
    return found


def _through(back: Backward, found: Followed, step: Step, index: int, marks: NDArray[Any]) -> None:
    """Marks on one result of one step: to its operands."""
    refs = {n: r for n, r in operands_of(step) if not (step.op in WRITES and n == "self")}
    varies = frozenset(name for name, ref in refs.items() if _depends(back.varies, ref))
    call = call_of(back.trace, step, index)
    if step.op not in READS:
        found.unknown.append(step.name)
    if spreads(call):
        found.spreading.append(step)
    if chooses(call, varies):
        found.chosen.append(step.name)
    for name, gradient in read(call, marks, varies).items():
        onto(back, step, name, refs[name], gradient)


def depending(trace: Trace, last: int) -> frozenset[Result]:
    """The results up to a step that depend on an input's numbers, whole numbers and truth values included."""
    found: set[Result] = set()
    for step in trace.all_steps[: last + 1]:
        if step.op in CONSTANT or step.overridden:
            continue
        if any(_depends(found, ref) for name, ref in operands_of(step) if not (step.op in WRITES and name == "self")):
            found |= {(step.id, index) for index in range(len(step.results))}
    return frozenset(found)


def _depends(found: set[Result] | frozenset[Result], ref: Ref) -> bool:
    written = any((writer, 0) in found for writer in ref.rewritten)
    return written or ref.kind == "input" or (ref.kind == "step" and (ref.id, ref.output) in found)
