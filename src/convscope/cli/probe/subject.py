"""Subject: the model and the data that a probe's command is about."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import reading_progress
from convscope.cli.model_options import is_run
from convscope.cli.shared_options import DataDir, Grey, Size, Strict, parse_size

DatasetName = Annotated[
    str | None, typer.Argument(help="shapes, mnist, folder:PATH, ...; a run is asked about its own data.")
]
Split = Annotated[str, typer.Option(help="train, test or all.")]
Partial = Annotated[
    Path | None,
    typer.Option("--resume-from", help="A folder for partial results: an interrupted scan goes on from it."),
]
First = Annotated[int | None, typer.Option("--images", min=1, help="Only the first so many.")]
FITTED = ("folder:", "hub:")
"""Places whose images are brought to what the model expects, unless something else is said."""


@dataclass(frozen=True, slots=True)
class Images:
    """The options of how images are loaded."""

    data_dir: DataDir = None
    size: Size = None
    grey: Grey = False
    strict: Strict = False

    def options(self) -> dict[str, Any]:
        """Those that are given, as `cs.load_dataset` takes them."""
        given = {"data_dir": self.data_dir, "image_size": parse_size(self.size), "grey": self.grey}
        return {name: value for name, value in {**given, "strict": self.strict}.items() if value}

    def load(self, dataset: str, split: str, **more: Any) -> Any:
        """A data set by its name."""
        with reading_progress() as progress:
            return cs.load_dataset(dataset, split=split, progress=progress, **{**more, **self.options()})


def data_for(
    model: str,
    subject: Any,
    dataset: str | None,
    split: str,
    images: Images,
    *,
    seed: int | None = None,
    first: int | None = None,
) -> Any:
    """A data set by name, or a part of the one that a run was trained on: all its images or the first so many."""
    found = _data_for(model, subject, dataset, split, images, seed)
    return found if first is None else found.part(slice(0, first))


def _data_for(model: str, subject: Any, dataset: str | None, split: str, images: Images, seed: int | None) -> Any:
    if dataset is not None:
        alike = cs.card_of(subject).preprocess.as_loaded() if dataset.startswith(FITTED) else {}
        drawn = {} if seed is None else {"seed": seed}
        return images.load(dataset, split, **drawn, **alike)
    if not is_run(model):
        raise cs.UsageError(f"{model} is no run, so name the data set: shapes, mnist, folder:PATH, ...")
    config = cs.load_run(model).config["dataset"]
    if config["source"] is None:
        raise cs.UsageError(f"{model} was trained on data given by hand; name a data set.")
    more = {"seed": config["seed"], **config["options"]}
    if split != "train":
        more.pop("size", None)
    return images.load(config["source"], split, **more)


def names_of(models: Sequence[str], subjects: Sequence[Any]) -> list[str]:
    """What to call several models: what they are, or as they were given where two are the same."""
    names = [cs.card_of(subject).name for subject in subjects]
    return list(models) if len(set(names)) < len(names) else names
