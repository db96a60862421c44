"""Trainings killed at a chosen change of the disk, and comparing their weights."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

import convscope as cs

SMALL: Mapping[str, Any] = {"dataset": "crosses", "epochs": 12, "seed": 3}


def untouched(victim: Path) -> bool:
    return sorted(path.name for path in victim.iterdir()) == ["000000099.safetensors", "keys", "thesis.tex"] and all(
        path.read_text() == "precious" for path in victim.iterdir()
    )


def same_weights(a: Path, b: Path) -> bool:
    one, two = (load_file(path / "weights.safetensors") for path in (a, b))
    return one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)


CALLS = ((os, "fsync"), (os, "ftruncate"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (Path, "rmdir"))


def killed_at(out: Path, number: int) -> bool:
    """Train in a child that is killed before its `number`-th change of the disk; whether it came that far."""
    child = os.fork()
    if child == 0:
        calls = iter(range(1, 100_000))

        def killing(real: Any) -> Any:
            def call(*arguments: Any, **more: Any) -> Any:
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)

            return call

        for owner, name in CALLS:
            setattr(owner, name, killing(getattr(owner, name)))
        cs.train(**SMALL, out=out, resume=True, snapshot_seconds=0)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
