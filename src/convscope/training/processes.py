"""Processes: how several, on one host or many, find each other, agree, and tell each other what they know.

torchrun starts them, or `launch` does (Lightning Fabric, on each host). Alone, every function here answers at once.
Knows torch.distributed; no models, no data, no files.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from convscope.errors import ConvscopeError, DataError, TrainingError, UsageError

Value = TypeVar("Value")

PATIENCE = 300.0
"""Seconds in which all processes must have joined."""
SILENCE = timedelta(minutes=30)
"""How long a process that has joined may say nothing, while it downloads data for instance."""
FABRIC = "several processes need Lightning Fabric: pip install 'convscope[distributed]'."


def launch(devices: int | None = None, num_nodes: int | None = None, *, patience: float = PATIENCE) -> int:
    """Make this program one of several processes; the others run the same command. Call it first.

    Where `num_nodes` is more than 1, the same command is started by hand on every host, with MASTER_ADDR, MASTER_PORT
    and NODE_RANK (0, 1, ...) in its environment. Under torchrun, which has started all processes, it only checks.

    >>> launch(1)
    0

    Args:
        devices: Processes on each host; on GPUs each has one of its own.
        num_nodes: Hosts.
        patience: Seconds until whoever has not joined is given up.

    Returns:
        The number of this process, from 0.

    Raises:
        UsageError: less than one process, or more or fewer than torchrun has started.
        TrainingError: Lightning Fabric is missing, or not all processes have joined in time.
    """
    for name, value in (("devices", devices), ("num-nodes", num_nodes)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be a whole number from 1, not {value}.")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _check_torchrun(devices, num_nodes)
    elif (devices or 1) * (num_nodes or 1) > 1:
        _start(devices or 1, num_nodes or 1, patience)
    join(patience)
    return rank()


def _check_torchrun(devices: int | None, num_nodes: int | None) -> None:
    for name, asked, variable in (
        ("devices", devices, "LOCAL_WORLD_SIZE"),
        ("num-nodes", num_nodes, "GROUP_WORLD_SIZE"),
    ):
        there = int(os.environ.get(variable, "1"))
        if asked is not None and asked != there:
            raise UsageError(f"torchrun has started {name} {there}, and --{name} says {asked}; leave it to torchrun.")


def _start(devices: int, num_nodes: int, patience: float) -> None:
    """Let Fabric start the other processes of this host, and say in the environment, as torchrun does, who is who."""
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415  # 1.6 s of import that one process does not need
        from lightning_fabric.strategies import DDPStrategy  # noqa: PLC0415
    except ImportError:
        raise TrainingError(FABRIC) from None
    node = int(os.environ.get("NODE_RANK", "0"))
    if num_nodes > 1:
        _check_hosts(node, num_nodes)

    class Patient(DDPStrategy):  # type: ignore[misc]  # Lightning is optional, so its types are not known here
        """Joins by our own rules, once the processes are started."""

        def setup_environment(self) -> None:
            local = int(os.environ.get("LOCAL_RANK", "0"))
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
        raise UsageError(f"NODE_RANK is {node}; of {num_nodes} hosts it is 0 to {num_nodes - 1}, another on each.")


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
        store.set(f"here/{number}", socket.gethostname())
        store.wait([f"here/{other}" for other in range(wanted)], wait)
        distributed.init_process_group(backend, store=store, rank=number, world_size=wanted, timeout=SILENCE)
    except (RuntimeError, OSError) as error:  # torch's network errors are RuntimeErrors
        raise TrainingError(
            f"not all of {wanted} processes have joined within {patience:g} s: process {number} on "
            f"{socket.gethostname()} waited at {address[0]}:{address[1]} ({_said(error)}). Start the same command on every host, let "
            "them reach this address, and name the network between them by GLOO_SOCKET_IFNAME where a host has several."
        ) from None


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
    """What this group of processes is called by torchrun, the same after a restart; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def restarted() -> bool:
    """Whether torchrun has started this group anew after one of its processes died."""
    return any(gathered(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))))


def gathered(mine: Value) -> list[Value]:
    """What every process has, by its number.

    >>> gathered("a")
    ['a']
    """
    if world() == 1:
        return [mine]
    told: list[Any] = [None] * world()
    with companions():
        distributed.all_gather_object(told, mine)
    return told


def first_says(work: Callable[[], Value]) -> Value:
    """What the first process makes of `work`, which the others do not do; what it refuses all refuse.

    >>> first_says(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work) if rank() == 0 else (None, None)
    said: list[Any] = [(value, Refused.of(refused))]
    with companions():
        distributed.broadcast_object_list(said, src=0)
    told, theirs = said[0]
    if theirs is not None:
        raise _shared(refused or theirs)
    return told  # type: ignore[no-any-return]  # it went through a list of objects


def all_do(work: Callable[[], Value]) -> Value:
    """What this process makes of `work`, which all do; where one refuses, all do.

    >>> all_do(lambda: 3)
    3
    """
    if world() == 1:
        return work()
    value, refused = _outcome(work)
    for number, theirs in enumerate(gathered(Refused.of(refused))):
        if theirs is not None:
            raise _shared(refused or Refused(f"process {number}: {theirs}", theirs.exit_status))
    return value  # type: ignore[return-value]  # nobody refused


class Refused(ConvscopeError):
    """What another process has refused, in its words."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message, exit_status)
        self.exit_status = exit_status

    @classmethod
    def of(cls, error: ConvscopeError | None) -> Self | None:
        """An error so that it can be sent."""
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


def agree(what: str, facts: Callable[[], Mapping[str, Any]]) -> None:
    """Refuse to go on where processes differ in a fact.

    >>> agree("training", lambda: {"data": "6bc1"})

    Raises:
        DataError: says in what, and who.
    """
    if world() == 1:
        return
    mine = dict(facts())
    for number, theirs in enumerate(gathered(mine)):
        for name, value in mine.items():
            if theirs[name] != value:
                one, two = sorted((rank(), number))
                differ = f"processes {one} and {two} of this {what} have different {name}"
                raise _shared(DataError(f"{differ}; give every host the same files and arguments."))


@contextmanager
def companions() -> Iterator[None]:
    """Within it the death or silence of another process is a sentence.

    Raises:
        TrainingError: another process has ended, or says nothing any more.
    """
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not any(sign in str(error).lower() for sign in ("gloo", "nccl", "peer", "timed out")):
            raise
        raise TrainingError(
            f"another process has ended or cannot be reached any more ({_said(error)}, says process {rank()}). What "
            "was saved is intact; go on with --resume."
        ) from None


def _said(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")[:200]
