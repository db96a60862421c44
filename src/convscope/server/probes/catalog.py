"""Catalog: how questions are described to the page, and how its requests become settings; all from the records."""

from collections.abc import Callable, Mapping
from typing import Any

import convscope as cs
from convscope.server import schema

Progress = Callable[[str, int, int], None]
FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": ("model", "at", "edits"),
    "other": ("other", "other_at"),
    "input": ("input", "change", "fit"),
}
"""What a probe needs -> the fields of a request that say it, where it is not the one of that name."""


def info(probe: cs.probe.Probe) -> schema.QuestionInfo:
    """A question as the page lists it, with the settings of its form."""
    return schema.QuestionInfo(
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


def _setting(setting: cs.probe.Setting, field: cs.probe.Field) -> schema.SettingInfo:
    return schema.SettingInfo(
        name=field.name,
        label=field.label,
        kind=field.kind,
        choices=list(setting.choices),
        minimum=setting.minimum,
        maximum=field.maximum,
        default=field.default,
        empty=field.empty,
        only=None if field.only is None else schema.Condition(name=field.only[0], value=field.only[1]),
    )


def meant(request: schema.ProbeRequest) -> schema.ProbeRequest:
    """A request without what has no meaning for its question.

    >>> meant(schema.ProbeRequest(question="shortcut", source="shapes", step="conv1", reach=3)).reach is None
    True
    """
    probe = cs.probe.PROBES[request.question]
    needed = {name for need in probe.needs for name in FIELDS.get(need, (need,))} | probe.fields.keys()
    return schema.ProbeRequest(**{name: getattr(request, name) for name in needed | {"question"}})


def chosen(probe: cs.probe.Probe, request: schema.ProbeRequest) -> dict[str, Any]:
    """The settings of a request, with the default for each that is left out; None for those without a meaning."""
    values: dict[str, Any] = {}
    for name, (_, field) in probe.fields.items():
        asked = getattr(request, name)
        values[name] = field.default if asked is None else asked
        if field.only is not None:
            other, wanted = field.only
            if values[other] is None or wanted not in {None, values[other]}:
                values[name] = None
    return values


def settings(probe: cs.probe.Probe, request: schema.ProbeRequest) -> dict[str, Any]:
    """The keyword arguments of the probe's function; those that the request leaves out keep the function's default."""
    values: dict[str, Any] = {}
    for name, (setting, _) in probe.fields.items():
        value = getattr(request, name)
        if value is not None:
            values[setting.name] = [value] if setting.several else value
    if probe.split is None and probe.images is not None:  # it draws them from the training images itself
        values["images"] = request.images
    return values


def check_size(probe: cs.probe.Probe, request: schema.ProbeRequest, subject: cs.probe.Subject) -> None:
    """Refuse a setting that is too large for images of this size.

    Raises:
        UsageError: with the largest value.
    """
    for name, (_, field) in probe.fields.items():
        if field.most_for is not None:
            asked, most = getattr(request, name), field.most_for(subject.data.shape)
            if asked is not None and asked > most:
                raise cs.UsageError(f"{asked} {name} of images this large are too many; ask for {most}.")
