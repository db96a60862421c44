"""Probes: a question about models and data, how far its answer is, and what the answer says."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

import convscope as cs
from convscope.server.http.message import Fit, Id, Message, Name
from convscope.server.session.schema import Change, InputRef
from convscope.server.traces.schema import Edit

Split = Literal["train", "test", "all"]
Need = Literal["model", "other", "input", "source", "split", "images"]
FieldKind = Literal["number", "choice", "step", "cell", "class"]


def _existing(name: str) -> str:
    if name not in cs.probe.PROBES:
        raise ValueError(f"no question is called {name!r}; there are {', '.join(cs.probe.PROBES)}")
    return name


QuestionName = Annotated[str, AfterValidator(_existing), Field(json_schema_extra={"enum": list(cs.probe.PROBES)})]


class Condition(Message):
    """Another setting, and the value that it must have; None: any."""

    name: str
    value: str | None


class SettingInfo(Message):
    """A setting of a question: a field of the request, and of the form."""

    name: str
    label: str
    kind: FieldKind
    choices: list[str]
    """The options of a choice."""
    minimum: int | None
    maximum: int | None
    default: int | str | None
    """The value where the request leaves it out."""
    empty: str
    """The words for a field that is left empty."""
    only: Condition | None
    """The condition under which the setting applies; None: always."""


class QuestionInfo(Message):
    """A question that can be asked."""

    name: QuestionName
    asks: str
    """The question in one plain line."""
    says: str
    """The measured quantity in one line."""
    needs: list[Need]
    """The fields of a request that the question uses beside its settings; all others are left out."""
    several: bool
    """Whether it compares models, so that a second one is needed."""
    settings: list[SettingInfo]
    split: Split | None
    """The images it uses by default, if it needs any."""
    images: int | None
    """Their default number."""
    most: int | None
    """Their maximum number."""
    misleads: str
    """When the answer may mislead."""


def _request_fields() -> dict[str, Any]:
    """The settings of all probes as optional fields of a request; those of one name have one meaning."""
    fields: dict[str, Any] = {}
    for probe in cs.probe.PROBES.values():
        for setting, field in probe.fields.values():
            fields[field.name] = (_type(setting, field) | None, None)
    return fields


def _type(setting: cs.probe.Setting, field: cs.probe.Field) -> Any:
    """The type of a field of the request."""
    kinds: dict[str, Any] = {
        "number": Annotated[int, Field(ge=setting.minimum, le=field.maximum)],
        "choice": Literal[setting.choices or ("",)],
        "step": Name,
        "cell": Annotated[list[int], Field(max_length=6)],
        "class": Annotated[int, Field(ge=0, le=2**31 - 1)],
    }
    return kinds[field.kind]


if TYPE_CHECKING:
    ProbeSettings = Message
else:
    ProbeSettings = create_model("ProbeSettings", __base__=Message, **_request_fields())


class ProbeRequest(ProbeSettings):
    """Ask a question. What it does not need has no meaning; what it needs and is left out is chosen by the server."""

    question: QuestionName
    model: Id | None = None
    at: int | None = Field(default=None, ge=0)
    """As in a trace request, like the edits, the input, the change and the fit."""
    edits: list[Edit] = Field(default=[], max_length=256)
    input: InputRef | None = None
    change: Change = Change()
    fit: Fit | None = None
    other: Id | None = None
    """A second model, and the training step of its weights."""
    other_at: int | None = Field(default=None, ge=0)
    source: Id | None = None
    """The data; None: those of the model."""
    split: Split | None = None
    images: int | None = Field(default=None, ge=1, le=60_000)
    """The number of images, from the first."""


class ProbeInfo(Message):
    """A question that was asked, and how far its answer is."""

    id: Id
    state: Literal["waiting", "running", "done", "stopped", "failed"]
    what: str
    """The current activity."""
    done: int
    total: int
    """The number of units of work, of which `done` are finished; 0: unknown."""
    message: str
    """The error message if it failed."""
    request: ProbeRequest
    """The question with the values that the server chose; edits and painted pixels are left out."""


class ProbeCommand(Message):
    """A word to a probe."""

    command: Literal["cancel"]


class TextPart(Message):
    """Lines of text, as printing the result gives them; indented ones belong to the line above them."""

    kind: Literal["text"] = "text"
    lines: list[str]


class TablePart(Message):
    """A table, its numbers as printing the result gives them."""

    kind: Literal["table"] = "table"
    head: list[str]
    rows: list[list[str]]
    """A row that is shorter than the head ends in a remark, which reaches over the columns that are left."""
    right: list[int]
    """The columns that are aligned by their last digit."""


class ProbeSample(Message):
    """An image that models disagree on, and what each of them says."""

    index: int
    label: str
    answers: list[str]
    """In the order of the models."""
    right: list[bool]
    picture: str
    """Its pixels, uint8, (C, H, W) with C 1 or 3, base64url, at most 48 a side."""
    shape: tuple[int, int, int]


class ProbeAnswer(Message):
    """The result of a probe."""

    sentence: str
    """Its first one: what the picture shows."""
    parts: list[TextPart | TablePart]
    samples: list[ProbeSample]
    """Images of the data that the answer names: those on which models disagree."""
    picture: bool
    """Whether there is one."""
    command: str | None
    """The command that gives the same answer; None where none does."""
