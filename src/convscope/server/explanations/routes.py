"""Routes of explanations: why a number is what it is, whether that is proved, and what each pixel adds to it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from convscope.server.explanations.explanations import explained, explanation_of, proved
from convscope.server.explanations.explanations import probability as explained_probability
from convscope.server.explanations.origins import contributions_pack, field_info, paths_info, walk_info
from convscope.server.explanations.schema import Explained, FieldInfo, NoPaths, PathsInfo, Proof, WalkInfo
from convscope.server.http.message import Id
from convscope.server.traces.descriptions import trace_info
from convscope.server.traces.passes import TracePass
from convscope.server.traces.routes import RAW, StepId, on

router = APIRouter(tags=["explanations"])
PLACE = r"(image|\d{1,9}):\d{1,9}(,\d{1,9})*"
Places = Annotated[str, Query(max_length=4000, pattern=rf"^{PLACE}(;{PLACE})*$")]
"""Steps by their ids, each with a cell: 3:2,4,4;2:2,3,3;image:0,9,9."""
Cell = Annotated[str, Query(max_length=100, pattern=r"^(\d{1,9}(,\d{1,9})*)?$")]


def _cell(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


@router.get("/traces/{trace}/steps/{step}/explain")
async def explain(
    request: Request,
    *,
    trace: Id,
    step: StepId,
    cell: Cell,
    every: Annotated[bool, Query(alias="all")] = False,
    channel: Annotated[int | None, Query(ge=0)] = None,
) -> Explained:
    """Why a number is what it is."""

    def answer(trace_pass: TracePass) -> Explained:
        return explained(trace_pass, trace_pass.step(step), _cell(cell), every=every, channel=channel)

    explanation: Explained = await on(request, trace, answer)
    return explanation


@router.get("/traces/{trace}/probability/explain")
async def probability(request: Request, trace: Id, cell: Annotated[int, Query(ge=0, le=2**31 - 1)]) -> Explained:
    """Why a class has its probability, where the model answers with logits."""

    def answer(trace_pass: TracePass) -> Explained:
        info = trace_info(trace_pass)
        if info.output is None or not info.answers or info.answers[0].probability is None:
            raise HTTPException(
                404, "the model gives no logits for this input, so there are no probabilities besides its own numbers."
            )
        return explained_probability(trace_pass, trace_pass.step(info.output), cell)

    explanation: Explained = await on(request, trace, answer)
    return explanation


@router.get("/traces/{trace}/steps/{step}/proof")
async def proof(request: Request, trace: Id, step: StepId, cell: Cell) -> Proof:
    """Whether a number is proved; its step is recomputed."""

    def answer(trace_pass: TracePass) -> Proof:
        return proved(trace_pass, explanation_of(trace_pass, trace_pass.step(step), _cell(cell)))

    result: Proof = await on(request, trace, answer)
    return result


@router.get("/traces/{trace}/steps/{step}/paths")
async def paths(
    request: Request,
    trace: Id,
    step: StepId,
    cell: Cell,
    minus: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> PathsInfo | NoPaths:
    """What the image adds to a number by way of the channels of the first and the last convolution."""

    def answer(trace_pass: TracePass) -> PathsInfo | NoPaths:
        return paths_info(trace_pass, trace_pass.step(step), _cell(cell), minus)

    result: PathsInfo | NoPaths = await on(request, trace, answer, "slow")
    return result


@router.get("/traces/{trace}/walk")
async def walk(request: Request, trace: Id, through: Places) -> WalkInfo:
    """What a pixel adds to a number by way of the numbers of a walk."""
    stops = [place.split(":") for place in through.split(";")]
    numbers = [(None if step == "image" else int(step), _cell(cell)) for step, cell in stops]

    def answer(trace_pass: TracePass) -> WalkInfo:
        return walk_info(trace_pass, numbers)

    result: WalkInfo = await on(request, trace, answer, "slow")
    return result


@router.get("/traces/{trace}/steps/{step}/field")
async def field(request: Request, trace: Id, step: StepId, cell: Cell) -> FieldInfo:
    """The pixels that a number can depend on."""

    def answer(trace_pass: TracePass) -> FieldInfo:
        return field_info(trace_pass, trace_pass.step(step), _cell(cell))

    result: FieldInfo = await on(request, trace, answer, "field")
    return result


@router.get("/traces/{trace}/steps/{step}/contributions", response_class=Response, responses=dict(RAW))
async def contributions(request: Request, trace: Id, step: StepId, cell: Cell) -> Response:
    """What each pixel adds to a number, as a pack."""

    def answer(trace_pass: TracePass) -> bytes:
        return contributions_pack(trace_pass, trace_pass.step(step), _cell(cell))

    content = await on(request, trace, answer, "slow")
    return Response(content, media_type="application/octet-stream")
