"""Options that several commands share: models and whether their code may run, images, several processes."""

import copy
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import typer

import convscope as cs
from convscope.cli.console import hush, remark


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse a size from the command line.

    >>> parse_size("64"), parse_size("48x64")
    ((64, 64), (48, 64))
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts):
        raise cs.UsageError(f"a size is a number of pixels (64) or HEIGHTxWIDTH (48x64), not {text!r}.")
    return int(parts[0]), int(parts[-1])


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the MNIST family's files.")]
Size = Annotated[
    str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Resize a folder's images to this: 48x64, or 64 for 64x64.")
]
Grey = Annotated[bool, typer.Option("--grey", help="Convert a folder's images to grey.")]
Strict = Annotated[bool, typer.Option("--strict", help="Treat an unreadable image as an error instead of skipping it.")]
ModelArgs = Annotated[
    list[str] | None, typer.Option("--model-arg", metavar="NAME=VALUE", help="A model argument; repeatable.")
]
Commands = Mapping[str, Callable[..., None] | typer.Typer]
"""The commands of a module by their names; with subcommands as an application of their own."""


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with each dataclass parameter expanded into one option per field.

    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Place:
    ...     row: int = 0
    >>> @spread
    ... def show(name: str, *, place: Place) -> None:
    ...     print(name, place)
    >>> list(inspect.signature(show).parameters), show(name="a", row=2)
    a Place(row=2)
    (['name', 'row'], None)
    """
    signature = inspect.signature(command)
    parameters = signature.parameters
    groups: dict[str, Any] = {
        name: part.annotation for name, part in parameters.items() if is_dataclass(part.annotation)
    }

    @functools.wraps(command)
    def run(**options: object) -> None:
        grouped = {name: kind(**{f.name: options.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
        command(**options, **grouped)

    laid_out = [
        part for name, group_options in parameters.items()
        for part in (_options(groups[name]) if name in groups else [group_options])
    ]  # fmt: skip
    run.__signature__ = signature.replace(parameters=laid_out)  # type: ignore[attr-defined]  # where inspect looks
    run.__annotations__ = {part.name: part.annotation for part in laid_out}
    return run


def _under(heading: str | None, annotation: Any) -> Any:
    """An option's annotation with a heading in the command's help."""
    if heading is None:
        return annotation
    option = copy.copy(annotation.__metadata__[0])
    option.rich_help_panel = heading
    return Annotated[annotation.__origin__, option]


def _options(group: Any) -> list[inspect.Parameter]:
    only = inspect.Parameter.KEYWORD_ONLY
    defaults = {f.name: inspect.Parameter.empty if f.default is MISSING else f.default for f in fields(group)}
    return [
        inspect.Parameter(
            f.name, only, default=defaults[f.name], annotation=_under(getattr(group, "HEADING", None), f.type)
        )
        for f in fields(group)
    ]


Result = TypeVar("Result")

TRUST = "Trust the code that a run names, as long as it does not change."
Trust = Annotated[bool, typer.Option("--trust", help=TRUST)]
RunTrust = Annotated[bool, typer.Option("--trust", help=TRUST, rich_help_panel="Run")]


def with_consent(action: Callable[[bool], Result], *, trust: bool) -> Result:
    """Run an action that may need the code that a run names; if it is not trusted yet, ask the user.

    Args:
        action: Called with whether to trust the run from now on.
        trust: Whether --trust was given.

    Raises:
        TrustError: the code is not trusted, and the user declined or cannot be asked.
    """
    try:
        return action(trust)
    except cs.TrustError as error:
        if not _may_ask() or not _agreed(error):
            raise
    return action(True)


def _may_ask() -> bool:
    """Whether the command runs in an interactive terminal."""
    is_single_process = os.environ.get("WORLD_SIZE", "1") == "1"
    return is_single_process and "--json" not in sys.argv and sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(error: cs.TrustError) -> bool:
    """Show the code that would run, and ask."""
    remark(f"{error}")
    for file in cs.files_of(error.source):
        remark(f"  {file!r}")
    try:
        return typer.confirm("This code can do anything you can do. Trust it and run it?", default=False, err=True)
    except typer.Abort:
        return False


SEVERAL = "Several processes or machines"
Devices = Annotated[
    int | None, typer.Option(help="Processes per host; on GPUs, one GPU each.", rich_help_panel=SEVERAL)
]
Nodes = Annotated[
    int | None,
    typer.Option(
        help="Number of hosts; start the command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set.",
        rich_help_panel=SEVERAL,
    ),
]
Patience = Annotated[
    float, typer.Option(help="Seconds to wait for all processes and hosts to join.", rich_help_panel=SEVERAL)
]


def in_many(command: Callable[..., None]) -> Callable[..., None]:
    """The same command with --devices and --num-nodes; with several processes only the first one prints."""
    added = {
        "devices": inspect.Parameter("devices", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Devices),
        "num_nodes": inspect.Parameter("num_nodes", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Nodes),
        "patience": inspect.Parameter("patience", inspect.Parameter.KEYWORD_ONLY, default=300.0, annotation=Patience),
    }

    @functools.wraps(command)
    def run(*, devices: int | None, num_nodes: int | None, patience: float, **options: object) -> None:
        if cs.launch(devices=devices, num_nodes=num_nodes, patience=patience) > 0:
            hush()
        command(**options)

    signature = inspect.signature(command)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added.values()])  # type: ignore[attr-defined]  # where inspect looks
    run.__annotations__ = {**command.__annotations__, **{name: part.annotation for name, part in added.items()}}
    return run


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

    HEADING: ClassVar = "Model"

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

    def load(self, model: str, *, quiet: bool = False) -> "cs.Module":
        """The model, by its name; prints its notes, and a note if it is not trained, unless quiet."""
        args = cs.parse_model_args(self.model_arg or [])
        preprocess = parse_preprocess(self.preprocess or []) or None
        classes = [name.strip() for name in self.classes.split(",")] if self.classes else None

        def load(trust: bool) -> "cs.Module":
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
        if quiet:
            return loaded
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


def parse_preprocess(arguments: list[str]) -> dict[str, object]:
    """Fields of a Preprocess from the command line; one number serves for all channels.

    >>> parse_preprocess(["size=48x64", "mean=0.5", "fit=crop"])
    {'size': (48, 64), 'mean': (0.5,), 'fit': 'crop'}
    """
    values = cs.parse_model_args(arguments)
    if isinstance(values.get("size"), int | str):
        values["size"] = parse_size(str(values["size"]))
    for name in values.keys() & {"mean", "std"}:
        values[name] = values[name] if isinstance(values[name], tuple | list) else (values[name],)
    return values


def _trainable(model: "cs.Module") -> bool:
    return any(weight.requires_grad for weight in model.parameters())


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

    HEADING: ClassVar = "Inputs"

    named: Named = None
    batched: Batched = None

    def take(self, loaded: "cs.Module", image: str | None, data_dir: Path | None) -> "cs.ModelInputs":
        """The command line's inputs prepared for this model, like `cs.prepare_inputs`; notes on them are printed.

        Raises:
            UsageError: neither IMAGE nor --input, both, or an input that is not NAME=FILE.
        """
        prepared = cs.prepare_inputs(self.source(loaded, image), loaded, data_dir=data_dir)
        for note in prepared.notes:
            remark(f"note: {note if prepared.prepared is None and self.named else f'{prepared.name}: {note}'}")
        return prepared

    def trace(self, loaded: "cs.Module", value: "cs.ModelInput") -> "cs.Trace":
        """The model's trace for these inputs."""
        return cs.trace(loaded, value, batched=self.batched)

    def source(self, loaded: "cs.Module", image: str | None) -> str | dict[str, str]:
        """The IMAGE, or the named inputs."""
        files = parse_inputs(self.named or [])
        card = cs.card_of(loaded)
        if files and image is not None:
            raise cs.UsageError("IMAGE and --input cannot be combined; pass every input by --input.")
        if not files and image is None:
            expected = f"each of its inputs by --input: {', '.join(card.inputs)}" if card.inputs else "an IMAGE"
            raise cs.UsageError(
                f"{card.name} needs {expected}; a picture, an array (.npy), or one such as mnist:test/7."
            )
        _check_names(card.name, files, card.inputs, loaded)
        return files if image is None else image


def _check_names(model: str, files: dict[str, str], expected: tuple[str, ...], loaded: "cs.Module") -> None:
    """Reject a name that forward does not have, and a missing input."""
    if not files:
        return
    parameters = inspect.signature(loaded.forward).parameters
    if not any(p.kind in {p.VAR_KEYWORD, p.VAR_POSITIONAL} for p in parameters.values()):
        for name in files.keys() - parameters.keys():
            raise cs.UsageError(f"{model} has no input {name!r}; its forward takes {', '.join(parameters)}.")
    missing = [name for name in expected if name not in files]
    if missing:
        raise cs.UsageError(f"{model} also takes {', '.join(missing)}; pass it by --input {missing[0]}=FILE.")


def parse_inputs(arguments: list[str]) -> dict[str, str]:
    """Inputs as typed, each NAME=FILE.

    >>> parse_inputs(["left=a.png", "right=b=c.npy"])
    {'left': 'a.png', 'right': 'b=c.npy'}
    """
    files: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or not name.isidentifier() or not file:
            raise cs.UsageError(f"an input is written NAME=FILE, such as --input left=a.png, not {argument!r}.")
        if name in files:
            raise cs.UsageError(f"--input {name} is given twice; a model takes each input once.")
        files[name] = file
    return files
