"""The commands that write a network with all its numbers as one file: workbook (a spreadsheet), report (HTML)."""

from pathlib import Path
from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import free_path, say, show_text
from convscope.cli.inspection import Image, Model, parse_cell
from convscope.cli.options import Commands, DataDir, Inputs, Loading, is_run, spread
from convscope.cli.training_step import StepOptions


@spread
def workbook(
    model: Model,
    image: Image = None,
    *,
    at: Annotated[
        str | None, typer.Option(help="STEP:CELL, such as conv2:0,5,5: only this number and those it depends on.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output file, .xlsx; by default network.xlsx, or a free name.")
    ] = None,
    inputs: Inputs,
    loading: Loading,
    step: StepOptions,
    data_dir: DataDir = None,
) -> None:
    """Write a network as a spreadsheet of live formulas: `convscope workbook crosses crosses:plus -o net.xlsx`.

    A training step: `convscope workbook crosses crosses:plus --target 1 --loss mse --optimizer adadelta -o step.xlsx`.
    """
    out = out or free_path("network.xlsx")
    cs.check_workbook_path(out)
    cell = None if at is None else parse_cell(at)
    if step.wanted(image, at or ""):
        book = cs.workbook(step.trace(model, image, loading, data_dir, inputs), at=cell, name=image or "")
    else:
        loaded = loading.load(model)
        prepared = inputs.take(loaded, image, data_dir)
        book = cs.workbook(inputs.trace(loaded, prepared.value), at=cell, name=prepared.name)
    say(str(book))
    book.save(out)
    say(f"wrote {out} ({max(1, round(out.stat().st_size / 1000)):,} kB): {book.summary()}")


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
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output file, .html; by default report.html, or a free name.")
    ] = None,
    limit: Annotated[float, typer.Option(metavar="MB", help="Size limit; the rest is left out and named.")] = 3.0,
    loading: Loading,
    data_dir: DataDir = None,
) -> None:
    """Write a model and every number of some images as one HTML file: `convscope report runs/shapes-cnn`."""
    out = out or free_path("report.html")
    cs.check_destination(out)
    loaded = loading.load(model)
    subject = cs.load_run(model).holding(loaded) if is_run(model) and not loading.given else loaded
    show_text(str(cs.report(subject, images or None, out=out, limit=limit, data_dir=data_dir)))


COMMANDS: Commands = {"workbook": workbook, "report": report}
