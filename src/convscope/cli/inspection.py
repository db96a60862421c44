"""The commands that show numbers and prove them: trace, explain, verify, summary, check."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import convscope as cs
from convscope.cli.console import reading_progress, say, show_json, show_table, show_text
from convscope.cli.options import Commands, DataDir, Inputs, Json, Loading, spread
from convscope.cli.training_step import StepOptions
from convscope.render.numbers import aligned, grid_lines

if TYPE_CHECKING:
    from convscope.typing import Array


MAX_WRITTEN = 32
"""Parameters of up to this many numbers are written out as text."""
MAX_KERNELS, MAX_CHANNELS = 32, 8
"""Kernels of up to this many are summed up as text."""

Model = Annotated[str, typer.Argument(help="A run folder, a built-in model, file.py:Class or package.module:factory.")]
Image = Annotated[
    str | None,
    typer.Argument(
        help="A picture, an array (.npy), or dataset:split/index such as mnist:test/7; else by --input. A batch "
        "such as mnist:train/0-63 records a training step."
    ),
]


@spread
def trace(
    model: Model,
    image: Image = None,
    *,
    inputs: Inputs,
    loading: Loading,
    data_dir: DataDir = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also list hidden steps that prepare others.")] = False,
    step: StepOptions,
    as_json: Json = False,
) -> None:
    """List the steps of a forward pass, or of a training step: name, operation, shape, parameters, range."""
    result = traced(model, image, loading, data_dir, inputs, step=step if step.wanted(image) else None)
    steps = result.all_steps if hidden else result.steps
    if as_json:
        notes = list(result.notes)
        show_json({"model": result.card.name, "steps": [_as_json(result, step) for step in steps], "notes": notes})
        return
    rows = [
        (str(step.id), step.name, step.says, _shape(step.shape), ", ".join(result.parameters_of(step)), *_range(step))
        for step in steps
    ]
    show_table(
        ["step", "name", "operation", "shape", "parameters", "least", "most"], rows, right=["step", "least", "most"]
    )
    unlisted = len(result.all_steps) - len(steps)
    if unlisted:
        say(f"not listed: {unlisted} hidden, which only prepare inputs of other steps; --hidden lists them too")
    for note in result.notes:
        say(f"note: {note}")


@spread
def explain(
    model: Model,
    image: Image = None,
    *,
    at: Annotated[
        str | None, typer.Option(help="STEP:CELL, such as conv1:3,10,12 (channel, row, column) or fc:1.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="How many steps to go back.")] = 1,
    everything: Annotated[bool, typer.Option("--all", help="Print every term of a long sum.")] = False,
    short: Annotated[bool, typer.Option("--short", help="Leave out the comparison with the recorded number.")] = False,
    to_input: Annotated[bool, typer.Option("--to-input", help="Explain by contributions of input pixels.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the calculation to this file, .xlsx.")] = None,
    inputs: Inputs,
    loading: Loading,
    step: StepOptions,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Explain one number: `convscope explain crosses crosses:plus --at conv1:0,1,1`.

    A gradient or an update: `convscope explain runs/shapes-cnn shapes:train/0-63 --at conv1.weight.grad:3,0,1,1`.
    """
    if at is None:
        raise cs.UsageError(
            "name a number by --at STEP:CELL, such as --at conv1:0,0,0; `convscope trace` lists the steps."
        )
    if out is not None:
        cs.check_workbook_path(out)
    result = traced(model, image, loading, data_dir, inputs, step=step if step.wanted(image, at) else None)
    explanation = explained(result, at)
    if out is not None:
        cs.save_sum(explanation, out)
    if as_json:
        answer = explanation.to_input().to_json() if to_input else explanation.to_json(depth=depth)
        training = {} if result.training_step is None else {"training": result.training_step.says}
        show_json({**answer, **training, "notes": list(result.notes)})
        return
    if result.training_step is not None:
        say(result.training_step.says)
        say()
    show_text(
        str(explanation.to_input()) if to_input else explanation.to_text(all=everything, depth=depth, short=short)
    )
    for note in result.notes:
        say(f"note: {note}")
    if out is not None:
        say(f"wrote {out}")


@spread
def verify(
    model: Model,
    image: Annotated[
        str | None, typer.Argument(help="A picture, an array (.npy), or dataset:split/index; else noise.")
    ] = None,
    *,
    inputs: Inputs,
    loading: Loading,
    step: StepOptions,
    data_dir: DataDir = None,
    cells: Annotated[int, typer.Option(min=1, help="Number of cells to explain in each step.")] = 200,
    as_json: Json = False,
) -> None:
    """Recompute every number independently; exit status 1 if any does not match."""
    noise = image is None and not inputs.named
    step_options = step if step.wanted(image) else None
    result = traced(model, image, loading, data_dir, inputs, noise=noise, step=step_options)
    with reading_progress() as progress:
        report = cs.verify(result, cells=cells, progress=progress)
    if as_json:
        show_json(report.to_json())
    else:
        _show_report(report)
    if report.wrong:
        raise typer.Exit(1)


@spread
def summary(
    model: Model,
    size: Annotated[
        str | None,
        typer.Argument(
            metavar="[SIZE]", help="3x224x224, or 224 with the model's channels; else what the model expects."
        ),
    ] = None,
    *,
    loading: Loading,
    short: Annotated[bool, typer.Option("--short", help="One line for each layer, without its sums.")] = False,
    as_json: Json = False,
) -> None:
    """Sizes, parameters and costs of every layer as arithmetic; exit status 1 if the model fails on SIZE.

    If it fails, prints the calculation that went wrong and the size or setting that would fit:
    `convscope summary simple-cnn 1x32x32`
    """
    shape = parse_shape(size)
    side = shape[0] if shape is not None and len(shape) == 1 else None
    result = cs.summary(loading.load(model, quiet=True), shape if side is None else side)
    if as_json:
        show_json(result.to_json())
    else:
        show_text(result.to_text(short=short))
    if result.failure is not None:
        raise typer.Exit(1)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """A size of any number of axes.

    >>> parse_shape("3x224x224"), parse_shape("224")
    ((3, 224, 224), (224,))
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) > 0 for part in parts):
        raise cs.UsageError(f"a size is written CHANNELSxHEIGHTxWIDTH, such as 3x224x224, or 224, not {text!r}.")
    return tuple(map(int, parts))


def weights_of(model: "cs.Module", layer: str | None = None) -> "dict[str, Array]":
    """The parameters of a model or of one of its layers, as arrays by name."""
    return {
        name: value.detach().cpu().numpy()
        for name, value in model.named_parameters()
        if layer is None or name.rpartition(".")[0] == layer
    }


def weight_lines(parameters: "Mapping[str, Array]") -> list[str]:
    """A few parameters as text, a grid for each kernel; empty if there are more than `MAX_WRITTEN` numbers."""
    if sum(value.size for value in parameters.values()) > MAX_WRITTEN:
        return []
    lines = []
    for name, value in parameters.items():
        lines.append(f"{name} ({'x'.join(map(str, value.shape))})")
        planes = value.reshape(-1, *value.shape[-2:]) if value.ndim > 2 else value[None]
        for plane in planes:
            lines += [f"  {line}" for line in grid_lines(plane)]
    return lines


def show_kernel_sums(parameters: "Mapping[str, Array]", inputs: "Sequence[str]" = ()) -> None:
    """The sum of each kernel over each input channel, and its bias, as a table; nothing if it would be a large one.

    Args:
        parameters: Those of one layer, by name.
        inputs: Names of its input channels; else they have numbers.
    """
    name, weight = next(((n, v) for n, v in parameters.items() if v.ndim == 4), ("", None))
    if weight is None or weight.shape[0] > MAX_KERNELS or weight.shape[1] > MAX_CHANNELS:
        return
    bias = parameters.get(f"{name.rpartition('.')[0]}.bias")
    channels = inputs if len(inputs) == weight.shape[1] else [f"input {k}" for k in range(weight.shape[1])]
    sums = weight.astype("float64").sum(axis=(2, 3))
    columns: dict[str, Iterable[str]] = {"": [f"kernel {k}" for k in range(len(weight))]}
    if len(channels) > 1:
        columns |= {channel: aligned(sums[:, k]) for k, channel in enumerate(channels)}
    columns["sum"] = aligned(sums.sum(axis=1))
    if bias is not None:
        columns["bias"] = aligned(bias)
    say(f"{name} ({'x'.join(map(str, weight.shape))}), summed over rows and columns")
    show_table(tuple(columns), zip(*columns.values(), strict=True), right=tuple(columns)[1:])


def parse_cell(text: str) -> tuple[str, tuple[int, ...]]:
    """STEP:C,P,Q as a step's name and a cell.

    >>> parse_cell("layer1.0.relu#2:3,10,12")
    ('layer1.0.relu#2', (3, 10, 12))
    """
    step, colon, cell = text.rpartition(":")
    try:
        return (step, tuple(int(part) for part in cell.split(","))) if colon and cell else (text.rstrip(":"), ())
    except ValueError:
        raise cs.UsageError(f"a cell is written STEP:CHANNEL,ROW,COLUMN or STEP:UNIT, not {text!r}.") from None


def explained(trace: "cs.Trace", text: str) -> "cs.Explanation":
    """The explanation of STEP:CELL; the cell is needed if the step has several numbers."""
    step, cell = parse_cell(text)
    shape = trace[step].shape[1:] if trace[step].shape[:1] == (1,) else trace[step].shape
    if not cell and max(shape, default=1) > 1:
        axes = ",".join("0" for _ in shape)
        raise cs.UsageError(
            f"{step} has {_shape(shape)} numbers; name one of them, counted from 0, such as --at {step}:{axes}."
        )
    return cs.explain(trace, step, cell)


def traced(
    model: str,
    image: str | None,
    loading: Loading,
    data_dir: Path | None,
    inputs: Inputs,
    *,
    noise: bool = False,
    step: StepOptions | None = None,
) -> "cs.Trace":
    """A model's trace for its inputs, or for noise, or a training step; notes are printed."""
    if step is not None:
        return step.trace(model, image, loading, data_dir, inputs)
    loaded = loading.load(model)
    if noise:
        return inputs.trace(loaded, cs.random_inputs(loaded))
    return inputs.trace(loaded, inputs.take(loaded, image, data_dir).value)


def _show_report(report: "cs.Verification") -> None:
    for line in report.lines:
        say(line)
    rows = [step.row for step in report.steps if step.listed]
    columns = cs.StepReport.COLUMNS
    show_table(columns, rows, right=columns[3:])
    say()
    for line in report.conclusion:
        say(line)


def _as_json(trace: "cs.Trace", step: "cs.Step") -> dict[str, object]:
    low, high = _range(step)
    parameter_names = step.parameters.values()
    return {
        "id": step.id,
        "name": step.name,
        "module": step.module,
        "op": step.op,
        "says": step.says,
        "shape": list(step.shape),
        "dtype": step.dtype,
        "inputs": list(step.inputs),
        "parameters": dict(step.parameters),
        "parameter_shapes": {
            name: list(trace.parameters[name].shape) for name in parameter_names if name in trace.parameters
        },
        "min": low,
        "max": high,
    }


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _range(step: "cs.Step") -> tuple[str, str]:
    values = step.output
    if not values.size:
        return "", ""
    if values.dtype.kind == "c":  # complex numbers are compared by magnitude
        return f"|{abs(values).min():.4g}|", f"|{abs(values).max():.4g}|"
    return f"{values.min():.4g}", f"{values.max():.4g}"


def check(
    function: Annotated[str, typer.Argument(help="Your function, as FILE.py:FUNCTION.")],
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="OPERATION",
            help="Its operation: conv2d, conv2d_backward, max_pool2d, ...; by default from its name.",
        ),
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of its arrays, such as nhwc; by default detected.")] = None,
    seconds: Annotated[float, typer.Option(help="Time limit for the function.")] = 10.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what some courses teach and PyTorch does differently.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check your own function against the reference; exit status 1 if it is wrong: `convscope check mine.py:conv2d`.

    Convolution, pooling, their gradients, ReLU, linear, softmax, cross-entropy, batch norm, im2col and mean squared
    error, in NumPy, torch or plain lists. The answer names the likely mistake and shows the first wrong number as two
    sums. The function runs in a separate process.
    """
    result = cs.check_file(function, as_, layout=layout, seconds=seconds, strict=strict)
    if as_json:
        show_json(result.json)
    else:
        show_text(result.text)
    if not result.right:
        raise typer.Exit(1)


COMMANDS: Commands = {"trace": trace, "explain": explain, "verify": verify, "summary": summary, "check": check}
