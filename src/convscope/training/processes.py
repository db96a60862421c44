"""Processes: a command run in several processes, on one host or many: started, joined, and all acting alike.

`launch` starts them (or torchrun has); `join` lets them find each other; `gathered`, `first_says`, `all_do` and `agree`
exchange values between them. Uses torch.distributed; Lightning Fabric is imported only where processes are started.
"""

import atexit
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from convscope.errors import ConvscopeError, DataError, TrainingError, UsageError
from convscope.type_checks import takes

FABRIC = "several processes need Lightning Fabric: pip install 'convscope[distributed]'."
PATIENCE = 300.0
"""Seconds in which all processes must have joined."""
MOST_PROCESSES = 1_000_000
"""Largest number of processes, hosts or restarts that the environment can name."""
SETTLING = 0.5
"""Seconds in which the group's threads release their last tensors before the interpreter ends."""
SILENCE = timedelta(minutes=30)
"""Maximum silence of a process that has joined, for instance while it downloads data."""


@takes()
def launch(devices: int | None = None, num_nodes: int | None = None, *, patience: float = PATIENCE) -> int:
    """Make this program one of several processes that run the same command. Call it first.

    With `num_nodes` greater than 1, start the same command on every host, with MASTER_ADDR, MASTER_PORT and NODE_RANK
    (0, 1, ...) in its environment. Under torchrun, which has already started all processes, it only checks.

    >>> launch(1)
    0

    Args:
        devices: Number of processes on each host; each gets a GPU of its own if the host has GPUs.
        num_nodes: Number of hosts.
        patience: Seconds to wait for all processes to join.

    Returns:
        The rank of this process, from 0.

    Raises:
        UsageError: less than one process, or more or fewer than torchrun has started.
        TrainingError: Lightning Fabric is missing, or not all processes have joined in time.
    """
    for name, value in (("devices", devices), ("num-nodes", num_nodes)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be an integer from 1, not {value}.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _check_torchrun(devices, num_nodes)
    elif (devices or 1) * (num_nodes or 1) > 1:
        _start(devices or 1, num_nodes or 1, patience)
    join(patience)
    return rank()


def _check_torchrun(devices: int | None, num_nodes: int | None) -> None:
    for name, requested, variable in (
        ("devices", devices, "LOCAL_WORLD_SIZE"),
        ("num-nodes", num_nodes, "GROUP_WORLD_SIZE"),
    ):
        started = number_of(variable, 1)
        if requested is not None and requested != started:
            raise UsageError(
                f"torchrun has started {name} {started}, and --{name} says {requested}; leave it to torchrun."
            )


def _start(devices: int, num_nodes: int, patience: float) -> None:
    """Let Fabric start the other processes of this host, and set the environment variables that torchrun would set."""
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415  # 1.6 s of import that one process does not need
        from lightning_fabric.strategies import DDPStrategy  # noqa: PLC0415
    except ImportError:
        raise TrainingError(FABRIC) from None
    node = number_of("NODE_RANK", 0)
    if num_nodes > 1:
        _check_hosts(node, num_nodes)

    class Patient(DDPStrategy):  # type: ignore[misc]  # Lightning is optional, so its types are not known here
        """Uses our own rendezvous once the processes are started."""

        def setup_environment(self) -> None:
            local = number_of("LOCAL_RANK", 0)
            world = {"LOCAL_WORLD_SIZE": devices, "GROUP_WORLD_SIZE": num_nodes, "WORLD_SIZE": devices * num_nodes}
            named = {**world, "LOCAL_RANK": local, "RANK": node * devices + local, "NODE_RANK": node}
            os.environ.update({name: str(value) for name, value in named.items()})
            os.environ["MASTER_ADDR"] = self.cluster_environment.main_address
            os.environ["MASTER_PORT"] = str(self.cluster_environment.main_port)
            join(patience)
            super().setup_environment()

    Fabric(accelerator="cpu", strategy=Patient(), devices=devices, num_nodes=num_nodes).launch()


def _check_hosts(node: int, num_nodes: int) -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if missing:
        raise UsageError(
            f"{num_nodes} hosts find each other by MASTER_ADDR (the first host), MASTER_PORT (a free port there) and "
            f"NODE_RANK (0 to {num_nodes - 1}); set {', '.join(missing)} in the environment."
        )
    if not 0 <= node < num_nodes:
        raise UsageError(f"NODE_RANK is {node}; it must be 0 to {num_nodes - 1}, a different number on each host.")


def number_of(variable: str, default: int | None, *, least: int = 0, most: int = MOST_PROCESSES) -> int:
    """The number in a variable of the environment, which torchrun, Fabric or the user has set.

    >>> number_of("CONVSCOPE_NOT_SET", 1)
    1

    Raises:
        UsageError: it is set to anything else, or is not set and has no default.
    """
    text = os.environ.get(variable, "").strip()
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        is_set = f"is set to {text!r}" if text else "is not set"
        raise UsageError(
            f"{variable} in the environment {is_set}, and it must be an integer from {least:,} to {most:,}; "
            "unset it and WORLD_SIZE, or start the processes with --devices or torchrun."
        )
    return int(text)


def join(patience: float = PATIENCE) -> None:
    """Join the other processes, if the environment names any and this process has not joined yet.

    Raises:
        TrainingError: not all have joined in time.
    """
    size = number_of("WORLD_SIZE", 1, least=1)
    if size == 1 or distributed.is_initialized():
        return
    number = number_of("RANK", None, most=size - 1)
    wait = timedelta(seconds=patience)
    address = os.environ.get("MASTER_ADDR", "127.0.0.1"), number_of("MASTER_PORT", 0, most=65535)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if number > 0:
            _reach(address, patience)
        store, _, _ = next(iter(rendezvous("env://", number, size, timeout=wait)))
        store = _fresh_store(store, number, size, patience)
        distributed.init_process_group(backend, store=store, rank=number, world_size=size, timeout=SILENCE)
        atexit.register(_leave)
    except (RuntimeError, OSError) as error:  # torch's network errors are RuntimeErrors
        detail = f"process {number} on {socket.gethostname()} waited at {address[0]}:{address[1]} ({said(error)})"
        raise TrainingError(
            f"not all of {size} processes have joined within {patience:g} s: {detail}. Start the same command on every "
            "host, make sure that this address can be reached, and if a host has several networks, name the right one "
            "in GLOO_SOCKET_IFNAME."
        ) from None


def _leave() -> None:
    """Leave the group, and let its threads finish.

    Gloo's threads live until the process ends, as DistributedDataParallel's reducer keeps them. A thread that still has
    to release the tensors of its last work takes the GIL to do so; while the interpreter is being finalized this aborts
    the process (PyTorch's issue 190489), although all work was done.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(SETTLING)


def _fresh_store(store: Store, number: int, size: int, patience: float) -> Store:
    """A prefix of the store for this group only: torchrun's store still has the entries of a group that died.

    Every other process posts a random name; the first process answers each name with the prefix until all confirm it.
    """
    group_id, deadline = uuid4().hex, time.monotonic() + patience
    if number > 0:
        store.set(f"hello/{number}", group_id)
        store.wait([f"welcome/{group_id}"], timedelta(seconds=patience))
        group = store.get(f"welcome/{group_id}").decode()
        store.set(f"{group}/{number}", "here")
        return PrefixStore(group, store)
    missing = set(range(1, size))
    while missing:
        for process in sorted(missing):
            if store.check([f"{group_id}/{process}"]):
                missing.discard(process)
            elif store.check([f"hello/{process}"]):
                store.set(f"welcome/{store.get(f'hello/{process}').decode()}", group_id)
        if missing and time.monotonic() > deadline:
            raise TimeoutError(f"process {min(missing)} is missing")
        time.sleep(0.01)
    return PrefixStore(group_id, store)


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
    started = parent.read_text(encoding="utf-8").rpartition(")")[2].split()[19] if parent.exists() else ""
    return f"{socket.gethostname()} {os.getppid()} {started}"


def said(error: Exception) -> str:
    """The first line of PyTorch's message about the network."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


Value = TypeVar("Value")


def restarted() -> bool:
    """Whether torchrun restarted this group after one of its processes died."""
    return any(gathered(number_of("TORCHELASTIC_RESTART_COUNT", 0)))


def gathered(value: Value) -> list[Value]:
    """The value of every process, by rank.

    >>> gathered("a")
    ['a']
    """
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with companions():
        distributed.all_gather_object(values, value)
    return values


def first_says(work: Callable[[], Value]) -> Value:
    """The result of `work` in the first process, broadcast to all; an error there is raised in all of them.

    >>> first_says(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work) if rank() == 0 else (None, None)
    answer: list[Any] = [(value, Refused.of(refused))]
    with companions():
        distributed.broadcast_object_list(answer, src=0)
    result, error = answer[0]
    if error is not None:
        raise _shared(refused or error)
    return result  # type: ignore[no-any-return]  # it went through a list of objects


def all_do(work: Callable[[], Value]) -> Value:
    """The result of `work`, which every process runs; an error in one of them is raised in all.

    >>> all_do(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work)
    for number, refusal in enumerate(gathered(Refused.of(refused))):
        if refusal is not None:
            raise _shared(refused or Refused(f"process {number}: {refusal}", refusal.exit_status))
    return value  # type: ignore[return-value]  # no process raised


class Refused(ConvscopeError):
    """An error raised in another process, with its message."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message, exit_status)
        self.exit_status = exit_status

    @classmethod
    def of(cls, error: ConvscopeError | None) -> Self | None:
        """An error in a form that can be pickled and sent."""
        return None if error is None else cls(str(error), error.exit_status)

    def __str__(self) -> str:
        return str(self.args[0])


def _shared(error: ConvscopeError) -> ConvscopeError:
    error.shared = True
    return error


def _outcome(work: Callable[[], Value]) -> tuple[Value | None, ConvscopeError | None]:
    try:
        return work(), None
    except ConvscopeError as error:
        return None, error


def agree(subject: str, facts: Callable[[], Mapping[str, object]]) -> None:
    """Raise an error in all processes if they differ in a fact.

    >>> agree("training", lambda: {"data": "6bc1"})

    Raises:
        DataError: names the fact and the two processes that differ.
    """
    if world() == 1:
        return
    own_facts = dict(facts())
    for number, other_facts in enumerate(gathered(own_facts)):
        for name, value in own_facts.items():
            if other_facts[name] != value:
                first, second = sorted((rank(), number))
                differ = f"processes {first} and {second} of this {subject} have different {name}"
                raise _shared(DataError(f"{differ}; give every host the same files and arguments."))


@contextmanager
def companions() -> Iterator[None]:
    """Within it, the failure or timeout of another process raises one readable error.

    Raises:
        TrainingError: another process has ended or no longer responds.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(word in str(error).lower() for word in ("gloo", "nccl", "peer", "timed out")):
            raise
        raise TrainingError(
            f"another process has ended or can no longer be reached ({said(error)}, reported by process {rank()}). "
            "What was saved is intact; continue with --resume."
        ) from None
