"""Starting a training, or going on with one: its settings, its run folder, its parts."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.errors import RunError, UsageError
from convscope.progress import Progress, silent
from convscope.training.batches import Batches, as_batches
from convscope.training.engines import check_engine, make_engine, runtime_for
from convscope.training.interrupts import interruptible
from convscope.training.job import DataSource, Job, Settings, prepare_job
from convscope.training.layout import trained_channels_last
from convscope.training.loop import Loop, Watch
from convscope.training.objectives import make_loss
from convscope.training.randomness import own_random_state
from convscope.training.resuming import RUNS, find_run, restore, settings_of
from convscope.training.runs import Run, load_run
from convscope.training.runtime import Runtime
from convscope.training.snapshots import Position, snapshot_folders
from convscope.training.writer import RunWriter, Writer


def train(
    dataset: DataSource | None = None,
    model: str | nn.Module | None = None,
    *,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: str | None = None,
    loss: str | None = None,
    schedule: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    engine: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    test: DataSource | None = None,
    model_args: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    progress: Progress = silent,
    snapshot_seconds: float = 10.0,
) -> Run:
    """Train a model and write a run folder; or, with `resume`, go on with one.

    >>> run = cs.train("shapes", seed=0)  # doctest: +SKIP
    >>> run.metrics["test_accuracy"]  # doctest: +SKIP
    0.995

    Args:
        dataset: A name (see `cs.load_dataset`), a Dataset, or arrays (images (N, C, H, W) or (N, H, W), labels (N,)).
        model: A name or `file.py:Class`, or a module, which is then trained in place; None takes the data set's own.
        recipe: "fast" (default), or "tutorial" for the published settings.
        epochs: Passes over the data. This and the next five, where given, replace the recipe's setting.
        batch_size: Images per step.
        lr: Learning rate, the highest where the recipe varies it.
        optimizer: adam, adamw, sgd, adadelta, ...
        loss: cross-entropy, mse or nll.
        schedule: How the learning rate goes: constant or one-cycle.
        seed: Of the generated data, the initial weights and the order; None takes the recipe's.
        device: "auto" (default), "cpu", "cuda", "cuda:1", "mps".
        precision: "float32" (default), "bfloat16" (autocast) or "float64".
        engine: "torch" (default), or "numpy": `convscope.reference` calculates every step, in float64, for the
            networks of the tutorials.
        out: The run's folder; by default `runs/MODEL`, numbered where that exists.
        resume: Go on with the run in `out`, or with the newest unfinished one; a finished one is returned. Its own
            settings hold; of the
            arguments only `epochs` may differ (and only where the learning rate does not depend on it).
        test: Data to measure the accuracy on after each epoch, where `dataset` is no name.
        model_args: Keyword arguments of the model.
        data_options: More arguments of `cs.load_dataset`: size, data_dir, image_size, grey, strict.
        watch: Called with every event, see `Watch` in training/loop.py.
        progress: Called while data are read or downloaded.
        snapshot_seconds: Time between two snapshots.

    Raises:
        UnknownName: of a data set, model, recipe, optimizer, loss, precision or engine.
        UsageError: a model or setting that the NumPy engine lacks.
        DataError: data that cannot be trained on.
        ShapeError: a model that does not fit the data.
        RunError: a folder that cannot be written, that exists already, or that another training holds.
        TrainingError: the loss is no longer a number, or the disk is full; what was saved is intact.
        KeyboardInterrupt: after Ctrl-C, when everything is saved.
    """
    changes = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "loss": loss,
        "schedule": schedule,
    }
    others = {"recipe": recipe, "seed": seed, "device": device, "precision": precision, "engine": engine}
    if resume:
        run = find_run(out)
        again = Settings(dataset, model, model_args, test=test, data_options=data_options)
        settings = settings_of(run, again, {**changes, **others})
        if run.finished and epochs is None:
            return run
        out = run.path
    else:
        if dataset is None:
            raise UsageError("name a data set to train on, such as shapes or mnist, or go on with --resume.")
        others["device"], others["precision"] = check_engine(engine or "torch", device, precision)
        given: dict[str, Any] = {key: value for key, value in others.items() if value is not None}
        settings = Settings(
            dataset, model, model_args=model_args, changes=changes, test=test, data_options=data_options, **given
        )
    runtime = runtime_for(settings.engine, settings.device, settings.precision)
    job = prepare_job(settings, runtime, progress)
    first = runtime.rank == 0
    path = free_path(job.config["model"]["name"]) if out is None else Path(out)
    if not resume and first:
        _refuse_existing(path)
    with RunWriter(path) if first else Writer() as writer, own_random_state(job.config["seed"]):
        return _run(job, path, runtime, writer, watch or _nobody, resume=resume, snapshot_seconds=snapshot_seconds)


def _run(
    job: Job, path: Path, runtime: Runtime, writer: Writer, watch: Watch, *, resume: bool, snapshot_seconds: float
) -> Run:
    """Put the parts together, as the last snapshot left them, and train; the model ends in its usual form."""
    model = job.model.to(runtime.device, runtime.dtype)
    wanted = job.config["engine"] == "torch" and runtime.device.type == "cpu"
    with trained_channels_last(model, job.train, wanted=wanted) as channels_last, interruptible() as interrupt:
        stored = load_run(path).config if resume else job.config
        torch.set_num_threads(stored["environment"]["threads"])
        loss = make_loss(job.recipe)
        engine, optimizer = make_engine(job.config["engine"], model, job.recipe, loss, runtime)
        position, notes = Position(), list(job.notes)
        if resume and snapshot_folders(path / "snapshots"):
            position, said = restore(path, stored, job, model, optimizer)
            notes += said
        writer.configure({**job.config, "environment": stored["environment"]})
        train, test = _batches(job, runtime, channels_last=channels_last)
        loop = Loop(
            model, engine, optimizer, loss, train, test, job.recipe, job.config["seed"], runtime, writer,
            watch if runtime.rank == 0 else _nobody, interrupt, snapshot_seconds, position,
            saved=position.step if position.sums else -1,
        )  # fmt: skip
        loop.watch(_start_event(job, path, loop, notes, resumed=resume))
        finished = loop.run()
    runtime.meet()
    model.eval()
    if not finished:
        raise KeyboardInterrupt(
            f"stopped at step {loop.position.step} of {loop.total}, everything is saved; "
            f"go on with: convscope train --resume --out {shlex.quote(str(path))}"
        )
    run = Run(path)
    run.__dict__["model"] = model.cpu()
    return run


def _batches(job: Job, runtime: Runtime, *, channels_last: bool) -> tuple[Batches, Batches | None]:
    """The training images, and the test images where this process measures."""
    train = as_batches(job.train, runtime.device, runtime.dtype, channels_last=channels_last)
    if job.test is None or runtime.rank != 0:
        return train, None
    return train, as_batches(job.test, runtime.device, runtime.dtype, channels_last=channels_last)


def free_path(name: str) -> Path:
    """`runs/NAME`, or with the next free number."""
    stem = Path(name.partition(":")[0]).stem if ":" in name else name
    path, number = RUNS / stem, 2
    while path.exists():
        path, number = RUNS / f"{stem}-{number}", number + 1
    return path


def _refuse_existing(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; a run needs a folder. Choose another --out.")
    if path.exists() and any(path.iterdir()):
        how = (
            "go on with it by --resume, or choose another --out"
            if (path / "config.json").exists()
            else "choose another --out"
        )
        raise RunError(f"{path} exists and is not empty; {how}.")


def _start_event(job: Job, path: Path, loop: Loop, notes: list[str], *, resumed: bool) -> dict[str, Any]:
    return {
        "event": "start",
        "run": str(path),
        "model": job.config["model"]["name"],
        "parameters": sum(value.numel() for value in job.model.parameters()),
        "dataset": job.train.name,
        "images": len(job.train),
        "recipe": job.recipe.to_json(),
        "total": loop.total,
        "log_every": loop.log_every,
        "step": loop.position.step,
        "resumed": resumed,
        "notes": notes,
    }


def _nobody(event: Mapping[str, Any]) -> None:
    """Watches nothing."""
