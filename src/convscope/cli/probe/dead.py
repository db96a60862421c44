"""The command `convscope probe dead`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.numbers import Model, Weights
from convscope.cli.options import DataDir, Json, ModelArgs
from convscope.cli.probe.answer import Picture, answer, checked
from convscope.cli.probe.subject import DatasetName, Partial, Split, loaded


def dead(
    model: Model,
    dataset: DatasetName = None,
    step: Annotated[
        list[str] | None, typer.Option(help="Only this step; repeatable. By default all activations.")
    ] = None,
    split: Split = "train",
    weights: Weights = None,
    model_arg: ModelArgs = None,
    data_dir: DataDir = None,
    partial: Partial = None,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """Which units are dead, saturated or duplicates: `convscope probe dead runs/shapes-cnn`."""
    path = checked(out)
    subject, data = loaded(model, dataset, split, weights, model_arg, data_dir)
    with reading_progress() as progress:
        found = cs.probe.dead(subject, data, step or (), folder=partial, progress=progress)
    answer(found, cs.plot.dead, as_json=as_json, out=path)
