"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

import convscope as cs


def parse_size(text: str | None) -> tuple[int, int] | None:
    """A size as people type it.

    >>> parse_size("64"), parse_size("48x64")
    ((64, 64), (48, 64))
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise cs.UsageError(f"a size is a number of pixels (64) or HEIGHTxWIDTH (48x64), not {text!r}.")
    return int(parts[0]), int(parts[-1])


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the MNIST family's files lie.")]
Size = Annotated[str | None, typer.Option(metavar="HxW", help="Resize a folder's images to this, say 64 or 48x64.")]
Grey = Annotated[bool, typer.Option("--grey", help="Turn a folder's images to grey.")]
Strict = Annotated[bool, typer.Option("--strict", help="A corrupt file is an error, not only skipped.")]
ModelArgs = Annotated[
    list[str] | None, typer.Option("--model-arg", metavar="NAME=VALUE", help="An argument of the model; repeatable.")
]
