"""The command `convscope probe shift`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.consent import Trust
from convscope.cli.console import reading_progress
from convscope.cli.model_options import Loading
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.probe.subject import First, Images, Partial, Split, data_for, names_of
from convscope.cli.shared_options import spread


@spread
def shift(
    dataset: Annotated[str, typer.Argument(help="The images: shapes, mnist, folder:PATH, ...")],
    models: Annotated[list[str], typer.Argument(help="Run folders, built-in models, file.py:Class; one or more.")],
    *,
    kind: Annotated[str, typer.Option(help="translation, rotation, scale, noise or erase.")] = "translation",
    reach: Annotated[int, typer.Option(min=1, help="Of translations: pixels in each direction.")] = 10,
    first: First = None,
    split: Split = "test",
    seed: Annotated[int, typer.Option(help="Of generated data, and of the noise.")] = 0,
    images: Images,
    partial: Partial = None,
    trust: Trust = False,
    shown: ProbeOutput,
) -> None:
    """Does the answer stay when the picture moves? `convscope probe shift shapes runs/shapes-mlp runs/shapes-cnn`."""
    subjects = [Loading(trust=trust).load(model) for model in models]
    data = data_for(models[0], subjects[0], dataset, split, images, seed=seed, first=first)
    named = dict(zip(names_of(models, subjects), subjects, strict=True))
    with reading_progress() as progress:
        found = cs.probe.shift(named, data, kind=kind, reach=reach, seed=seed, folder=partial, progress=progress)
    show_result(found, cs.plot.shift, shown)
