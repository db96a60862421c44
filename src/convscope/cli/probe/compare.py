"""The command `convscope probe compare`."""

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
def compare(
    models: Annotated[list[str], typer.Argument(help="Two or more: runs, built-in models, file.py:Class.")],
    dataset: Annotated[
        str | None, typer.Option("--on", help="shapes, mnist, folder:PATH, ...; by default the first run's own data.")
    ] = None,
    *,
    split: Split = "test",
    shown: Annotated[int, typer.Option(min=0, help="How many images are kept that the models disagree on.")] = 24,
    first: First = None,
    images: Images,
    partial: Partial = None,
    trust: Trust = False,
    look: ProbeOutput,
) -> None:
    """Cost, accuracy, disagreements, similarity: `convscope probe compare runs/a runs/b`."""
    subjects = [Loading(trust=trust).load(model) for model in models]
    data = data_for(models[0], subjects[0], dataset, split, images, first=first)
    with reading_progress() as progress:
        found = cs.probe.compare(
            subjects,
            data,
            shown=shown,
            names=names_of(models, subjects),
            folder=partial,
            progress=progress,
        )
    show_result(found, cs.plot.compare, look)
