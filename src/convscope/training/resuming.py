"""Resuming: which run to go on with, by which settings, and from where."""

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
from convscope.models.trust import allowed_imports
from convscope.training.collectives import first_says, gathered, restarted
from convscope.training.environment import differences
from convscope.training.job import BY_HAND, Settings, TrainingJob
from convscope.training.metrics import METRICS
from convscope.training.random_state import restore_random_state
from convscope.training.rendezvous import launch_id, rank
from convscope.training.runs import RUNS, Run, intact_metrics, load_run
from convscope.training.snapshots import Position, hidden_buffers, newest_good, snapshot_folders
from convscope.training.writer import BUSY, is_held

LEFT = {"lock", METRICS, "snapshots", "history", ".config.json.part"}
"""All that a training has written when it is killed, or out of space, before its config.json is there."""


def find_run(out: str | Path | None, *, may_begin: bool = False) -> Run | None:
    """The run to go on with: the folder named, else the newest unfinished one in `runs/`.

    The first process looks; the others, which may see another disk, take its word.

    Args:
        out: The run's folder.
        may_begin: Whether a training may begin there instead, where no run has been begun: the answer is None.

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
                f"{out} holds no run yet: its training ended before it had written its settings. Name what to train "
                f"on, to begin it anew: convscope train DATASET --resume --out {shlex.quote(str(out))}"
            )
        return _found(out).remembered()

    return first_says(look)


def is_unbegun(path: Path) -> bool:
    """Whether a path is free, an empty folder, or one as a training leaves it that ends before its config.json."""
    if not path.exists():
        return not path.is_symlink()
    if not path.is_dir():
        return False
    there = list(path.iterdir())
    whole = all(item.is_dir() == (item.name in {"snapshots", "history"}) and not item.is_symlink() for item in there)
    if not whole or not {item.name for item in there} <= LEFT:
        return False
    inside = [file for item in there if item.is_dir() for file in item.iterdir()]
    return not inside and not any(item.stat().st_size for item in there if item.name in {"lock", METRICS})


def run_before_restart(out: str | Path | None) -> Run | None:
    """The run that these processes had begun, where torchrun has started them anew; None where they had begun none.

    Raises:
        RunError: it lies on another host than that of the first process.
    """
    if not restarted():
        return None
    mine = _own_run(out)
    holders = [number for number, there in enumerate(gathered(mine is not None)) if there]
    if holders and holders[0] != 0:
        raise RunError(
            f"the run that was begun lies with process {holders[0]}, and process 0, which goes on with it, does not "
            "find it; copy its folder to this host, or let the host that has it be the first."
        )
    return first_says(lambda: None if mine is None else mine.remembered())


def _own_run(out: str | Path | None) -> Run | None:
    """The newest run, of those that `out` can mean, that this group of processes wrote."""
    own = []
    for config in [Path(out) / "config.json"] if out is not None else RUNS.glob("*/config.json"):
        run = Run(config.parent)
        with suppress(RunError, OSError):
            if run.config["environment"].get("launch") == launch_id():
                own.append((config.stat().st_mtime, run))
    return max(own, key=lambda pair: pair[0])[1] if own else None


def _found(out: str | Path | None) -> Run:
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


def settings_of(run: Run, given: Settings, asked: Mapping[str, Any], *, trust: bool = False) -> Settings:
    """The settings that a run was begun with; refuses arguments that say something else.

    Args:
        run: The run.
        given: The arguments that say what is trained.
        asked: The others, by name.
        trust: Whether the code that the run names is trusted from now on.

    Raises:
        UsageError: an argument says something else, or is missing.
        TrustError: the run names code that the user has not trusted.
    """
    config, recipe = run.config, run.recipe
    source, made_from = config["dataset"]["source"], config["model"]["source"]
    stored = {**config["recipe"], "seed": config["seed"], "device": config["device"], "precision": config["precision"]}
    stored["engine"] = config.get("engine", "torch")
    stored |= {"recipe": config["recipe_name"], "dataset": source, "model": config["model"]["name"]}
    names = {"dataset": given.dataset, "model": given.model}
    if stored["engine"] == "numpy" and asked.get("device") == "auto":  # which that engine has resolved
        asked = {**asked, "device": None}
    for name, value in {**asked, **{key: value for key, value in names.items() if isinstance(value, str)}}.items():
        extends = name == "epochs" and recipe.schedule == "constant" and (value or 0) >= recipe.epochs
        if value is not None and value != stored[name] and not extends:
            raise UsageError(
                f"{run.path} was begun with {name.replace('_', '-')} {stored[name]}, not {value}; "
                "leave it out to go on, or train anew into another --out."
            )
    _check_model(run, given)
    if source is not None and given.dataset is not None and not isinstance(given.dataset, str):
        raise UsageError(f"{run.path} loads {source} by itself; leave the data out to go on.")
    if config["test"] == BY_HAND and given.test is None:
        raise UsageError(f"{run.path} was measured on test data given by hand; give the same to go on.")
    imports = _imports(run, trust=trust)
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
        imports=imports,
    )


def _imports(run: Run, *, trust: bool) -> Imports | None:
    """What the code that a run names may import, as the first process, where the run is, has recorded it."""
    source, args = run.config["model"]["source"], run.config["model"]["args"]
    if source is None or source in MODELS:
        return None
    return first_says(lambda: allowed_imports(run.path, source, args, trust=trust))


def _check_model(run: Run, given: Settings) -> None:
    """Refuse another model, or other arguments, than those that a run builds its model from."""
    model = run.config["model"]
    if model["source"] is None:
        return
    if isinstance(given.model, nn.Module):
        raise UsageError(f"{run.path} builds its own {model['name']}; leave the model out to go on.")
    for name, value in (given.model_args or {}).items():
        own = model["args"].get(name)
        if own != value:
            raise UsageError(
                f"{run.path} was begun with {model['name']}({name}={own!r}), not {value!r}; leave it out to go on, or "
                "train anew into another --out."
            )


def settings_again(run: Run, given: Settings) -> Settings:
    """The settings of a run whose processes were started anew, with the same arguments."""
    by_hand = Settings(
        None if isinstance(given.dataset, str) else given.dataset,
        given.model if isinstance(given.model, nn.Module) else None,
        test=given.test,
    )
    return settings_of(run, by_hand, {"epochs": None})


def restore(
    path: Path, stored: Mapping[str, Any], job: TrainingJob, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Position, list[str]]:
    """Bring model, optimizer and random state to the newest good snapshot, which the first process reads for all."""
    if job.config["dataset"]["sha256"] != stored["dataset"]["sha256"]:
        raise RunError(
            f"{path} was begun with other data than {job.train.name} now holds; train anew into another --out."
        )
    said = differences(stored["environment"], job.config["environment"])
    folder = path / "snapshots"
    snapshot = first_says(lambda: newest_good(folder) if snapshot_folders(folder) else None)
    if snapshot is None:  # stopped before there was one
        return Position(), list(said)
    position, weights, state, damaged = snapshot
    states = [state["random"], *state.get("others", [])]
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict(state["optimizer"])
        for name, buffer in hidden_buffers(model).items():
            model.get_buffer(name).copy_(state.get("buffers", {}).get(name, buffer))
        if rank() < len(states):  # of a training that goes on in more processes, the new ones have none yet
            restore_random_state(states[rank()])
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise RunError(
            f"{path} was trained on another kind of model than {type(model).__qualname__}: {error}"
        ) from None
    return position, [*said, *damaged, *first_says(lambda: intact_metrics(path)[1])]


def check_position(path: Path, position: Position, batches: int, epochs: int, sums: Collection[str]) -> None:
    """Refuse a position that no training with these settings comes to.

    Args:
        path: The run's folder.
        position: Where its snapshot says that it is.
        batches: Steps in an epoch.
        epochs: Epochs in all.
        sums: The names of the running sums.

    Raises:
        RunError: the snapshot and config.json do not belong together.
    """
    whole = position.step == position.epoch * batches + position.batch and position.batch < batches
    if not whole or position.step > epochs * batches or position.sums.keys() != set(sums):
        raise RunError(
            f"{path} cannot be gone on with: its snapshot is at step {position.step}, batch {position.batch} of epoch "
            f"{position.epoch + 1}, and its settings give {epochs * batches} in all, {batches} in an epoch. One of "
            "them is damaged or was edited; take the folder from a copy, or train anew into another --out."
        )
