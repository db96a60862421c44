"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer


def parse_size(text: str) -> tuple[int, int]:
    """A size as people type it.

    >>> parse_size("64"), parse_size("48x64")
    ((64, 64), (48, 64))
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"a size is a number of pixels (64) or HEIGHTxWIDTH (48x64), not {text!r}")
    return int(parts[0]), int(parts[-1])


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the MNIST family's files lie.")]
Size = Annotated[
    tuple[int, int] | None, typer.Option(parser=parse_size, metavar="HxW", help="Resize a folder's images to this.")
]
Grey = Annotated[bool, typer.Option("--grey", help="Turn a folder's images to grey.")]
Strict = Annotated[bool, typer.Option("--strict", help="A corrupt file is an error, not only skipped.")]
ModelArgs = Annotated[
    list[str] | None, typer.Option("--model-arg", metavar="NAME=VALUE", help="An argument of the model; repeatable.")
]
