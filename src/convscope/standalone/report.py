"""Report: a model, its training and all numbers of some images as one HTML file that explains itself offline."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import ConvscopeError, UsageError
from convscope.escaping import spelled
from convscope.files import write_whole
from convscope.inputs.model_inputs import prepare_inputs
from convscope.models.loading import load_model
from convscope.proof.status import STATUSES
from convscope.server import schema
from convscope.server.jobs.workers import NOBODY
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.workspace import Workspace
from convscope.server.traces.passes import TracePass
from convscope.standalone import facts
from convscope.standalone.contents import Contents
from convscope.standalone.document import built, document
from convscope.standalone.passes import PassWriter
from convscope.training.runs import Run
from convscope.type_checks import takes

LIMIT = 3.0
"""Default size limit of a report in megabytes."""
IMAGES = 10
"""Images of a report for which none are named."""
MOST = 200
"""Images of a report at most."""
RANGE = re.compile(r"(?P<split>.+:\w+)/(?P<first>\d+)-(?P<last>\d+)")


@dataclass(frozen=True, slots=True)
class Report:
    """A written report: `print` it to see what it holds and what was left out."""

    path: Path
    size: int
    """In bytes."""
    title: str
    images: int
    left_out: tuple[str, ...]
    """Sentences on what did not fit, or could not be made."""

    def __str__(self) -> str:
        many = f"{self.images} image{'s' * (self.images != 1)}"
        head = f"wrote {self.path} ({max(1, round(self.size / 1000)):,} kB): {self.title}, {many}"
        return "\n".join(spelled(line) for line in (head, *(f"left out: {text}" for text in self.left_out)))


@takes(model="Module | Run | str | Path")
def report(
    model: Any,
    images: Any = None,
    *,
    out: str | Path = "report.html",
    limit: float = LIMIT,
    probes: Sequence[Any] = (),
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
        UsageError: the limit is too small for any report, or the page was not built.
        ConvscopeError: model or images are invalid, or the file cannot be written.
    """
    run, loaded = _loaded(model)
    room = limit * 1e6 - sum(map(len, built("report"))) - 20_000
    if not room > 0:
        raise UsageError(f"a report has at least 0.4 MB, so it cannot be kept within {limit:g} MB; use a larger limit.")
    workspace = Workspace(Path(data_dir) if data_dir else None)
    try:
        handle = workspace.model(workspace.open(loaded, None if images is None else next(iter(_split(images)))))
        refs = list(_references(workspace, handle, images, data_dir))
        return _written(workspace, handle, refs, run=run, out=Path(out), room=int(room), probes=probes)
    finally:
        workspace.close()


def _loaded(model: Any) -> tuple[Run | None, Any]:
    """The run, if it is one, and the model."""
    if isinstance(model, Run):
        return model, model.model
    if not isinstance(model, str | Path):
        return None, model
    loaded = load_model(model)
    is_run = (Path(model) / "config.json").is_file()
    return (Run(Path(model)).holding(loaded) if is_run else None), loaded


def _split(images: Any) -> Iterator[Any]:
    """Several images one by one."""
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, list | tuple):
        for image in images:
            yield from _split(image)
    elif isinstance(images, str) and not Path(images).exists() and (several := RANGE.fullmatch(images)):
        first, last = int(several["first"]), int(several["last"])
        if last < first:
            raise UsageError(f"{images!r} has no images; a range counts up, such as {several['split']}/0-9.")
        yield from (f"{several['split']}/{i}" for i in range(first, min(last, first + MOST) + 1))
    else:
        yield images


def _references(workspace: Workspace, handle: ModelHandle, images: Any, data_dir: Any) -> Iterator[schema.InputRef]:
    if images is not None:
        for image in list(_split(images))[:MOST]:
            yield workspace.keep_inputs(prepare_inputs(image, like=handle.session_model, data_dir=data_dir), handle)
        return
    start = handle.start
    assert start is not None
    if isinstance(start, schema.SampleRef):
        many = workspace.sources_known.count(start.source, start.split)
        yield from (start.model_copy(update={"index": i}) for i in range(min(IMAGES, many)))
    else:
        yield start


def _written(
    workspace: Workspace,
    handle: ModelHandle,
    refs: Sequence[schema.InputRef],
    *,
    run: Run | None,
    out: Path,
    room: int,
    probes: Sequence[Any],
) -> Report:
    contents = Contents(room)
    page, left_out = _page(run, probes)
    if not contents.room_for(page):
        raise UsageError("the results of the probes alone exceed the limit of the report; use a larger limit.")
    writer = PassWriter(contents)
    taken: list[TracePass] = []
    for ref in refs:
        done = workspace.traces.make(handle, workspace.picture, schema.TraceRequest(model=handle.id, input=ref), NOBODY)
        if not writer.add(ref, done):
            break
        taken.append(done)
    if not taken:
        raise UsageError("not even the first image fits into the report; use a larger limit.")
    if len(taken) < len(refs):
        left_out.append(f"{len(refs) - len(taken)} of {len(refs)} images.")
    left_out += writer.left_out
    if run is not None:
        _add(page, "step", facts.step_of(run, [p.taken.array for p in taken], [p.taken.label for p in taken]), left_out)
        if not contents.room_for(page["step"]):
            page["step"] = []
    title = spelled(handle.name)
    page |= {"title": title, "left_out": left_out, "parameters": handle.info().parameters}
    header = {
        "session": _session(workspace, handle, refs[0]),
        "statuses": {name: {"word": s.word, "sentence": s.sentence, "tone": s.tone} for name, s in STATUSES.items()},
        "missing": "It was left out to keep the file small: convscope report --limit makes a larger one.",
        "page": page,
        **writer.header(),
    }
    words = "\n".join([title, *(page["training"] or {"lines": []})["lines"], *left_out])
    content = document(f"{title} · convscope", contents.encoded(header), words).encode("utf-8", "replace")
    try:
        write_whole(out, content)
    except OSError as error:
        raise ConvscopeError(f"{out} cannot be written: {error.strerror or error}.") from None
    return Report(out, len(content), title, len(taken), tuple(left_out))


def _page(run: Run | None, probes: Sequence[Any]) -> tuple[dict[str, Any], list[str]]:
    """What the report says beside the numbers, and what it lacks."""
    page: dict[str, Any] = {"training": None, "confusion": None, "step": [], "probes": facts.answers_of(probes)}
    left_out: list[str] = []
    if run is not None:
        page["training"] = facts.training_of(run)
        _add(page, "confusion", facts.confusion_of(run), left_out)
    return page, left_out


def _add(page: dict[str, Any], name: str, part: Any, left_out: list[str]) -> None:
    """Put a part into the page, or the sentence that says why it is missing to what was left out."""
    if isinstance(part, str):
        left_out.append(part)
    else:
        page[name] = part


def _session(workspace: Workspace, handle: ModelHandle, first: schema.InputRef) -> dict[str, Any]:
    """The description of the one model, whose inputs are those of the report."""
    whole = workspace.session()
    model = handle.info().model_copy(update={"source": None, "start": first, "history": []})
    return whole.model_copy(update={"models": [model], "sources": []}).model_dump()
