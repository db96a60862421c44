"""The commands that open the explorer: open, serve."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import out_is_terminal, remark, say
from convscope.cli.inputs import Inputs
from convscope.cli.inspection import Model
from convscope.cli.model_options import Loading
from convscope.cli.shared_options import DataDir, spread

Port = Annotated[int | None, typer.Option(help="Port to listen on, or the next free one; 0 chooses any.")]
Host = Annotated[str, typer.Option(help="Address to listen on; other than loopback, others can reach it.")]
AllowHost = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Another host name by which browsers reach it; repeatable.")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]


@spread
def open_model(
    model: Model,
    *,
    image: Annotated[
        str | None, typer.Option(help="A picture, an array (.npy), or dataset:split/index such as mnist:test/7.")
    ] = None,
    inputs: Inputs,
    loading: Loading,
    port: Port = None,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
    no_browser: NoBrowser = False,
    data_dir: DataDir = None,
) -> None:
    """Open the explorer on a model: a page where every number can be clicked."""
    give_way()
    loaded = loading.load(model)
    browser = out_is_terminal() and not no_browser
    given = inputs.source(loaded, image) if image is not None or inputs.named else None
    stay(cs.open(loaded, given, host=host, port=port, allow_hosts=allow_host or (), browser=browser, data_dir=data_dir))


def serve(
    folder: Annotated[Path, typer.Argument(help="The folder of the runs; it need not exist yet.")] = Path("runs"),
    port: Port = None,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
    no_browser: NoBrowser = False,
    data_dir: DataDir = None,
) -> None:
    """Open the explorer on all runs of a folder."""
    give_way()
    browser = out_is_terminal() and not no_browser
    stay(cs.serve(folder, host=host, port=port, allow_hosts=allow_host or (), browser=browser, data_dir=data_dir))


def give_way() -> None:
    """Let waiting threads sleep instead of spin, so that the browser gets its share of the processors.

    OpenMP reads this when torch loads it; spinning threads made small passes up to ten times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def stay(explorer: Any) -> None:
    """Print the address of the page, and serve it until Ctrl-C."""
    for note in explorer.notes:
        remark(f"note: {note}")
    say(f"the explorer: {explorer.url}")
    say("press Ctrl-C to stop")
    explorer.wait()
