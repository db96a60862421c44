"""Trainings as the page starts them: a gallery of two data sets, asking, and waiting."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import convscope as cs
from convscope.server.jobs import Workers
from convscope.server.session.schema import SourceInfo
from convscope.server.trainings import training as one
from convscope.server.trainings.registry import Trainings
from convscope.server.trainings.schema import TrainCommand, TrainingInfo, TrainRequest

PATIENCE = 600
"""Seconds for what comes; on a machine with much else to do a process takes long to start."""


class Sources:
    """A gallery with two data sets."""

    def __init__(self) -> None:
        self.runs: dict[str, Path] = {}
        self.workers = Workers()

    def sources(self) -> Sequence[SourceInfo]:
        return [self._source(name, trainable=name != "square") for name in ("crosses", "shapes", "square")]

    def training_data(self, source: str) -> tuple[str, Mapping[str, Any]]:
        return source, {}

    def has_model(self, model: str) -> bool:
        return model == "crosses"

    def add_run(self, name: str, path: Path) -> None:
        self.runs[name] = path

    def close(self) -> None:
        self.workers.close()

    @staticmethod
    def _source(name: str, *, trainable: bool) -> SourceInfo:
        entry = cs.DATASETS[name]
        channels, height, width = entry.shape
        return SourceInfo(
            id=name, name=name, splits=dict(entry.sizes), classes=list(entry.classes), channels=channels,
            height=height, width=width, trainable=trainable,
        )  # fmt: skip


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"waited for {PATIENCE} s"
        time.sleep(0.01)


def wait_for(training: one.Training, *states: str) -> TrainingInfo:
    until(lambda: training.state in states or training.over)
    assert training.state in states, training.info()
    return training.info()


def ask(trainings: Trainings, **request: Any) -> one.Training:
    return trainings.get(trainings.start(TrainRequest(**request)).id)


def say(trainings: Trainings, training: one.Training, word: Any) -> TrainingInfo:
    return trainings.command(training.name, TrainCommand(command=word))
