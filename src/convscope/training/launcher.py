"""Launcher: run a command in several processes, on one host or many, started by torchrun or by `launch`.

Lightning Fabric is imported only when it is needed. rendezvous.py lets the processes find each other; collectives.py
exchanges values between them.
"""

import os

from convscope.errors import TrainingError, UsageError
from convscope.training.process_group import PATIENCE, join, rank
from convscope.type_checks import takes

FABRIC = "several processes need Lightning Fabric: pip install 'convscope[distributed]'."


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
    """Let Fabric start the other processes of this host, and set the environment variables that torchrun would set."""
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415  # 1.6 s of import that one process does not need
        from lightning_fabric.strategies import DDPStrategy  # noqa: PLC0415
    except ImportError:
        raise TrainingError(FABRIC) from None
    node = int(os.environ.get("NODE_RANK", "0"))
    if num_nodes > 1:
        _check_hosts(node, num_nodes)

    class Patient(DDPStrategy):  # type: ignore[misc]  # Lightning is optional, so its types are not known here
        """Uses our own rendezvous once the processes are started."""

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
        raise UsageError(f"NODE_RANK is {node}; it must be 0 to {num_nodes - 1}, a different number on each host.")
