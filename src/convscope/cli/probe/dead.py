"""The command `convscope probe dead`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.inspection import Model
from convscope.cli.model_options import Loading
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.probe.subject import DatasetName, First, Images, Partial, Split, data_for
from convscope.cli.shared_options import spread


@spread
def dead(
    model: Model,
    dataset: DatasetName = None,
    *,
    step: Annotated[
        list[str] | None, typer.Option(help="Only this step; repeatable. By default all activations.")
    ] = None,
    split: Split = "train",
    first: First = None,
    loading: Loading,
    images: Images,
    partial: Partial = None,
    shown: ProbeOutput,
) -> None:
    """Which units are dead, saturated or duplicates: `convscope probe dead runs/shapes-cnn`."""
    subject = loading.load(model)
    data = data_for(model, subject, dataset, split, images, first=first)
    with reading_progress() as progress:
        found = cs.probe.dead(subject, data, step or (), folder=partial, progress=progress)
    show_result(found, cs.plot.dead, shown)
