"""Schema of gradients: one step of a training with its batch and updates, and the backward pass of one image."""

from typing import Literal

from pydantic import Field

from convscope.server.http.message import Id, Message, Number
from convscope.server.traces.schema import TraceInfo, TraceRequest


class TrainingStepRequest(Message):
    """Repeat a step of a run, and record it."""

    model: Id
    """A run."""
    step: int = Field(ge=1, le=2**31 - 1)
    """Counted from 1: step 1 leads from the initial weights to those after one update."""


class BatchImage(Message):
    """One image of a step's batch."""

    index: int
    """Its place in the batch."""
    label: str | None
    """Its class; None where the target is not a class number."""
    loss: Number | None
    """None where the loss is not a mean over images."""
    picture: str
    """Bytes in base64url, of this shape."""
    shape: tuple[int, int, int]


class ParameterUpdate(Message):
    """How a step changed one parameter."""

    name: str
    shape: list[int]
    gradient: int
    """The id of the step that made its gradient."""
    updated: int
    """The id of the step that made its new value."""
    rate: float
    """The learning rate."""
    plain: bool
    """Whether the optimizer multiplies the learning rate by the gradient itself."""


class TrainingStepInfo(Message):
    """One step of a training."""

    trace: TraceInfo
    """All visible steps: forward, loss, backward, update."""
    step: int
    optimizer: str
    """Its name: Adam."""
    mode: str
    loss_name: str
    before: Number
    """The loss of the batch."""
    after: Number
    """The loss of the same batch after the step, by the reference in float64."""
    count: int
    """Images in the batch."""
    images: list[BatchImage]
    """At most 64, those with the largest losses first."""
    updates: list[ParameterUpdate]
    """Kernels and weight matrices first, in the order of the model."""


class StepEffectInfo(Message):
    """The loss of a step's batch after the same update with another learning rate."""

    trace: Id
    times: float
    """The learning rate as a multiple of the step's own."""
    before: Number
    after: Number


class BackwardRequest(Message):
    """The backward pass of an image: how a number changes with every cell before it."""

    forward: TraceRequest
    of: Literal["loss", "class"] = "loss"
    index: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """The class: the label of the loss, or the class whose score is differentiated; None: the image's label, or else
    the model's answer."""


class BackwardInfo(Message):
    """The gradients of one image."""

    trace: TraceInfo
    """For every step of the forward pass that has one, its gradient: named, placed and linked as that step is."""
    of: Literal["loss", "class"]
    index: int
    label: str
    """The name of the class."""
    value: Number
    """The loss, or the score of the class."""
    blocked: list[int]
    """The gradients with cells at which an activation did not pass: they are 0 because of it."""
