"""The command that writes a network as a spreadsheet: workbook."""

from pathlib import Path
from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import say
from convscope.cli.inspection import Image, Model, parse_cell
from convscope.cli.options import DataDir, Inputs, Loading, spread


@spread
def workbook(
    model: Model,
    image: Image = None,
    *,
    at: Annotated[
        str | None, typer.Option(help="STEP:CELL, such as conv2:0,5,5: only this number and those it depends on.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file, .xlsx.")] = Path("network.xlsx"),
    inputs: Inputs,
    loading: Loading,
    data_dir: DataDir = None,
) -> None:
    """Write a network as a spreadsheet of live formulas: `convscope workbook crosses crosses:plus -o net.xlsx`."""
    cs.check_workbook_path(out)
    loaded = loading.load(model)
    prepared = inputs.take(loaded, image, data_dir)
    book = cs.workbook(
        inputs.trace(loaded, prepared.value), at=None if at is None else parse_cell(at), name=prepared.name
    )
    say(str(book))
    book.save(out)
    say(f"wrote {out} ({max(1, round(out.stat().st_size / 1000)):,} kB): {book.summary()}")
