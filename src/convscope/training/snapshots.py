"""Snapshots: a training's whole state as one folder, written so that a kill or a full disk cannot harm it.

Uses torch and safetensors; nothing of the training itself. Nothing here is ever unpickled: weights are safetensors,
and the optimizer's state is read with `weights_only=True`.
"""

import hashlib
import inspect
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from convscope.errors import RunError, TrainingError
from convscope.files import make_folder, read_file, sync_folder, write_file
from convscope.json_values import parse_json
from convscope.memory import available

KEPT = 2
"""Number of snapshots kept: the newest, and one to fall back to."""
WEIGHTS, OPTIMIZER, POSITION, DIGESTS = "weights.safetensors", "optimizer.pt", "position.json", "sha256.json"
FILES = (WEIGHTS, OPTIMIZER, POSITION, DIGESTS)
"""The files of a snapshot."""
_NAMED = re.compile(r"\d{9,18}", re.ASCII)
_ASIDE = re.compile(r"\.\d{9,18}\.(part|old)", re.ASCII)
"""Suffixes of a snapshot that is being written, and of one that is being replaced."""
_LARGEST = 1 << 63


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of a training, and its running sums."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """The next batch of the epoch."""
    seconds: float = 0.0
    """Seconds spent training, interruptions excluded."""
    metrics_bytes: int = 0
    """Size of metrics.jsonl at this point."""
    sums: Mapping[str, float] = field(default_factory=dict)
    """The running sums, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A training at one moment: the content of a snapshot."""

    position: Position
    model: nn.Module
    optimizer: torch.optim.Optimizer
    randoms: Sequence[Mapping[str, Any]]
    """The random state of each process."""


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, on the CPU, each with memory of its own."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}


def hidden_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that PyTorch leaves out of a state dict (`persistent=False`)."""
    listed = set(model.state_dict())
    return {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name not in listed}


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is either complete or unchanged."""
    with refused(path):
        write_file(path, content)


def write_snapshot(folder: Path, state: State, weights: bytes) -> None:
    """Write one snapshot atomically, and delete all but the one before it.

    Args:
        folder: Where the snapshots are.
        state: What to save.
        weights: The model's weights, as a sealed safetensors file.
    """
    files = _contents(state, weights)
    final = folder / f"{state.position.step:09d}"
    part, old = folder / f".{final.name}.part", folder / f".{final.name}.old"
    with refused(final):
        _remove(part)
        make_folder(part)
        for name, data in files.items():
            write_file(part / name, data)
        if final.exists():
            _remove(old)
            _carry(old, final)
            final.rename(old)
        part.rename(final)
        sync_folder(folder)
        _remove(old)
        _carry(old, final)
    aside = [path for path in folder.glob(".*") if _ASIDE.fullmatch(path.name) and path != part]
    for path in [*snapshot_folders(folder)[KEPT:], *aside]:
        with suppress(OSError):  # a leftover only costs disk space
            _remove(path)


def _contents(state: State, weights: bytes) -> dict[str, bytes]:
    """The files of a snapshot by name, the digests last."""
    buffer = io.BytesIO()
    first, *other_randoms = state.randoms
    hidden = hidden_buffers(state.model)
    torch.save(
        {"optimizer": state.optimizer.state_dict(), "buffers": hidden, "random": first, "others": other_randoms}, buffer
    )
    files = {
        WEIGHTS: weights,
        OPTIMIZER: buffer.getvalue(),
        POSITION: json.dumps(asdict(state.position), indent=1).encode(),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, DIGESTS: json.dumps(digests, indent=1).encode()}


def write_replay_point(folder: Path, state: State, weights: bytes) -> None:
    """Write a snapshot to repeat steps from; a crash may leave it incomplete, which its digests show.

    Args:
        folder: Where the replay points are.
        state: What to save.
        weights: The model's weights, as a sealed safetensors file.
    """
    path = folder / f"{state.position.step:09d}"
    with refused(path):
        make_folder(path)
        for name, data in _contents(state, weights).items():
            write_file(path / name, data, durably=False)


def keep_replay_points(folder: Path, last: int, most: int) -> None:
    """Remove the replay points after a step; of more than `most` others, keep evenly spaced ones."""
    points = snapshot_folders(folder)
    valid = [path for path in points if int(path.name) <= last]
    kept = valid[:: -(-len(valid) // most)] if valid else []
    for path in points:
        if path not in kept:
            _remove(path)


def _remove(folder: Path) -> None:
    """Remove the files of a snapshot; a folder with any other file stays."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for name in FILES:
        for path in (folder / name, folder / f".{name}.part"):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _carry(old: Path, new: Path) -> None:
    """Move foreign files from a replaced snapshot into the new one."""
    if old.is_dir() and not old.is_symlink():
        for path in old.iterdir():
            path.rename(new / path.name)
        old.rmdir()


def snapshot_folders(folder: Path) -> list[Path]:
    """The snapshots in a folder, newest first: folders, not links, with the name and a file of a snapshot."""
    named = (path for path in folder.glob("[0-9]*") if _NAMED.fullmatch(path.name))
    snapshots = [path for path in named if not path.is_symlink() and any((path / name).is_file() for name in FILES)]
    return sorted(snapshots, key=lambda path: int(path.name), reverse=True)


def newest_position(folder: Path) -> Position | None:
    """The position of the newest snapshot whose position file is intact; None if there is none."""
    for path in snapshot_folders(folder):
        with suppress(OSError, ValueError):
            content = read_file(path / POSITION)
            if hashlib.sha256(content).hexdigest() == _digests(path)[POSITION]:
                return _position(content)
    return None


def newest_good(folder: Path) -> tuple[Position, dict[str, Tensor], dict[str, Any], list[str]]:
    """The newest snapshot whose files are all intact.

    Returns:
        Its position, its weights, its other state (optimizer, buffers, random, and the random states of the other
        processes), and a sentence for each damaged snapshot that was skipped.

    Raises:
        RunError: there is no intact snapshot.
    """
    damaged: list[str] = []
    for path in snapshot_folders(folder):
        try:
            return *read_snapshot(path), damaged
        except FileNotFoundError as error:
            damaged.append(f"{path} is damaged and skipped: {Path(error.filename).name} is missing.")
        except OSError as error:
            damaged.append(f"{path} cannot be read and is skipped: {error.strerror or error}.")
        except (ValueError, SafetensorError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            damaged.append(f"{path} is damaged and skipped: {reason}.")
    raise RunError(f"{folder.parent} has no snapshot to resume from; train again. {' '.join(damaged)}".rstrip())


def read_snapshot(path: Path) -> tuple[Position, dict[str, Tensor], dict[str, Any]]:
    """A snapshot's position, weights and other state.

    Raises:
        OSError: one of its files cannot be read.
        ValueError: it is damaged, or not a snapshot.
    """
    contents = {}
    for name, digest in _digests(path).items():
        contents[name] = read_file(path / name, limit=available())
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise ValueError(f"{name} differs from what was written")
    try:
        saved = torch.load(io.BytesIO(contents[OPTIMIZER]), weights_only=True, map_location="cpu")
    except Exception as error:  # PyTorch's reader raises many kinds of errors, with messages of many lines
        raise ValueError(f"{OPTIMIZER} is not a training's state ({type(error).__name__})") from None
    if not isinstance(saved, dict) or not {"optimizer", "random"} <= saved.keys():
        raise ValueError(f"{OPTIMIZER} is not a training's state")
    return _position(contents[POSITION]), load_tensors(contents[WEIGHTS]), saved


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Any, run: Path) -> None:
    """Load the state of a snapshot into an optimizer after checking that it fits: fused kernels do not check it.

    Raises:
        RunError: it is not a state of this optimizer over these parameters.
    """
    recipe_settings = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    try:
        optimizer.load_state_dict(saved)
        fits = all(map(_settings_fit, recipe_settings, optimizer.param_groups)) and _state_fits(optimizer)
    except Exception:  # it may be anything that weights_only reads
        fits = False
    if not fits:
        raise RunError(f"{run} holds an optimizer's state that does not fit its model and recipe; train again.")


def _settings_fit(expected: dict[str, Any], loaded: dict[str, Any]) -> bool:
    """Whether a group has the recipe's settings, but for its rate and for how the kernels are called."""
    rate = loaded["lr"]
    free = {"lr", "fused", "foreach"}
    return (
        math.isfinite(rate)
        and rate >= 0
        and all(loaded[key] == value for key, value in expected.items() if key not in free)
    )


def _state_fits(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every parameter's state is like the one that a first step makes."""
    if not type(optimizer).__module__.startswith("torch.optim"):  # ours in NumPy, which raises where shapes differ
        states = ((optimizer.state.get(p) or {}, p) for group in optimizer.param_groups for p in group["params"])
        return all(value.shape in {(), p.shape} for state, p in states for value in state.values())
    for group in optimizer.param_groups:
        named = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
        settings = {key: group[key] for key in named & group.keys()}
        first = torch.zeros(2, 3, requires_grad=True)
        first.grad = torch.zeros(2, 3)
        fresh = type(optimizer)([first], **settings)
        fresh.step()
        kinds = {key: getattr(value, "shape", ()) == first.shape for key, value in fresh.state[first].items()}
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state and (state.keys() != kinds.keys() or not all(_fits(state[k], parameter, kinds[k]) for k in kinds)):
                return False
    return True


def _fits(value: Any, parameter: Tensor, is_elementwise: bool) -> bool:
    """Whether a value is a tensor like its parameter, or one number that counts something."""
    if is_elementwise:
        return value is None or (value.shape == parameter.shape and value.layout == torch.strided)
    return value is None or (getattr(value, "shape", ()) == () and math.isfinite(value) and value >= 0)


def _digests(path: Path) -> dict[str, str]:
    """The digest of each of a snapshot's files, by name."""
    digests = parse_json(read_file(path / DIGESTS))
    if not isinstance(digests, dict) or digests.keys() != {WEIGHTS, OPTIMIZER, POSITION}:
        raise ValueError(f"{DIGESTS} does not name the snapshot's files")
    return digests


def _position(content: bytes) -> Position:
    """A position from its JSON text.

    Raises:
        ValueError: it is not one.
    """
    values = parse_json(content)
    sums = values.get("sums") if isinstance(values, dict) else None
    if not isinstance(sums, dict) or values.keys() != {field.name for field in fields(Position)}:
        raise ValueError(f"{POSITION} is not a position")
    counts = [values[name] for name in ("step", "epoch", "batch", "metrics_bytes")]
    real = [values["seconds"], *sums.values()]
    good = all(type(value) is int and 0 <= value < _LARGEST for value in counts)
    if not good or not all(type(value) in {int, float} and math.isfinite(value) for value in real):
        raise ValueError(f"{POSITION} is not a position")
    return Position(**values)


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn an operating system's error into a RunError with advice."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. What was saved before is intact; "
            "free some space or choose another --out, then continue with --resume."
        ) from error
