"""Schema: what the page and the server say to each other. The page's TypeScript types are generated from it.

Numbers that may be infinite or no number are `Number`: "nan", "inf" and "-inf" as texts. Everything is named by an
id that the server gave out; no path and no address ever comes from the page.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | Literal["nan", "inf", "-inf"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
"""An id of a model, a data source, a training, an input or a trace."""
PAINTED = 375_000
"""Numbers of an image that a page may send itself."""
Name = Annotated[str, Field(min_length=1, max_length=200)]
"""A name that something in a model has: a step, a parameter."""


class Said(BaseModel):
    """Base of all: unknown keys are refused, and what was said stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Said):
    """Any error: one sentence that says what was asked, what there is and what to do."""

    message: str


# What is open


class Expected(Said):
    """What a model takes."""

    channels: int | None
    height: int | None
    width: int | None
    fixed: bool
    """Whether it takes no other size."""


class ModelInfo(Said):
    """A model that is open in the explorer."""

    id: Id
    name: str
    parameters: int
    classes: list[str]
    expects: Expected
    source: Id | None
    """The data source whose samples suit it."""
    run: bool
    """Whether it comes from a run folder."""
    history: list[int]
    """The training steps whose weights were kept, in order; empty where there are none."""
    start: "InputRef | None"
    """The input to show first."""
    notes: list[str]


class SourceInfo(Said):
    """A data set whose images can be shown, and trained on."""

    id: Id
    name: str
    splits: dict[str, int]
    """Split -> how many images."""
    classes: list[str]
    channels: int
    height: int
    width: int
    trainable: bool


class KernelInfo(Said):
    """A named kernel, such as sobel-x."""

    name: str
    what: str
    values: list[list[float]]


class Limits(Said):
    """What the server takes."""

    upload_bytes: int
    upload_pixels: int
    terms: int
    """Terms of a sum in one answer."""
    painted: int = PAINTED
    """Numbers of an image that was painted: channels times rows times columns."""


class Session(Said):
    """Everything that is open."""

    version: str
    models: list[ModelInfo]
    sources: list[SourceInfo]
    kernels: list[KernelInfo]
    limits: Limits
    can_train: bool


# Inputs


class SampleRef(Said):
    """An image of a data source."""

    kind: Literal["sample"] = "sample"
    source: Id
    split: Literal["train", "test", "all"]
    index: int = Field(ge=0)


class StoredRef(Said):
    """An image that was uploaded or given on the command line."""

    kind: Literal["stored"] = "stored"
    id: Id


class PixelsRef(Said):
    """An image that was painted: its pixels themselves, as float32 in 0..1, little-endian, (C, H, W), base64url."""

    kind: Literal["pixels"] = "pixels"
    shape: tuple[int, int, int]
    data: str = Field(max_length=PAINTED * 16 // 3)


InputRef = Annotated[SampleRef | StoredRef | PixelsRef, Field(discriminator="kind")]


class Change(Said):
    """What is done to an input before the model gets it, in this order: rotated, shifted, noise added."""

    rotate: float = Field(default=0, ge=-180, le=180)
    """Degrees, counter-clockwise."""
    down: int = Field(default=0, ge=-512, le=512)
    right: int = Field(default=0, ge=-512, le=512)
    noise: float = Field(default=0, ge=0, le=2)
    """Standard deviation, in units of the full range 0..1."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class InputInfo(Said):
    """An input as the model gets it."""

    name: str
    shape: tuple[int, int, int]
    label: int | None
    notes: list[str]
    """What was done to it: resized, grey, inverted."""
    low: Number
    high: Number
    picture: str
    """Its pixels as they are shown, uint8, (C, H, W) with C 1 or 3, base64url; a larger one is shrunk to 256 pixels."""
    picture_shape: tuple[int, int, int]
    """That of `picture`: where a side of `shape` is longer than 256, both are shrunk by the same factor."""


class Stored(Said):
    """An uploaded image."""

    id: Id
    name: str
    height: int
    width: int
    channels: int
    notes: list[str]


# Traces


class Edit(Said):
    """One number of a parameter replaced, or a whole kernel."""

    parameter: Name
    cell: list[int] = Field(max_length=6)
    """A full index, or the leading part of one: then `values` fill the rest, in row-major order."""
    values: list[float] = Field(min_length=1, max_length=4096)


class TraceRequest(Said):
    """Run a model on an input."""

    model: Id
    input: InputRef
    change: Change = Change()
    edits: list[Edit] = Field(default=[], max_length=256)
    at: int | None = Field(default=None, ge=0)
    """The training step whose weights are used; None: the model as it is."""
    fit: Literal["resize", "pad"] | None = None
    """How an image of another size is made to fit; None: it is left, and the model may refuse it."""


class StepInfo(Said):
    """One operation that a person recognises."""

    id: int
    name: str
    says: str
    """The operation in words: "convolution 3x3, padding 1"."""
    op: str
    module: str
    module_type: str
    shape: list[int]
    dtype: str
    inputs: list[int]
    """Ids of the visible steps it reads; empty for one that reads the image."""
    parameters: dict[str, str]
    """Argument -> parameter."""
    transposed: bool = False
    """Whether it is a transposed convolution: the axes of its weight are (C, K / groups, R, S)."""
    outputs: int
    overridden: bool


class ParameterInfo(Said):
    """A parameter or buffer."""

    name: str
    shape: list[int]
    changed: bool
    """Whether it was edited in this trace."""


class Answer(Said):
    """What the model says about one class."""

    index: int
    name: str
    value: Number
    probability: Number | None
    """By a softmax over the values; None where the values already come from one, and for a single value."""


class TraceInfo(Said):
    """One forward pass."""

    id: Id
    model: Id
    input: InputInfo
    steps: list[StepInfo]
    modules: dict[str, str]
    """Module path -> class, as the model defines them: how steps fold."""
    parameters: list[ParameterInfo]
    answers: list[Answer]
    """The largest first, at most 20; empty where the output is no vector."""
    output: int | None
    """The id of the step that made the answer."""
    notes: list[str]
    error: str | None
    """Why the pass did not come to its end; the steps are then those before."""


class StepChange(Said):
    """What differs between one step of two traces."""

    name: str
    comparable: bool
    count: int
    changed: int
    largest: Number
    rms: Number


class DifferenceInfo(Said):
    """What differs between two traces, step by step, by name."""

    steps: list[StepChange]
    missing: list[str]
    added: list[str]


class Proof(Said):
    """What is known about one number; see docs/explanation.md for the statuses."""

    status: str
    says: str
    proved: bool


class Line(Said):
    """One line of a calculation on paper: what is added, its number as it is shown, and a remark."""

    kind: Literal["row", "rule", "blank", "text"] = "row"
    label: str = ""
    number: str = ""
    after: str = ""
    channel: int | None = None
    """Whose sum it is, where the line is the sum of one input channel of a window."""
    term: int | None = None
    """Which term of `left`, or which of the cells of a function, the line shows; counted from 0."""


class Paper(Said):
    """The calculation as `Explanation.to_text()` writes it, for a page: windows and kernels are drawn from the JSON."""

    headline: str
    """What the number is, in words."""
    result: str
    """The number, rounded as the calculation shows it."""
    lines: list[Line]
    """All but the grids: terms or channel sums (the largest first, then the others), sum, rounding, bias, rule,
    calculated, in full, recorded, difference."""
    products: list[str] = []
    """Each product as it is shown, aligned with `left` of the expression; empty where there is none."""
    sums: list[str] = []
    """What the products as they are shown add up to, one after the other; each channel of a window by itself."""


class Explained(Said):
    """Why a number is what it is."""

    explanation: dict[str, Any]
    """As `Explanation.to_json()` gives it, its long sums cut to the largest terms."""
    sentence: str
    """One sentence for a screen reader."""
    rest: dict[str, Number] | None
    """Of a sum that was cut: "terms" and "total" of what was left out."""
    proof: Proof | None
    """None: ask `/proof`, the step is being recomputed."""
    paper: Paper | None = None
    """The calculation in lines; None where there is no rule."""


class ContributionsInfo(Said):
    """The same number as contributions of the input's pixels plus a constant; the pixels are raw, beside it."""

    value: Number
    constant: Number
    total: Number
    residual: Number
    bound: Number
    linear: bool
    bent: list[str]
    checks: bool
    shape: list[int]


# Training


class TrainRequest(Said):
    """Start a training."""

    source: Id
    model: Name
    """A built-in model's name."""
    recipe: Literal["fast", "tutorial"] = "fast"
    epochs: int | None = Field(default=None, ge=1, le=10_000)
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    lr: float | None = Field(default=None, gt=0, le=100)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    paused: bool = False
    """Wait before the first step."""


class TrainOptions(Said):
    """What can be trained on what."""

    models: dict[str, list[str]]
    """Data source id -> built-in models that fit it, the default one first."""
    recipes: list[str]


class TrainingInfo(Said):
    """A training that this server started."""

    id: Id
    """Also the id of its model, once it has weights."""
    source: Id
    model: str
    state: Literal["starting", "running", "paused", "done", "stopped", "failed"]
    message: str
    """Where it failed: why; while it starts: what it reads."""
    step: int
    total: int
    epoch: int
    epochs: int
    loss: float | None = None
    """Mean over the epoch so far, and so is the accuracy."""
    accuracy: float | None = None
    request: TrainRequest


class TrainCommand(Said):
    """A word to a training."""

    command: Literal["pause", "resume", "step", "stop"]


class TrainingEvent(Said):
    """One server-sent event of a training: `data` of the stream. The first ones repeat all metrics so far."""

    info: TrainingInfo
    points: list[dict[str, float | int | str | None]]
    """New lines of the metrics: "event" ("train" or "epoch"), step, epoch, loss, accuracy, test_loss, test_accuracy."""
    history: list[int]
    """New training steps whose weights can be traced by `at`."""
