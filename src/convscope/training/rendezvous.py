"""Joining: how the processes of a group find each other, again after a death, and how long they wait for it.

Knows torch.distributed and the environment that torchrun defines.
"""

import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from convscope.errors import TrainingError

PATIENCE = 300.0
"""Seconds in which all processes must have joined."""
SILENCE = timedelta(minutes=30)
"""How long a process that has joined may say nothing, while it downloads data for instance."""


def join(patience: float = PATIENCE) -> None:
    """Join the other processes, if the environment says that there are any and it has not been done.

    Raises:
        TrainingError: not all have joined in time.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted == 1 or distributed.is_initialized():
        return
    number = int(os.environ["RANK"])
    wait = timedelta(seconds=patience)
    address = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "0"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if number > 0:
            _reach(address, patience)
        store, _, _ = next(iter(rendezvous("env://", number, wanted, timeout=wait)))
        store = _fresh(store, number, wanted, patience)
        distributed.init_process_group(backend, store=store, rank=number, world_size=wanted, timeout=SILENCE)
    except (RuntimeError, OSError) as error:  # torch's network errors are RuntimeErrors
        here = f"process {number} on {socket.gethostname()} waited at {address[0]}:{address[1]} ({said(error)})"
        raise TrainingError(
            f"not all of {wanted} processes have joined within {patience:g} s: {here}. Start the same command on every "
            "host, let them reach this address, and name the network between them by GLOO_SOCKET_IFNAME where a host "
            "has several."
        ) from None


def _fresh(store: Store, number: int, wanted: int, patience: float) -> Store:
    """A part of the store that only those use who are here now; torchrun's still holds what a group that died has said.

    Everybody else says hello by a name of its own; the first welcomes each hello until all have answered.
    """
    own, until = uuid4().hex, time.monotonic() + patience
    if number > 0:
        store.set(f"hello/{number}", own)
        store.wait([f"welcome/{own}"], timedelta(seconds=patience))
        group = store.get(f"welcome/{own}").decode()
        store.set(f"{group}/{number}", "here")
        return PrefixStore(group, store)
    missing = set(range(1, wanted))
    while missing:
        for other in sorted(missing):
            if store.check([f"{own}/{other}"]):
                missing.discard(other)
            elif store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
        if missing and time.monotonic() > until:
            raise TimeoutError(f"process {min(missing)} is missing")
        time.sleep(0.01)
    return PrefixStore(own, store)


def _reach(address: tuple[str, int], patience: float) -> None:
    """Wait until somebody listens there; PyTorch would wait too, and fill the screen when it gives up."""
    until = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(address, timeout=max(0.1, until - time.monotonic())).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def rank() -> int:
    """Which process this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def launch_id() -> str | None:
    """What this group of processes is called, the same after a restart; None without torchrun.

    Without `--rdzv-id` torchrun calls every group "none"; then it is the torchrun itself, by its process and start.
    """
    named = os.environ.get("TORCHELASTIC_RUN_ID")
    if named != "none":
        return named
    parent = Path(f"/proc/{os.getppid()}/stat")
    started = parent.read_text().rpartition(")")[2].split()[19] if parent.exists() else ""
    return f"{socket.gethostname()} {os.getppid()} {started}"


def said(error: Exception) -> str:
    """The first line of what PyTorch says of the network."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")[:200]
