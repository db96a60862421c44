"""The command `convscope probe lint`."""

from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.model_options import Loading, is_run
from convscope.cli.probe.answer import ProbeOutput, show_result
from convscope.cli.probe.subject import Images
from convscope.cli.shared_options import spread


@spread
def lint(
    model: Annotated[str | None, typer.Argument(help="A run folder, a built-in model, file.py:Class.")] = None,
    dataset: Annotated[
        str | None, typer.Argument(help="What it is trained on: shapes, mnist, folder:PATH, ...; a run knows its own.")
    ] = None,
    *,
    loss: Annotated[
        str | None, typer.Option(help="cross-entropy, mse or nll; by default a run's own, else cross-entropy.")
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="TITLE=NUMBERS", help="A kernel and its title: 'vertical=-1 0 1; -1 0 1'; repeatable."),
    ] = None,
    count: Annotated[int, typer.Option("--images", min=2, help="How many training images to run it on.")] = 256,
    seed: Annotated[int, typer.Option(help="Of generated data and of the images that are taken.")] = 0,
    loading: Loading,
    images: Images,
    shown: ProbeOutput,
) -> None:
    """Look for mistakes in a model and its training, by running it: `convscope probe lint runs/shapes-cnn`.

    Exit status 1 if one is found.
    """
    subject = None if model is None else loading.load(model)
    if model is not None and is_run(model) and loading.weights is None:
        subject = cs.load_run(model)  # which knows its recipe and data
    elif model is not None and dataset is None:
        raise cs.UsageError(f"name the data set that {model} is trained on: shapes, mnist, folder:PATH, ...")
    train = test = None
    if dataset is not None:
        train, test = (images.load(dataset, split, seed=seed) for split in ("train", "test"))
    kernels = _kernels(kernel or [])
    found = cs.probe.lint(subject, train, test=test, loss=loss, kernels=kernels, images=count, seed=seed)
    show_result(found, cs.plot.lint, shown)
    if found:
        raise typer.Exit(1)


def _kernels(given: list[str]) -> dict[str, Any] | None:
    """Kernels by title, from TITLE=NUMBERS."""
    pairs = [text.partition("=") for text in given]
    for text, (_, equals, _) in zip(given, pairs, strict=True):
        if not equals:
            raise cs.UsageError(f"a kernel is given as TITLE=NUMBERS, such as 'vertical=-1 0 1; -1 0 1', not {text!r}.")
    return {title.strip(): cs.filters.parse_kernel(numbers) for title, _, numbers in pairs} or None
