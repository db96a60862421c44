"""Starting a training, or going on with one: the run folder, the lock, the seed, and the way back after a stop."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.errors import RunError, UsageError
from convscope.models import check_trusted
from convscope.progress import Progress, silent
from convscope.training.batches import as_batches, make_channels_last, set_layout
from convscope.training.engines import check_engine, make_engine, runtime_for
from convscope.training.environment import differences
from convscope.training.interrupts import interruptible
from convscope.training.job import BY_HAND, DataSource, Job, Settings, prepare_job
from convscope.training.loop import Loop, Watch
from convscope.training.objectives import make_loss
from convscope.training.runs import Run, load_run
from convscope.training.runtime import Runtime
from convscope.training.snapshots import Position, newest_good, restore_random_state, snapshot_folders
from convscope.training.writer import RunWriter, Writer

RUNS = Path("runs")


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
        settings = _settings_of(run, again, {**changes, **others})
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
    job = prepare_job(settings, progress)
    first = runtime.rank == 0
    path = free_path(job.config["model"]["name"]) if out is None else Path(out)
    if not resume and first:
        _refuse_existing(path)
    with RunWriter(path) if first else Writer() as writer, _own_random_state(job.config["seed"]):
        return _run(job, path, runtime, writer, watch or _nobody, resume=resume, snapshot_seconds=snapshot_seconds)


def _run(
    job: Job, path: Path, runtime: Runtime, writer: Writer, watch: Watch, *, resume: bool, snapshot_seconds: float
) -> Run:
    """Put the parts together, train, and put the model back into its usual form."""
    stored = load_run(path).config if resume else job.config
    torch.set_num_threads(stored["environment"]["threads"])
    notes = list(job.notes)
    dtype = torch.float64 if runtime.precision == "float64" else torch.float32
    model = job.model.to(runtime.device, dtype)
    by_torch = job.config["engine"] == "torch"
    channels_last = by_torch and runtime.device.type == "cpu" and make_channels_last(model, job.train)
    loss = make_loss(job.recipe)
    engine, optimizer = make_engine(job.config["engine"], model, job.recipe, loss, runtime)
    position = Position()
    if resume and snapshot_folders(path / "snapshots"):
        position, said = _restore(path, stored, job, model, optimizer)
        notes += said
    writer.configure({**job.config, "environment": stored["environment"]})
    train, test = (
        None if data is None else as_batches(data, runtime.device, dtype, channels_last=channels_last)
        for data in (job.train, job.test if runtime.rank == 0 else None)
    )
    assert train is not None
    with interruptible() as interrupt:
        loop = Loop(
            model, engine, optimizer, loss, train, test, job.recipe, job.config["seed"], runtime, writer, watch,
            interrupt, snapshot_seconds, position, saved=position.step if position.sums else -1,
        )  # fmt: skip
        watch = watch if runtime.rank == 0 else _nobody
        loop.watch = watch
        watch(_start_event(job, path, loop, notes, resumed=resume))
        finished = loop.run()
    runtime.meet()
    set_layout(model, torch.contiguous_format)
    model.eval()
    if not finished:
        raise KeyboardInterrupt(
            f"stopped at step {loop.position.step} of {loop.total}, everything is saved; "
            f"go on with: convscope train --resume --out {shlex.quote(str(path))}"
        )
    run = Run(path)
    run.__dict__["model"] = model.cpu()
    return run


def _restore(
    path: Path, stored: Mapping[str, Any], job: Job, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Position, list[str]]:
    """Bring model, optimizer and random state to the newest good snapshot."""
    if job.config["dataset"]["sha256"] != stored["dataset"]["sha256"]:
        raise RunError(
            f"{path} was begun with other data than {job.train.name} now holds; train anew into another --out."
        )
    said = differences(stored["environment"])
    position, weights, state, damaged = newest_good(path / "snapshots")
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"{path} was trained on another kind of model than {type(model).__qualname__}: {error}"
        ) from None
    restore_random_state(state["random"])
    return position, [*said, *damaged]


def _settings_of(run: Run, given: Settings, asked: Mapping[str, Any]) -> Settings:
    """The settings that a run was begun with; refuses arguments that say something else."""
    config, recipe = run.config, run.recipe
    source, made_from = config["dataset"]["source"], config["model"]["source"]
    stored = {**config["recipe"], "seed": config["seed"], "device": config["device"], "precision": config["precision"]}
    stored["engine"] = config.get("engine", "torch")
    stored |= {"recipe": config["recipe_name"], "dataset": source, "model": config["model"]["name"]}
    names = {"dataset": given.dataset, "model": given.model}
    for name, value in {**asked, **{key: value for key, value in names.items() if isinstance(value, str)}}.items():
        extends = name == "epochs" and recipe.schedule == "constant" and (value or 0) >= recipe.epochs
        if value is not None and value != stored[name] and not extends:
            raise UsageError(
                f"{run.path} was begun with {name.replace('_', '-')} {stored[name]}, not {value}; "
                "leave it out to go on, or train anew into another --out."
            )
    if made_from is not None and (isinstance(given.model, nn.Module) or given.model_args):
        raise UsageError(f"{run.path} builds its own {stored['model']}; leave model and arguments out to go on.")
    if source is not None and given.dataset is not None and not isinstance(given.dataset, str):
        raise UsageError(f"{run.path} loads {source} by itself; leave the data out to go on.")
    if config["test"] == BY_HAND and given.test is None:
        raise UsageError(f"{run.path} was measured on test data given by hand; give the same to go on.")
    if made_from is not None:
        check_trusted(run.path, made_from, config["model"]["args"])
    if source is None and given.dataset is None:
        raise UsageError(f"{run.path} was trained on data given by hand; give the same data to go on.")
    if made_from is None and not isinstance(given.model, nn.Module):
        raise UsageError(f"{run.path} was trained on a module given by hand; give one of the same kind to go on.")
    return Settings(
        source or given.dataset,
        made_from or given.model,
        model_args=config["model"]["args"],
        model_name=config["model"]["name"],
        recipe=recipe.with_changes(epochs=asked["epochs"]),
        recipe_name=config["recipe_name"],
        seed=config["seed"],
        test=given.test if given.test is not None else config["test"],
        data_options={**config["dataset"]["options"], **(given.data_options or {})},
        device=config["device"],
        precision=config["precision"],
        engine=stored["engine"],
    )


def find_run(out: str | Path | None) -> Run:
    """The run to go on with: the folder named, else the newest unfinished one in `runs/`.

    Raises:
        RunError: there is none.
    """
    if out is not None:
        return load_run(out)
    unfinished = []
    for config in RUNS.glob("*/config.json"):
        run = Run(config.parent)
        with suppress(RunError):
            if not run.finished:
                unfinished.append((config.stat().st_mtime, run))
    if not unfinished:
        raise RunError(f"no unfinished run lies in {RUNS}/; name the folder to go on with: --out RUN.")
    return max(unfinished, key=lambda pair: pair[0])[1]


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


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed PyTorch for the training, and leave the caller's random state and thread count as they were."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
