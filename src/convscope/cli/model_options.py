"""Load a model for a command: its options, and notes on the model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

import convscope as cs
from convscope.cli.consent import Trust, with_consent
from convscope.cli.console import remark
from convscope.cli.shared_options import ModelArgs, parse_size

Weights = Annotated[
    Path | None, typer.Option(help="Weights: a safetensors file, or a state dict or checkpoint that torch.save wrote.")
]
WeightsKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Key of the weights in a checkpoint, such as state_dict_ema.")
]
Expects = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocess",
        metavar="NAME=VALUE",
        help="The model's input format: size=224 (or 48x64), channels=1, scale=255, mean=0.485,0.456,0.406, "
        "std=..., fit=crop, background=dark, ...; repeatable.",
    ),
]
ClassNames = Annotated[
    str | None, typer.Option("--classes", metavar="NAME,NAME,...", help="Class names of the model's outputs, in order.")
]


@dataclass(frozen=True, slots=True)
class Loading:
    """The options for loading a model."""

    weights: Weights = None
    weights_key: WeightsKey = None
    model_arg: ModelArgs = None
    preprocess: Expects = None
    classes: ClassNames = None
    trust: Trust = False

    @property
    def given(self) -> bool:
        """Whether any option other than --trust is set."""
        return replace(self, trust=False) != Loading()

    def load(self, model: str) -> Any:
        """The model, by its name; prints its notes, and a note if it is not trained."""
        args = cs.parse_model_args(self.model_arg or [])
        preprocess = parse_preprocess(self.preprocess or []) or None
        classes = [name.strip() for name in self.classes.split(",")] if self.classes else None

        def load(trust: bool) -> Any:
            return cs.load_model(
                model,
                weights=self.weights,
                weights_key=self.weights_key,
                args=args or None,
                preprocess=preprocess,
                classes=classes,
                trust=trust,
            )

        loaded = with_consent(load, trust=self.trust)
        for note in cs.card_of(loaded).notes:
            remark(f"note: {note}")
        trained = is_run(model) and cs.card_of(loaded).source not in cs.MODELS
        if self.weights is None and not trained and not args.get("published") and _trainable(loaded):
            origin = "as initialized by its code" if ":" in model else "random"
            remark(f"note: {model} is not trained: its weights are {origin}; name a run folder, or pass --weights.")
        return loaded


def is_run(model: str) -> bool:
    """Whether this is a run folder, whose model is trained."""
    return Path(model, "config.json").is_file()


def parse_preprocess(arguments: list[str]) -> dict[str, Any]:
    """Fields of a Preprocess from the command line; one number serves for all channels.

    >>> parse_preprocess(["size=48x64", "mean=0.5", "fit=crop"])
    {'size': (48, 64), 'mean': (0.5,), 'fit': 'crop'}
    """
    said = cs.parse_model_args(arguments)
    if isinstance(said.get("size"), int | str):
        said["size"] = parse_size(str(said["size"]))
    for name in said.keys() & {"mean", "std"}:
        said[name] = said[name] if isinstance(said[name], tuple | list) else (said[name],)
    return said


def _trainable(model: Any) -> bool:
    return any(weight.requires_grad for weight in model.parameters())
