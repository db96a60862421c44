"""Routes of traces: a pass through a model, its maps as pictures and as numbers, and what differs between two."""

from collections.abc import Callable, Mapping
from threading import Event
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id
from convscope.server.jobs.workers import client_of
from convscope.server.traces import array_pictures, responses
from convscope.server.traces.passes import LIGHT, TracePass
from convscope.server.traces.schema import DifferenceInfo, TraceInfo, TraceRequest

router = APIRouter(tags=["traces"])
MOST = 4_000_000
"""Numbers in one answer."""
MOST_THUMBNAILS = 16_000_000
"""Bytes of pictures in one answer."""
RAW: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "float32, little-endian, with headers X-Shape, X-Low and X-High; or a pack.",
        "content": {"application/octet-stream": {}},
    }
}
StepId = Annotated[int, Path(ge=0)]


@router.post("/traces")
async def make(request: Request, body: TraceRequest) -> TraceInfo:
    """Run a model on an input."""
    gallery = request.app.state.gallery
    client = client_of(request)

    left = Event()

    def made() -> tuple[TraceInfo, bool]:
        opened = gallery.model(body.model)
        done = gallery.traces.make(opened, gallery.picture, body, client, left)
        return responses.trace_info(done), done.size > LIGHT

    info: TraceInfo
    info, heavy = await gallery.workers.run(request, f"model {body.model}", made, left)
    if heavy:
        request.app.state.tidy.soon()
    return info


async def on(request: Request, trace: str, work: Callable[[TracePass], Any], line: str = "") -> Any:
    """What `work` makes of a trace, when it is its turn: one piece of work at a time for each trace and `line`."""
    gallery = request.app.state.gallery
    done: TracePass = gallery.traces.get(trace, client_of(request))

    def worked() -> Any:
        with np.errstate(all="ignore"):  # infinite numbers are answers too
            return work(done)

    return await gallery.workers.run(request, f"trace {trace} {line}", worked)


@router.get("/traces/{trace}")
async def read(request: Request, trace: Id) -> TraceInfo:
    """A pass that was made before."""
    info: TraceInfo = await on(request, trace, responses.trace_info)
    return info


@router.get("/traces/{trace}/thumbnails", response_class=Response, responses=dict(RAW))
async def thumbnails(
    request: Request,
    *,
    trace: Id,
    steps: Annotated[str | None, Query(max_length=20_000, pattern=r"^\d{1,9}(,\d{1,9})*$")] = None,
    channels: Annotated[int, Query(ge=1, le=4096)] = 16,
    side: Annotated[int, Query(ge=1, le=256)] = 32,
    first: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Small pictures of steps' results, as a pack; all visible steps where none are named."""

    def made(done: TracePass) -> bytes:
        wanted = [s.id for s in done.trace.steps] if steps is None else list(dict.fromkeys(map(int, steps.split(","))))
        items, size = [], 0
        for number in wanted:
            about, picture = thumbnail(done, done.step(number), slice(first, first + channels), side)
            items.append((about, picture))
            size += picture.size
            if size > MOST_THUMBNAILS:
                raise HTTPException(413, "these pictures are too many for one answer; ask for fewer steps or channels.")
        return array_pictures.pack_of_pictures(items)

    return Response(await on(request, trace, made), media_type="application/octet-stream")


def thumbnail(done: TracePass, step: cs.Step, which: slice, side: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """One step's planes as a picture, and what is said of it; the only plane there is always is one of them."""
    planes = array_pictures.planes_of(step.output)
    which = slice(None) if len(planes) == 1 else which
    low, high = done.extent(step)
    chosen = planes[which]
    picture = array_pictures.shades(array_pictures.shrunk(chosen, side), low, high)
    about = {
        "id": step.id,
        "channels": list(range(len(planes)))[which],
        "total": len(planes),
        "low": array_pictures.number(low),
        "high": array_pictures.number(high),
        "label": None,
    }
    return about, picture


def raw(array: NDArray[Any], extent: tuple[float, float] | None = None) -> Response:
    """Numbers as they are, float32, with their shape.

    Raises:
        HTTPException: 413, too many for one answer.
    """
    if array.size > MOST:
        raise HTTPException(
            413, f"these are {array.size:,} numbers, and at most {MOST:,} are sent; ask for one channel."
        )
    headers = {"X-Shape": ",".join(map(str, array.shape))}
    low, high = array_pictures.extent(array) if extent is None else extent
    headers |= {"X-Low": str(array_pictures.number(low)), "X-High": str(array_pictures.number(high))}
    return Response(array_pictures.as_float32(array), media_type="application/octet-stream", headers=headers)


def _channel(array: NDArray[Any], channel: int | None, name: str) -> NDArray[Any]:
    """One channel of a result, or all of the first image."""
    one = array_pictures.first_image(array)
    if channel is None:
        return one
    if one.ndim < 2 or channel >= len(one):
        have = f"channels 0 to {len(one) - 1}" if one.ndim > 1 else "no channels"
        raise HTTPException(404, f"{name} has {have}, and channel {channel} was asked for.")
    plane: NDArray[Any] = one[channel]
    return plane


Channel = Annotated[int | None, Query(ge=0)]


@router.get("/traces/{trace}/steps/{step}/output", response_class=Response, responses=dict(RAW))
async def output(request: Request, trace: Id, step: StepId, channel: Channel = None) -> Response:
    """A step's numbers: one channel, or all."""

    def made(done: TracePass) -> Response:
        found = done.step(step)
        return raw(_channel(found.output, channel, found.name), done.extent(found))

    answer: Response = await on(request, trace, made)
    return answer


@router.get("/traces/{trace}/input", response_class=Response, responses=dict(RAW))
async def image(request: Request, trace: Id, shown: bool = False) -> Response:
    """The input as the model got it; `shown`: from 0 to 1, before it was normalized."""
    answer: Response = await on(request, trace, lambda done: raw(done.taken.picture if shown else done.taken.array))
    return answer


@router.get("/traces/{trace}/parameters/{name}", response_class=Response, responses=dict(RAW))
async def parameter(
    request: Request,
    trace: Id,
    name: Annotated[str, Path(max_length=200)],
    first: Annotated[int, Query(ge=0)] = 0,
    count: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """A parameter's numbers, as this pass used them: all, or `count` kernels from `first` on, along its first axis."""

    def made(done: TracePass) -> Response:
        whole = np.asarray(done.trace.parameters[name])
        part = whole if whole.ndim == 0 else whole[first : None if count is None else first + count]
        return raw(part, array_pictures.extent(whole))

    answer: Response = await on(request, trace, made)
    return answer


@router.get("/traces/{trace}/difference")
async def difference(request: Request, trace: Id, base: Id) -> DifferenceInfo:
    """What differs between two passes, step by step."""
    other = request.app.state.gallery.traces.get(base, client_of(request), base=True)
    info: DifferenceInfo = await on(request, trace, lambda done: responses.difference_info(other, done))
    return info


@router.get("/traces/{trace}/steps/{step}/difference", response_class=Response, responses=dict(RAW))
async def step_difference(request: Request, trace: Id, step: StepId, base: Id, channel: Channel = None) -> Response:
    """How one step's numbers differ from those of another pass: this minus the other."""
    other = request.app.state.gallery.traces.get(base, client_of(request), base=True)

    def made(done: TracePass) -> Response:
        name = done.step(step).name
        return raw(_channel(cs.difference(other.trace, done.trace).cells(name), channel, name))

    answer: Response = await on(request, trace, made)
    return answer


@router.get("/filtered", response_class=Response, responses=dict(RAW))
async def filtered(request: Request, trace: Id, kernel: Annotated[str, Query(max_length=60)]) -> Response:
    """A named kernel on the input, as a grey picture from 0 to 1."""
    answer: Response = await on(
        request, trace, lambda done: raw(cs.filters.apply_filter(done.taken.picture, named(kernel)))
    )
    return answer


def named(kernel: str) -> Any:
    """A kernel by its name.

    Raises:
        HTTPException: 404, none has it.
    """
    if kernel not in cs.filters.FILTERS:
        raise HTTPException(404, f"no kernel is called {kernel!r}; there are {', '.join(cs.filters.FILTERS)}.")
    return cs.filters.FILTERS[kernel]
