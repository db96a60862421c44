"""The command `convscope probe shift`."""

from pathlib import Path
from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.options import DataDir, Json
from convscope.cli.probe.answer import Picture, answer, checked


def shift(
    dataset: Annotated[str, typer.Argument(help="The images: shapes, mnist, folder:PATH, ...")],
    models: Annotated[list[str], typer.Argument(help="Run folders, built-in models, file.py:Class; one or more.")],
    kind: Annotated[str, typer.Option(help="translation, rotation, scale, noise or erase.")] = "translation",
    reach: Annotated[int, typer.Option(min=1, help="Of translations: pixels in each direction.")] = 10,
    images: Annotated[int | None, typer.Option(min=1, help="Only so many of the images.")] = None,
    split: Annotated[str, typer.Option(help="train, test or all.")] = "test",
    seed: Annotated[int, typer.Option(help="Of generated data, and of the noise.")] = 0,
    data_dir: DataDir = None,
    folder: Annotated[Path | None, typer.Option(help="Keep partial results here: an interrupted scan goes on.")] = None,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """Does the answer stay when the picture moves? `convscope probe shift shapes runs/shapes-mlp runs/shapes-cnn`."""
    checked(out)
    with reading_progress() as progress:
        data = cs.load_dataset(dataset, split=split, seed=seed, data_dir=data_dir, progress=progress)
        shown = data if images is None else data.part(slice(0, images))
        found = cs.probe.shift(models, shown, kind=kind, reach=reach, seed=seed, folder=folder, progress=progress)
    answer(found, cs.plot.shift, as_json=as_json, out=out)
