"""The command `convscope probe borders`."""

from pathlib import Path
from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.shared_options import spread


@spread
def borders(
    folder: Annotated[Path, typer.Argument(help="Where the trainings are, or shall be.")] = Path("runs/borders"),
    *,
    count: Annotated[int, typer.Option("--trainings", min=1, help="How many.")] = 20,
    recipe: Annotated[str, typer.Option(help="tutorial, for the published settings, or fast.")] = "tutorial",
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    shown: ProbeOutput,
) -> None:
    """Do the borders of red objects vanish in tutorial 5's colour network? Trains it 20 times and counts."""
    with reading_progress() as progress:
        runs = cs.probe.trainings(
            "color-shapes", count=count, folder=folder, recipe=recipe, epochs=epochs, progress=progress
        )
        found = cs.probe.borders(runs)
    show_result(found, cs.plot.borders, shown)
