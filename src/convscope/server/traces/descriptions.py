"""Descriptions of passes as messages: a trace, a step, its thumbnail, the model's answer, a difference of passes."""

import math
from itertools import dropwhile, takewhile

import numpy as np
from numpy.typing import NDArray

import convscope as cs
from convscope.server.traces import array_pictures
from convscope.server.traces.array_pictures import number
from convscope.server.traces.passes import TracePass
from convscope.server.traces.schema import Answer, DifferenceInfo, ParameterInfo, StepChange, StepInfo, TraceInfo
from convscope.typing import Array

MAX_ANSWERS = 20
"""Maximum number of classes in a response."""


def trace_info(trace_pass: TracePass) -> TraceInfo:
    """The description of a pass, without its numbers; computed once."""
    if trace_pass.info is None:
        trace_pass.info = _trace_info(trace_pass)
    return trace_pass.info


def _trace_info(trace_pass: TracePass) -> TraceInfo:
    trace = trace_pass.trace
    made_by = _output_steps(trace_pass)
    has_softmax = any(step.op == "_softmax" for step in made_by)
    answers: list[Answer] = []
    notes: list[str] = []
    if trace_pass.error is None:
        answers, notes = answers_of(trace_pass.model, trace.output, are_probabilities=has_softmax)
    return TraceInfo(
        id=trace_pass.id,
        model=trace_pass.opened.id,
        input=trace_pass.model_input.info(),
        steps=[step_info(step) for step in trace.steps],
        modules=dict(trace.modules),
        parameters=[
            ParameterInfo(name=name, shape=list(shape), changed=name in trace_pass.edited)
            for name, shape in _shapes(trace)
        ],
        answers=answers,
        output=made_by[0].id if made_by else None,
        notes=[*trace_pass.notes, *notes],
        error=trace_pass.error,
    )


def step_info(step: cs.Step) -> StepInfo:
    """The description of a step, without its numbers; the shape includes the batch axis."""
    return StepInfo(
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


def answers_of(
    model: cs.Module | None, output: object, *, are_probabilities: bool = False
) -> tuple[list[Answer], list[str]]:
    """The model's score for each class, the largest first, and notes; both empty if the output is not class scores.

    Args:
        model: The model that returned `output`; None has no class scores.
        output: One number per class, or anything else, such as feature maps.
        are_probabilities: Whether the numbers already are probabilities; then no others are added.
    """
    if model is None:
        return [], []
    try:
        scores = cs.interpret(model, output)
    except cs.UsageError:  # the output is not class scores
        return [], []
    values = scores.output.astype(np.float64)
    probabilities = None if are_probabilities else scores.probabilities
    if len(values) == 1:
        name = scores.classes[scores.best]
        only = Answer(index=scores.best, name=name, value=number(values[0]), probability=None)
        return [only], [f"the model returns a single number; the class nearest to it is {name}."]
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:MAX_ANSWERS]
    answers = [
        Answer(
            index=int(k),
            name=scores.classes[k] if k < len(scores.classes) else str(k),
            value=number(values[k]),
            probability=None if probabilities is None else number(probabilities[k]),
        )
        for k in order
    ]
    return answers, []


def difference_info(base: TracePass, trace_pass: TracePass) -> DifferenceInfo:
    """The difference between two passes, step by step."""
    difference = cs.difference(base.trace, trace_pass.trace)
    return DifferenceInfo(
        steps=[
            StepChange(
                name=step.name,
                comparable=step.comparable,
                count=step.count,
                changed=step.changed,
                largest=number(step.largest),
                rms=number(step.rms),
            )
            for step in difference.steps
        ],
        missing=list(difference.missing),
        added=list(difference.added),
    )


def thumbnail(
    trace_pass: TracePass, step: cs.Step, selected: slice, side: int
) -> tuple[dict[str, object], NDArray[np.uint8]]:
    """The planes `selected` of a step's result as a picture with its description; a single plane is always included."""
    planes = array_pictures.planes_of(step.output)
    selected = slice(None) if len(planes) == 1 else selected
    low, high = trace_pass.extent(step)
    chosen = planes[selected]
    picture = array_pictures.shades(array_pictures.shrunk(chosen, side), low, high)
    blocked = trace_pass.blocked.get(step.id)
    if blocked is not None:  # 0 stands for cells at which an activation did not pass, the numbers begin at 1
        closed = array_pictures.shrunk(array_pictures.planes_of(blocked)[selected].astype(np.float64), side) > 0.5
        picture = np.where(closed, 0, np.maximum(picture, 1)).astype(np.uint8)
    about = {
        "id": step.id,
        "channels": list(range(len(planes)))[selected],
        "total": len(planes),
        "low": array_pictures.number(low),
        "high": array_pictures.number(high),
        "typical": array_pictures.number(trace_pass.typical(step)),
        "label": None,
        "blocked": blocked is not None,
    }
    return about, picture


def tensor_of(output: object) -> Array | None:
    """The output array of a model, also if it returns a dictionary with logits or a single entry."""
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values())) if len(output) == 1 else None)
    return output if isinstance(output, np.ndarray) else None


def _output_steps(trace_pass: TracePass) -> list[cs.Step]:
    """The visible steps that hold the model's output, the last one first; those before it differ only in shape."""
    array = tensor_of(trace_pass.trace.output) if trace_pass.error is None else None
    if array is None:
        return []
    row = array.ravel()

    def differs(step: cs.Step) -> bool:
        result = step.output.ravel()
        return not np.array_equal(result, row, equal_nan=result.dtype.kind == "f")

    sized = (step for step in reversed(trace_pass.trace.steps) if math.prod(step.shape) == row.size)
    from_output = dropwhile(differs, sized)
    return [*takewhile(lambda step: not differs(step), from_output)]


def _shapes(trace: cs.Trace) -> list[tuple[str, tuple[int, ...]]]:
    outside = {ref.name: ref.shape for (kind, _), ref in trace.outside.items() if kind == "parameter"}
    return [(name, outside[name]) for name in trace.parameters if name in outside]
