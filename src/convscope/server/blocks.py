"""Networks of blocks on the page: their kinds and templates, their plan as arithmetic, their code, and how they open.

A list is data: `cs.blocks` checks it, nothing of it is executed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.http.message import Id, Message
from convscope.server.session.schema import SourceInfo
from convscope.server.session.workspace import Workspace

MODEL = "blocks"
"""The built-in network that is built from a list."""
BLOCKS = 64
"""Largest number of blocks of a request: more than `cs.blocks` takes, which says so, are not read."""

BY_HAND = 4_000
"""Largest number of weights of a parameter given by hand on the page; each event of a training repeats its request."""

Weights = Annotated[list[float], Field(max_length=BY_HAND)]


class HasSources(Protocol):
    """The part of the workspace that a plan uses."""

    def sources(self) -> Sequence[SourceInfo]:
        """The open data sources."""


class BlockValues(Message):
    """Numbers given by hand, all in one row."""

    weight: Weights | None = None
    bias: Weights | None = None


class BlockSpec(Message):
    """One block, perhaps with settings that it cannot have: the plan says so."""

    block: str = Field(max_length=20)
    kernels: int | float | None = None
    size: int | float | None = None
    stride: int | float | None = None
    padding: int | float | None = None
    units: int | float | None = None
    slope: float | None = None
    p: float | None = None
    bias: bool | None = None
    values: BlockValues | None = None


Specs = Annotated[list[BlockSpec], Field(max_length=BLOCKS)]


class BlockSetting(Message):
    """A setting of a block."""

    name: str
    kind: Literal["whole", "number", "flag"]
    default: int | float | bool | None
    low: float
    high: float
    unset: str
    """The setting, or "classes", that decides if it is left out; empty if there is a default."""


class BlockKind(Message):
    """A kind of block."""

    name: str
    summary: str
    settings: list[BlockSetting]
    written: bool
    """Whether its weight and bias can be given by hand."""


class TemplateInfo(Message):
    """A network to start from."""

    name: str
    blocks: list[BlockSpec]


class BlockOptions(Message):
    """Everything that a network can be built from."""

    kinds: list[BlockKind]
    templates: list[TemplateInfo]
    by_hand: int
    """Largest number of weights of a parameter that can be given by hand."""


class PlanRequest(Message):
    """A list of blocks, for the images and classes of a data source."""

    source: Id
    blocks: Specs


class SumInfo(Message):
    """A calculation: what it is of, and its text, as `cs.summary` writes it."""

    name: str
    text: str


class RepairInfo(Message):
    """A change that fixes a problem: `removed` blocks from `at` on are replaced by others."""

    title: str
    at: int
    removed: int
    added: list[BlockSpec]


class BlockProblem(Message):
    """Why a block cannot be built."""

    sentence: str
    repair: RepairInfo | None


class PlannedInfo(Message):
    """What a block makes."""

    name: str
    shape: list[int] | None
    """Without the batch axis; None after the first problem."""
    sums: list[SumInfo]
    parameters: int
    weight: list[int] | None
    """Shape of its weight, if it has one that can be given by hand."""
    problem: BlockProblem | None


class PlanInfo(Message):
    """A list of blocks as arithmetic."""

    shape: list[int]
    """(C, H, W) of the images."""
    classes: int
    blocks: list[PlannedInfo]
    ending: BlockProblem | None
    """Why it cannot be trained on these classes though each block is fine."""
    problem: str
    """Why it cannot be built; empty if it can."""
    parameters: int


class CodeInfo(Message):
    """A network as Python code."""

    code: str


class OpenedInfo(Message):
    """A network that was opened without a training."""

    model: Id


class BlocksOfRun(Message):
    """The list that a run was trained with; None if it is another network."""

    blocks: list[BlockSpec] | None


router = APIRouter(tags=["blocks"])


def plain(blocks: list[BlockSpec]) -> list[dict[str, Any]]:
    """The blocks as `cs.blocks` takes them."""
    return [block.model_dump(exclude_unset=True) for block in blocks]


def source_of(workspace: HasSources, source: str) -> SourceInfo:
    """A data source by its id.

    Raises:
        HTTPException: 404, unknown id.
    """
    sources: dict[str, SourceInfo] = {entry.id: entry for entry in workspace.sources()}
    if source not in sources:
        raise HTTPException(404, f"unknown data source {source!r}; available: {', '.join(sources)}.")
    return sources[source]


def images_of(source: SourceInfo) -> tuple[tuple[int, int, int], int]:
    """The shape (C, H, W) of a data source's images, and its number of classes."""
    return (source.channels, source.height, source.width), len(source.classes)


def planned(source: SourceInfo, blocks: list[BlockSpec]) -> cs.blocks.Plan:
    """The plan of a list for a data source."""
    return cs.blocks.plan(plain(blocks), *images_of(source))


@router.get("/blocks", response_model_exclude_unset=True)
def options() -> BlockOptions:
    """The kinds of blocks, and networks to start from."""
    kinds = [BlockKind.model_validate(kind.to_json()) for kind in cs.blocks.KINDS.values()]
    templates = [TemplateInfo(name=name, blocks=_specs(cs.blocks.template(name))) for name in cs.blocks.TEMPLATES]
    return BlockOptions(kinds=kinds, templates=templates, by_hand=BY_HAND)


@router.post("/blocks/plan", response_model_exclude_unset=True)
def plan(request: Request, body: PlanRequest) -> PlanInfo:
    """Sizes and counts as arithmetic, or the first problem; nothing is built."""
    result = planned(source_of(request.app.state.gallery, body.source), body.blocks)
    return PlanInfo.model_validate(result.to_json())


@router.post("/blocks/code")
def code(request: Request, body: PlanRequest) -> CodeInfo:
    """The network as Python code."""
    source = source_of(request.app.state.gallery, body.source)
    return CodeInfo(code=cs.blocks.code(plain(body.blocks), *images_of(source)))


@router.post("/blocks/open")
async def open_network(request: Request, body: PlanRequest) -> OpenedInfo:
    """Open the network without training it: weights that were not given are random."""
    workspace = request.app.state.gallery
    model_id: str = await workspace.workers.run(request, "blocks", partial(opened_network, workspace, body))
    return OpenedInfo(model=model_id)


def opened_network(workspace: Workspace, request: PlanRequest) -> str:
    """The id of the network in the workspace; the same list for the same data is opened once.

    Raises:
        UsageError: a block cannot be built.
    """
    source = source_of(workspace, request.source)
    (shape, classes), blocks = images_of(source), plain(request.blocks)
    digest = hashlib.sha256(json.dumps([blocks, shape, classes, source.id]).encode()).hexdigest()[:8]

    def build() -> cs.Module:
        result = planned(source, request.blocks)
        one_each = not result.problem and result.blocks[-1].shape == (classes,)
        args = {"blocks": blocks, "shape": shape, "classes": classes}
        return cs.load_model(MODEL, args=args, classes=source.classes if one_each else None)

    return workspace.open_design(f"{MODEL}-{digest}", build, source.id)


@router.get("/models/{model}/blocks", response_model_exclude_unset=True)
def of_run(request: Request, model: Id) -> BlocksOfRun:
    """The list of blocks that a run was trained with."""
    run = request.app.state.gallery.model(model).run
    model_config = None if run is None else run.config["model"]
    blocks = None if model_config is None or model_config["source"] != MODEL else model_config["args"].get("blocks")
    return BlocksOfRun(blocks=_specs(blocks) if isinstance(blocks, list) else None)


def _specs(blocks: Sequence[object]) -> list[BlockSpec]:
    """Blocks as messages, weights in one row, as the page edits them by index; those of too many numbers are left out.

    Raises:
        UsageError: one of them is not a block.
    """
    specs = []
    for block in map(cs.blocks.read_block, blocks):
        short = {name: values for name, values in block.values.items() if len(values.numbers) <= BY_HAND}
        specs.append(BlockSpec.model_validate(replace(block, values=short).to_json(flat=True)))
    return specs
