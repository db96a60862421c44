"""Subject: the model and the data that a probe's command is about."""

from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.loading import load

DatasetName = Annotated[
    str | None, typer.Argument(help="shapes, mnist, folder:PATH, ...; a run is asked about its own data.")
]
Split = Annotated[str, typer.Option(help="train, test or all.")]
Partial = Annotated[
    Path | None,
    typer.Option("--resume-from", help="A folder for partial results: an interrupted scan goes on from it."),
]


def loaded(
    model: str,
    dataset: str | None,
    split: str,
    weights: Path | None,
    model_arg: list[str] | None,
    data_dir: Path | None,
) -> tuple[Any, Any]:
    """A model and a data set; for a run its own data where none is named."""
    subject = load(model, weights, model_arg)
    return subject, data_for(model, dataset, split, data_dir)


def data_for(model: str, dataset: str | None, split: str, data_dir: Path | None) -> Any:
    """A data set by name, or a part of the one that a run was trained on."""
    options: dict[str, Any] = {}
    if dataset is None:
        if not Path(model).is_dir():
            raise cs.UsageError(f"{model} is no run, so name the data set: shapes, mnist, folder:PATH, ...")
        config = cs.load_run(model).config["dataset"]
        if config["source"] is None:
            raise cs.UsageError(f"{model} was trained on data given by hand; name a data set.")
        dataset, options = config["source"], {"seed": config["seed"], **config["options"]}
        if split != "train":
            options.pop("size", None)
    if data_dir is not None:
        options["data_dir"] = data_dir
    with reading_progress() as progress:
        return cs.load_dataset(dataset, split=split, progress=progress, **options)
