"""Commands: the command line that asks the same question, where there is one.

There is none for what a command cannot name: edited weights, weights of the past, uploads, data of one's own.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convscope as cs
from convscope.server import schema
from convscope.server.probes.catalog import QUESTIONS
from convscope.server.session.data_sources import DataSource, DataSources
from convscope.server.session.model_handle import ModelHandle


@dataclass(frozen=True)
class CommandLine:
    """A request in words that a command takes."""

    request: schema.ProbeRequest
    models: list[str]
    data: list[str] | None
    """The data's name; None where there is more to say than a name."""
    own: bool
    """Whether they are those that the first model was trained on, so that nothing has to be said."""
    image: list[str] | None
    """The image's name; None where it has none, or was changed."""
    usual: Mapping[str, Any]
    """What the command does where an option is left out."""

    def option(self, name: str, field: str = "") -> list[str]:
        """An option as it is typed; nothing where nothing else is asked for than the usual."""
        value = getattr(self.request, field or name)
        return [] if value is None or value == self.usual.get(name) else [f"--{name}", str(value)]

    @property
    def amount(self) -> list[str]:
        """Which images, and how many."""
        return [*self.option("split"), *self.option("images")]


Words = Callable[[CommandLine], list[str] | None]


def _receptive_field(said: CommandLine) -> list[str] | None:
    if said.image is None:
        return None
    cell = "" if said.request.cell is None else ":" + ",".join(map(str, said.request.cell))
    at = [] if said.request.step is None else ["--at", f"{said.request.step}{cell}"]
    return [*said.models, *said.image, *at]


def _attribution(said: CommandLine) -> list[str] | None:
    return None if said.image is None else [*said.models, *said.image, *said.option("class", "output")]


def _shift(said: CommandLine) -> list[str] | None:
    how = [*said.option("kind"), *said.option("reach"), *said.amount]
    return None if said.data is None else [*said.data, *said.models, *how]


def _compare(said: CommandLine) -> list[str] | None:
    if said.own or said.data is None:
        return [*said.models, *said.amount] if said.own else None
    return [*said.models, "--on", *said.data, *said.amount]


def _of_a_model(said: CommandLine) -> list[str] | None:
    if not said.own and said.data is None:
        return None
    named = [] if said.own or said.data is None else said.data
    return [*said.models, *named, *said.option("step"), *said.option("channels"), *said.amount]


COMMANDS: Mapping[schema.QuestionName, Words] = {
    "receptive-field": _receptive_field,
    "shift": _shift,
    "compare": _compare,
    "dead": _of_a_model,
    "shortcut": lambda said: said.data,
    "lint": _of_a_model,
    "patches": _of_a_model,
    "attribution": _attribution,
    "borders": lambda _: None,
}
"""Question -> what is typed after `convscope probe NAME`; None where nothing gives the same answer."""


USUAL: Mapping[str, Any] = {"kind": "translation", "reach": 10, "channels": 64}


def command(sources: DataSources, request: schema.ProbeRequest, opened: Sequence[ModelHandle]) -> str | None:
    """What to type for the same answer; None where nothing gives it."""
    if request.at is not None or request.other_at is not None or request.edits:
        return None
    models = [path for path in map(_path, opened) if path is not None]
    if len(models) < len(opened):
        return None
    own = bool(opened) and request.source is not None and request.source == opened[0].source
    data = None if request.source is None else _data(sources.find(request.source))
    question = QUESTIONS[request.question]
    every = sources.count(request.source, request.split) if question.split else question.images
    usual = {**USUAL, "split": question.split, "images": every}
    words = COMMANDS[request.question](CommandLine(request, models, data, own, _image(sources, request), usual))
    return None if words is None else shlex.join(["convscope", "probe", request.question, *words])


def _image(sources: DataSources, request: schema.ProbeRequest) -> list[str] | None:
    image = request.input
    if not isinstance(image, schema.SampleRef) or request.change != schema.Change() or request.fit is not None:
        return None
    data = _data(sources.find(image.source))
    return None if data is None else [f"{data[0]}:{image.split}/{image.index}"]


def _path(opened: ModelHandle) -> str | None:
    """The run that a model is, as seen from the working folder; None for a model of this session."""
    if opened.run is None or not opened.as_saved():
        return None
    path, here = opened.run.path, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _data(source: DataSource) -> list[str] | None:
    """The name by which a command finds these very data; None where there is more to say than a name."""
    plain = source.data in cs.DATASETS and source.seed == 0 and not source.options
    return [source.data] if plain else None
