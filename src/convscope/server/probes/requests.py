"""Requests: from what the page asks to the call of a probe, and from its result to what the page shows.

Uses the gallery's models, data and images; threads are the matter of `probes`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from threading import Lock

import numpy as np
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.probes.catalog import Progress, check_size, chosen, command, relevant, settings
from convscope.server.probes.schema import ProbeAnswer, ProbeRequest, ProbeSample, TablePart, TextPart
from convscope.server.session.inputs import PageInput, take
from convscope.server.session.model_handle import ModelHandle, put
from convscope.server.session.workspace import Workspace
from convscope.server.traces.array_pictures import base64url, shades, shrunk
from convscope.server.traces.passes import edited

SIDE = 48
"""Pixels a side of a small picture, at most."""
_drawing = Lock()  # matplotlib's settings are those of the whole process


@dataclass(frozen=True, eq=False)
class ProbeArguments:
    """A request, complete: every choice that it left to the server is made."""

    id: str
    request: ProbeRequest
    opened: tuple[ModelHandle, ...]
    """The models that it names."""


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The parts of a result that are kept."""

    shown: ProbeAnswer
    json: bytes = field(repr=False)
    svg: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.json) + len(self.svg)


def resolve(gallery: Workspace, request: ProbeRequest) -> ProbeArguments:
    """A resolved request; equal questions have equal ids.

    Raises:
        HTTPException: 404, a model or data that are not open; 422, one that is needed is missing.
    """
    request = relevant(request)
    opened = tuple(gallery.model(name) for name in (request.model, request.other) if name is not None)
    _check(request)
    request = request.model_copy(update=_chosen(gallery, request, opened))
    stamps = [(handle.id, handle.stamp()) for handle in opened]
    digest = hashlib.sha256(f"{request.model_dump_json()} {stamps}".encode()).hexdigest()
    return ProbeArguments(f"q{digest[:24]}", request, opened)


def _check(request: ProbeRequest) -> None:
    probe = cs.probe.PROBES[request.question]
    needs, several = probe.needs, probe.argument("models")
    if "model" in needs and request.model is None:
        raise HTTPException(422, "this question is about a model; name one.")
    if several is not None and several.least > 1 and request.other is None:
        raise HTTPException(422, "two models are compared; name the other one.")
    same = (request.other, request.other_at) == (request.model, request.at) and not request.edits
    if request.other is not None and same:
        raise HTTPException(422, "this is one model with the same weights twice; compare it with another one.")
    if "input" in needs and request.input is None:
        raise HTTPException(422, "this question is about an image; name one.")


def _chosen(gallery: Workspace, request: ProbeRequest, opened: Sequence[ModelHandle]) -> dict[str, object]:
    """The values that a request leaves for the server to choose."""
    probe = cs.probe.PROBES[request.question]
    values = chosen(probe, request)
    if opened:
        values["at"] = opened[0].newest() if request.at is None else request.at
    if len(opened) > 1:
        values["other_at"] = opened[1].newest() if request.other_at is None else request.other_at
    source = _source(gallery, request, opened) if "source" in probe.needs else None
    if source is not None:
        values["source"] = source
    if probe.images is not None:
        split = (request.split or probe.split) if probe.split else None
        count = gallery.sources_known.count(source, split)
        if split is not None and not count:
            raise HTTPException(422, f"{source} has no images of the part {split}; choose another part.")
        maximum = min(probe.most or 0, count or probe.most or 0)
        values |= {"split": split, "images": min(request.images or probe.images, maximum)}
    return values


def _source(gallery: Workspace, request: ProbeRequest, opened: Sequence[ModelHandle]) -> str:
    name = request.source or (opened[0].source if opened else None)
    if name is None:
        raise HTTPException(422, "this question is about data, and this model brings none; choose some.")
    gallery.sources_known.find(name)
    return name


def copies(arguments: ProbeArguments) -> list[tuple[str, Callable[[], cs.Module]]]:
    """For each model its id and a function that copies it; call it while no pass through the model is running."""
    request = arguments.request
    if not arguments.opened:
        return []
    first, *others = arguments.opened
    factories: list[tuple[str, Callable[[], cs.Module]]] = [(first.id, partial(_edited, first, request))]
    return [*factories, *((handle.id, partial(handle.working_copy, request.other_at)) for handle in others)]


def _edited(opened: ModelHandle, request: ProbeRequest) -> cs.Module:
    model = opened.working_copy(request.at)
    put(model, edited(request.edits, {**dict(model.named_parameters()), **dict(model.named_buffers())}))
    return model


def subject(gallery: Workspace, arguments: ProbeArguments, models: Sequence[cs.Module]) -> cs.probe.Subject:
    """The models and data of a question; data are read on first use.

    Raises:
        HTTPException: 404, there is no such image.
        Misfit: it has another size, and the request does not say how to make it fit.
        ConvscopeError: the image does not fit the model.
    """
    request, run = arguments.request, None
    if arguments.opened and arguments.opened[0].run is not None:
        run = arguments.opened[0].run.holding(models[0])
    split = partial(_split, gallery, request)
    result = cs.probe.Subject(models, _names(arguments, models), run, split, request.split or "test")
    if request.input is None:
        return result
    model_input = take(gallery.picture(request.input), cs.card_of(models[0]), request.change, request.fit)
    return replace(
        result,
        image=lambda: _prepared(models[0], model_input),
        trace=lambda tell: _traced(models[0], model_input, tell),
    )


def _prepared(model: cs.Module, model_input: PageInput) -> cs.Prepared:
    return replace(cs.prepare(model_input.array, like=model), name=model_input.name, picture=model_input.picture)


def _traced(model: cs.Module, model_input: PageInput, progress: Progress) -> cs.Trace:
    return cs.trace(model, model_input.value, progress=progress)


def _names(arguments: ProbeArguments, models: Sequence[cs.Module]) -> list[str]:
    """What to call the models: what they are, their ids where that is the same, with the step of their weights."""
    names = [cs.card_of(model).name for model in models]
    names = [handle.id for handle in arguments.opened] if len(set(names)) < len(names) else names
    steps = (arguments.request.at, arguments.request.other_at)
    labelled = [name if step is None else f"{name} at step {step}" for name, step in zip(names, steps, strict=False)]
    return labelled if len(set(labelled)) == len(labelled) else [f"{labelled[0]}, edited", *labelled[1:]]


def _split(gallery: Workspace, request: ProbeRequest, split: str) -> cs.Dataset | None:
    """The first images of a split; all of them if no number is requested, or if the probe samples from them."""
    assert request.source is not None
    if not gallery.sources_known.count(request.source, split):
        return None
    data = gallery.sources_known.split(request.source, split)
    count = request.images if cs.probe.PROBES[request.question].split else None
    return data if count is None or count >= len(data) else data.part(slice(0, count))


def answer(gallery: Workspace, arguments: ProbeArguments, subject: cs.probe.Subject, progress: Progress) -> ProbeResult:
    """Ask, and keep what a page shows of the result.

    Raises:
        ConvscopeError: the settings are invalid for the question.
    """
    probe = cs.probe.PROBES[arguments.request.question]
    check_size(probe, arguments.request, subject)
    chosen_settings = settings(probe, arguments.request)
    result = probe.run(subject, chosen_settings, progress)
    has_picture = probe.has_picture(chosen_settings)
    progress("drawing", 0, 0)
    svg = _svg(probe, result) if has_picture else b""
    parts = [_part(part) for part in result.report().parts]
    first = next((part.lines[0] for part in parts if isinstance(part, TextPart)), probe.question)
    shown = ProbeAnswer(
        sentence=first,
        parts=parts,
        samples=_samples(result) if isinstance(result, cs.probe.Compare) else [],
        picture=has_picture,
        command=command(gallery.sources_known, arguments.request, arguments.opened),
    )
    return ProbeResult(shown, cs.json_text(result.to_json()).encode("utf-8", "replace"), svg)


def _svg(probe: cs.probe.Probe, result: object) -> bytes:
    file = BytesIO()
    with _drawing:
        getattr(cs.plot, probe.function)(result).savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _part(part: "str | cs.probe.Table") -> TextPart | TablePart:
    if isinstance(part, str):
        return TextPart(lines=part.split("\n"))
    return TablePart(head=list(part.head), rows=[list(row) for row in part.rows], right=list(part.right))


def _samples(comparison: "cs.probe.Compare") -> list[ProbeSample]:
    """The images that models disagree on, and what each says."""
    classes = {**dict(enumerate(comparison.classes)), -1: "another class"}
    return [_sample(disagreement, classes) for disagreement in comparison.disagreements]


def _sample(disagreement: "cs.probe.Disagreement", classes: Mapping[int, str]) -> ProbeSample:
    planes = disagreement.picture if len(disagreement.picture) == 3 else disagreement.picture[:1]
    shown = shades(shrunk(np.clip(planes, 0, 1), SIDE), 0, 1)
    return ProbeSample(
        index=disagreement.image,
        label=classes[disagreement.label],
        answers=[classes[k] for k in disagreement.answers],
        right=[k == disagreement.label for k in disagreement.answers],
        picture=base64url(shown),
        shape=(shown.shape[0], shown.shape[1], shown.shape[2]),
    )
