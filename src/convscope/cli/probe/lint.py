"""The command `convscope probe lint`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.loading import load
from convscope.cli.options import DataDir, Grey, Json, ModelArgs, Size, parse_size
from convscope.cli.probe.answer import Picture, answer, checked


def lint(
    model: Annotated[str | None, typer.Argument(help="A run folder, a built-in model, file.py:Class.")] = None,
    dataset: Annotated[
        str | None, typer.Argument(help="What it is trained on: shapes, mnist, folder:PATH, ...; a run knows its own.")
    ] = None,
    loss: Annotated[str, typer.Option(help="cross-entropy, mse or nll; a run knows its own.")] = "cross-entropy",
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="TITLE=NUMBERS", help="A kernel and its title: 'vertical=-1 0 1; -1 0 1'; repeatable."),
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="How many training images to run it on.")] = 256,
    seed: Annotated[int, typer.Option(help="Of generated data and of the images that are taken.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="Weights: .safetensors, or a state dict .pt.")] = None,
    model_arg: ModelArgs = None,
    data_dir: DataDir = None,
    size: Size = None,
    grey: Grey = False,
    as_json: Json = False,
    out: Picture = None,
) -> None:
    """Look for mistakes in a model and its training, by running it: `convscope probe lint runs/shapes-cnn`.

    Exit status 1 if one is found.
    """
    checked(out)
    options: dict[str, Any] = {"seed": seed, "data_dir": data_dir, "image_size": parse_size(size), "grey": grey}
    subject = _subject(model, weights, model_arg)
    train = test = None
    if dataset is not None:
        with reading_progress() as progress:
            train, test = (
                cs.load_dataset(dataset, split=split, progress=progress, **options) for split in ("train", "test")
            )
    found = cs.probe.lint(
        subject, train, test=test, loss=loss, kernels=_kernels(kernel or []), images=images, seed=seed
    )
    answer(found, cs.plot.lint, as_json=as_json, out=out)
    if found:
        raise typer.Exit(1)


def _subject(model: str | None, weights: Path | None, model_arg: list[str] | None) -> Any:
    if model is None or ((Path(model) / "config.json").is_file() and weights is None):
        return model
    return load(model, weights, model_arg)


def _kernels(given: list[str]) -> dict[str, Any] | None:
    """Kernels by title, from TITLE=NUMBERS."""
    pairs = [text.partition("=") for text in given]
    for text, (_, equals, _) in zip(given, pairs, strict=True):
        if not equals:
            raise cs.UsageError(f"a kernel is given as TITLE=NUMBERS, such as 'vertical=-1 0 1; -1 0 1', not {text!r}.")
    return {title.strip(): cs.filters.parse_kernel(numbers) for title, _, numbers in pairs} or None
