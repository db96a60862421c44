"""Answers: what the page is told of a pass, of a number and of what differs. Knows traces; no routes."""

import math
from itertools import dropwhile, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

import convscope as cs
from convscope.server import schema
from convscope.server.traces.array_pictures import number
from convscope.server.traces.passes import TracePass

MOST = 20
"""Classes in an answer."""


def trace_info(done: TracePass) -> schema.TraceInfo:
    """A pass, all but its numbers; worked out once."""
    if done.told is None:
        done.told = _trace_info(done)
    return done.told


def _trace_info(done: TracePass) -> schema.TraceInfo:
    trace = done.trace
    made_by = _output_steps(done)
    given = any(step.op == "_softmax" for step in made_by)
    answers, said = ([], []) if done.error is not None else answers_of(done.model, trace.output, given=given)
    return schema.TraceInfo(
        id=done.id,
        model=done.opened.id,
        input=done.taken.info(),
        steps=[step_info(step) for step in trace.steps],
        modules=dict(trace.modules),
        parameters=[
            schema.ParameterInfo(name=name, shape=list(shape), changed=name in done.edited)
            for name, shape in _shapes(trace)
        ],
        answers=answers,
        output=made_by[0].id if made_by else None,
        notes=[*done.notes, *said],
        error=done.error,
    )


def step_info(step: cs.Step) -> schema.StepInfo:
    """A step, all but its numbers; the shape has the batch axis that the model works with."""
    return schema.StepInfo(
        id=step.id,
        name=step.name,
        says=step.says,
        op=step.op,
        module=step.module,
        module_type=step.module_type,
        shape=list(step.shape),
        dtype=step.dtype,
        inputs=list(step.inputs),
        parameters=dict(step.parameters),
        transposed=bool(step.arguments.get("transposed", False)),
        outputs=len(step.results),
        overridden=step.overridden,
    )


def answers_of(model: Any, output: Any, *, given: bool = False) -> tuple[list[schema.Answer], list[str]]:
    """What a model says of each class, the largest first, and what there is to note; nothing where it names no class.

    Args:
        model: What gave the output.
        output: What it returned: one number for each class, or something else, such as maps.
        given: Whether these already are probabilities; then there are no others besides.
    """
    try:
        said = cs.interpret(model, output)
    except cs.UsageError:  # something else than scores of classes
        return [], []
    values = said.output.astype(np.float64)
    shares = None if given else said.probabilities
    if len(values) == 1:
        name = said.classes[said.best]
        only = schema.Answer(index=said.best, name=name, value=number(values[0]), probability=None)
        return [only], [f"the model answers with one number; the class nearest to it is {name}."]
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:MOST]
    answers = [
        schema.Answer(
            index=int(k),
            name=said.classes[k] if k < len(said.classes) else str(k),
            value=number(values[k]),
            probability=None if shares is None else number(shares[k]),
        )
        for k in order
    ]
    return answers, []


def difference_info(base: TracePass, done: TracePass) -> schema.DifferenceInfo:
    """What differs between two passes."""
    found = cs.difference(base.trace, done.trace)
    return schema.DifferenceInfo(
        steps=[
            schema.StepChange(
                name=step.name,
                comparable=step.comparable,
                count=step.count,
                changed=step.changed,
                largest=number(step.largest),
                rms=number(step.rms),
            )
            for step in found.steps
        ],
        missing=list(found.missing),
        added=list(found.added),
    )


def tensor_of(output: Any) -> NDArray[Any] | None:
    """The array that a model answers with, also where it answers with several by name."""
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values())) if len(output) == 1 else None)
    return output if isinstance(output, np.ndarray) else None


def _output_steps(done: TracePass) -> list[cs.Step]:
    """The visible step that made the answer, the last with its numbers; then those before it, differing in shape."""
    array = tensor_of(done.trace.output) if done.error is None else None
    if array is None:
        return []
    row = array.ravel()

    def differs(step: cs.Step) -> bool:
        made = step.output.ravel()
        return not np.array_equal(made, row, equal_nan=made.dtype.kind == "f")

    sized = (step for step in reversed(done.trace.steps) if math.prod(step.shape) == row.size)
    found = dropwhile(differs, sized)
    return [*takewhile(lambda step: not differs(step), found)]


def _shapes(trace: cs.Trace) -> list[tuple[str, tuple[int, ...]]]:
    outside = {ref.name: ref.shape for (kind, _), ref in trace.outside.items() if kind == "parameter"}
    return [(name, outside[name]) for name in trace.parameters if name in outside]
