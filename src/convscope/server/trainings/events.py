"""Messages between the server and the child process of a training, each a JSON line: its order, and its events."""

from typing import Literal, TypedDict

import convscope as cs

State = Literal["starting", "running", "paused", "done", "stopped", "failed"]


class NetworkSettings(TypedDict, total=False):
    """What a network of the user's needs."""

    model_args: dict[str, object]
    loss: str


class TrainingSettings(NetworkSettings):
    """What the page chooses; None takes the recipe's."""

    recipe: str
    epochs: int | None
    batch_size: int | None
    lr: float | None
    seed: int | None


class TrainingOrder(TypedDict):
    """The first message to the child: the arguments of `cs.train`."""

    dataset: str
    model: str
    options: dict[str, object]
    """More arguments of `cs.load_dataset`."""
    out: str
    """The run's folder."""
    paused: bool
    """Whether to wait before the first step."""
    settings: TrainingSettings


class ReadingEvent(TypedDict):
    """Data are read or downloaded."""

    event: Literal["reading"]
    message: str


class PacedEvent(cs.ProgressEvent):
    """Progress, and whether the training waits."""

    state: Literal["running", "paused"]


class StepEvent(TypedDict):
    """A step that was taken alone, as a point of the curves."""

    event: Literal["step"]
    loss: float
    accuracy: float
    step: int
    epoch: int


class EndEvent(TypedDict):
    """The last event."""

    event: Literal["end"]
    state: Literal["done", "stopped", "failed"]
    message: str


WorkerEvent = cs.StartEvent | PacedEvent | cs.TrainEvent | cs.EpochEvent | ReadingEvent | StepEvent | EndEvent
