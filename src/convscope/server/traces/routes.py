"""Routes of traces: run a forward pass, read its tensors as thumbnails or numbers, and compare two passes."""

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id
from convscope.server.jobs import client_of, stop_if_left
from convscope.server.session.workspace import Workspace
from convscope.server.traces import array_pictures
from convscope.server.traces.descriptions import difference_info, thumbnail, trace_info
from convscope.server.traces.passes import LIGHT, TracePass
from convscope.server.traces.schema import DifferenceInfo, TraceInfo, TraceRequest
from convscope.typing import Array

router = APIRouter(tags=["traces"])
MAX_VALUES = 4_000_000
"""Maximum count of numbers in one response."""
MAX_THUMBNAIL_VALUES = 16_000_000
"""Maximum bytes of thumbnails in one response."""
RAW: Mapping[int | str, dict[str, object]] = {
    200: {
        "description": "float32, little-endian, with headers X-Shape, X-Low and X-High; or a pack.",
        "content": {"application/octet-stream": {}},
    }
}
T = TypeVar("T")
StepId = Annotated[int, Path(ge=0)]


@router.post("/traces")
async def make(request: Request, body: TraceRequest) -> TraceInfo:
    """Run a model on an input."""
    workspace = request.app.state.gallery
    client = client_of(request)

    def run_pass() -> tuple[TraceInfo, bool]:
        opened = workspace.model(body.model)
        trace_pass = workspace.traces.make(opened, workspace.picture, body, client)
        return trace_info(trace_pass), trace_pass.size > LIGHT

    info: TraceInfo
    info, heavy = await workspace.workers.run(request, f"model {body.model}", run_pass)
    if heavy:
        request.app.state.tidy.soon()
    return info


async def on(request: Request, trace: str, work: Callable[[TracePass], T], line: str = "") -> T:
    """Run `work` on a cached trace in a worker thread, one job at a time per trace and `line`."""
    workspace: Workspace = request.app.state.gallery
    trace_pass = workspace.traces.get(trace, client_of(request))

    def quietly() -> T:
        with np.errstate(all="ignore"):  # infinite numbers are valid results
            return work(trace_pass)

    return await workspace.workers.run(request, f"trace {trace} {line}", quietly)


@router.get("/traces/{trace}")
async def read(request: Request, trace: Id) -> TraceInfo:
    """A cached trace."""
    return await on(request, trace, trace_info)


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
    """Thumbnails of steps' results, as a pack; of all visible steps by default."""

    def make_pack(trace_pass: TracePass) -> bytes:
        step_ids = (
            [s.id for s in trace_pass.trace.steps] if steps is None else list(dict.fromkeys(map(int, steps.split(","))))
        )
        items, size = [], 0
        for step_id in step_ids:
            stop_if_left()
            about, picture = thumbnail(trace_pass, trace_pass.step(step_id), slice(first, first + channels), side)
            items.append((about, picture))
            size += picture.size
            if size > MAX_THUMBNAIL_VALUES:
                raise HTTPException(413, "too many thumbnails for one response; request fewer steps or channels.")
        return array_pictures.pack_of_pictures(items)

    return Response(await on(request, trace, make_pack), media_type="application/octet-stream")


def raw(array: Array, extent: tuple[float, float] | None = None) -> Response:
    """A response of float32 numbers, with shape and range in its headers.

    Raises:
        HTTPException: 413, too many numbers for one response.
    """
    if array.size > MAX_VALUES:
        raise HTTPException(
            413, f"these are {array.size:,} numbers, and at most {MAX_VALUES:,} are sent; request a single channel."
        )
    headers = {"X-Shape": ",".join(map(str, array.shape))}
    low, high = array_pictures.extent(array) if extent is None else extent
    headers |= {"X-Low": str(array_pictures.number(low)), "X-High": str(array_pictures.number(high))}
    return Response(array_pictures.as_float32(array), media_type="application/octet-stream", headers=headers)


def _channel(array: Array, channel: int | None, name: str) -> Array:
    """One channel of a result, or all channels, without the batch axis."""
    first = array_pictures.first_image(array)
    if channel is None:
        return first
    if first.ndim < 2 or channel >= len(first):
        channels_text = f"channels 0 to {len(first) - 1}" if first.ndim > 1 else "no channels"
        raise HTTPException(404, f"{name} has {channels_text}; there is no channel {channel}.")
    plane: Array = first[channel]
    return plane


Channel = Annotated[int | None, Query(ge=0)]


@router.get("/traces/{trace}/steps/{step}/output", response_class=Response, responses=dict(RAW))
async def output(request: Request, trace: Id, step: StepId, channel: Channel = None) -> Response:
    """A step's numbers: one channel, or all."""

    def read_output(trace_pass: TracePass) -> Response:
        record = trace_pass.step(step)
        answer = raw(_channel(record.output, channel, record.name), trace_pass.extent(record))
        answer.headers["X-Typical"] = str(array_pictures.number(trace_pass.typical(record)))
        return answer

    return await on(request, trace, read_output)


@router.get("/traces/{trace}/input", response_class=Response, responses=dict(RAW))
async def image(request: Request, trace: Id, shown: bool = False) -> Response:
    """The input as the model received it; with `shown`, its pixels from 0 to 1, before normalization."""
    return await on(
        request,
        trace,
        lambda trace_pass: raw(trace_pass.model_input.picture if shown else trace_pass.model_input.array),
    )


@router.get("/traces/{trace}/parameters/{name}", response_class=Response, responses=dict(RAW))
async def parameter(
    request: Request,
    trace: Id,
    name: Annotated[str, Path(max_length=200)],
    first: Annotated[int, Query(ge=0)] = 0,
    count: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """A parameter's numbers in this pass: all, or `count` kernels starting at `first`, along the first axis."""

    def read_parameter(trace_pass: TracePass) -> Response:
        values = np.asarray(trace_pass.trace.parameters[name])
        part = values if values.ndim == 0 else values[first : None if count is None else first + count]
        return raw(part, array_pictures.extent(values))

    return await on(request, trace, read_parameter)


@router.get("/traces/{trace}/difference")
async def difference(request: Request, trace: Id, base: Id) -> DifferenceInfo:
    """The difference between two passes, step by step."""
    base_pass = request.app.state.gallery.traces.get(base, client_of(request), base=True)
    return await on(request, trace, lambda trace_pass: difference_info(base_pass, trace_pass))


@router.get("/traces/{trace}/steps/{step}/difference", response_class=Response, responses=dict(RAW))
async def step_difference(request: Request, trace: Id, step: StepId, base: Id, channel: Channel = None) -> Response:
    """The difference of one step's numbers from another pass: this pass minus the base."""
    base_pass = request.app.state.gallery.traces.get(base, client_of(request), base=True)

    def subtract(trace_pass: TracePass) -> Response:
        name = trace_pass.step(step).name
        return raw(_channel(cs.difference(base_pass.trace, trace_pass.trace).cells(name), channel, name))

    return await on(request, trace, subtract)


@router.get("/filtered", response_class=Response, responses=dict(RAW))
async def filtered(request: Request, trace: Id, kernel: Annotated[str, Query(max_length=60)]) -> Response:
    """The input filtered with a named kernel, as a grey picture from 0 to 1."""
    return await on(
        request, trace, lambda trace_pass: raw(cs.filters.apply_filter(trace_pass.model_input.picture, named(kernel)))
    )


def named(kernel: str) -> cs.filters.Filter:
    """A kernel by its name.

    Raises:
        HTTPException: 404, unknown name.
    """
    if kernel not in cs.filters.FILTERS:
        raise HTTPException(404, f"unknown kernel {kernel!r}; available: {', '.join(cs.filters.FILTERS)}.")
    return cs.filters.FILTERS[kernel]
