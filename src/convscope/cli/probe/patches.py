"""The command `convscope probe patches`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.numbers import Model, Weights
from convscope.cli.options import DataDir, Json, ModelArgs
from convscope.cli.probe.answer import Picture, answer, checked
from convscope.cli.probe.subject import DatasetName, Partial, Split, loaded


def patches(
    model: Model,
    dataset: DatasetName = None,
    step: Annotated[str | None, typer.Option(help="A step of the trace; by default the last convolution.")] = None,
    split: Split = "test",
    count: Annotated[int, typer.Option(min=1, help="How many of the most and of the least exciting.")] = 6,
    channels: Annotated[int, typer.Option(min=1, help="How many channels, from the first on.")] = 64,
    weights: Weights = None,
    model_arg: ModelArgs = None,
    data_dir: DataDir = None,
    partial: Partial = None,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """Which parts of images excite each channel: `convscope probe patches runs/shapes-cnn --step conv1`."""
    path = checked(out)
    subject, data = loaded(model, dataset, split, weights, model_arg, data_dir)
    with reading_progress() as progress:
        found = cs.probe.patches(subject, data, step, count=count, channels=channels, folder=partial, progress=progress)
    answer(found, cs.plot.patches, as_json=as_json, out=path)
