"""Routes of trainings: list the options, start, command and follow a training."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request

from convscope.server.http.message import Id
from convscope.server.jobs.event_stream import Events, lines
from convscope.server.trainings.registry import Busy, Trainings
from convscope.server.trainings.schema import TrainCommand, TrainingEvent, TrainingInfo, TrainOptions, TrainRequest

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
def options(trainings: Here) -> TrainOptions:
    """The models that fit each data source."""
    return trainings.options()


@router.get("/trainings")
def started(trainings: Here) -> list[TrainingInfo]:
    """All trainings that this server has started."""
    return trainings.infos()


@router.post("/trainings")
def start(trainings: Here, wanted: TrainRequest) -> TrainingInfo:
    """Start a training in its own process."""
    try:
        return trainings.start(wanted)
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
