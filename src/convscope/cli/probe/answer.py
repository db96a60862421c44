"""Answer: how every probe's command ends: what it found, in words or as JSON, and as a picture where asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope.cli.console import hushed, say, show_json
from convscope.cli.figures import save, target, write

Picture = Annotated[Path | None, typer.Option("--out", help="Also draw it into this file: .png, .svg or .pdf.")]


def checked(out: Path | None) -> Path | None:
    """Refuse, before any work, a picture that could not be written."""
    return None if out is None else target(out)


def answer(result: Any, draw: Callable[[Any], Any], *, as_json: bool, out: Path | None) -> None:
    """Print a probe's result, and write its picture where one is asked for."""
    if hushed():
        return
    figure = None if out is None else draw(result)
    if as_json:
        if out is not None:
            save(figure, out)
        show_json({**result.to_json(), **({} if out is None else {"figure": str(out)})})
        return
    say(str(result))
    if out is not None:
        write(figure, out)
