"""Schema of trainings: options, requests, commands and events."""

from typing import Literal

from pydantic import Field

from convscope.server.blocks import Specs
from convscope.server.http.message import Id, Message, Name


class TrainRequest(Message):
    """Start a training."""

    source: Id
    model: Name
    """A name of the options' models; `blocks` for the network of `blocks`."""
    recipe: Literal["fast", "tutorial"] = "fast"
    epochs: int | None = Field(default=None, ge=1, le=10_000)
    batch_size: int | None = Field(default=None, ge=1, le=65_536)
    lr: float | None = Field(default=None, gt=0, le=100)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    paused: bool = False
    """Whether to wait before the first step."""
    blocks: Specs | None = None
    """The network, if the model is `blocks`."""


class TrainOptions(Message):
    """The models that fit each data source."""

    models: dict[str, list[str]]
    """Data source id -> models that fit it, the default first; the user's own ones last."""
    recipes: list[str]
    unfit: dict[str, dict[str, str]]
    """Data source id -> the user's own networks that do not fit it, and why."""


class TrainingInfo(Message):
    """A training that this server started."""

    id: Id
    """The training's id; also that of its model, once it has weights."""
    source: Id
    model: str
    state: Literal["starting", "running", "paused", "done", "stopped", "failed"]
    message: str
    """The reason of a failure, or what is being loaded during the start."""
    step: int
    total: int
    epoch: int
    epochs: int
    loss: float | None = None
    """Mean loss over the epoch so far."""
    accuracy: float | None = None
    """Mean accuracy over the epoch so far."""
    request: TrainRequest


class TrainCommand(Message):
    """A command to a training."""

    command: Literal["pause", "resume", "step", "stop"]


class TrainingEvent(Message):
    """One server-sent event of a training. The first event contains all metrics so far."""

    info: TrainingInfo
    points: list[dict[str, float | int | str | None]]
    """New metrics: step, epoch, loss, accuracy, test_loss, test_accuracy, and "event": "train" (the mean since the one
    before), "step" (of a step that was taken alone) or "epoch"."""
    history: list[int]
    """New training steps whose weights were kept; a trace request selects them with `at`."""


class Metrics(Message):
    """What a run measured while it was trained."""

    points: list[dict[str, float | int | str | None]]
    """Like those of a training's events; of each kind at most some thousand, evenly spaced."""
    total: int
    """The last step that was measured."""
