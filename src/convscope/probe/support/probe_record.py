"""Probe: the record of a question, from which its command, the server's catalogue and the page's form are derived.

Loads no torch, so that `convscope probe --help` answers at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from convscope.probe.support.report import ProbeReport
from convscope.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from convscope.data.dataset import Dataset
    from convscope.inputs.pictures import Prepared
    from convscope.traces.trace import Trace
    from convscope.training.runs import Run

Noun = Literal["model", "models", "image", "dataset"]
Need = Literal["model", "other", "input", "source", "split", "images"]
Kind = Literal["number", "choice", "step", "cell", "class"]
NEEDS: Mapping[Noun, tuple[Need, ...]] = {
    "model": ("model",),
    "models": ("model", "other"),
    "image": ("input",),
    "dataset": ("source",),
}
"""Argument of the command -> the fields of the page's request."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a probe's command: a model, several, an image or a data set."""

    noun: Noun
    help: str
    required: bool = True
    option: str = ""
    """The option that gives it, where it is not given by its position."""
    least: int = 1
    """The number needed."""


@dataclass(frozen=True, slots=True)
class Field:
    """A setting on the page: a field of the request and of the form."""

    name: str
    label: str
    kind: Kind
    default: int | str | None = None
    """The value where the field is left empty."""
    maximum: int | None = None
    empty: str = ""
    """The words for a field that is left empty."""
    only: tuple[str, str | None] | None = None
    """Another field and the value that it must have for this one to mean anything; None: any value."""
    most_for: Callable[[tuple[int, ...]], int] | None = None
    """The largest value for images of this shape, (C, H, W)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a probe, with the option of its command and the field of the page."""

    name: str
    """The keyword argument of the probe's function."""
    help: str = ""
    default: object = None
    type: type = str
    several: bool = False
    """Whether the function takes a sequence; the option may be repeated."""
    option: str = ""
    """The option without its dashes, where it is not the name."""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    within: str = ""
    """Another setting, in whose option this one is written after a colon: `--at STEP:CELL`."""
    parse: Callable[[Sequence[str]], object] = tuple
    """The function's argument from the values of an option that may be repeated."""
    field: Field | None = None
    """None: the page does not offer it."""

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.option or self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The models and data of a question; the command line and the server each make one."""

    models: "Sequence[nn.Module]" = ()
    names: Sequence[str] = ()
    """The display name of each model."""
    run: "Run | None" = None
    """The run that the first model comes from."""
    split: "Callable[[str], Dataset | None]" = lambda _: None
    """The images of a split of the data; None where it has none."""
    part: str = "test"
    """The split that `data` gives."""
    image: "Callable[[], Prepared] | None" = None
    """Makes the image ready for the first model."""
    trace: "Callable[[Progress], Trace] | None" = None
    """Records a pass of the image through the first model."""

    @property
    def model(self) -> "nn.Module":
        """The first model."""
        return self.models[0]

    @property
    def data(self) -> "Dataset":
        """The images."""
        data = self.split(self.part)
        assert data is not None
        return data


class Result(Protocol):
    """The result of a probe."""

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""


Settings = Mapping[str, Any]
Ask = Callable[[Subject, Settings, Progress], Result]


@dataclass(frozen=True, slots=True)
class Probe:
    """The record of a probe, from which its command, its form in the explorer and its JSON are derived."""

    name: str
    """The name in `convscope probe NAME` and docs/probes/NAME.md; with underscores in `cs.probe` and `cs.plot`."""
    question: str
    """The question in one line."""
    measures: str
    """The measured quantity in one line."""
    help: str
    """The help text of the command."""
    arguments: tuple[Argument, ...]
    run: Ask
    result: str
    """The class of the result, as a path in convscope."""
    caveats: str
    """The caveats, word for word from docs/probes/NAME.md."""
    settings: tuple[Setting, ...] = ()
    split: Literal["train", "test", "all"] | None = None
    """Whose images are scanned by default; None: the probe takes the training and the test images."""
    images: int | None = None
    """The default number of images on the page."""
    most: int | None = None
    """The maximum number of images on the page."""
    picture_needs: tuple[str, str] | None = None
    """A setting without which the result has no picture, and the message that says so."""
    fails: bool = field(default=False, kw_only=True)
    """Whether the command's exit status is 1 where something was found."""

    @property
    def function(self) -> str:
        """Its name in `cs.probe`, and that of its picture in `cs.plot`."""
        return self.name.replace("-", "_")

    @property
    def needs(self) -> tuple[Need, ...]:
        """The fields of the page's request that it is about, beside its settings."""
        needs: list[Need] = [need for argument in self.arguments for need in NEEDS[argument.noun]]
        needs += ["split"] * (self.split is not None)
        needs += ["images"] * (self.images is not None)
        return tuple(needs)

    @property
    def fields(self) -> Mapping[str, tuple[Setting, Field]]:
        """The settings that the page offers, by the name of their field."""
        return {setting.field.name: (setting, setting.field) for setting in self.settings if setting.field is not None}

    def argument(self, noun: Noun) -> Argument | None:
        """The argument of this kind; None where it has none."""
        return next((argument for argument in self.arguments if argument.noun == noun), None)

    def has_picture(self, settings: Settings) -> bool:
        """Whether the result for these settings has a picture."""
        return self.picture_needs is None or settings.get(self.picture_needs[0]) is not None
