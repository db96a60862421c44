"""The command `convscope probe attribution`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.loading import load
from convscope.cli.numbers import Image, Model, Weights
from convscope.cli.options import DataDir, Json, ModelArgs
from convscope.cli.probe.answer import Picture, answer, checked


def attribution(
    model: Model,
    image: Image,
    output: Annotated[
        str | None, typer.Option("--class", help="A class by name or number; by default the one the model chooses.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="integrated-gradients, grad-cam, ...; repeatable. By default all.")
    ] = None,
    weights: Weights = None,
    model_arg: ModelArgs = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """Captum's methods beside exact contributions: `convscope probe attribution runs/mnist mnist:test/7`."""
    path = checked(out)
    subject = load(model, weights, model_arg)
    prepared = cs.prepare(image, like=subject, data_dir=data_dir)
    found = cs.probe.attribution(subject, prepared, output, methods=method or ())
    answer(found, cs.plot.attribution, as_json=as_json, out=path)
