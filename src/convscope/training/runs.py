"""Runs: read the folder that a training writes.

config.json           all that is needed to repeat the training, versions included; holds its own SHA-256
weights.safetensors   the newest good weights; hold their own SHA-256
metrics.jsonl         one JSON object per line, with a checksum: "train" every few batches, "epoch" after each epoch
snapshots/STEP/       the whole state, to resume from
history/STEP.safetensors   weights along the way (small models)
lock                  held while a training writes here
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from torch import nn

import convscope as cs
from convscope.cards.card import Card
from convscope.errors import DataWarning, RunError, UnknownName, UsageError, WeightsError
from convscope.escaping import spelled
from convscope.files import open_to_read
from convscope.models import run_config
from convscope.models.loading import load_model
from convscope.models.run_config import RunConfig
from convscope.models.weights_files import check_seal
from convscope.render.numbers import decimal
from convscope.rich_display import RichDisplay
from convscope.training.events import LoggedEvent, MetricsEvent
from convscope.training.recipes import Recipe
from convscope.training.snapshots import newest_position
from convscope.training.threads import thread_changes
from convscope.training.writer import METRICS, history_step, read_metrics
from convscope.type_checks import takes
from convscope.typing import Array

RUNS = Path("runs")
"""Default folder for runs."""
SCORES = ("loss", "accuracy", "test_loss", "test_accuracy")
"""The metrics of an epoch that are printed."""
COUNTED = ("running_mean", "running_var", "num_batches_tracked")
"""Counters in the buffers of normalization layers, which are not parameters."""


@dataclass(frozen=True)
class Run(RichDisplay):
    """The folder that a training writes.

    >>> run = cs.train("crosses", out=folder / "crosses")  # doctest: +SKIP
    >>> run.metrics["accuracy"]  # doctest: +SKIP
    1.0
    """

    path: Path

    def __str__(self) -> str:
        """What was trained on what, how, and how well; the path alone where the folder is damaged or unfinished."""
        return self.described(str(self.path))

    @takes()
    def described(self, name: str) -> str:
        """What `str` returns, with another name in place of the path."""
        try:
            recipe, config = self.recipe, self.config
            scores = [
                f"{name.replace('_', ' ')} {decimal(self.metrics[name])}" for name in SCORES if name in self.metrics
            ]
            lines = [
                f"{name}: {self.card.name} trained on {config['dataset']['name']}, {self.parameters:,} parameters",
                f"{recipe.optimizer}, learning rate {recipe.lr:g}, {recipe.loss} loss, batches of {recipe.batch_size}, "
                f"seed {config['seed']}",
                f"epoch {self.metrics['epoch']} of {recipe.epochs}: {', '.join(scores)}",
            ]
        except (RunError, UsageError, KeyError, TypeError):
            return spelled(f"{name}: no finished epoch, or damaged")
        return "\n".join(map(spelled, lines))

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.absolute().name

    @cached_property
    def config(self) -> RunConfig:
        """Everything that is needed to repeat the training."""
        return read_config(self.path)

    @cached_property
    def history(self) -> list[MetricsEvent]:
        """The metrics in order: "train" events every few batches, an "epoch" event after each epoch.

        Raises:
            RunError: metrics.jsonl cannot be read.

        Warns:
            DataWarning: damaged lines were left out, or the end of the file is missing.
        """
        events, notes = intact_metrics(self.path)
        for note in notes:
            warnings.warn(note, DataWarning, stacklevel=2)
        return [event for event in events if event["event"] != "threads"]

    @property
    def thread_changes(self) -> dict[int, int]:
        """Where the training went on with another number of threads: step -> number from the next step on.

        `config["environment"]["threads"]` is the number that it started with.

        Raises:
            RunError: metrics.jsonl cannot be read.
        """
        return thread_changes(intact_metrics(self.path)[0])

    @property
    def metrics(self) -> dict[str, Any]:
        """The last epoch's metrics: loss, accuracy, test_loss, test_accuracy, ...; empty before the first has ended."""
        return next((dict(event) for event in reversed(self.history) if event["event"] == "epoch"), {})

    @cached_property
    def model(self) -> nn.Module:
        """The trained model in eval mode."""
        return load_model(self.path)

    @property
    def card(self) -> Card:
        """The model's card: its input and the meaning of its outputs, without loading it."""
        return Card.from_json(self.config["card"])

    @cached_property
    def parameters(self) -> int:
        """Number of parameters, read from the header of weights.safetensors only; buffers are included.

        Raises:
            RunError: the training has not saved any weights yet, or they are damaged.
        """
        path = self.path / "weights.safetensors"
        try:
            open_to_read(path).close()  # rejects a pipe, on which safe_open would block
            with safe_open(path, "numpy") as weights:
                names = [name for name in weights.keys() if not name.endswith(COUNTED)]  # noqa: SIM118  # no dict
                shapes = [weights.get_slice(name).get_shape() for name in names]
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {path.name}: its training has not saved any weights yet.") from None
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
        except SafetensorError as error:
            raise RunError(f"{path} is damaged: {error}.") from None
        return sum(map(math.prod, shapes))

    @property
    def recipe(self) -> Recipe:
        """The settings it was trained with."""
        return Recipe.from_json(self.config["recipe"])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done and the last weights are saved."""
        position = newest_position(self.path / "snapshots")
        return position is not None and bool(position.epoch == self.recipe.epochs)

    def report(self, images: object = None, *, out: str | Path = "report.html", **options: Any) -> Any:
        """Write the run and all numbers of some images as one HTML file; see `cs.report`.

        >>> print(run.report("mnist:test/0-9", out="digits.html"))  # doctest: +SKIP
        wrote digits.html (758 kB): simple-cnn, 10 images
        """
        return cs.report(self, images, out=out, **options)

    def holding(self, model: nn.Module) -> Self:
        """The same run with a model that is already in memory, so that it is not read from disk."""
        run = replace(self)
        vars(run)["model"] = model
        return run

    def remembered(self) -> Self:
        """The same run with its settings loaded, so that they are sent with it to a process on another host."""
        _ = self.config
        return self

    @property
    def steps(self) -> list[int]:
        """The steps whose weights `weights_at` can give, in order."""
        steps = (history_step(path) for path in (self.path / "history").glob("[0-9]*.safetensors") if path.is_file())
        return sorted(step for step in steps if step is not None)

    @takes()
    def weights_at(self, step: int) -> dict[str, Array]:
        """The weights after `step` optimizer steps, by parameter name.

        Raises:
            UsageError: no weights were kept at this step.
            RunError: they are damaged, or cannot be read.
        """
        path = self.path / "history" / f"{step:09d}.safetensors"
        if not path.exists():
            raise UsageError(f"{self.path} has no weights for step {step}; it has them for {self.steps}.")
        try:
            check_seal(path)
            weights: dict[str, Array] = load_file(path)
        except SafetensorError as error:
            raise RunError(f"{path} is damaged: {error}.") from None
        except WeightsError as error:
            raise RunError(str(error)) from None
        except FileNotFoundError:  # removed by a running training in the meantime
            raise
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
        return weights


@takes()
def load_run(path: str | Path) -> Run:
    """Open the folder that a training made.

    ```python
    run = cs.load_run("runs/shapes-cnn")
    run.model, run.metrics["accuracy"]
    ```

    Args:
        path: The folder.

    Raises:
        RunError: the folder is not a run, or its config.json is damaged.
    """
    run = Run(Path(path))
    _ = run.config
    return run


Model = nn.Module | Run | str | Path
"""A module, a run, or what `load_model` takes: a built-in network, a run folder, file.py:Class."""


def as_model(model: Model) -> nn.Module:
    """A module; of a run, the trained one.

    >>> as_model("shapes-cnn").fc
    Linear(in_features=144, out_features=2, bias=True)
    """
    if isinstance(model, Run):
        return model.model
    return model if isinstance(model, nn.Module) else load_model(model)


def read_config(path: Path) -> RunConfig:
    """A run's config.json, with a valid recipe.

    Raises:
        RunError: it does not exist, cannot be read, or is damaged.
    """
    try:
        config = run_config.read_config(path)
    except FileNotFoundError:
        reason = "is not a run folder: it has no config.json" if path.is_dir() else "does not exist"
        near = RUNS / path.name
        hint = f"; did you mean {near}?" if (near / "config.json").exists() else ";"
        raise RunError(f"{path} {reason}{hint} `convscope train DATASET` writes a run and prints its path.") from None
    except NotADirectoryError:
        hint = f"; did you mean {path.parent}?" if (path.parent / "config.json").exists() else "."
        raise RunError(f"{path} is a file, and a run is a folder{hint}") from None
    try:
        Recipe.from_json(config["recipe"])
    except (UsageError, UnknownName) as error:
        raise RunError(f"{path / 'config.json'} is damaged: {error}") from None
    return config


def intact_metrics(run: Path) -> tuple[list[LoggedEvent], list[str]]:
    """A run's metrics without damaged lines, and a sentence where any are missing.

    Raises:
        RunError: metrics.jsonl cannot be read.
    """
    path = run / METRICS
    try:
        metrics = read_metrics(run)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
    if metrics.damaged:
        numbers = ", ".join(map(str, metrics.damaged[:5])) + ", ..." * (len(metrics.damaged) > 5)
        lines = f"line {numbers} is" if len(metrics.damaged) == 1 else f"lines {numbers} are"
        return metrics.events, [f"{path}: {lines} damaged and left out."]
    position = newest_position(run / "snapshots")
    if position is not None and metrics.size < position.metrics_bytes:
        return metrics.events, [f"{path} is damaged: it has {metrics.size} bytes of {position.metrics_bytes} left."]
    return metrics.events, []
