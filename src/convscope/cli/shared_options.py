"""Shared options of several commands. Groups of options are dataclasses, which `spread` expands."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse a size from the command line.

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
DataDir = Annotated[Path | None, typer.Option(help="Folder of the MNIST family's files.")]
Size = Annotated[
    str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Resize a folder's images to this: 48x64, or 64 for 64x64.")
]
Grey = Annotated[bool, typer.Option("--grey", help="Convert a folder's images to grey.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat an unreadable image as an error instead of skipping it.")]
ModelArgs = Annotated[
    list[str] | None, typer.Option("--model-arg", metavar="NAME=VALUE", help="A model argument; repeatable.")
]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with each dataclass parameter expanded into one option per field.

    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Place:
    ...     row: int = 0
    >>> @spread
    ... def show(name: str, *, place: Place) -> None:
    ...     print(name, place)
    >>> list(inspect.signature(show).parameters), show(name="a", row=2)
    a Place(row=2)
    (['name', 'row'], None)
    """
    signature = inspect.signature(command)
    parameters = signature.parameters
    groups: dict[str, Any] = {
        name: part.annotation for name, part in parameters.items() if is_dataclass(part.annotation)
    }

    @functools.wraps(command)
    def run(**options: Any) -> None:
        made = {name: kind(**{f.name: options.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**options, **made)

    laid_out = [
        part for name, given in parameters.items()
        for part in (_options(groups[name]) if name in groups else [given])
    ]  # fmt: skip
    run.__signature__ = signature.replace(parameters=laid_out)  # type: ignore[attr-defined]  # where inspect looks
    run.__annotations__ = {part.name: part.annotation for part in laid_out}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    only = inspect.Parameter.KEYWORD_ONLY
    given = {f.name: inspect.Parameter.empty if f.default is MISSING else f.default for f in fields(group)}
    return [inspect.Parameter(f.name, only, default=given[f.name], annotation=f.type) for f in fields(group)]
