"""The command `convscope probe shortcut`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.options import DataDir, Grey, Json, Size, parse_size
from convscope.cli.probe.answer import Picture, answer, checked


def shortcut(
    dataset: Annotated[str, typer.Argument(help="shapes, mnist, folder:PATH, ... (see `convscope datasets`)")],
    seed: Annotated[int, typer.Option(help="Of generated data and of what is held out.")] = 0,
    data_dir: DataDir = None,
    size: Size = None,
    grey: Grey = False,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """How far area, mean, position, ... alone solve a data set: `convscope probe shortcut shapes`."""
    checked(out)
    with reading_progress() as progress:
        train, test = (
            cs.load_dataset(
                dataset, split=split, seed=seed, data_dir=data_dir, image_size=parse_size(size), grey=grey,
                progress=progress,
            )
            for split in ("train", "test")
        )  # fmt: skip
        found = cs.probe.shortcut(train, test, seed=seed, progress=progress)
    answer(found, cs.plot.shortcut, as_json=as_json, out=out)
