"""Resuming: which run to continue, with which settings, and from which snapshot."""

import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.errors import RunError, UsageError
from convscope.models.catalog import MODELS
from convscope.models.checked_imports import Imports
from convscope.models.run_config import RunConfig
from convscope.models.trust import allowed_imports
from convscope.training.job import BY_HAND, Settings, TrainingJob
from convscope.training.processes import first_says, gathered, launch_id, rank, restarted
from convscope.training.reproducibility import differences, restore_random_state
from convscope.training.runs import RUNS, Run, intact_metrics, load_run
from convscope.training.snapshots import Position, hidden_buffers, newest_good, restore_optimizer, snapshot_folders
from convscope.training.writer import BUSY, METRICS, is_held

LEFT = {"lock", METRICS, "snapshots", "history", ".config.json.part"}
"""Everything that a training can have written if it is killed, or the disk is full, before its config.json exists."""


def find_run(out: str | Path | None, *, may_begin: bool = False) -> Run | None:
    """The run to continue: the folder given, else the newest unfinished one in `runs/`.

    The first process decides for all, because the others may see another disk.

    Args:
        out: The run's folder.
        may_begin: Return None, so that a training can start there, if the folder holds no run yet.

    Raises:
        RunError: there is none.
    """

    def look() -> Run | None:
        unbegun = out is not None and is_unbegun(Path(out))
        if unbegun and may_begin:
            return None
        if unbegun and is_held(Path(out or "")):
            raise RunError(BUSY.format(out))
        if unbegun and Path(out or "").exists():
            raise RunError(
                f"{out} holds no run yet: its training ended before it had written its settings. To start it again, "
                f"name the data: convscope train DATASET --resume --out {shlex.quote(str(out))}"
            )
        return _resumable(out).remembered()

    return first_says(look)


def is_unbegun(path: Path) -> bool:
    """Whether a path is free, an empty folder, or the remains of a training that ended before its config.json."""
    if not path.exists():
        return not path.is_symlink()
    if not path.is_dir():
        return False
    items = list(path.iterdir())
    regular = all(item.is_dir() == (item.name in {"snapshots", "history"}) and not item.is_symlink() for item in items)
    if not regular or not {item.name for item in items} <= LEFT:
        return False
    inside = [file for item in items if item.is_dir() for file in item.iterdir()]
    return not inside and not any(item.stat().st_size for item in items if item.name in {"lock", METRICS})


def run_before_restart(out: str | Path | None) -> Run | None:
    """The run that these processes had started before torchrun restarted them; None if there is none.

    Raises:
        RunError: it is stored on another host than that of the first process.
    """
    if not restarted():
        return None
    run = _own_run(out)
    holders = [number for number, has_run in enumerate(gathered(run is not None)) if has_run]
    if holders and holders[0] != 0:
        raise RunError(
            f"the run is stored on the host of process {holders[0]}, and process 0, which continues it, cannot find "
            "it; copy its folder to this host, or make the host that has it the first one."
        )
    return first_says(lambda: None if run is None else run.remembered())


def _own_run(out: str | Path | None) -> Run | None:
    """The newest run written by this group of processes, in `out` or among all runs."""
    candidates = []
    for config in [Path(out) / "config.json"] if out is not None else RUNS.glob("*/config.json"):
        run = Run(config.parent)
        with suppress(RunError, OSError):
            if run.config["environment"].get("launch") == launch_id():
                candidates.append((config.stat().st_mtime, run))
    return max(candidates, key=lambda pair: pair[0])[1] if candidates else None


def _resumable(out: str | Path | None) -> Run:
    if out is not None:
        return load_run(out)
    unfinished = []
    for config in RUNS.glob("*/config.json"):
        run = Run(config.parent)
        with suppress(RunError):
            if not run.finished:
                unfinished.append((config.stat().st_mtime, run))
    if not unfinished:
        raise RunError(f"{RUNS}/ has no unfinished run; name the folder to continue: --out RUN.")
    return max(unfinished, key=lambda pair: pair[0])[1]


def settings_of(run: Run, settings: Settings, requested: Mapping[str, Any], *, trust: bool = False) -> Settings:
    """The settings that a run was started with; rejects contradicting arguments.

    Args:
        run: The run.
        settings: The arguments that say what to train.
        requested: The other arguments, by name.
        trust: Trust the code that the run names from now on.

    Raises:
        UsageError: an argument contradicts the run, or is missing.
        TrustError: the run names code that the user has not trusted.
    """
    config, recipe = run.config, run.recipe
    source, made_from = config["dataset"]["source"], config["model"]["source"]
    stored = {**config["recipe"], "seed": config["seed"], "device": config["device"], "precision": config["precision"]}
    stored["engine"] = config.get("engine", "torch")
    stored["threads"] = config.get("threads")
    stored |= {"recipe": config["recipe_name"], "dataset": source, "model": config["model"]["name"]}
    if stored["engine"] == "numpy" and requested.get("device") == "auto":  # resolved by that engine
        requested = {**requested, "device": None}
    _check_asked(run, settings, requested, stored)
    _check_model(run, settings)
    if source is not None and settings.dataset is not None and not isinstance(settings.dataset, str):
        raise UsageError(f"{run.path} loads {source} by itself; leave the data out to continue.")
    if config["test"] == BY_HAND and settings.test is None:
        raise UsageError(f"{run.path} was evaluated on test data passed as arrays; pass the same data to continue.")
    imports = _imports(run, trust=trust)
    if source is None and settings.dataset is None:
        raise UsageError(f"{run.path} was trained on data passed as arrays; pass the same data to continue.")
    if made_from is None and not isinstance(settings.model, nn.Module):
        raise UsageError(f"{run.path} trained a module that was passed in; pass one of the same class to continue.")
    return Settings(
        source or settings.dataset,
        made_from or settings.model,
        model_args=config["model"]["args"],
        model_name=config["model"]["name"],
        recipe=recipe.with_changes(epochs=requested["epochs"]),
        recipe_name=config["recipe_name"],
        seed=config["seed"],
        test=settings.test if settings.test is not None else config["test"],
        data_options={**config["dataset"]["options"], **(settings.data_options or {})},
        device=config["device"],
        precision=config["precision"],
        engine=stored["engine"],
        threads=stored["threads"],
        imports=imports,
    )


def _check_asked(run: Run, settings: Settings, requested: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Reject arguments that contradict the run; more epochs do not, where the learning rate is constant."""
    recipe, names = run.recipe, {"dataset": settings.dataset, "model": settings.model}
    for name, value in {**requested, **{key: value for key, value in names.items() if isinstance(value, str)}}.items():
        extends = name == "epochs" and recipe.schedule == "constant" and (value or 0) >= recipe.epochs
        if value is not None and value != stored[name] and not extends:
            raise UsageError(
                f"{run.path} was started with {name.replace('_', '-')} {_or_auto(stored[name])}, not {value}; "
                "leave it out to continue, or start a new training in another --out."
            )


def _or_auto(value: object) -> object:
    return "auto" if value is None else value


def _imports(run: Run, *, trust: bool) -> Imports | None:
    """The files that a run's code may import, as recorded in the run, which the first process reads."""
    source, args = run.config["model"]["source"], run.config["model"]["args"]
    if source is None or source in MODELS:
        return None
    return first_says(lambda: allowed_imports(run.path, source, args, trust=trust))


def _check_model(run: Run, settings: Settings) -> None:
    """Reject a model, or model arguments, that differ from the run's."""
    model = run.config["model"]
    if model["source"] is None:
        return
    if isinstance(settings.model, nn.Module):
        raise UsageError(f"{run.path} builds its own {model['name']}; leave the model out to continue.")
    for name, value in (settings.model_args or {}).items():
        run_value = model["args"].get(name)
        if run_value != value:
            raise UsageError(
                f"{run.path} was started with {model['name']}({name}={run_value!r}), not {value!r}; leave it out to "
                "continue or start a new training in another --out."
            )


def settings_again(run: Run, settings: Settings) -> Settings:
    """The settings of a run whose processes were restarted with the same arguments."""
    by_hand = Settings(
        None if isinstance(settings.dataset, str) else settings.dataset,
        settings.model if isinstance(settings.model, nn.Module) else None,
        test=settings.test,
    )
    return settings_of(run, by_hand, {"epochs": None})


def restore(
    path: Path, stored: RunConfig, job: TrainingJob, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Position, list[str]]:
    """Restore model, optimizer and random state from the newest good snapshot; the first process reads it for all."""
    if job.config["dataset"]["sha256"] != stored["dataset"]["sha256"]:
        raise RunError(
            f"{path} was started with other data than {job.train.name} has now; start a new training in another --out."
        )
    notes = differences(stored["environment"], job.config["environment"])
    folder = path / "snapshots"
    snapshot = first_says(lambda: newest_good(folder) if snapshot_folders(folder) else None)
    if snapshot is None:  # stopped before the first one
        return Position(), list(notes)
    position, weights, state, damaged = snapshot
    states = [state["random"], *state.get("others", [])]
    try:
        model.load_state_dict(weights)
        restore_optimizer(optimizer, state["optimizer"], path)
        for name, buffer in hidden_buffers(model).items():
            model.get_buffer(name).copy_(state.get("buffers", {}).get(name, buffer))
        if rank() < len(states):  # processes added since the snapshot have no state yet
            restore_random_state(states[rank()])
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise RunError(
            f"{path} was trained with another model class than {type(model).__qualname__}: {error}"
        ) from None
    return position, [*notes, *damaged, *first_says(lambda: intact_metrics(path)[1])]


def check_position(path: Path, position: Position, batches: int, epochs: int, sums: Collection[str]) -> None:
    """Reject a position that a training with these settings cannot reach.

    Args:
        path: The run's folder.
        position: The position in its snapshot.
        batches: Steps in an epoch.
        epochs: Epochs in all.
        sums: The names of the running sums.

    Raises:
        RunError: the snapshot and config.json do not belong together.
    """
    consistent = position.step == position.epoch * batches + position.batch and position.batch < batches
    if not consistent or position.step > epochs * batches or position.sums.keys() != set(sums):
        raise RunError(
            f"{path} cannot be resumed: its snapshot is at step {position.step}, batch {position.batch} of epoch "
            f"{position.epoch + 1}, but its settings give {epochs * batches} steps in all, {batches} per epoch. One of "
            "them is damaged or was edited; restore the folder from a backup, or start a new training in another --out."
        )
