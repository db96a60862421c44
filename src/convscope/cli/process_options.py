"""Many processes: the options of commands that several processes, on one host or many, can run together."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import hush

Devices = Annotated[int | None, typer.Option(help="Processes on each host; on GPUs each has one of its own.")]
Nodes = Annotated[
    int | None,
    typer.Option(help="Hosts; start the same command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set."),
]
Patience = Annotated[float, typer.Option(help="Seconds until a process or host that has not joined is given up.")]


def in_many(command: Callable[..., None]) -> Callable[..., None]:
    """The same command with --devices and --num-nodes; of several processes only the first speaks and draws."""
    added = {
        "devices": inspect.Parameter("devices", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Devices),
        "num_nodes": inspect.Parameter("num_nodes", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Nodes),
        "patience": inspect.Parameter("patience", inspect.Parameter.KEYWORD_ONLY, default=300.0, annotation=Patience),
    }

    @functools.wraps(command)
    def run(**options: Any) -> None:
        started = {name: options.pop(name) for name in added}
        if cs.launch(**started) > 0:
            hush()
        command(**options)

    signature = inspect.signature(command)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added.values()])  # type: ignore[attr-defined]  # where inspect looks
    run.__annotations__ = {**command.__annotations__, **{name: part.annotation for name, part in added.items()}}
    return run
