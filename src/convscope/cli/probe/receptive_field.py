"""The command `convscope probe receptive-field`."""

from typing import Annotated

import typer

import convscope as cs
from convscope.cli.console import say, show_json
from convscope.cli.inputs import Inputs
from convscope.cli.inspection import Model, parse_cell, traced
from convscope.cli.model_options import Loading
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.shared_options import DataDir, spread


@spread
def receptive_field(
    model: Model,
    image: Annotated[str | None, typer.Argument(help="A file, or dataset:split/index; else noise.")] = None,
    *,
    at: Annotated[
        str | None, typer.Option(help="STEP:CELL, such as conv2:3,10,12, or STEP for its middle; else all steps.")
    ] = None,
    inputs: Inputs,
    loading: Loading,
    data_dir: DataDir = None,
    shown: ProbeOutput,
) -> None:
    """Which pixels a number can depend on: `convscope probe receptive-field shapes-cnn --at conv2:0,4,4`."""
    if at is None and shown.out is not None:
        raise cs.UsageError("a picture shows one field; name the step: --at conv2, or --at conv2:3,10,12 for one cell.")
    trace = traced(model, image, loading, data_dir, inputs, noise=image is None and not inputs.named)
    if at is None:
        found = cs.probe.receptive_fields(trace)
        show_json(found.to_json()) if shown.as_json else say(str(found))
        return
    step, cell = parse_cell(at)
    show_result(cs.probe.receptive_field(trace, step, cell or None), cs.plot.receptive_field, shown)
