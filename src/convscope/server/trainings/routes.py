"""Routes of trainings: what can be trained, start, command, follow."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request

from convscope.server.http.message import Id
from convscope.server.jobs.event_stream import Events, lines
from convscope.server.trainings.registry import Busy, Trainings
from convscope.server.trainings.schema import TrainCommand, TrainingEvent, TrainingInfo, TrainOptions, TrainRequest

LISTENERS = 32
"""Streams that one training may have."""

router = APIRouter(tags=["training"])


def _trainings(request: Request) -> Trainings:
    found: Trainings | None = request.app.state.trainings
    if found is None:
        raise HTTPException(404, "this server trains nothing.")
    return found


Here = Annotated[Trainings, Depends(_trainings)]
TrainingId = Annotated[Id, Path(alias="id")]


@router.get("/training")
def options(trainings: Here) -> TrainOptions:
    """What can be trained on what."""
    return trainings.options()


@router.get("/trainings")
def started(trainings: Here) -> list[TrainingInfo]:
    """Every training that this server started."""
    return trainings.infos()


@router.post("/trainings")
def start(trainings: Here, wanted: TrainRequest) -> TrainingInfo:
    """Start a training in a process of its own."""
    try:
        return trainings.start(wanted)
    except Busy as error:
        raise HTTPException(409, str(error)) from None


@router.post("/trainings/{id}")
def command(trainings: Here, name: TrainingId, word: TrainCommand) -> TrainingInfo:
    """Pause, resume, step or stop."""
    try:
        return trainings.command(name, word)
    except Busy as error:
        raise HTTPException(409, str(error)) from None


STREAM = {"content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/TrainingEvent"}}}}
"""What follows, for the OpenAPI document: each event's data is a `TrainingEvent`."""


@router.get("/trainings/{id}/events", response_model=TrainingEvent, responses={200: STREAM})
async def events(trainings: Here, name: TrainingId) -> Events:
    """Follow a training: its metrics so far, then what happens, until it is over."""
    training = trainings.get(name)
    if training.listeners >= LISTENERS:
        raise HTTPException(503, f"{LISTENERS} pages follow {name} already; close one.")
    return Events(lines(training.events()))
