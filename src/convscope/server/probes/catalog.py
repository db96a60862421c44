"""Catalog of probes: how questions are described to the page, as settings and as commands; all from the records.

A question has no command if it is about something that a command cannot name: edited weights, weights of an earlier
training step, uploads, data in memory.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import convscope as cs
from convscope.server.probes.schema import Condition, ProbeRequest, QuestionInfo, SettingInfo
from convscope.server.session.data_sources import DataSource, DataSources
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.schema import Change, SampleRef


@dataclass(frozen=True)
class CommandSubject:
    """The subject of a request in the terms of a command."""

    models: list[str]
    data: str | None
    """The data's name; None where there is more to say than a name."""
    owns_data: bool
    """Whether they are those that the first model was trained on, so that nothing has to be said."""
    image: str | None
    """The image's name; None where it has none, or was changed."""

    def words(self, argument: cs.probe.Argument) -> list[str] | None:
        """An argument as it is typed on the command line; None if it cannot be expressed there."""
        if argument.noun in {"model", "models"}:
            return self.models
        if argument.noun == "dataset" and self.owns_data and not argument.required:
            return []
        word = self.data if argument.noun == "dataset" else self.image
        if word is None:
            return None
        return [f"--{argument.option}", word] if argument.option else [word]


def command(sources: DataSources, request: ProbeRequest, opened: Sequence[ModelHandle]) -> str | None:
    """The command for the same answer; None if there is none."""
    if request.at is not None or request.other_at is not None or request.edits:
        return None
    models = [path for path in map(_path, opened) if path is not None]
    if len(models) < len(opened):
        return None
    own_data = bool(opened) and request.source is not None and request.source == opened[0].source
    data = None if request.source is None else _data(sources.find(request.source))
    probe = cs.probe.PROBES[request.question]
    subject = CommandSubject(models, data, own_data, _image(sources, request))
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


def _options(probe: cs.probe.Probe, request: ProbeRequest) -> list[str]:
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


def _image(sources: DataSources, request: ProbeRequest) -> str | None:
    image = request.input
    if not isinstance(image, SampleRef) or request.change != Change() or request.fit is not None:
        return None
    data = _data(sources.find(image.source))
    return None if data is None else f"{data}:{image.split}/{image.index}"


def _path(opened: ModelHandle) -> str | None:
    """The run that a model is, as seen from the working folder; None for a model of this session."""
    if opened.run is None or not opened.as_saved():
        return None
    path, working_folder = opened.run.path, Path.cwd()
    return str(path.relative_to(working_folder) if path.is_relative_to(working_folder) else path)


def _data(source: DataSource) -> str | None:
    """The name by which a command finds these very data; None where there is more to say than a name."""
    plain = source.data in cs.DATASETS and source.seed == 0 and not source.options
    return source.data if plain else None


Progress = Callable[[str, int, int], None]
FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": ("model", "at", "edits"),
    "other": ("other", "other_at"),
    "input": ("input", "change", "fit"),
}
"""A need of a probe -> the fields of a request that provide it, where their name differs."""


def info(probe: cs.probe.Probe) -> QuestionInfo:
    """A question as the page lists it, with the settings of its form."""
    return QuestionInfo(
        name=probe.name,
        asks=probe.question,
        says=probe.measures,
        needs=list(probe.needs),
        several=_least(probe) > 1,
        settings=[_setting(setting, field) for setting, field in probe.fields.values()],
        split=probe.split,
        images=probe.images,
        most=probe.most,
        misleads=probe.caveats,
    )


def _least(probe: cs.probe.Probe) -> int:
    models = probe.argument("models")
    return 1 if models is None else models.least


def _setting(setting: cs.probe.Setting, field: cs.probe.Field) -> SettingInfo:
    return SettingInfo(
        name=field.name,
        label=field.label,
        kind=field.kind,
        choices=list(setting.choices),
        minimum=setting.minimum,
        maximum=field.maximum,
        default=field.default,
        empty=field.empty,
        only=None if field.only is None else Condition(name=field.only[0], value=field.only[1]),
    )


def relevant(request: ProbeRequest) -> ProbeRequest:
    """A request without the fields that its question does not use.

    >>> relevant(ProbeRequest(question="shortcut", source="shapes", step="conv1", reach=3)).reach is None
    True
    """
    probe = cs.probe.PROBES[request.question]
    needed = {name for need in probe.needs for name in FIELDS.get(need, (need,))} | probe.fields.keys()
    return ProbeRequest(**{name: getattr(request, name) for name in needed | {"question"}})


def chosen(probe: cs.probe.Probe, request: ProbeRequest) -> dict[str, object]:
    """The settings of a request, with the default for each that is left out; None for those without a meaning."""
    values: dict[str, object] = {}
    for name, (_, field) in probe.fields.items():
        value = getattr(request, name)
        values[name] = field.default if value is None else value
        if field.only is not None:
            condition, required = field.only
            if values[condition] is None or required not in {None, values[condition]}:
                values[name] = None
    return values


def settings(probe: cs.probe.Probe, request: ProbeRequest) -> dict[str, object]:
    """The keyword arguments of the probe's function; those that the request leaves out keep the function's default."""
    values: dict[str, object] = {}
    for name, (setting, _) in probe.fields.items():
        value = getattr(request, name)
        if value is not None:
            values[setting.name] = [value] if setting.several else value
    if probe.split is None and probe.images is not None:  # it draws them from the training images itself
        values["images"] = request.images
    return values


def check_size(probe: cs.probe.Probe, request: ProbeRequest, subject: cs.probe.Subject) -> None:
    """Refuse a setting that is too large for images of this size.

    Raises:
        UsageError: with the largest value.
    """
    for name, (_, field) in probe.fields.items():
        if field.most_for is not None:
            value, maximum = getattr(request, name), field.most_for(subject.data.shape)
            if value is not None and value > maximum:
                raise cs.UsageError(f"{value} {name} of images this large are too many; ask for {maximum}.")
