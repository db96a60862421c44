"""The commands that draw: filter, and the group plot. Each writes one figure and prints its path."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import convscope as cs
from convscope.cli.console import Out, reading_progress, remark, save, say, show_json, target, write
from convscope.cli.inspection import explained, show_kernel_sums, weight_lines, weights_of
from convscope.cli.options import (
    Commands,
    DataDir,
    Grey,
    Inputs,
    Json,
    Loading,
    Size,
    Trust,
    is_run,
    parse_size,
    spread,
)
from convscope.cli.training import scores
from convscope.render.numbers import decimal, grid_lines

if TYPE_CHECKING:
    from convscope.typing import Array


ANY_IMAGE = "shapes:test/0"
NUMBERS = re.compile(r"[-−+.\d\s,/e]*;[-−+.\d\s,/e;]*")
"""A picture that is typed as rows of numbers, as kernels are."""
PRINTED = 144
"""Outputs of up to 12x12 numbers are printed."""

plot_app = typer.Typer(no_args_is_help=True, help="Draw data, kernels, feature maps, networks and trainings.")

Image = Annotated[str, typer.Argument(help="A file, or an image of a data set: mnist:test/7, crosses:damaged-plus.")]
Model = Annotated[str, typer.Argument(help="A built-in model, a run folder, file.py:Class or package.module:factory.")]
RunFolder = Annotated[str, typer.Argument(help="A run folder.")]
Shared = Annotated[bool, typer.Option("--shared", help="Use one colour scale for all steps.")]
Crop = Annotated[
    tuple[int, int, int, int] | None,
    typer.Option(metavar="TOP LEFT HEIGHT WIDTH", help="Region whose pixel values to write out."),
]


def filter_image(
    image: Annotated[str, typer.Argument(help="A file, an image of a data set, or numbers: '1 2 0; 0 1 3; 2 2 1'.")],
    kernel: Annotated[str, typer.Option(help="A name such as sobel-x, or numbers: '1 0; 0 1'.")],
    out: Out = None,
    same: Annotated[bool, typer.Option("--same", help="Pad with zeros to keep the picture's size.")] = False,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="Filter each colour channel separately instead of converting to grey.")
    ] = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Slide one kernel over a picture: `convscope filter dog.jpg --kernel sobel-x`."""
    chosen = cs.filters.parse_kernel(kernel)
    typed = NUMBERS.fullmatch(image) is not None
    name = "numbers" if typed else image
    to = target(out, "filter", chosen.name, name)
    if typed:
        picture: Any = cs.filters.parse_numbers(image)[None]
    else:
        prepared = cs.prepare(image, data_dir=data_dir)
        picture, name = prepared.picture, prepared.name
    mode: Literal["valid", "same"] = "same" if same else "valid"
    output = cs.filters.apply_filter(picture, chosen, mode=mode, per_channel=per_channel)
    answers = cs.filters.edge_response(chosen)
    facts: dict[str, Any] = {
        "image": name,
        "kernel": {"name": chosen.name, "numbers": chosen.kernel.tolist(), "finds": chosen.finds},
        "answers": {"vertical": answers.vertical, "horizontal": answers.horizontal, "direction": answers.direction},
        "mode": mode,
        "input": {"shape": list(picture.shape), **_range(picture)},
        "output": {"shape": list(output.shape), **_range(output)},
    }
    if output[0].size <= PRINTED:
        facts["output"]["numbers"] = output.tolist()
    figure = cs.plot.filtered(picture, chosen, output, name=name)
    if as_json:
        show_json({**facts, "figure": str(save(figure, to))})
        return
    say(f"{chosen.name}{', finds ' + chosen.finds if chosen.finds else ''}")
    for line in grid_lines(chosen.kernel):
        say(f"  {line}")
    beyond = "" if abs(chosen.total) < 1e-9 else ", each beyond the response to plain black or white"
    say(f"response: {answers}{beyond} (measured on test edges)")
    for word in ("input", "output"):
        fact = facts[word]
        conversion = ", converted to grey" if word == "input" and fact["shape"][0] > 1 and not per_channel else ""
        reach = f"from {decimal(fact['min'])} to {decimal(fact['max'])}"
        say(f"{word:<6}  {'x'.join(map(str, fact['shape'])):<11}  {reach}{conversion}")
    for plane in output if "numbers" in facts["output"] else ():
        for line in grid_lines(plane):
            say(f"  {line}")
    write(figure, to)


@plot_app.command()
def samples(
    dataset: Annotated[str, typer.Argument(help="shapes, mnist, folder:PATH, ... (see `convscope datasets`)")],
    split: Annotated[str, typer.Option(help="train, test or all.")] = "train",
    per_class: Annotated[int, typer.Option(help="Number of images of each class.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of generated data.")] = 0,
    data_dir: DataDir = None,
    size: Size = None,
    grey: Grey = False,
    out: Out = None,
) -> None:
    """Draw images of each class."""
    to = target(out, "samples", dataset, None if split == "train" else split)
    with reading_progress() as progress:
        data = cs.load_dataset(
            dataset,
            split=split,
            seed=seed,
            data_dir=data_dir,
            image_size=parse_size(size),
            grey=grey,
            progress=progress,
        )
    write(cs.plot.samples(data, per_class=per_class), to)


@plot_app.command()
def pixels(
    image: Image,
    crop: Crop = None,
    unit: Annotated[bool, typer.Option("--unit", help="Show values from 0 to 1 instead of 0 to 255.")] = False,
    data_dir: DataDir = None,
    out: Out = None,
) -> None:
    """Draw a picture as the grid of its pixel values; a colour picture as its R, G and B planes."""
    to = target(out, "pixels", image)
    prepared = cs.prepare(image, data_dir=data_dir)
    if unit and len(prepared.picture) == 3:
        remark("note: a colour picture always shows both scales, 0 to 255 and 0 to 1; --unit changes nothing")
    write(cs.plot.pixels(prepared.picture, crop=crop, name=prepared.name, units=1 if unit else 255), to)


@plot_app.command()
@spread
def kernels(
    model: Model,
    *,
    layer: Annotated[
        str | None, typer.Option("--layer", "--step", help="The convolution; by default the first.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Maximum number of kernels.")] = 24,
    loading: Loading,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Draw the kernels of a convolution with their numbers and the sum over each input channel."""
    to = target(out, "kernels", model, layer)
    loaded = loading.load(model)
    colors = ("red", "green", "blue") if cs.card_of(loaded).preprocess.channels == 3 else ()
    figure = cs.plot.kernels(loaded, layer, most=most, inputs=colors)
    kernels_of = (name.rpartition(".")[0] for name, value in loaded.named_parameters() if value.ndim == 4)
    weights = weights_of(loaded, layer if layer is not None else next(kernels_of))
    if as_json:
        written = save(figure, to)
        show_json({"weights": {name: value.tolist() for name, value in weights.items()}, "figure": str(written)})
        return
    lines = weight_lines(weights)
    for line in lines:
        say(line)
    if not lines:
        show_kernel_sums(weights, colors)
    write(figure, to)


@plot_app.command()
@spread
def maps(
    model: Model,
    image: Annotated[str | None, typer.Argument(help="An image; by default one of the run's own data.")] = None,
    *,
    inputs: Inputs,
    step: Annotated[list[str] | None, typer.Option(help="Draw only this step; repeatable.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Draw many images of this data set, grouped by class.")] = None,
    split: Annotated[str, typer.Option(help="Split of --dataset: train, test or all.")] = "test",
    per_class: Annotated[int, typer.Option(help="Number of images of each class of --dataset.")] = 6,
    shared: Shared = False,
    loading: Loading,
    data_dir: DataDir = None,
    out: Out = None,
) -> None:
    """Draw the feature maps of all steps for one image, or of one step for many images by class."""
    to = target(out, "maps", model, image or dataset, *(step or ()))
    loaded = loading.load(model)
    card = cs.card_of(loaded)
    if dataset is not None:
        if image is not None or step is None or len(step) != 1:
            raise cs.UsageError("with --dataset, maps draws one step for many images: pass --step NAME and no IMAGE.")
        data = cs.load_dataset(dataset, split=split, data_dir=data_dir)
        indices = cs.plot.spread(data, per_class)
        expected = replace(card.preprocess, background=None)
        import numpy as np  # noqa: PLC0415  # not for the help of all commands

        batch = np.stack([expected.apply(data.images[i], data.preprocess.scale) for i in indices])
        write(cs.plot.maps_by_class(cs.trace(loaded, batch), step[0], data, indices, name=card.name), to)
        return
    shown = _prepare(loaded, model, image, data_dir, inputs)
    trace = inputs.trace(loaded, shown.value)
    write(cs.plot.maps(trace, steps=step or (), shared=shared, picture=shown.picture, name=shown.name), to)


@plot_app.command()
@spread
def network(
    model: Model,
    image: Annotated[str | None, typer.Argument(help="An image; by default one of the run's own data.")] = None,
    *,
    inputs: Inputs,
    depth: Annotated[int | None, typer.Option(help="How many levels of modules to expand.")] = None,
    shared: Shared = False,
    loading: Loading,
    data_dir: DataDir = None,
    out: Out = None,
) -> None:
    """Draw the whole network for one image: each step with its maps, including branches; deep networks by module."""
    to = target(out, "network", model, image)
    loaded = loading.load(model)
    shown = _prepare(loaded, model, image, data_dir, inputs)
    trace = inputs.trace(loaded, shown.value)
    write(cs.plot.network(trace, depth=depth, shared=shared, picture=shown.picture), to)


@plot_app.command()
@spread
def number(
    model: Model,
    image: Annotated[str | None, typer.Argument(help="An image; by default one of the run's own data.")] = None,
    *,
    inputs: Inputs,
    at: Annotated[str, typer.Option(help="STEP:CELL, such as conv1:3,10,12 (channel, row, column) or fc:1.")],
    to_input: Annotated[bool, typer.Option("--to-input", help="As contributions of input pixels.")] = False,
    depth: Annotated[int, typer.Option(min=1, max=2, help="2 also draws the windows behind its inputs.")] = 1,
    most: Annotated[int, typer.Option(min=1, help="Maximum number of channels of a window.")] = 4,
    loading: Loading,
    data_dir: DataDir = None,
    out: Out = None,
) -> None:
    """Draw how one number is computed: the window, the kernel, the products and their sum."""
    to = target(out, "number", model, image, at)
    loaded = loading.load(model)
    shown = _prepare(loaded, model, image, data_dir, inputs)
    explanation = explained(inputs.trace(loaded, shown.value), at)
    figure = (
        cs.plot.contributions(explanation.to_input())
        if to_input
        else cs.plot.explanation(explanation, most=most, depth=depth)
    )
    write(figure, to)


@plot_app.command()
def connections(
    size: Annotated[int, typer.Option(help="Rows and columns of the image, 2 to 8.")] = 5,
    kernel: Annotated[int, typer.Option(help="Rows and columns of the kernel.")] = 3,
    out: Out = None,
) -> None:
    """Draw a dense layer beside a convolution: each line is one product, each colour one weight."""
    to = target(out, "connections", f"{size}x{size}", f"{kernel}x{kernel}")
    write(cs.plot.connections(size=size, kernel=kernel), to)


@plot_app.command()
def history(run: RunFolder, out: Out = None) -> None:
    """Draw the loss and accuracy of a training."""
    to = target(out, "history", run)
    write(cs.plot.history(cs.load_run(run), name=_title(run)), to)


@plot_app.command()
def confusion(
    run: RunFolder,
    dataset: Annotated[str | None, typer.Option(help="Another data set than the run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, test or all.")] = "test",
    data_dir: DataDir = None,
    trust: Trust = False,
    out: Out = None,
) -> None:
    """Draw the confusion matrix of a trained model."""
    to = target(out, "confusion", run)
    result = scores(run, trust, dataset, split=split, data_dir=data_dir)
    for note in result.notes:
        remark(f"note: {note}")
    write(cs.plot.confusion(result.confusion, result.classes, name=f"{_title(run)} on {result.dataset}"), to)


def _prepare(
    loaded: "cs.Module", model: str, image: str | None, data_dir: Path | None, inputs: Inputs
) -> "cs.ModelInputs":
    """The requested inputs, else an image of the run's own data, else a default image."""
    if image is None and not inputs.named and not cs.card_of(loaded).inputs:
        data = cs.load_run(model).config["dataset"] if is_run(model) else None
        image = f"{data['source']}:test/0" if data and data["source"] else ANY_IMAGE
        folder = data["options"].get("data_dir") if data else None
        data_dir = data_dir or (Path(folder) if folder else None)
        remark(f"note: no image was given, so {image} is drawn")
    return inputs.take(loaded, image, data_dir)


def _title(run: str) -> str:
    return Path(os.path.realpath(run)).name


def _range(values: "Array") -> dict[str, float]:
    return {"min": float(values.min()), "max": float(values.max())}


COMMANDS: Commands = {"filter": filter_image, "plot": plot_app}
