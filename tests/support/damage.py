"""Damage: run folders changed as a disk, a person or an attacker changes them."""

import hashlib
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def edit_config(run: Path, change: Callable[[dict[str, Any]], object], *, digest: bool = False) -> None:
    """Change a run's config.json as an editor does who means it: without its digest, or with the former one."""
    config = json.loads((run / "config.json").read_text())
    if not digest:
        config.pop("sha256", None)
    change(config)
    (run / "config.json").write_text(json.dumps(config))


def flipped(content: bytes, at: int, bit: int = 1) -> bytes:
    """The same with one bit turned over."""
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail where the block takes longer."""

    def late(*_: object) -> None:
        raise AssertionError(f"this took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def edit_optimizer(run: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit the optimizer's state in a run's newest snapshot; the digests agree, as in a folder from elsewhere."""
    folder = max((run / "snapshots").iterdir())
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    edit(saved["optimizer"])
    torch.save(saved, folder / "optimizer.pt")
    digests = json.loads((folder / "sha256.json").read_text())
    digests["optimizer.pt"] = hashlib.sha256((folder / "optimizer.pt").read_bytes()).hexdigest()
    (folder / "sha256.json").write_text(json.dumps(digests))


def shapes(state: dict[str, Any]) -> None:
    """A fused kernel would write beyond this tensor's end."""
    for tensors in state["state"].values():
        tensors["exp_avg"] = torch.zeros(3)


def counts(state: dict[str, Any]) -> None:
    """A number of steps by which no bias correction can be calculated."""
    for tensors in state["state"].values():
        tensors["step"] = torch.tensor(-1.0)


def lacks(state: dict[str, Any]) -> None:
    """State of another optimizer."""
    for tensors in state["state"].values():
        del tensors["exp_avg_sq"]


def rates(state: dict[str, Any]) -> None:
    """A rate that is a word."""
    state["param_groups"][0]["lr"] = "fast"


def settings(state: dict[str, Any]) -> None:
    """Not the recipe's settings."""
    state["param_groups"][0]["betas"] = (1.0, 2.0)


OPTIMIZER_STATES = [shapes, counts, lacks, rates, settings]
"""Edits after which the state does not fit an Adam of the recipe."""
