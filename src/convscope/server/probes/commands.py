"""Commands: the command line that asks the same question, where there is one, made from the probe's record.

There is none for what a command cannot name: edited weights, weights of the past, uploads, data of one's own.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import convscope as cs
from convscope.server import schema
from convscope.server.session.data_sources import DataSource, DataSources
from convscope.server.session.model_handle import ModelHandle


@dataclass(frozen=True)
class CommandSubject:
    """What a request is about, in words that a command takes."""

    models: list[str]
    data: str | None
    """The data's name; None where there is more to say than a name."""
    own: bool
    """Whether they are those that the first model was trained on, so that nothing has to be said."""
    image: str | None
    """The image's name; None where it has none, or was changed."""

    def words(self, argument: cs.probe.Argument) -> list[str] | None:
        """An argument as it is typed; None where no word gives it."""
        if argument.noun in {"model", "models"}:
            return self.models
        if argument.noun == "dataset" and self.own and not argument.required:
            return []
        word = self.data if argument.noun == "dataset" else self.image
        if word is None:
            return None
        return [f"--{argument.option}", word] if argument.option else [word]


def command(sources: DataSources, request: schema.ProbeRequest, opened: Sequence[ModelHandle]) -> str | None:
    """What to type for the same answer; None where nothing gives it."""
    if request.at is not None or request.other_at is not None or request.edits:
        return None
    models = [path for path in map(_path, opened) if path is not None]
    if len(models) < len(opened):
        return None
    own = bool(opened) and request.source is not None and request.source == opened[0].source
    data = None if request.source is None else _data(sources.find(request.source))
    probe = cs.probe.PROBES[request.question]
    subject = CommandSubject(models, data, own, _image(sources, request))
    words: list[str] = []
    for argument in probe.arguments:
        typed = subject.words(argument)
        if typed is None:
            return None
        words += typed
    words += _options(probe, request)
    every = sources.count(request.source, request.split) if probe.split else probe.images
    if request.split not in {None, probe.split}:
        words += ["--split", str(request.split)]
    if request.images not in {None, every}:
        words += ["--images", str(request.images)]
    return shlex.join(["convscope", "probe", probe.name, *words])


def _options(probe: cs.probe.Probe, request: schema.ProbeRequest) -> list[str]:
    """The settings that differ from what the command does without them."""
    words: list[str] = []
    for name, (setting, _) in probe.fields.items():
        value = getattr(request, name)
        if value is None or value == setting.default:
            continue
        if setting.within:
            words[-1] += ":" + ",".join(map(str, value))
        else:
            words += [setting.flag, str(value)]
    return words


def _image(sources: DataSources, request: schema.ProbeRequest) -> str | None:
    image = request.input
    if not isinstance(image, schema.SampleRef) or request.change != schema.Change() or request.fit is not None:
        return None
    data = _data(sources.find(image.source))
    return None if data is None else f"{data}:{image.split}/{image.index}"


def _path(opened: ModelHandle) -> str | None:
    """The run that a model is, as seen from the working folder; None for a model of this session."""
    if opened.run is None or not opened.as_saved():
        return None
    path, here = opened.run.path, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _data(source: DataSource) -> str | None:
    """The name by which a command finds these very data; None where there is more to say than a name."""
    plain = source.data in cs.DATASETS and source.seed == 0 and not source.options
    return source.data if plain else None
