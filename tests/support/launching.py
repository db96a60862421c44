"""How tests start several processes: torchrun, agents that find each other on loopback, and their environment."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

SEVERAL = pytest.mark.skipif(
    find_spec("lightning_fabric") is None, reason="training in several processes needs Lightning Fabric"
)
PATIENCE = 1200
"""Seconds for a command; on a machine with much else to do several processes take long."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def environment(**more: str) -> dict[str, str]:
    """This process' environment with one thread, so that results can be compared bit for bit."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CONVSCOPE_RUN", "MASTER_"))}
    return {**own, "OMP_NUM_THREADS": "1", **more}


def run(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=dict(env or environment()), check=False, timeout=PATIENCE
    )


def torchrun(processes: int, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run in several processes of this host; alone where there is one."""
    if processes == 1:
        return run(sys.executable, *command, cwd=cwd)
    return run(*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", *command, cwd=cwd)


def free_port() -> int:
    """A free port outside the range from which the system assigns ports."""
    for port in random.SystemRandom().sample(range(15_000, 30_000), 100):
        with socket.socket() as result, suppress(OSError):
            result.bind(("127.0.0.1", port))
            return port
    raise AssertionError("of a hundred ports none is free")
