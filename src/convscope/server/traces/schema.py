"""Traces: a pass through a model, its steps and answers, and what differs between two passes."""

from pydantic import Field

from convscope.server.http.message import Fit, Id, Message, Name, Number
from convscope.server.session.input_schema import Change, InputInfo, InputRef


class Edit(Message):
    """One number of a parameter replaced, or a whole kernel."""

    parameter: Name
    cell: list[int] = Field(max_length=6)
    """A full index, or the leading part of one: then `values` fill the rest, in row-major order."""
    values: list[float] = Field(min_length=1, max_length=4096)


class TraceRequest(Message):
    """Run a model on an input."""

    model: Id
    input: InputRef
    change: Change = Change()
    edits: list[Edit] = Field(default=[], max_length=256)
    at: int | None = Field(default=None, ge=0)
    """The training step whose weights are used; None: the model as it is."""
    fit: Fit | None = None
    """How an image of another size is made to fit; None: it is left, and the model may refuse it."""


class StepInfo(Message):
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


class ParameterInfo(Message):
    """A parameter or buffer."""

    name: str
    shape: list[int]
    changed: bool
    """Whether it was edited in this trace."""


class Answer(Message):
    """What the model says about one class."""

    index: int
    name: str
    value: Number
    probability: Number | None
    """By a softmax over the values; None where the values already come from one, and for a single value."""


class TraceInfo(Message):
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


class StepChange(Message):
    """What differs between one step of two traces."""

    name: str
    comparable: bool
    count: int
    changed: int
    largest: Number
    rms: Number


class DifferenceInfo(Message):
    """What differs between two traces, step by step, by name."""

    steps: list[StepChange]
    missing: list[str]
    added: list[str]
