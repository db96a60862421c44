"""Snapshots: a training's whole state as one folder, written so that a kill or a full disk cannot harm it.

Knows torch and safetensors; not what a training is. Nothing here is ever unpickled: weights are safetensors, the
optimizer's state is read with `weights_only=True`.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from convscope.errors import RunError, TrainingError

KEPT = 2
"""Snapshots kept: the newest, and one to fall back to."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a training is, and what it has summed up so far."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """The next batch of the epoch."""
    seconds: float = 0.0
    """Time spent training, over all its parts."""
    metrics_bytes: int = 0
    """How long metrics.jsonl is at this point."""
    sums: Mapping[str, float] = field(default_factory=dict)
    """What the running means are made of."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A training at one moment: all that a snapshot holds."""

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
    """Write a file so that after a crash it is there whole, or as it was before."""
    part = path.with_name(f".{path.name}.part")
    with refused(path), part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_snapshot(folder: Path, state: State) -> None:
    """Write one snapshot as a whole, and drop those older than the one before it."""
    buffer = io.BytesIO()
    first, *others = state.randoms
    hidden = hidden_buffers(state.model)
    torch.save(
        {"optimizer": state.optimizer.state_dict(), "buffers": hidden, "random": first, "others": others}, buffer
    )
    files = {
        "weights.safetensors": save_tensors(weights_of(state.model)),
        "optimizer.pt": buffer.getvalue(),
        "position.json": json.dumps(asdict(state.position), indent=1).encode(),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files["sha256.json"] = json.dumps(digests, indent=1).encode()

    final = folder / f"{state.position.step:09d}"
    part = folder / f".{final.name}.part"
    with refused(final):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, data in files.items():
            write_durably(part / name, data)
        if final.exists():
            shutil.rmtree(folder / f".{final.name}.old", ignore_errors=True)
            final.rename(folder / f".{final.name}.old")
        part.rename(final)
        sync_folder(folder)
    for old in [*snapshot_folders(folder)[KEPT:], *folder.glob(".*.old")]:
        shutil.rmtree(old, ignore_errors=True)


def snapshot_folders(folder: Path) -> list[Path]:
    """The snapshots in a folder, newest first."""
    return sorted((path for path in folder.glob("[0-9]*") if path.is_dir()), reverse=True)


def newest_good(folder: Path) -> tuple[Position, dict[str, Tensor], dict[str, Any], list[str]]:
    """The newest snapshot whose files are all as they were written.

    Returns:
        Its position, its weights, its other state (optimizer, buffers, random, and that of the others), and a sentence
        for each damaged one that was passed over.

    Raises:
        RunError: there is none.
    """
    damaged: list[str] = []
    for path in snapshot_folders(folder):
        try:
            return *_read(path), damaged
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            damaged.append(f"{path} is damaged and passed over: {error}.")
    raise RunError(f"{folder.parent} has no snapshot to go on from; train again. {' '.join(damaged)}".rstrip())


def _read(path: Path) -> tuple[Position, dict[str, Tensor], dict[str, Any]]:
    contents = {}
    for name, digest in json.loads((path / "sha256.json").read_text()).items():
        contents[name] = (path / name).read_bytes()
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise ValueError(f"{name} is not what was written")
    saved = torch.load(io.BytesIO(contents["optimizer.pt"]), weights_only=True, map_location="cpu")
    position = Position(**json.loads(contents["position.json"]))
    return position, load_tensors(contents["weights.safetensors"]), saved


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """An operating system's refusal as a sentence of ours."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. What was saved before is intact; "
            "make room or choose another --out, then go on with --resume."
        ) from error
