"""Rendezvous: how the processes of a group find each other, also after a restart, and how long they wait.

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
"""How long a process that has joined may stay silent, for instance while it downloads data."""


def join(patience: float = PATIENCE) -> None:
    """Join the other processes, if the environment names any and this process has not joined yet.

    Raises:
        TrainingError: not all have joined in time.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or distributed.is_initialized():
        return
    number = int(os.environ["RANK"])
    wait = timedelta(seconds=patience)
    address = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", "0"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if number > 0:
            _reach(address, patience)
        store, _, _ = next(iter(rendezvous("env://", number, size, timeout=wait)))
        store = _fresh_store(store, number, size, patience)
        distributed.init_process_group(backend, store=store, rank=number, world_size=size, timeout=SILENCE)
    except (RuntimeError, OSError) as error:  # torch's network errors are RuntimeErrors
        here = f"process {number} on {socket.gethostname()} waited at {address[0]}:{address[1]} ({said(error)})"
        raise TrainingError(
            f"not all of {size} processes have joined within {patience:g} s: {here}. Start the same command on every "
            "host, make sure that this address can be reached, and if a host has several networks, name the right one "
            "in GLOO_SOCKET_IFNAME."
        ) from None


def _fresh_store(store: Store, number: int, size: int, patience: float) -> Store:
    """A prefix of the store for this group only: torchrun's store still has the entries of a group that died.

    Every other process posts a random name; the first process answers each name with the prefix until all confirm it.
    """
    own, until = uuid4().hex, time.monotonic() + patience
    if number > 0:
        store.set(f"hello/{number}", own)
        store.wait([f"welcome/{own}"], timedelta(seconds=patience))
        group = store.get(f"welcome/{own}").decode()
        store.set(f"{group}/{number}", "here")
        return PrefixStore(group, store)
    missing = set(range(1, size))
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
    """Wait until a process listens there; PyTorch would wait too, but floods the screen when it times out."""
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
    """The rank of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def launch_id() -> str | None:
    """An identifier of this group of processes that survives a restart; None without torchrun.

    Without `--rdzv-id` torchrun names every group "none"; then torchrun's process number and start time identify it.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id != "none":
        return run_id
    parent = Path(f"/proc/{os.getppid()}/stat")
    started = parent.read_text().rpartition(")")[2].split()[19] if parent.exists() else ""
    return f"{socket.gethostname()} {os.getppid()} {started}"


def said(error: Exception) -> str:
    """The first line of PyTorch's message about the network."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")[:200]
