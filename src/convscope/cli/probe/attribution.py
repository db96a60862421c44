"""The command `convscope probe attribution`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.inspection import Model, OneImage
from convscope.cli.model_options import Loading
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.shared_options import DataDir, spread


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
    shown: ProbeOutput,
) -> None:
    """Captum's methods beside exact contributions: `convscope probe attribution runs/mnist mnist:test/7`."""
    subject = loading.load(model)
    prepared = cs.prepare(image, like=subject, data_dir=data_dir)
    found = cs.probe.attribution(subject, prepared, output, methods=method or ())
    show_result(found, cs.plot.attribution, shown)
