"""Process options: run a command in several processes, on one host or many."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import hush

Devices = Annotated[int | None, typer.Option(help="Processes per host; on GPUs, one GPU each.")]
Nodes = Annotated[
    int | None,
    typer.Option(help="Number of hosts; start the command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set."),
]
Patience = Annotated[float, typer.Option(help="Seconds to wait for all processes and hosts to join.")]


def in_many(command: Callable[..., None]) -> Callable[..., None]:
    """The same command with --devices and --num-nodes; with several processes only the first one prints."""
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
