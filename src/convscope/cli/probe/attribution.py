"""The command `convscope probe attribution`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.loading import Loading
from convscope.cli.numbers import Model, OneImage
from convscope.cli.options import DataDir, spread
from convscope.cli.probe.answer import Shown, answer


@spread
def attribution(
    model: Model,
    image: OneImage,
    *,
    output: Annotated[
        str | None, typer.Option("--class", help="A class by name or number; by default the one the model chooses.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="integrated-gradients, grad-cam, ...; repeatable. By default all.")
    ] = None,
    loading: Loading,
    data_dir: DataDir = None,
    shown: Shown,
) -> None:
    """Captum's methods beside exact contributions: `convscope probe attribution runs/mnist mnist:test/7`."""
    subject = loading.load(model)
    prepared = cs.prepare(image, like=subject, data_dir=data_dir)
    found = cs.probe.attribution(subject, prepared, output, methods=method or ())
    answer(found, cs.plot.attribution, shown)
