"""Report: a model, its training and all numbers of some images as one HTML file that explains itself offline."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from convscope.capture.tracing import trace
from convscope.errors import ConvscopeError, UsageError
from convscope.escaping import spelled
from convscope.files import check_destination, is_there, write_whole
from convscope.inputs.model_inputs import prepare_inputs
from convscope.models import Module
from convscope.models.loading import load_model
from convscope.proof.status import STATUSES
from convscope.server.jobs import NOBODY
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.schema import InputRef, SampleRef
from convscope.server.session.workspace import Workspace
from convscope.server.traces.passes import TracePass
from convscope.server.traces.schema import TraceRequest
from convscope.standalone.document import PageContents, built, document
from convscope.standalone.passes import PassWriter
from convscope.standalone.training_step import TrainingStepJson, training_step
from convscope.training.evaluation import evaluate
from convscope.training.runs import Run
from convscope.type_checks import takes

LIMIT = 3.0
"""Default size limit of a report in megabytes."""
IMAGES = 10
"""Images of a report for which none are named."""
MOST = 200
"""Images of a report at most."""
RANGE = re.compile(r"(?P<split>.+:\w+)/(?P<first>\d{1,18})-(?P<last>\d{1,18})")


class TrainingJson(TypedDict):
    """The training of a run, for the page."""

    points: list[dict[str, object]]
    """The metrics, for curves."""
    lines: list[str]
    """What was trained on what, and how well."""


class ConfusionJson(TypedDict):
    """The confusion matrix on the test images, for the page."""

    dataset: str
    classes: list[str]
    counts: list[list[int]]
    accuracy: float
    images: int


class TextJson(TypedDict):
    """A titled text of the page."""

    title: str
    text: str


class PageJson(TypedDict):
    """What the report says beside the numbers."""

    training: TrainingJson | None
    confusion: ConfusionJson | None
    probes: list[TextJson]


@dataclass(frozen=True, slots=True)
class Report:
    """A written report: `print` it to see its contents and what was left out."""

    path: Path
    size: int
    """In bytes."""
    title: str
    images: int
    left_out: tuple[str, ...]
    """Sentences on what did not fit, or could not be made."""

    def __str__(self) -> str:
        image_count = f"{self.images} image{'s' * (self.images != 1)}"
        head = f"wrote {self.path} ({max(1, round(self.size / 1000)):,} kB): {self.title}, {image_count}"
        return "\n".join(
            spelled(line) for line in (head, *(f"left out: {text[:1].lower()}{text[1:]}" for text in self.left_out))
        )


@takes(model="Module | Run | str | Path")
def report(
    model: Module | Run | str | Path,
    images: object = None,
    *,
    out: str | Path = "report.html",
    limit: float = LIMIT,
    probes: Sequence[object] = (),
    data_dir: str | Path | None = None,
) -> Report:
    """Write a model, its training and every number of some images to one HTML file.

    The file needs no server, no network and no Python: any number of the included images can be clicked and shows its
    calculation. The page calculates with the embedded numbers as `cs.explain` does.

    >>> print(report("crosses", ["crosses:plus", "crosses:x"], out=folder / "r.html"))  # doctest: +SKIP
    wrote r.html (195 kB): crosses, 2 images

    Args:
        model: A `Run` or its folder, what `load_model` accepts, or a module of this session. With a run the report
            holds the history, the confusion matrix of the test data and one training step, too.
        images: A list of what `load_image` accepts, or one of these; `mnist:test/0-9` for several; an array
            (N, C, H, W). By default the first ten test images of the model's own data.
        out: The file.
        limit: Size limit in megabytes; what does not fit is left out, and named in the report and in the result.
        probes: Results of probes, such as `cs.probe.dead(model, data)`, to be shown in it.
        data_dir: Folder searched first for the files of the MNIST family.

    Returns:
        The path, the size, and what was left out.

    Raises:
        UsageError: the limit is too small for any report, no file can be written to `out`, or the page was not built.
        ConvscopeError: model or images are invalid, or the file cannot be written.
    """
    if images is not None and not any(True for _ in _split(images)):
        raise UsageError("images is empty; leave it out to use images of the model's own data.")
    check_destination(out)
    run, loaded = _loaded(model)
    max_bytes = limit * 1e6 - sum(map(len, built("report"))) - 20_000
    if not max_bytes > 0:
        raise UsageError(f"a report has at least 0.4 MB, so it cannot be kept within {limit:g} MB; use a larger limit.")
    workspace = Workspace(Path(data_dir) if data_dir else None)
    try:
        handle = workspace.model(workspace.open(loaded, None if images is None else next(iter(_split(images)))))
        refs = list(_references(workspace, handle, images, data_dir))
        return _written(workspace, handle, refs, run=run, out=Path(out), max_bytes=int(max_bytes), probes=probes)
    finally:
        workspace.close()


def _loaded(model: Module | Run | str | Path) -> tuple[Run | None, Module]:
    """The run, if it is one, and the model."""
    if isinstance(model, Run):
        return model, model.model
    if not isinstance(model, str | Path):
        return None, model
    loaded = load_model(model)
    is_run = (Path(model) / "config.json").is_file()
    return (Run(Path(model)).holding(loaded) if is_run else None), loaded


def _split(images: object) -> Iterator[object]:
    """Several images one by one."""
    if hasattr(images, "dtype") and getattr(images, "ndim", 0) == 4:  # an array or a tensor
        yield from images  # type: ignore[misc]  # both are iterable then
    elif isinstance(images, list | tuple):
        for image in images:
            yield from _split(image)
    elif isinstance(images, str) and (several := RANGE.fullmatch(images)) and not is_there(images):
        first, last = int(several["first"]), int(several["last"])
        if last < first:
            raise UsageError(f"{images!r} has no images; a range counts up, such as {several['split']}/0-9.")
        yield from (f"{several['split']}/{i}" for i in range(first, min(last, first + MOST) + 1))
    else:
        yield images


def _references(
    workspace: Workspace, handle: ModelHandle, images: object, data_dir: str | Path | None
) -> Iterator[InputRef]:
    if images is not None:
        for image in list(_split(images))[:MOST]:
            yield workspace.keep_inputs(prepare_inputs(image, like=handle.session_model, data_dir=data_dir), handle)
        return
    start = handle.start
    assert start is not None
    if isinstance(start, SampleRef):
        image_count = workspace.sources_known.count(start.source, start.split)
        yield from (start.model_copy(update={"index": i}) for i in range(min(IMAGES, image_count)))
    else:
        yield start


def _lacking(passes: Sequence[TracePass], refs: Sequence[InputRef]) -> Iterator[str]:
    """Sentences on images that do not fit, and on the steps of a model that failed."""
    if len(passes) < len(refs):
        yield f"{len(refs) - len(passes)} of {len(refs)} images."
    failed = next((trace_pass for trace_pass in passes if trace_pass.error is not None), None)
    if failed is not None:
        yield spelled(f"The steps that did not run: {failed.error}")


def _written(
    workspace: Workspace,
    handle: ModelHandle,
    refs: Sequence[InputRef],
    *,
    run: Run | None,
    out: Path,
    max_bytes: int,
    probes: Sequence[object],
) -> Report:
    contents = PageContents(max_bytes)
    page, left_out = _page(run, probes)
    if not contents.room_for(page):
        raise UsageError("the results of the probes alone exceed the limit of the report; use a larger limit.")
    writer = PassWriter(contents)
    passes = _passes(workspace, handle, refs, writer)
    left_out += [*_lacking(passes, refs), *writer.left_out]
    step = None if run is None else step_of(run, contents, passes)
    if isinstance(step, str):
        left_out.append(step)
        step = None
    title = spelled(handle.name)
    header: dict[str, object] = {
        "session": _session(workspace, handle, refs[0]),
        "statuses": {name: {"word": s.word, "sentence": s.sentence, "tone": s.tone} for name, s in STATUSES.items()},
        "missing": "It was left out, as the end of the page says; convscope report --limit makes a larger file.",
        "page": {**page, "title": title, "left_out": left_out, "parameters": handle.info().parameters},
        "step": step,
        **writer.header(),
    }
    training = [] if page["training"] is None else page["training"]["lines"]
    words = "\n".join([title, *training, *left_out])
    content = document(f"{title} · convscope", contents.encoded(header), words).encode("utf-8", "replace")
    try:
        write_whole(out, content)
    except OSError as error:
        raise ConvscopeError(f"{out} cannot be written: {error.strerror or error}.") from None
    return Report(out, len(content), title, len(passes), tuple(left_out))


def _passes(workspace: Workspace, handle: ModelHandle, refs: Sequence[InputRef], writer: PassWriter) -> list[TracePass]:
    """The passes of the first images, as many as fit."""
    passes: list[TracePass] = []
    for ref in refs:
        trace_pass = workspace.traces.make(handle, workspace.picture, TraceRequest(model=handle.id, input=ref), NOBODY)
        if not writer.add(ref, trace_pass):
            break
        passes.append(trace_pass)
    if not passes:
        raise UsageError("not even the first image fits into the report; use a larger limit.")
    return passes


def _page(run: Run | None, probes: Sequence[object]) -> tuple[PageJson, list[str]]:
    """The report's text beside the numbers, and what was left out."""
    page: PageJson = {"training": None, "confusion": None, "probes": answers_of(probes)}
    left_out: list[str] = []
    if run is not None:
        page["training"] = training_of(run)
        confusion = confusion_of(run)
        if isinstance(confusion, str):
            left_out.append(confusion)
        else:
            page["confusion"] = confusion
    return page, left_out


def _session(workspace: Workspace, handle: ModelHandle, first: InputRef) -> dict[str, object]:
    """The description of the one model, whose inputs are those of the report."""
    full_session = workspace.session()
    model = handle.info().model_copy(update={"source": None, "start": first, "history": []})
    return full_session.model_copy(update={"models": [model], "sources": []}).model_dump()


# beside the numbers: the training, the confusion matrix, one training step, results of probes


POINTS = 1500
"""Points of a curve: more cannot be distinguished."""
SCORES = ("event", "step", "loss", "accuracy", "test_loss", "test_accuracy")
EXAMPLES = 8
"""Images of the training step."""


def training_of(run: Run) -> TrainingJson | None:
    """The curves of a training and its settings; None if it has no metrics yet."""
    events = run.history
    if not events:
        return None
    epochs = [event for event in events if event["event"] == "epoch"]
    batches = [event for event in events if event["event"] != "epoch"]
    points = [*batches[:: len(batches) // POINTS + 1], *epochs]
    return {
        "points": [{name: value for name, value in point.items() if name in SCORES} for point in points],
        "lines": run.described(run.name).splitlines(),  # a file to hand out does not say where it was made
    }


def confusion_of(run: Run) -> ConfusionJson | str:
    """The confusion matrix on the run's test images; a sentence where these cannot be read."""
    try:
        result = evaluate(run)
    except (ConvscopeError, OSError) as error:
        return spelled(f"The confusion matrix is left out: {error}")
    counts = result.confusion
    return {
        "dataset": spelled(result.dataset),
        "classes": [spelled(name) for name in result.classes],
        "counts": counts.tolist(),
        "accuracy": result.accuracy,
        "images": int(counts.sum()),
    }


def step_of(run: Run, contents: PageContents, passes: Sequence[TracePass]) -> TrainingStepJson | str:
    """One training step on the report's images; a sentence where there is none.

    Args:
        run: Brings the loss, the optimizer and its rate.
        contents: What the page carries.
        passes: The passes of the report; images without a class are left out.
    """
    labelled = [
        (trace_pass.model_input.array, trace_pass.model_input.label)
        for trace_pass in passes
        if trace_pass.model_input.label is not None
    ][:EXAMPLES]
    if not labelled or len({image.shape for image, _ in labelled}) > 1:
        return "A training step is left out: it needs images of one size whose classes are known."
    try:
        step = trace(run, np.stack([image for image, _ in labelled]), target=[label for _, label in labelled])
        return training_step(contents, passes[0], step) or "A training step: it does not fit."
    except ConvscopeError as error:
        return spelled(f"A training step is left out: {error}")


def answers_of(probes: Sequence[object]) -> list[TextJson]:
    """Results of probes, each as its own text."""
    return [{"title": _words(type(result).__name__), "text": str(result)} for result in probes]


def _words(name: str) -> str:
    """A class's name in words: ReceptiveField as receptive field."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
