"""Replay: repeat a run up to just before one of its steps, with the same weights, optimizer state, batch and masks.

A training is repeatable bit for bit on the same kind of CPU with the same thread count and torch version, so its steps
need not be stored: the steps after the nearest state that the run kept (or the start) are repeated.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import RunError, UsageError
from convscope.progress import Progress, silent
from convscope.training.batches import as_batches, trained_channels_last
from convscope.training.engines import Engine, make_engine, runtime_for
from convscope.training.job import Settings, TrainingJob, prepare_job
from convscope.training.loop import ALL_SUMS, Interrupt, Loop
from convscope.training.objectives import Loss, make_loss
from convscope.training.reproducibility import own_random_state, restore_random_state
from convscope.training.resuming import settings_of
from convscope.training.runs import Run
from convscope.training.snapshots import Position, hidden_buffers, read_snapshot, restore_optimizer, snapshot_folders
from convscope.training.threads import Threads
from convscope.training.writer import Writer


@dataclass(frozen=True, slots=True, eq=False)
class StepState:
    """A training just before one of its steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    images: Tensor
    """The batch as the model receives it, (N, C, H, W)."""
    labels: Tensor
    repeated: int
    """Number of steps that were repeated to get here."""


class _Reached(BaseException):
    """Ends the repetition; a BaseException, so that nothing in between handles it."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.images, self.labels = images, labels


@dataclass(slots=True, eq=False)
class _StopsBefore:
    """An engine that takes some steps and stops before the next one."""

    engine: Engine
    left: int

    def step(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """See `Engine`."""
        if not self.left:
            raise _Reached(images, labels)
        self.left -= 1
        return self.engine.step(images, labels, share)


def before_step(
    run: Run, step: int, act: Callable[[StepState], Any], *, trust: bool = False, progress: Progress = silent
) -> Any:
    """Repeat a run up to just before a step, and call `act` there, with the random state of that moment.

    Args:
        run: A run of PyTorch's engine in one process.
        step: Counted from 1.
        act: Its return value is returned.
        trust: Trust the code that the run names.
        progress: Called while data is read.

    Raises:
        UsageError: the run has no such step, or cannot be repeated here.
        RunError: the repetition produced different weights.
    """
    _check(run)
    settings = settings_of(run, Settings(None), {"epochs": None}, trust=trust)
    runtime = runtime_for(settings.engine, "cpu", settings.precision)
    with ExitStack() as stack:
        stack.enter_context(own_random_state(run.config["seed"]))
        job = prepare_job(settings, runtime, progress)
        if job.config["dataset"]["sha256"] != run.config["dataset"]["sha256"]:
            raise RunError(f"{run.path} was trained on other data than {job.train.name} has now.")
        model = job.model.to(runtime.device, runtime.dtype)
        channels_last = stack.enter_context(trained_channels_last(model, job.train, requested=True))
        threads = Threads(run.config["environment"]["threads"], run.thread_changes, choose=False)
        loss = make_loss(job.recipe)
        engine, optimizer = make_engine("torch", model, job.recipe, loss, runtime)
        assert isinstance(optimizer, torch.optim.Optimizer)
        position = _restored(run, step, model, optimizer)
        stops = _StopsBefore(engine, step - 1 - position.step)
        repeated = stops.left
        train = as_batches(job.train, runtime.device, runtime.dtype, channels_last=channels_last)
        loop = Loop(
            model, stops, optimizer, loss, train, None, job.recipe, job.config["seed"], runtime, Writer(), _ignore,
            Interrupt(), threads, position=position, saved=0,
        )  # fmt: skip
        _check_step(run, step, loop.total)
        try:
            loop.run()
        except _Reached as reached:
            _check_weights(run, step - 1, model, job)
            return act(StepState(model, optimizer, loss, reached.images, reached.labels, repeated))
    raise RunError(f"{run.path} ended before step {step} when it was repeated.")


def _check(run: Run) -> None:
    config = run.config
    if config.get("engine", "torch") != "torch" or config["precision"] == "bfloat16":
        method = "in bfloat16" if config["precision"] == "bfloat16" else "by the NumPy engine"
        raise UsageError(f"{run.path} was trained {method}, and the steps of such a run are not explained.")
    if not str(config["device"]).startswith(("cpu", "auto")):
        raise UsageError(f"{run.path} was trained on {config['device']}, and is repeated exactly only on that device.")
    if config["environment"].get("launch") is not None:
        raise UsageError(f"{run.path} was trained by several processes, and is repeated exactly only by as many.")


def _check_step(run: Run, step: int, total: int) -> None:
    if not 1 <= step <= total:
        raise UsageError(f"{run.path} has steps 1 to {total}, not {step}.")


def _restored(run: Run, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """The position of the nearest intact state before a step, with that state restored; else the start."""
    folders = [folder for name in ("snapshots", "history") for folder in snapshot_folders(run.path / name)]
    for folder in sorted(folders, key=lambda path: int(path.name), reverse=True):
        if int(folder.name) >= step:
            continue
        try:
            position, weights, state = read_snapshot(folder)
        except (OSError, ValueError):
            continue
        if position.sums.keys() != set(ALL_SUMS):
            continue
        model.load_state_dict(weights)
        restore_optimizer(optimizer, state["optimizer"], run.path)
        for name, buffer in hidden_buffers(model).items():
            model.get_buffer(name).copy_(state.get("buffers", {}).get(name, buffer))
        restore_random_state(state["random"])
        return position
    return Position()


def _check_weights(run: Run, step: int, model: nn.Module, job: TrainingJob) -> None:
    """Compare with the weights that the run kept at this step, if it did."""
    if step not in run.steps:
        return
    state = model.state_dict()
    for name, weights in run.weights_at(step).items():
        if not np.array_equal(state[name].numpy(), weights, equal_nan=True):
            raise RunError(
                f"{run.path} cannot be repeated exactly: after {step} steps on {job.train.name} {name} differs from "
                "the run; another kind of CPU, thread count or torch version changes the last bits."
            )


def _ignore(_event: object) -> None:
    """The watcher of a repetition."""
