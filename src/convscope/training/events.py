"""Events: what a training reports while it runs, to the caller's `watch` and to metrics.jsonl. Uses no torch."""

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict


class StartEvent(TypedDict):
    """Once, before the first step."""

    event: Literal["start"]
    run: str
    """The run's folder."""
    model: str
    parameters: int
    """Number of parameters."""
    dataset: str
    images: int
    """Number of training images."""
    device: str
    recipe: dict[str, Any]
    """The JSON form of `Recipe`."""
    total: int
    """Steps in all epochs."""
    log_every: int
    """Steps between two "train" events."""
    step: int
    """Steps that an earlier, interrupted training has taken."""
    resumed: bool
    notes: list[str]


class Means(TypedDict):
    """Means over images; left out where there are none."""

    loss: NotRequired[float]
    accuracy: NotRequired[float]


class Alone(TypedDict):
    """The means of the batch of a step that was taken alone."""

    step_loss: NotRequired[float]
    step_accuracy: NotRequired[float]


class ProgressEvent(Means, Alone):
    """Once before the first step, and then about ten times a second, with the means of the epoch so far."""

    event: Literal["progress"]
    step: int
    epoch: int
    """From 1: the one under way."""
    total: int
    epochs: int
    lr: float
    seconds: float
    """Training time so far, interruptions not counted."""


class Tested(TypedDict):
    """What else is known at the end of an epoch."""

    test_loss: NotRequired[float]
    """If there are test images, like `test_accuracy`."""
    test_accuracy: NotRequired[float]
    skipped: NotRequired[int]
    """Number of images of the epoch that could not be read."""


class TrainEvent(Means):
    """Every few batches, with the means since the last."""

    event: Literal["train"]
    step: int
    epoch: int
    lr: float
    seconds: float


class EpochEvent(Means, Tested):
    """After each epoch."""

    event: Literal["epoch"]
    step: int
    epoch: int
    """From 1: the one that has ended."""
    lr: float
    seconds: float


class ThreadsEvent(TypedDict):
    """Where a training goes on with another number of threads; in metrics.jsonl only."""

    event: Literal["threads"]
    step: int
    """The last step with the former number."""
    epoch: int
    threads: int


MetricsEvent = TrainEvent | EpochEvent
"""What was measured."""
LoggedEvent = MetricsEvent | ThreadsEvent
"""A line of metrics.jsonl."""
Event = StartEvent | ProgressEvent | MetricsEvent
Watch = Callable[[Event], float | None]
"""Called with each event. The training waits until it returns. Its return value for "progress" sets the pace: seconds
until the next one, or 0 for a single step, whose weights are then kept too; None keeps a tenth of a second.
(Several processes ignore the pace.)"""
