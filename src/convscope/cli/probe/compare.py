"""The command `convscope probe compare`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.loading import load
from convscope.cli.options import DataDir, Json
from convscope.cli.probe.answer import Picture, answer, checked
from convscope.cli.probe.subject import Partial, Split, data_for


def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more: runs, built-in models, file.py:Class.")],
    dataset: Annotated[
        str | None, typer.Option("--on", help="shapes, mnist, folder:PATH, ...; by default the first run's own data.")
    ] = None,
    split: Split = "test",
    shown: Annotated[int, typer.Option(min=0, help="How many images are kept that the models disagree on.")] = 24,
    data_dir: DataDir = None,
    partial: Partial = None,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """Cost, accuracy, disagreements, similarity: `convscope probe compare runs/a runs/b`."""
    path = checked(out)
    subjects = [load(model, None, None) for model in models]
    data = data_for(models[0], dataset, split, data_dir)
    names = [cs.card_of(subject).name for subject in subjects]
    with reading_progress() as progress:
        found = cs.probe.compare(
            subjects,
            data,
            shown=shown,
            names=models if len(set(names)) < len(names) else (),
            folder=partial,
            progress=progress,
        )
    answer(found, cs.plot.compare, as_json=as_json, out=path)
