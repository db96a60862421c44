"""Start or resume a training: settings, run folder, and the parts put together."""

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from convscope.blocks.reading import is_network_file, read_network_file
from convscope.errors import RunError, UsageError
from convscope.models.catalog import MODELS
from convscope.models.run_config import RunConfig
from convscope.models.trust import remember
from convscope.progress import Progress, silent
from convscope.render.numbers import decimal, percent
from convscope.training.batches import Batches, as_batches, trained_channels_last
from convscope.training.engines import check_engine, make_engine, runtime_for
from convscope.training.events import Event, StartEvent, Watch
from convscope.training.job import DataSource, Settings, TrainingJob, prepare_job
from convscope.training.loop import ALL_SUMS, Loop, interruptible
from convscope.training.objectives import make_loss
from convscope.training.processes import agree, all_do, companions, first_says, join
from convscope.training.reproducibility import own_random_state
from convscope.training.resuming import (
    check_position,
    find_run,
    is_unbegun,
    restore,
    run_before_restart,
    settings_again,
    settings_of,
)
from convscope.training.runs import RUNS, Run
from convscope.training.runtime import Runtime
from convscope.training.snapshots import Position
from convscope.training.threads import MOST, Threads
from convscope.training.writer import BUSY, RunWriter, Writer, is_held
from convscope.type_checks import takes


@takes(dataset="Dataset | str | tuple", model="Module | str | Path")
def train(
    dataset: DataSource | None = None,
    model: str | Path | nn.Module | None = None,
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
    threads: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    test: DataSource | None = None,
    model_args: Mapping[str, object] | None = None,
    data_options: Mapping[str, object] | None = None,
    watch: Watch | None = None,
    progress: Progress = silent,
    snapshot_seconds: float = 10.0,
    trust: bool = False,
) -> Run:
    """Train a model and write a run folder; or, with `resume`, continue one.

    Several processes (see `cs.launch`) train one model together, and the first writes the folder. If torchrun
    restarts them after one has died, they continue from the last snapshot.

    >>> run = cs.train("shapes", seed=0)  # doctest: +SKIP
    >>> run.metrics["test_accuracy"]  # doctest: +SKIP
    0.995

    Args:
        dataset: A name (see `cs.load_dataset`), a Dataset, or arrays (images (N, C, H, W) or (N, H, W), labels (N,)).
        model: A name, `file.py:Class` or a file of blocks (`net.json`, built for the shape and classes of the data), or
            a module, which is trained in place; None takes the data set's own.
        recipe: "fast" (default), or "tutorial" for the published settings.
        epochs: Passes over the data. This and the next five arguments override the recipe.
        batch_size: Images per step.
        lr: Learning rate; the peak, if the schedule varies it.
        optimizer: adam, adamw, sgd, adadelta, ...
        loss: cross-entropy, mse or nll.
        schedule: Learning rate schedule: constant or one-cycle.
        seed: Seed of the generated data, the initial weights and the order; None takes the recipe's.
        device: "auto" (default), "cpu", "cuda", "cuda:1", "mps".
        precision: "float32" (default), "bfloat16" (autocast) or "float64".
        engine: "torch" (default), or "numpy": `convscope.reference` computes every step, in float64, for the
            networks of the tutorials.
        threads: Number of processor threads, for weights that must be equal to the last bit on every machine of a kind.
            None takes as many as PyTorch uses, one for small models, and fewer while these are faster because other
            programs are running (`Run.thread_changes` says when).
        out: The run's folder; by default `runs/MODEL` (`runs/pets` for `folder:pets`), with a number if that exists.
        resume: Continue the run in `out`, or the newest unfinished one; a finished one is returned. The run's own
            settings apply; only `epochs` may differ (and only if the learning rate does not depend on it). If
            `dataset` is given and `out` does not exist, or holds only the remains of a training that was killed before
            its first snapshot, a new training starts there, so that the same command can be repeated.
        test: Data to evaluate on after each epoch, if `dataset` is not a name.
        model_args: Keyword arguments for the model.
        data_options: More arguments of `cs.load_dataset`: size, data_dir, image_size, grey, strict.
        watch: Called with every event, see `Watch` in training/events.py. Without it, a terminal or a notebook shows
            a line for each epoch; `lambda event: None` shows nothing.
        progress: Called while data is read or downloaded.
        snapshot_seconds: Time between two snapshots.
        trust: Whether the code that a resumed run names may be executed; a run started on this machine needs no trust.

    Raises:
        UnknownName: unknown data set, model, recipe, optimizer, loss, precision or engine.
        UsageError: a model or setting that the NumPy engine does not support.
        DataError: data that cannot be trained on, that need more memory than is free, or that differ between processes.
        ShapeError: a model that does not fit the data.
        RunError: a folder that cannot be written, that exists already, or that another training is writing to.
        TrustError: a resumed run names code that you have not trusted, or that has changed since.
        TrainingError: the loss is no longer finite, or the disk is full; what was saved is intact.
        KeyboardInterrupt: after Ctrl-C, when everything is saved.
    """
    changes = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "optimizer": optimizer, "loss": loss,
        "schedule": schedule,
    }  # fmt: skip
    model = str(model) if isinstance(model, Path) else model
    if is_network_file(model):
        model, model_args = "blocks", {"blocks": read_network_file(str(model))["blocks"], **(model_args or {})}
    arguments = Settings(dataset, model, model_args, test=test, data_options=data_options)
    join()
    begun = find_run(out, may_begin=dataset is not None) if resume else run_before_restart(out)
    if begun is None:
        settings = _settings(
            replace(arguments, changes=changes),
            recipe=recipe,
            seed=seed,
            device=device,
            precision=precision,
            engine=engine,
            threads=threads,
        )
    else:
        others = {
            "recipe": recipe, "seed": seed, "device": device, "precision": precision, "engine": engine,
            "threads": threads,
        }  # fmt: skip
        requested = {**changes, **others}
        settings = settings_of(begun, arguments, requested, trust=trust) if resume else settings_again(begun, arguments)
        if epochs in {None, begun.recipe.epochs} and first_says(lambda: begun.finished):
            return begun
    return _trained(
        settings, begun, out=out, resume=resume, watch=watch or default_watcher(), progress=progress,
        snapshot_seconds=snapshot_seconds,
    )  # fmt: skip


def _settings(
    arguments: Settings,
    *,
    recipe: str | None,
    seed: int | None,
    device: str | None,
    precision: str | None,
    engine: str | None,
    threads: int | None,
) -> Settings:
    """The settings of a new training; those that are None keep their defaults."""
    if arguments.dataset is None:
        raise UsageError("name a data set to train on, such as shapes or mnist, or continue with --resume.")
    device, precision = check_engine(engine or "torch", device, precision)
    if threads is not None and not 1 <= threads <= MOST:
        raise UsageError(f"threads is a number from 1 to {MOST}, not {threads}.")
    others = {
        "recipe": recipe, "seed": seed, "device": device, "precision": precision, "engine": engine, "threads": threads,
    }  # fmt: skip
    chosen: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    return replace(arguments, **chosen)


def _trained(
    settings: Settings,
    begun: Run | None,
    *,
    out: str | Path | None,
    resume: bool,
    watch: Watch,
    progress: Progress,
    snapshot_seconds: float,
) -> Run:
    """Prepare the job, in every process the same, choose or open its folder, and train."""
    runtime = runtime_for(settings.engine, settings.device, settings.precision)
    job = all_do(lambda: prepare_job(settings, runtime, progress))
    agree("training", job.facts)
    if begun is None:
        path, restart_notes = first_says(lambda: new_path(out, _name_of(settings, job), resume=resume))
        job = replace(job, notes=(*job.notes, *restart_notes))
    else:
        path = begun.path
    with ExitStack() as stack:
        writer = all_do(lambda: stack.enter_context(RunWriter(path) if runtime.rank == 0 else Writer()))
        stack.enter_context(own_random_state(job.config["seed"]))
        stack.enter_context(companions())
        return _run(job, path, runtime, writer, watch, begun=begun, snapshot_seconds=snapshot_seconds)


def _run(
    job: TrainingJob,
    path: Path,
    runtime: Runtime,
    writer: Writer,
    watch: Watch,
    *,
    begun: Run | None,
    snapshot_seconds: float,
) -> Run:
    """Assemble the parts, restored from the last snapshot, and train; the model ends on the CPU in eval mode."""
    model = job.model.to(runtime.device, runtime.dtype)
    suits_channels_last = job.config["engine"] == "torch" and runtime.device.type == "cpu"
    with (
        trained_channels_last(model, job.train, requested=suits_channels_last) as channels_last,
        interruptible() as interrupt,
    ):
        stored = first_says(lambda: job.config if begun is None else begun.config)
        loss = make_loss(job.recipe)
        engine, optimizer = make_engine(job.config["engine"], model, job.recipe, loss, runtime)
        position, notes = Position(), [*job.notes, *runtime.notes(model)]
        if begun is not None:
            position, restore_notes = restore(path, stored, job, model, optimizer)
            notes += restore_notes
        writer.configure({**job.config, "environment": stored["environment"]})
        threads = _threads(job, stored, runtime, {} if begun is None else first_says(lambda: begun.thread_changes))
        notes += _remembered(path, job) if runtime.rank == 0 else []
        threads.follow(position.step)
        train, test = _batches(job, runtime, channels_last=channels_last)
        loop = Loop(
            model, engine, optimizer, loss, train, test, job.recipe, job.config["seed"], runtime, writer,
            watch if runtime.rank == 0 else _ignore, interrupt, threads, snapshot_seconds, position,
            saved=position.step if position.sums else -1,
        )  # fmt: skip
        if begun is not None and position.sums:
            check_position(path, position, loop.batches, job.recipe.epochs, ALL_SUMS)
        loop.watch(_start_event(job, path, loop, notes, resumed=begun is not None))
        finished = loop.run()
    runtime.meet()
    model.eval()
    if not finished:
        raise KeyboardInterrupt(
            f"stopped at step {loop.position.step} of {loop.total}, everything is saved; "
            f"continue with: convscope train --resume --out {shlex.quote(str(path))}"
        )
    return Run(path).holding(model.cpu())


def _threads(job: TrainingJob, stored: RunConfig, runtime: Runtime, recorded: Mapping[int, int]) -> Threads:
    """The number of threads, which is chosen anew now and then where that may gain time."""
    single = runtime.world == 1 and runtime.device.type == "cpu" and job.config["engine"] == "torch"
    chosen = stored.get("threads") is None and single
    return Threads(stored["environment"]["threads"], recorded, choose=chosen)


def _remembered(path: Path, job: TrainingJob) -> list[str]:
    """Trust the run, because the user named its code; returns a note if the trust cannot be stored."""
    source, args = job.config["model"]["source"], job.config["model"]["args"]
    note = "" if source is None or source in MODELS else remember(path, source, args, job.imports)
    return [note] if note else []


def _batches(job: TrainingJob, runtime: Runtime, *, channels_last: bool) -> tuple[Batches, Batches | None]:
    """The training images, and the test images if there are any."""
    train = as_batches(job.train, runtime.device, runtime.dtype, channels_last=channels_last)
    if job.test is None:
        return train, None
    return train, as_batches(job.test, runtime.device, runtime.dtype, channels_last=channels_last)


def _name_of(settings: Settings, job: TrainingJob) -> str:
    """A run's default name: that of its model, or of its data if these use the default model."""
    if settings.model is None and isinstance(settings.dataset, str) and ":" in settings.dataset:
        return Path(settings.dataset.partition(":")[2].partition("?")[0]).stem or "run"
    return job.name


def free_path(name: str, folder: Path = RUNS, is_taken: Callable[[Path], bool] = Path.exists) -> Path:
    """`runs/NAME`, or with the next free number: a training's default folder.

    >>> free_path("shapes-cnn", Path("runs"), lambda path: path.name == "shapes-cnn").name
    'shapes-cnn-2'

    Args:
        name: Name of the run.
        folder: Parent folder of the runs.
        is_taken: Tells whether a path is in use.
    """
    stem = Path(name.rpartition(":")[0]).stem if ":" in name else name
    path, number = folder / stem, 2
    while is_taken(path):
        path, number = folder / f"{stem}-{number}", number + 1
    return path


def new_path(out: str | Path | None, name: str, *, resume: bool) -> tuple[Path, tuple[str, ...]]:
    """The path of a new run, and notes if `resume` was requested or an earlier training left something there.

    Raises:
        RunError: the path is in use.
    """
    path = free_path(name) if out is None else Path(out)
    if path.is_symlink() and not path.exists():
        raise RunError(f"{path} is a broken link; a run needs a folder. Choose another --out.")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; a run needs a folder. Choose another --out.")
    if is_held(path):
        raise RunError(BUSY.format(path))
    if not is_unbegun(path):
        remedy = (
            "continue it with --resume (in Python resume=True), or choose another --out"
            if (path / "config.json").exists()
            else "choose another --out"
        )
        raise RunError(f"{path} exists and is not empty; {remedy}.")
    if path.exists() and any(path.iterdir()):
        return path, (f"{path} has only the remains of a training that ended before its first step; it starts again.",)
    return path, (f"{path} holds no run to resume yet, so a new training starts.",) * resume


def _start_event(job: TrainingJob, path: Path, loop: Loop, notes: list[str], *, resumed: bool) -> StartEvent:
    return {
        "event": "start",
        "run": str(path),
        "model": job.name,
        "parameters": sum(value.numel() for value in job.model.parameters()),
        "dataset": job.train.name,
        "images": len(job.train),
        "device": str(loop.runtime.device),
        "recipe": job.recipe.to_json(),
        "total": loop.total,
        "log_every": loop.log_every,
        "step": loop.position.step,
        "resumed": resumed,
        "notes": notes,
    }


def default_watcher() -> Watch:
    """The watcher of a training without one: a line for each epoch where a person sees it, else nothing."""
    return EpochLines() if is_interactive() else _ignore


def _ignore(event: Event) -> None:
    """A watcher that ignores every event."""


# Epoch lines: `cs.train` prints a line for each epoch in a terminal or a notebook.


LINES = 30
"""With more epochs than this, only evenly spaced ones and the last are printed."""


def is_interactive() -> bool:
    """Whether a person sees the output: a terminal, or a notebook."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()


class EpochLines:
    """A watcher that prints each epoch's loss and accuracies to standard error.

    >>> EpochLines()({"event": "train", "step": 1, "epoch": 1, "lr": 0.01, "seconds": 0.1})
    """

    epochs = 0

    def __call__(self, event: Event) -> None:
        """Print an epoch; other events print nothing."""
        if event["event"] == "start":
            self.epochs = event["recipe"]["epochs"]
        if event["event"] != "epoch":
            return
        epoch = event["epoch"]
        if epoch != self.epochs and epoch % max(1, self.epochs // LINES):
            return
        line = f"epoch {epoch}/{self.epochs}  loss {decimal(event['loss'])}  accuracy {percent(event['accuracy'])}"
        if "test_accuracy" in event:
            line += f"  test accuracy {percent(event['test_accuracy'])}"
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
