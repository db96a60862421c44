"""Routes of probes: which questions there are, ask one, follow it, cancel it, read its answer."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id
from convscope.server.jobs import Events, lines
from convscope.server.probes import requests
from convscope.server.probes.catalog import info
from convscope.server.probes.schema import ProbeAnswer, ProbeCommand, ProbeInfo, ProbeRequest, QuestionInfo
from convscope.server.probes.service import ProbeService, RunningProbe

FOLLOWERS = 32
"""Streams that one question may have."""

router = APIRouter(tags=["probes"])
ProbeId = Annotated[Id, Path(alias="id")]


def _probes(request: Request) -> ProbeService:
    service: ProbeService = request.app.state.probes
    return service


@router.get("/questions")
def questions() -> list[QuestionInfo]:
    """The questions that can be asked."""
    return [info(probe) for probe in cs.probe.PROBES.values()]


@router.get("/probes")
def asked(request: Request) -> list[ProbeInfo]:
    """The questions that were asked and are not forgotten."""
    return [probe.info() for probe in _probes(request).all()]


@router.post("/probes")
async def ask(request: Request, body: ProbeRequest) -> ProbeInfo:
    """Ask a question, of copies of the models; the same question again gives the answer that is there."""
    gallery, probes = request.app.state.gallery, _probes(request)
    arguments = await gallery.workers.run(request, "session", lambda: requests.resolve(gallery, body))
    running = probes.find(arguments.id)
    if running is not None:
        return running.info()
    probes.check_room()  # before models are copied in vain
    models = [await gallery.workers.run(request, f"model {name}", copy) for name, copy in requests.copies(arguments)]
    subject = await gallery.workers.run(request, "", lambda: requests.subject(gallery, arguments, models))
    return probes.ask(arguments, lambda progress: requests.answer(gallery, arguments, subject, progress)).info()


@router.get("/probes/{id}")
def read(request: Request, name: ProbeId) -> ProbeInfo:
    """The progress of an answer."""
    return _probes(request).get(name).info()


@router.post("/probes/{id}")
def command(request: Request, name: ProbeId, _word: ProbeCommand) -> ProbeInfo:
    """Cancel it: there is no other command."""
    return _probes(request).cancel(name).info()


STREAM = {"content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ProbeInfo"}}}}
"""The event stream for the OpenAPI document: each event's data is a `ProbeInfo`."""


@router.get("/probes/{id}/events", response_model=ProbeInfo, responses={200: STREAM})
async def events(request: Request, name: ProbeId) -> Events:
    """Follow a question until it is over."""
    probe = _probes(request).get(name)
    if len(probe.followers) >= FOLLOWERS:
        raise HTTPException(503, f"{FOLLOWERS} pages follow this question already; close one.")
    return Events(lines(probe.events()))


@router.get("/probes/{id}/answer")
def answer(request: Request, name: ProbeId) -> ProbeAnswer:
    """The answer."""
    return _answered(_probes(request).get(name)).shown


@router.get("/probes/{id}/picture", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
def picture(request: Request, name: ProbeId) -> Response:
    """The picture of what was found."""
    answered = _answered(_probes(request).get(name))
    if not answered.svg:
        raise HTTPException(404, "this answer has no picture; ask for one step, and it has.")
    return Response(answered.svg, media_type="image/svg+xml")


@router.get("/probes/{id}/json", response_class=Response, responses={200: {"content": {"application/json": {}}}})
def as_json(request: Request, name: ProbeId) -> Response:
    """The result as `convscope probe NAME --json` prints it."""
    return Response(_answered(_probes(request).get(name)).json, media_type="application/json")


def _answered(probe: RunningProbe) -> requests.ProbeResult:
    """The answer of a question that has one.

    Raises:
        HTTPException: 400, it failed, for this reason; 409, it is under way or was cancelled.
    """
    if probe.answer is not None:
        return probe.answer
    if probe.state == "failed":
        raise HTTPException(400, probe.message)
    raise HTTPException(409, "this question has no answer: it is under way, or it was cancelled.")
