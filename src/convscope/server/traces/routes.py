"""Routes of traces: run a forward pass, read its tensors as thumbnails or numbers, and compare two passes."""

import math
from collections.abc import Callable, Mapping
from itertools import dropwhile, takewhile
from threading import Event
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id
from convscope.server.jobs import client_of
from convscope.server.session.workspace import Workspace
from convscope.server.traces import array_pictures
from convscope.server.traces.array_pictures import number
from convscope.server.traces.passes import LIGHT, TracePass
from convscope.server.traces.schema import (
    Answer,
    DifferenceInfo,
    ParameterInfo,
    StepChange,
    StepInfo,
    TraceInfo,
    TraceRequest,
)
from convscope.typing import Array

MAX_ANSWERS = 20
"""Maximum number of classes in a response."""


def trace_info(done: TracePass) -> TraceInfo:
    """The description of a pass, without its numbers; computed once."""
    if done.info is None:
        done.info = _trace_info(done)
    return done.info


def _trace_info(done: TracePass) -> TraceInfo:
    trace = done.trace
    made_by = _output_steps(done)
    has_softmax = any(step.op == "_softmax" for step in made_by)
    answers: list[Answer] = []
    notes: list[str] = []
    if done.error is None:
        answers, notes = answers_of(done.model, trace.output, are_probabilities=has_softmax)
    return TraceInfo(
        id=done.id,
        model=done.opened.id,
        input=done.taken.info(),
        steps=[step_info(step) for step in trace.steps],
        modules=dict(trace.modules),
        parameters=[
            ParameterInfo(name=name, shape=list(shape), changed=name in done.edited) for name, shape in _shapes(trace)
        ],
        answers=answers,
        output=made_by[0].id if made_by else None,
        notes=[*done.notes, *notes],
        error=done.error,
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


def difference_info(base: TracePass, done: TracePass) -> DifferenceInfo:
    """The difference between two passes, step by step."""
    difference = cs.difference(base.trace, done.trace)
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


def tensor_of(output: object) -> Array | None:
    """The output array of a model, also if it returns a dictionary with logits or a single entry."""
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values())) if len(output) == 1 else None)
    return output if isinstance(output, np.ndarray) else None


def _output_steps(done: TracePass) -> list[cs.Step]:
    """The visible steps that hold the model's output, the last one first; those before it differ only in shape."""
    array = tensor_of(done.trace.output) if done.error is None else None
    if array is None:
        return []
    row = array.ravel()

    def differs(step: cs.Step) -> bool:
        made = step.output.ravel()
        return not np.array_equal(made, row, equal_nan=made.dtype.kind == "f")

    sized = (step for step in reversed(done.trace.steps) if math.prod(step.shape) == row.size)
    from_output = dropwhile(differs, sized)
    return [*takewhile(lambda step: not differs(step), from_output)]


def _shapes(trace: cs.Trace) -> list[tuple[str, tuple[int, ...]]]:
    outside = {ref.name: ref.shape for (kind, _), ref in trace.outside.items() if kind == "parameter"}
    return [(name, outside[name]) for name in trace.parameters if name in outside]


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
    left = Event()

    def run_pass() -> tuple[TraceInfo, bool]:
        opened = workspace.model(body.model)
        done = workspace.traces.make(opened, workspace.picture, body, client, left)
        return trace_info(done), done.size > LIGHT

    info: TraceInfo
    info, heavy = await workspace.workers.run(request, f"model {body.model}", run_pass, left)
    if heavy:
        request.app.state.tidy.soon()
    return info


async def on(request: Request, trace: str, work: Callable[[TracePass], T], line: str = "") -> T:
    """Run `work` on a cached trace in a worker thread, one job at a time per trace and `line`."""
    workspace: Workspace = request.app.state.gallery
    done = workspace.traces.get(trace, client_of(request))

    def quietly() -> T:
        with np.errstate(all="ignore"):  # infinite numbers are valid results
            return work(done)

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

    def make_pack(done: TracePass) -> bytes:
        step_ids = (
            [s.id for s in done.trace.steps] if steps is None else list(dict.fromkeys(map(int, steps.split(","))))
        )
        items, size = [], 0
        for step_id in step_ids:
            about, picture = thumbnail(done, done.step(step_id), slice(first, first + channels), side)
            items.append((about, picture))
            size += picture.size
            if size > MAX_THUMBNAIL_VALUES:
                raise HTTPException(413, "too many thumbnails for one response; request fewer steps or channels.")
        return array_pictures.pack_of_pictures(items)

    return Response(await on(request, trace, make_pack), media_type="application/octet-stream")


def thumbnail(done: TracePass, step: cs.Step, which: slice, side: int) -> tuple[dict[str, object], NDArray[np.uint8]]:
    """The planes `which` of a step's result as a picture with its description; a single plane is always included."""
    planes = array_pictures.planes_of(step.output)
    which = slice(None) if len(planes) == 1 else which
    low, high = done.extent(step)
    chosen = planes[which]
    picture = array_pictures.shades(array_pictures.shrunk(chosen, side), low, high)
    blocked = done.blocked.get(step.id)
    if blocked is not None:  # 0 stands for cells at which an activation did not pass, the numbers begin at 1
        closed = array_pictures.shrunk(array_pictures.planes_of(blocked)[which].astype(np.float64), side) > 0.5
        picture = np.where(closed, 0, np.maximum(picture, 1)).astype(np.uint8)
    about = {
        "id": step.id,
        "channels": list(range(len(planes)))[which],
        "total": len(planes),
        "low": array_pictures.number(low),
        "high": array_pictures.number(high),
        "typical": array_pictures.number(done.typical(step)),
        "label": None,
        "blocked": blocked is not None,
    }
    return about, picture


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
    one = array_pictures.first_image(array)
    if channel is None:
        return one
    if one.ndim < 2 or channel >= len(one):
        have = f"channels 0 to {len(one) - 1}" if one.ndim > 1 else "no channels"
        raise HTTPException(404, f"{name} has {have}; there is no channel {channel}.")
    plane: Array = one[channel]
    return plane


Channel = Annotated[int | None, Query(ge=0)]


@router.get("/traces/{trace}/steps/{step}/output", response_class=Response, responses=dict(RAW))
async def output(request: Request, trace: Id, step: StepId, channel: Channel = None) -> Response:
    """A step's numbers: one channel, or all."""

    def read_output(done: TracePass) -> Response:
        record = done.step(step)
        answer = raw(_channel(record.output, channel, record.name), done.extent(record))
        answer.headers["X-Typical"] = str(array_pictures.number(done.typical(record)))
        return answer

    return await on(request, trace, read_output)


@router.get("/traces/{trace}/input", response_class=Response, responses=dict(RAW))
async def image(request: Request, trace: Id, shown: bool = False) -> Response:
    """The input as the model received it; with `shown`, its pixels from 0 to 1, before normalization."""
    return await on(request, trace, lambda done: raw(done.taken.picture if shown else done.taken.array))


@router.get("/traces/{trace}/parameters/{name}", response_class=Response, responses=dict(RAW))
async def parameter(
    request: Request,
    trace: Id,
    name: Annotated[str, Path(max_length=200)],
    first: Annotated[int, Query(ge=0)] = 0,
    count: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """A parameter's numbers in this pass: all, or `count` kernels starting at `first`, along the first axis."""

    def read_parameter(done: TracePass) -> Response:
        whole = np.asarray(done.trace.parameters[name])
        part = whole if whole.ndim == 0 else whole[first : None if count is None else first + count]
        return raw(part, array_pictures.extent(whole))

    return await on(request, trace, read_parameter)


@router.get("/traces/{trace}/difference")
async def difference(request: Request, trace: Id, base: Id) -> DifferenceInfo:
    """The difference between two passes, step by step."""
    other = request.app.state.gallery.traces.get(base, client_of(request), base=True)
    return await on(request, trace, lambda done: difference_info(other, done))


@router.get("/traces/{trace}/steps/{step}/difference", response_class=Response, responses=dict(RAW))
async def step_difference(request: Request, trace: Id, step: StepId, base: Id, channel: Channel = None) -> Response:
    """The difference of one step's numbers from another pass: this pass minus the base."""
    other = request.app.state.gallery.traces.get(base, client_of(request), base=True)

    def subtract(done: TracePass) -> Response:
        name = done.step(step).name
        return raw(_channel(cs.difference(other.trace, done.trace).cells(name), channel, name))

    return await on(request, trace, subtract)


@router.get("/filtered", response_class=Response, responses=dict(RAW))
async def filtered(request: Request, trace: Id, kernel: Annotated[str, Query(max_length=60)]) -> Response:
    """The input filtered with a named kernel, as a grey picture from 0 to 1."""
    return await on(request, trace, lambda done: raw(cs.filters.apply_filter(done.taken.picture, named(kernel))))


def named(kernel: str) -> cs.filters.Filter:
    """A kernel by its name.

    Raises:
        HTTPException: 404, unknown name.
    """
    if kernel not in cs.filters.FILTERS:
        raise HTTPException(404, f"unknown kernel {kernel!r}; available: {', '.join(cs.filters.FILTERS)}.")
    return cs.filters.FILTERS[kernel]
