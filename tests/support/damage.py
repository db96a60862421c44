"""Damage: run folders changed as a disk, a person or an attacker changes them."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
