"""Training: what can be trained, how a training is told what to do, and what it tells."""

from typing import Literal

from pydantic import Field

from convscope.server.http.message import Id, Message, Name


class TrainRequest(Message):
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


class TrainOptions(Message):
    """What can be trained on what."""

    models: dict[str, list[str]]
    """Data source id -> built-in models that fit it, the default one first."""
    recipes: list[str]


class TrainingInfo(Message):
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


class TrainCommand(Message):
    """A word to a training."""

    command: Literal["pause", "resume", "step", "stop"]


class TrainingEvent(Message):
    """One server-sent event of a training: `data` of the stream. The first ones repeat all metrics so far."""

    info: TrainingInfo
    points: list[dict[str, float | int | str | None]]
    """New lines of the metrics: "event" ("train" or "epoch"), step, epoch, loss, accuracy, test_loss, test_accuracy."""
    history: list[int]
    """New training steps whose weights can be traced by `at`."""
