"""Training steps: repeat a step of a run, record it as a pass, and describe its batch and its updates."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import Field
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id, Message, Number
from convscope.server.jobs import client_of, stop_if_left
from convscope.server.session.inputs import PageInput
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.schema import SampleRef
from convscope.server.traces.array_pictures import base64url, number, shades, shrunk
from convscope.server.traces.descriptions import step_info
from convscope.server.traces.passes import TracePass
from convscope.server.traces.routes import RAW, on, raw
from convscope.server.traces.schema import Answer, ParameterInfo, StepInfo, TraceInfo, TraceRequest
from convscope.typing import Array

router = APIRouter(tags=["gradients"])
REPEATING = "training steps"
"""Steps are repeated one at a time: each seeds the random numbers of the whole process."""
IMAGES = 64
"""Maximum number of images in an answer."""
SIDE = 56
"""Pixels a side of a thumbnail, at most."""
SAME = 1e-5
"""Relative difference up to which the optimizer's direction is the gradient itself."""


class TrainingStepRequest(Message):
    """Repeat a step of a run, and record it."""

    model: Id
    """A run."""
    step: int = Field(ge=1, le=2**31 - 1)
    """Counted from 1: step 1 leads from the initial weights to those after one update."""


class BatchImage(Message):
    """One image of a step's batch."""

    index: int
    """Its place in the batch."""
    label: str | None
    """Its class; None where the target is not a class number."""
    loss: Number | None
    """None where the loss is not a mean over images."""
    picture: str
    """Bytes in base64url, of this shape."""
    shape: tuple[int, int, int]


class ParameterUpdate(Message):
    """How a step changed one parameter."""

    name: str
    shape: list[int]
    gradient: int
    """The id of the step that made its gradient."""
    updated: int
    """The id of the step that made its new value."""
    rate: float
    """The learning rate."""
    plain: bool
    """Whether the optimizer multiplies the learning rate by the gradient itself."""


class StatisticUpdate(Message):
    """How a step changed a running mean or variance of batch norm."""

    name: str
    """bn1.running_mean."""
    updated: int
    """The id of the step that made its new value."""
    momentum: float
    """The share of the batch: after = (1 - momentum) x before + momentum x batch."""


class StatisticNumbers(Message):
    """A running mean or variance of each channel, and the batch's."""

    before: list[Number]
    batch: list[Number]
    """By the reference in float64; a variance is divided by n - 1."""
    after: list[Number]


class TrainingStepInfo(Message):
    """One step of a training."""

    trace: TraceInfo
    """All visible steps: forward, loss, backward, update."""
    step: int
    optimizer: str
    """Its name: Adam."""
    mode: str
    loss_name: str
    before: Number
    """The loss of the batch."""
    after: Number
    """The loss of the same batch after the step, by the reference in float64."""
    count: int
    """Images in the batch."""
    images: list[BatchImage]
    """At most 64, those with the largest losses first."""
    updates: list[ParameterUpdate]
    """Kernels and weight matrices first, in the order of the model."""
    statistics: list[StatisticUpdate]
    """Batch norm's running statistics, in the order of the model."""


class StepEffectInfo(Message):
    """The loss of a step's batch after the same update with another learning rate."""

    trace: Id
    times: float
    """The learning rate as a multiple of the step's own."""
    before: Number
    after: Number


def step_name(opened: ModelHandle, step: int) -> str:
    """The id of a recorded step: a digest of the run and the step, which never change together.

    Raises:
        HTTPException: 422, the model is not a run.
    """
    if opened.run is None:
        raise HTTPException(422, f"{opened.name} was not loaded from a run, so it has no training steps to repeat.")
    created = opened.run.config["environment"].get("created", "")
    digest = hashlib.sha256(f"{opened.run.path} {created} {opened.run.config['seed']} {step}".encode()).hexdigest()
    return f"s{digest[:24]}"


def record_step(opened: ModelHandle, step: int) -> TracePass:
    """Repeat a run up to a step and record it.

    Raises:
        ConvscopeError: the run has no such step, or cannot be repeated.
    """
    name = step_name(opened, step)
    assert opened.run is not None
    trace = cs.trace(opened.run, at_step=step, progress=stop_if_left)
    source = SampleRef(source=opened.source or "none", split="train", index=0)
    images = trace.input
    model_input = PageInput(f"batch of step {step}", images[0], images[0], None, (), images)
    request = TraceRequest(model=opened.id, input=source)
    return TracePass(name, opened, None, request, model_input, trace, None, (), frozenset())


def step_answer(trace_pass: TracePass, step: int) -> TrainingStepInfo:
    """The description of a recorded step."""
    trace, training_step = trace_pass.trace, trace_pass.trace.training_step
    assert training_step is not None
    trace_pass.info = trace_pass.info or described(trace_pass, [step_info(step) for step in trace.steps])
    effect = cs.step_effect(trace)
    return TrainingStepInfo(
        trace=trace_pass.info,
        step=step,
        optimizer=training_step.optimizer.partition(" ")[0],
        mode=training_step.mode,
        loss_name=training_step.loss_name,
        before=number(effect.before),
        after=number(effect.after),
        count=len(trace.input),
        images=_images(trace),
        updates=sorted(
            (_update(trace, name) for name in training_step.updated), key=lambda update: len(update.shape) < 2
        ),
        statistics=[_statistic(trace, name) for name in training_step.statistics],
    )


def described(
    trace_pass: TracePass, steps: list[StepInfo], answers: Sequence[Answer] = (), output: int | None = None
) -> TraceInfo:
    """The description of a pass with gradients, as far as a page needs it to name and explain its numbers."""
    shapes = {ref.name: ref.shape for ref in trace_pass.trace.outside.values() if ref.kind == "parameter"}
    return TraceInfo(
        id=trace_pass.id,
        model=trace_pass.opened.id,
        input=trace_pass.model_input.info(),
        steps=steps,
        modules=dict(trace_pass.trace.modules),
        parameters=[ParameterInfo(name=n, shape=list(s), changed=False) for n, s in shapes.items()],
        answers=list(answers),
        output=output,
        notes=[],
        error=None,
    )


def _statistic(trace: cs.Trace, name: str) -> StatisticUpdate:
    step = trace[f"{name}.updated"]
    return StatisticUpdate(name=name, updated=step.id, momentum=step.arguments["momentum"])


def statistic_numbers(trace_pass: TracePass, name: str) -> StatisticNumbers:
    """A running statistic before and after a step, and the batch's own.

    Raises:
        HTTPException: 404, the step updates no such statistic.
    """
    check_step(trace_pass)
    trace, training_step = trace_pass.trace, trace_pass.trace.training_step
    if training_step is None or name not in training_step.statistics:
        raise HTTPException(404, f"this step updates no running statistic {name!r}.")
    step = trace[f"{name}.updated"]
    arguments = trace.operands(step)
    before = arguments[step.op.partition("::")[2]]
    batch = cs.reference.OPERATIONS[step.op].compute(**{**arguments, "momentum": 1.0})
    assert isinstance(batch, np.ndarray)
    return StatisticNumbers(
        **{
            key: [number(float(value)) for value in values]
            for key, values in {"before": before, "batch": batch, "after": step.output}.items()
        }
    )


def _update(trace: cs.Trace, name: str) -> ParameterUpdate:
    training_step = trace.training_step
    assert training_step is not None
    gradient = _named(trace, name)
    update_vector, rate = cs.update_direction(trace, name)
    numbers = gradient.output.reshape(update_vector.shape).astype(np.float64)
    return ParameterUpdate(
        name=name,
        shape=list(update_vector.shape),
        gradient=gradient.id,
        updated=training_step.updated[name].id,
        rate=rate,
        plain=bool(np.allclose(update_vector, numbers, rtol=SAME, atol=0)),
    )


def _named(trace: cs.Trace, parameter: str) -> cs.Step:
    """The step that made a parameter's gradient: the one of this name, rather than a view of it."""
    training_step = trace.training_step
    assert training_step is not None
    last = trace.all_steps[training_step.gradients[parameter].id]
    named = trace[f"{parameter}.grad"]
    return named if [n for n in named.shape if n > 1] == [n for n in last.shape if n > 1] else last


def _images(trace: cs.Trace) -> list[BatchImage]:
    """The batch, those with the largest losses first; none where the inputs are not pictures."""
    images, losses = trace.input, cs.image_losses(trace)
    if images.ndim != 4:
        return []
    order = np.arange(len(images)) if losses is None else np.argsort(-losses, kind="stable")
    labels = _labels(trace.inputs, trace.card.classes)
    return [
        BatchImage(
            index=index,
            label=labels[index] if labels else None,
            loss=None if losses is None else number(float(losses[index])),
            picture=base64url(picture),
            shape=(picture.shape[0], picture.shape[1], picture.shape[2]),
        )
        for index, picture in ((index, _thumbnail(trace, images[index])) for index in order[:IMAGES].tolist())
    ]


def _labels(inputs: Mapping[str, Array], classes: Sequence[str]) -> list[str]:
    target = inputs.get("target")
    if target is None or target.ndim != 1 or target.dtype.kind not in "iu":
        return []
    return [classes[label] if 0 <= label < len(classes) else str(label) for label in target.tolist()]


def _thumbnail(trace: cs.Trace, image: Array) -> NDArray[np.uint8]:
    shown = np.clip(trace.card.preprocess.restore(image)[:3], 0, 1)
    small = shades(shrunk(shown, SIDE), 0, 1)
    return small[:1] if len(small) == 2 else small


def effect_info(trace_pass: TracePass, times: float) -> StepEffectInfo:
    """The loss after the same update with another learning rate.

    Raises:
        HTTPException: 404, the trace is not a training step.
    """
    check_step(trace_pass)
    effect = cs.step_effect(trace_pass.trace, times)
    after = effect.after if math.isfinite(effect.after) else math.nan
    return StepEffectInfo(trace=trace_pass.id, times=times, before=number(effect.before), after=number(after))


def check_step(trace_pass: TracePass) -> None:
    """Refuse a trace without an update.

    Raises:
        HTTPException: 404.
    """
    training_step = trace_pass.trace.training_step
    if training_step is None or not training_step.updated:
        raise HTTPException(404, "this trace is not a training step; ask for one at /api/training-steps.")


@router.post("/training-steps")
async def record(request: Request, body: TrainingStepRequest) -> TrainingStepInfo:
    """Repeat a step of a run, and record it with its gradients and updates."""
    workspace, client = request.app.state.gallery, client_of(request)

    def make() -> TrainingStepInfo:
        opened = workspace.model(body.model)
        trace_pass = workspace.traces.keep(step_name(opened, body.step), lambda: record_step(opened, body.step), client)
        return step_answer(trace_pass, body.step)

    info: TrainingStepInfo = await workspace.workers.run(request, REPEATING, make)
    return info


@router.get("/training-steps/{trace}/effect")
async def effect(request: Request, trace: Id, times: Annotated[float, Query(ge=0, le=1e6)] = 1.0) -> StepEffectInfo:
    """The loss of the same batch after the same update with another learning rate."""
    info: StepEffectInfo = await on(request, trace, lambda trace_pass: effect_info(trace_pass, times))
    return info


@router.get("/training-steps/{trace}/directions/{name}", response_class=Response, responses=dict(RAW))
async def direction(request: Request, trace: Id, name: Annotated[str, Path(max_length=200)]) -> Response:
    """What the optimizer multiplies by the learning rate and subtracts from a parameter."""

    def read(trace_pass: TracePass) -> Response:
        check_step(trace_pass)
        return raw(cs.update_direction(trace_pass.trace, name)[0])

    response: Response = await on(request, trace, read)
    return response


@router.get("/training-steps/{trace}/statistics/{name}")
async def statistic(request: Request, trace: Id, name: Annotated[str, Path(max_length=200)]) -> StatisticNumbers:
    """A running mean or variance of batch norm before and after a step, and the batch's own, for each channel."""
    numbers: StatisticNumbers = await on(request, trace, lambda trace_pass: statistic_numbers(trace_pass, name))
    return numbers
