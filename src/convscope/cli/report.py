"""The command that writes a model and all its numbers as one HTML file: report."""

from pathlib import Path
from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import show_text
from convscope.cli.inspection import Model
from convscope.cli.options import DataDir, Loading, is_run, spread

Images = Annotated[
    list[str] | None,
    typer.Argument(
        help="Pictures, arrays (.npy), or images of a data set such as mnist:test/7 or mnist:test/0-9; default: the "
        "first ten test images of the model's own data."
    ),
]


@spread
def report(
    model: Model,
    images: Images = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file, .html.")] = Path("report.html"),
    limit: Annotated[float, typer.Option(metavar="MB", help="Size limit; the rest is left out and named.")] = 3.0,
    loading: Loading,
    data_dir: DataDir = None,
) -> None:
    """Write a model and every number of some images as one HTML file: `convscope report runs/shapes-cnn`."""
    loaded = loading.load(model)
    subject = cs.load_run(model).holding(loaded) if is_run(model) and not loading.given else loaded
    show_text(str(cs.report(subject, images or None, out=out, limit=limit, data_dir=data_dir)))
