"""Answer: how every probe's command ends: what it found, in words or as JSON, and as a picture where asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope.cli.console import hushed, show_json, show_text
from convscope.cli.figure_files import save, target, write
from convscope.cli.shared_options import Json


@dataclass(frozen=True, slots=True)
class ProbeOutput:
    """The options of how a result is shown; a picture that could not be written is refused before any work."""

    as_json: Json = False
    out: Annotated[Path | None, typer.Option("--out", help="Also draw it into this file: .png, .svg or .pdf.")] = None

    def __post_init__(self) -> None:
        if self.out is not None:
            object.__setattr__(self, "out", target(self.out))


def show_result(result: Any, draw: Callable[[Any], Any], shown: ProbeOutput) -> None:
    """Print a probe's result, and write its picture where one is asked for."""
    if hushed():
        return
    figure = None if shown.out is None else draw(result)
    if shown.as_json:
        if shown.out is not None:
            save(figure, shown.out)
        show_json({**result.to_json(), **({} if shown.out is None else {"figure": str(shown.out)})})
        return
    show_text(str(result))
    if shown.out is not None:
        write(figure, shown.out)
