"""Schema of traces: the request of a forward pass, its steps and answers, and the difference between two passes."""

from pydantic import Field

from convscope.server.http.message import Fit, Id, Message, Name, Number
from convscope.server.session.schema import Change, InputInfo, InputRef


class Edit(Message):
    """New values for one number of a parameter, or for a whole kernel."""

    parameter: Name
    cell: list[int] = Field(max_length=6)
    """A full index of the parameter, or its leading part; `values` then fill the rest in row-major order."""
    values: list[float] = Field(min_length=1, max_length=4096)


class TraceRequest(Message):
    """Run a model on an input."""

    model: Id
    input: InputRef
    change: Change = Change()
    edits: list[Edit] = Field(default=[], max_length=256)
    at: int | None = Field(default=None, ge=0)
    """The training step whose weights to use; None for the current weights."""
    fit: Fit | None = None
    """How to fit an image of another size; None leaves it unchanged, and the model may reject it."""


class StepInfo(Message):
    """One visible step of a trace."""

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
    """Ids of the visible steps whose results it reads; empty for a step that reads the image."""
    parameters: dict[str, str]
    """Argument -> name of the parameter."""
    transposed: bool = False
    """Whether the step is a transposed convolution, whose weight has the axes (C, K / groups, R, S)."""
    outputs: int
    overridden: bool


class ParameterInfo(Message):
    """A parameter or buffer."""

    name: str
    shape: list[int]
    changed: bool
    """Whether it was edited in this trace."""


class Answer(Message):
    """The model's score for one class."""

    index: int
    name: str
    value: Number
    probability: Number | None
    """Softmax over the values; None if the values already come from a softmax, and for a single value."""


class TraceInfo(Message):
    """One forward pass."""

    id: Id
    model: Id
    input: InputInfo
    steps: list[StepInfo]
    modules: dict[str, str]
    """Module path -> class name, in the model's order; steps are grouped by module."""
    parameters: list[ParameterInfo]
    answers: list[Answer]
    """The classes with the largest scores, at most 20, largest first; empty if the output is not a vector."""
    output: int | None
    """The id of the step that made the output."""
    notes: list[str]
    error: str | None
    """Why the pass failed; `steps` are then those before the failure."""


class StepChange(Message):
    """The difference between two traces in one step."""

    name: str
    comparable: bool
    count: int
    changed: int
    largest: Number
    rms: Number


class DifferenceInfo(Message):
    """The difference between two traces, step by step, matched by name."""

    steps: list[StepChange]
    missing: list[str]
    added: list[str]
