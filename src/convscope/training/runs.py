"""Runs: reading the folder that a training makes.

config.json           all that is needed to repeat the training, versions included
weights.safetensors   the newest good weights
metrics.jsonl         one JSON object per line: "train" every few batches, "epoch" after each epoch
snapshots/STEP/       the whole state, to resume from
history/STEP.safetensors   weights along the way (small models)
lock                  held while a training writes here
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from torch import nn

from convscope.cards import Card
from convscope.errors import ConvscopeError, RunError, UsageError
from convscope.models import load_model
from convscope.training.recipes import Recipe
from convscope.training.snapshots import snapshot_folders

RUNS = Path("runs")
"""Where runs go by themselves."""
COUNTED = ("running_mean", "running_var", "num_batches_tracked")
"""What normalization layers count beside their parameters."""


@dataclass(frozen=True)
class Run:
    """A training's folder.

    >>> run = cs.train("crosses", out=folder / "crosses")  # doctest: +SKIP
    >>> run.metrics["accuracy"]  # doctest: +SKIP
    1.0
    """

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """All that is needed to repeat the training."""
        return read_config(self.path)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The metrics in order: "train" events every few batches, an "epoch" event after each epoch."""
        return read_metrics(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """The last epoch's metrics: loss, accuracy, test_loss, test_accuracy, ...; empty before one has ended."""
        return next((event for event in reversed(self.history) if event["event"] == "epoch"), {})

    @cached_property
    def model(self) -> nn.Module:
        """The trained model in eval mode."""
        return load_model(self.path)

    @property
    def card(self) -> Card:
        """What the model expects and what its outputs mean, without loading it."""
        return Card.from_json(self.config["card"])

    @cached_property
    def parameters(self) -> int:
        """How many parameters the model has, by the head of weights.safetensors alone; other buffers count as well.

        Raises:
            RunError: the training saved no weights yet, or they are damaged.
        """
        path = self.path / "weights.safetensors"
        try:
            with safe_open(path, "numpy") as weights:
                names = [name for name in weights.keys() if not name.endswith(COUNTED)]  # noqa: SIM118  # no dict
                shapes = [weights.get_slice(name).get_shape() for name in names]
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {path.name}: its training saved none yet.") from None
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} is damaged: {error}.") from None
        return sum(map(math.prod, shapes))

    @property
    def recipe(self) -> Recipe:
        """The settings it was trained with."""
        return Recipe(**self.config["recipe"])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done and the last weights are saved."""
        for path in snapshot_folders(self.path / "snapshots"):
            try:
                done = json.loads((path / "position.json").read_text())["epoch"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            return bool(done == self.config["recipe"]["epochs"])
        return False

    def holding(self, model: nn.Module) -> Self:
        """The same run with a model that is in memory already, so that nothing is read for it."""
        held = replace(self)
        vars(held)["model"] = model
        return held

    def remembered(self) -> Self:
        """The same run with its settings read, so that they go with it to a process on another host."""
        _ = self.config
        return self

    @property
    def steps(self) -> list[int]:
        """The steps whose weights `weights_at` can give, in order."""
        return sorted(int(path.stem) for path in (self.path / "history").glob("[0-9]*.safetensors"))

    def weights_at(self, step: int) -> dict[str, NDArray[Any]]:
        """The weights after `step` optimizer steps, by parameter name.

        Raises:
            UsageError: no weights were kept at this step.
        """
        path = self.path / "history" / f"{step:09d}.safetensors"
        if not path.exists():
            raise UsageError(f"{self.path} kept no weights at step {step}; it did at {self.steps}.")
        try:
            found: dict[str, NDArray[Any]] = load_file(path)
        except SafetensorError as error:
            raise RunError(f"{path} is damaged: {error}.") from None
        return found


def load_run(path: str | Path) -> Run:
    """Open the folder that a training made.

    Raises:
        RunError: the folder is none that a training made, or its config.json is damaged.
    """
    run = Run(Path(path))
    _ = run.config
    return run


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.json."""
    try:
        config = json.loads((path / "config.json").read_text())
        _check_config(config)
    except FileNotFoundError:
        there = "is no run folder: it has no config.json" if path.is_dir() else "does not exist"
        near = RUNS / path.name
        meant = f"; did you mean {near}?" if (near / "config.json").exists() else ";"
        raise RunError(f"{path} {there}{meant} `convscope train DATASET` makes a run and says where.") from None
    except NotADirectoryError:
        meant = f"; did you mean {path.parent}?" if (path.parent / "config.json").exists() else "."
        raise RunError(f"{path} is a file, and a run is a folder{meant}") from None
    except KeyError as error:
        raise RunError(f"{path / 'config.json'} is damaged: it lacks {error}.") from None
    except (OSError, ValueError, TypeError, AttributeError, ConvscopeError) as error:
        raise RunError(f"{path / 'config.json'} is damaged: {error}.") from None
    found: dict[str, Any] = config
    return found


def _check_config(config: dict[str, Any]) -> None:
    """Everything is there that is read without asking."""
    Recipe(**config["recipe"])
    Card.from_json(config["card"])
    data, model = config["dataset"], config["model"]
    _ = data["seed"], dict(data["options"])
    if not isinstance(model["args"], dict):
        raise TypeError("the model's arguments have no names")
    for name in (data["source"], data["name"], model["source"], model["name"]):
        if not isinstance(name, str | None):
            raise TypeError(f"{name!r} is no name")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """A run's metrics; a line that a crash cut short is left out."""
    events = []
    try:
        lines = (path / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    for number, line in enumerate(lines, 1):
        try:
            events.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise RunError(f"{path / 'metrics.jsonl'} is damaged in line {number}.") from None
    return events
