"""The command `convscope probe patches`."""

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
def patches(
    model: Model,
    dataset: DatasetName = None,
    *,
    step: Annotated[str | None, typer.Option(help="A step of the trace; by default the last convolution.")] = None,
    split: Split = "test",
    count: Annotated[int, typer.Option(min=1, help="How many of the most and of the least exciting.")] = 6,
    channels: Annotated[int, typer.Option(min=1, help="How many channels, from the first on.")] = 64,
    first: First = None,
    loading: Loading,
    images: Images,
    partial: Partial = None,
    shown: ProbeOutput,
) -> None:
    """Which parts of images excite each channel: `convscope probe patches runs/shapes-cnn --step conv1`."""
    subject = loading.load(model)
    data = data_for(model, subject, dataset, split, images, first=first)
    with reading_progress() as progress:
        found = cs.probe.patches(subject, data, step, count=count, channels=channels, folder=partial, progress=progress)
    show_result(found, cs.plot.patches, shown)
