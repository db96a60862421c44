"""The command `convscope probe shortcut`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.probe.subject import Images
from convscope.cli.shared_options import spread


@spread
def shortcut(
    dataset: Annotated[str, typer.Argument(help="shapes, mnist, folder:PATH, ... (see `convscope datasets`)")],
    *,
    seed: Annotated[int, typer.Option(help="Of generated data and of what is held out.")] = 0,
    images: Images,
    shown: ProbeOutput,
) -> None:
    """How far area, mean, position, ... alone solve a data set: `convscope probe shortcut shapes`."""
    train, test = (images.load(dataset, split, seed=seed) for split in ("train", "test"))
    with reading_progress() as progress:
        found = cs.probe.shortcut(train, test, seed=seed, progress=progress)
    show_result(found, cs.plot.shortcut, shown)
