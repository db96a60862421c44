"""Routes of trainings: list the options, start, command and follow a training."""

import math
import warnings
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from fastapi.responses import Response

import convscope as cs
from convscope.server.http.message import Id
from convscope.server.jobs import Events, lines
from convscope.server.session.model_handle import ModelHandle
from convscope.server.traces.array_pictures import extent
from convscope.server.traces.routes import RAW, raw
from convscope.server.trainings.registry import Busy, Trainings
from convscope.server.trainings.schema import (
    Metrics,
    TrainCommand,
    TrainingEvent,
    TrainingInfo,
    TrainOptions,
    TrainRequest,
)
from convscope.server.trainings.training import Point, shown
from convscope.server.trainings.worker import POINTS

LISTENERS = 32
"""Maximum number of event streams per training."""

router = APIRouter(tags=["training"])


def _trainings(request: Request) -> Trainings:
    trainings: Trainings | None = request.app.state.trainings
    if trainings is None:
        raise HTTPException(404, "this server cannot train.")
    return trainings


Here = Annotated[Trainings, Depends(_trainings)]
TrainingId = Annotated[Id, Path(alias="id")]


@router.get("/training")
async def options(request: Request, trainings: Here) -> TrainOptions:
    """The models that fit each data source."""
    info: TrainOptions = await request.app.state.gallery.workers.run(request, "training", trainings.options)
    return info


@router.get("/trainings")
def started(trainings: Here) -> list[TrainingInfo]:
    """All trainings that this server has started."""
    return trainings.infos()


@router.post("/trainings")
def start(trainings: Here, body: TrainRequest) -> TrainingInfo:
    """Start a training in its own process."""
    try:
        return trainings.start(body)
    except Busy as error:
        raise HTTPException(409, str(error)) from None


@router.post("/trainings/{id}")
def command(trainings: Here, name: TrainingId, word: TrainCommand) -> TrainingInfo:
    """Pause, resume, step or stop a training."""
    try:
        return trainings.command(name, word)
    except Busy as error:
        raise HTTPException(409, str(error)) from None


STREAM = {"content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/TrainingEvent"}}}}
"""The response's OpenAPI description: the data of each event is a `TrainingEvent`."""


@router.get("/trainings/{id}/events", response_model=TrainingEvent, responses={200: STREAM})
async def events(trainings: Here, name: TrainingId) -> Events:
    """Follow a training: its metrics so far, then further events until it ends."""
    training = trainings.get(name)
    if training.listeners >= LISTENERS:
        raise HTTPException(503, f"{LISTENERS} pages are following {name} already; close one.")
    return Events(lines(training.events()))


@router.get("/models/{model}/metrics")
async def metrics(request: Request, model: Id) -> Metrics:
    """What a model's run measured while it was trained; nothing for a model that does not belong to a run."""
    workspace = request.app.state.gallery
    read_metrics = partial(metrics_of, workspace.model(model).run)
    info: Metrics = await workspace.workers.run(request, f"metrics {model}", read_metrics)
    return info


def metrics_of(run: cs.Run | None) -> Metrics:
    """The metrics of a run for curves; lines that are damaged are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about these lines
        events = [] if run is None else run.history
    points: list[Point] = []
    for kind in ("train", "epoch"):
        chosen = [event for event in events if event["event"] == kind]
        every = max(1, math.ceil(len(chosen) / POINTS))
        points += [shown(event) for event in chosen[::every]]
    return Metrics(points=points, total=max((event["step"] for event in events), default=0))


@router.get("/models/{model}/moments", response_class=Response, responses=dict(RAW))
async def moments(
    request: Request,
    *,
    model: Id,
    parameter: Annotated[str, Query(max_length=200)],
    steps: Annotated[str, Query(max_length=400, pattern=r"^\d{1,9}(,\d{1,9}){0,23}$")],
    kernel: Annotated[int, Query(ge=0)],
) -> Response:
    """One kernel or unit of a parameter at some training steps; the range is that of all kernels at all these steps."""
    workspace = request.app.state.gallery
    step_numbers = [int(step) for step in steps.split(",")]
    read_moments = partial(moments_of, workspace.model(model), parameter, step_numbers, kernel)
    answer: Response = await workspace.workers.run(request, f"moments {model}", read_moments)
    return answer


def moments_of(opened: ModelHandle, parameter: str, steps: list[int], kernel: int) -> Response:
    """The numbers of a kernel, shape (steps, ...).

    Raises:
        HTTPException: 404, no weights were kept at a step, or the parameter has no such kernel.
    """
    parts, ends = [], []
    for step in steps:
        weights = opened.weights_at(step)
        if parameter not in weights or weights[parameter].ndim < 1 or kernel >= len(weights[parameter]):
            raise HTTPException(404, f"{opened.name} has no kernel {kernel} of a parameter {parameter!r}.")
        ends.append(extent(weights[parameter]))
        parts.append(weights[parameter][kernel])
    low, high = np.array(ends).T
    return raw(np.stack(parts), (float(low.min()), float(high.max())))
