"""Routes of gradients: record a training step or a backward pass, and ask what another learning rate would do."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.gradients.backward import (
    backward_answer,
    backward_name,
    channel_contributions,
    record_backward,
)
from convscope.server.gradients.schema import (
    BackwardInfo,
    BackwardRequest,
    StepEffectInfo,
    TrainingStepInfo,
    TrainingStepRequest,
)
from convscope.server.gradients.training_steps import check_step, effect_info, record_step, step_answer, step_name
from convscope.server.http.message import Id
from convscope.server.jobs import client_of
from convscope.server.traces.array_pictures import planes_of
from convscope.server.traces.passes import TracePass
from convscope.server.traces.routes import RAW, StepId, on, raw

router = APIRouter(tags=["gradients"])
REPEATING = "training steps"
"""Steps are repeated one at a time: each seeds the random numbers of the whole process."""


@router.post("/training-steps")
async def record(request: Request, body: TrainingStepRequest) -> TrainingStepInfo:
    """Repeat a step of a run, and record it with its gradients and updates."""
    workspace, client = request.app.state.gallery, client_of(request)

    def make() -> TrainingStepInfo:
        opened = workspace.model(body.model)
        done = workspace.traces.keep(step_name(opened, body.step), lambda: record_step(opened, body.step), client)
        return step_answer(done, body.step)

    info: TrainingStepInfo = await workspace.workers.run(request, REPEATING, make)
    return info


@router.get("/training-steps/{trace}/effect")
async def effect(request: Request, trace: Id, times: Annotated[float, Query(ge=0, le=1e6)] = 1.0) -> StepEffectInfo:
    """The loss of the same batch after the same update with another learning rate."""
    info: StepEffectInfo = await on(request, trace, lambda done: effect_info(done, times))
    return info


@router.get("/training-steps/{trace}/directions/{name}", response_class=Response, responses=dict(RAW))
async def direction(request: Request, trace: Id, name: Annotated[str, Path(max_length=200)]) -> Response:
    """What the optimizer multiplies by the learning rate and subtracts from a parameter."""

    def read(done: TracePass) -> Response:
        check_step(done)
        return raw(cs.update_direction(done.trace, name)[0])

    response: Response = await on(request, trace, read)
    return response


@router.post("/gradients")
async def backward(request: Request, body: BackwardRequest) -> BackwardInfo:
    """Record the backward pass of an image, from the loss or from the score of a class."""
    workspace, client = request.app.state.gallery, client_of(request)

    def make() -> BackwardInfo:
        opened = workspace.model(body.forward.model)
        name = backward_name(opened, body)
        done = workspace.traces.keep(name, lambda: record_backward(opened, workspace.picture, body), client)
        return backward_answer(done, body)

    info: BackwardInfo = await workspace.workers.run(request, f"model {body.forward.model}", make)
    return info


@router.get("/gradients/{trace}/steps/{step}/blocked", response_class=Response, responses=dict(RAW))
async def blocked(request: Request, trace: Id, step: StepId, channel: Annotated[int, Query(ge=0)] = 0) -> Response:
    """The cells of a gradient that are 0 because an activation did not pass: 1 there, 0 elsewhere."""

    def read(done: TracePass) -> Response:
        if step not in done.blocked:
            raise HTTPException(404, f"no activation blocks the gradient {done.step(step).name}.")
        planes = planes_of(done.blocked[step].astype(np.float32))
        if channel >= len(planes):
            raise HTTPException(404, f"{done.step(step).name} has channels 0 to {len(planes) - 1}, not {channel}.")
        return raw(planes[channel])

    response: Response = await on(request, trace, read)
    return response


@router.get("/gradients/{trace}/steps/{step}/channels", response_class=Response, responses=dict(RAW))
async def channels(request: Request, trace: Id, step: StepId) -> Response:
    """What each channel of the forward step adds to the number that is differentiated."""

    def read(done: TracePass) -> Response:
        return raw(channel_contributions(done, done.step(step)).astype(np.float32))

    response: Response = await on(request, trace, read)
    return response
