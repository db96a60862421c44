"""Inputs of a command: one IMAGE, or several named inputs, with notes on their preparation."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.console import remark

Named = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=FILE",
        help="An input of a model with several, by its name in forward: a picture, an array (.npy), or "
        "dataset:split/index; repeatable.",
    ),
]
Batched = Annotated[
    bool | None,
    typer.Option(
        "--batched/--unbatched",
        help="Whether arrays start with a batch axis; by default decided from the model.",
    ),
]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The options for a model's inputs."""

    named: Named = None
    batched: Batched = None

    def take(self, loaded: Any, image: str | None, data_dir: Path | None) -> Any:
        """The command line's inputs prepared for this model, like `cs.prepare_inputs`; notes on them are printed.

        Raises:
            UsageError: neither IMAGE nor --input, both, or an input that is not NAME=FILE.
        """
        prepared = cs.prepare_inputs(self.source(loaded, image), loaded, data_dir=data_dir)
        for note in prepared.notes:
            remark(f"note: {note if prepared.prepared is None and self.named else f'{prepared.name}: {note}'}")
        return prepared

    def trace(self, loaded: Any, value: Any) -> Any:
        """The model's trace for these inputs."""
        return cs.trace(loaded, value, batched=self.batched)

    def source(self, loaded: Any, image: str | None) -> Any:
        """The IMAGE, or the named inputs."""
        named = parse_inputs(self.named or [])
        card = cs.card_of(loaded)
        if named and image is not None:
            raise cs.UsageError("IMAGE and --input cannot be combined; pass every input by --input.")
        if not named and image is None:
            wanted = f"each of its inputs by --input: {', '.join(card.inputs)}" if card.inputs else "an IMAGE"
            raise cs.UsageError(f"{card.name} needs {wanted}; a picture, an array (.npy), or one such as mnist:test/7.")
        _check_names(card.name, named, card.inputs, loaded)
        return named or image


def _check_names(model: str, named: dict[str, str], wanted: tuple[str, ...], loaded: Any) -> None:
    """Reject a name that forward does not have, and a missing input."""
    if not named:
        return
    parameters = inspect.signature(loaded.forward).parameters
    if not any(p.kind in {p.VAR_KEYWORD, p.VAR_POSITIONAL} for p in parameters.values()):
        for name in named.keys() - parameters.keys():
            raise cs.UsageError(f"{model} has no input {name!r}; its forward takes {', '.join(parameters)}.")
    missing = [name for name in wanted if name not in named]
    if missing:
        raise cs.UsageError(f"{model} also takes {', '.join(missing)}; pass it by --input {missing[0]}=FILE.")


def parse_inputs(arguments: list[str]) -> dict[str, str]:
    """Inputs as typed, each NAME=FILE.

    >>> parse_inputs(["left=a.png", "right=b=c.npy"])
    {'left': 'a.png', 'right': 'b=c.npy'}
    """
    named: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or not name.isidentifier() or not file:
            raise cs.UsageError(f"an input is written NAME=FILE, such as --input left=a.png, not {argument!r}.")
        if name in named:
            raise cs.UsageError(f"--input {name} is given twice; a model takes each input once.")
        named[name] = file
    return named
