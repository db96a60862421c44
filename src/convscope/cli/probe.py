"""The commands that measure: `convscope probe NAME`, each made from its record in `cs.probe.PROBES`.

Each prints a result, or writes it as JSON or as a picture.
"""

import inspect
import keyword
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

import convscope as cs
from convscope.cli.console import hushed, reading_progress, remark, save, show_json, show_text, target, write
from convscope.cli.inspection import parse_cell
from convscope.cli.options import (
    Commands,
    DataDir,
    Grey,
    Inputs,
    Json,
    Loading,
    Size,
    Strict,
    Trust,
    in_many,
    is_run,
    parse_size,
    spread,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEYWORD = inspect.Parameter.KEYWORD_ONLY
FITTED = ("folder:", "hub:")
"""Sources whose images are preprocessed as the model expects, unless options say otherwise."""


@dataclass(frozen=True, slots=True)
class Images:
    """The options of how images are loaded."""

    HEADING: ClassVar = "Data"

    data_dir: DataDir = None
    size: Size = None
    grey: Grey = False
    strict: Strict = False

    def options(self) -> dict[str, Any]:
        """The options that are set, as keyword arguments of `cs.load_dataset`."""
        selected = {"data_dir": self.data_dir, "image_size": parse_size(self.size), "grey": self.grey}
        return {name: value for name, value in {**selected, "strict": self.strict}.items() if value}

    def load(self, dataset: str, split: str, **more: Any) -> "cs.Dataset":
        """A data set by its name."""
        with reading_progress() as progress:
            return cs.load_dataset(dataset, split=split, progress=progress, **{**more, **self.options()})


@dataclass(frozen=True, slots=True)
class ProbeOutput:
    """The options of how a result is shown; a picture that could not be written is refused before any work."""

    HEADING: ClassVar = "Output"

    as_json: Json = False
    out: Annotated[Path | None, typer.Option("--out", help="Also draw it into this file: .png, .svg or .pdf.")] = None

    def __post_init__(self) -> None:
        if self.out is not None:
            target(self.out)


probe_app = typer.Typer(no_args_is_help=True, help="Ask a model a question and measure the answer.")


@probe_app.callback()
def _probe() -> None:
    pass


def command_of(probe: cs.probe.Probe) -> Callable[..., None]:
    """The command of a record: its arguments and options are those that the record names."""

    def command(**values: Any) -> None:
        _run(probe, values)

    command.__doc__ = probe.help
    command.__signature__ = inspect.Signature(list(_parameters(probe)))  # type: ignore[attr-defined]  # where inspect looks
    laid_out = spread(command)
    return laid_out if probe.split is None else in_many(laid_out)


def _parameters(probe: cs.probe.Probe) -> Iterator[inspect.Parameter]:
    """What a command takes: arguments, settings, which images, and how model, images and result are handled."""
    for argument in probe.arguments:
        yield _of_argument(argument)
    yield from (_of_setting(setting) for setting in probe.settings if not setting.within)
    nouns = {argument.noun: argument for argument in probe.arguments}
    if probe.split is not None:
        yield _parameter("split", str, typer.Option(probe.split, help="train, test or all."))
        yield _parameter("first", int | None, typer.Option(None, "--images", min=1, help="Only the first N images."))
    if "image" in nouns and not nouns["image"].required:
        yield _group("inputs_as", Inputs)
    if "model" in nouns:
        yield _group("loading", Loading)
    if "dataset" in nouns:
        yield _group("images_as", Images)
    elif "image" in nouns:
        yield inspect.Parameter("data_dir", KEYWORD, default=None, annotation=DataDir)
    if probe.split is not None:
        help_text = "A folder for partial results: an interrupted scan goes on from it."
        yield _parameter("partial", Path | None, typer.Option(None, "--resume-from", help=help_text))
    if "models" in nouns:
        yield inspect.Parameter("trust", KEYWORD, default=False, annotation=Trust)
    yield _group("output_as", ProbeOutput)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, KEYWORD, default=default, annotation=kind)


def _group(name: str, options: type) -> inspect.Parameter:
    return inspect.Parameter(name, KEYWORD, annotation=options)


def _of_argument(argument: cs.probe.Argument) -> inspect.Parameter:
    kind: Any = list[str] if argument.noun == "models" else str
    default = ... if argument.required else None
    if argument.option:
        return _parameter(argument.noun, kind | None, typer.Option(None, f"--{argument.option}", help=argument.help))
    return _parameter(
        argument.noun, kind if argument.required else kind | None, typer.Argument(default, help=argument.help)
    )


def _of_setting(setting: cs.probe.Setting) -> inspect.Parameter:
    kind: Any = list[str] if setting.several else setting.type
    default = None if setting.several else setting.default
    option = typer.Option(default, setting.flag, help=setting.help, min=setting.minimum, metavar=setting.metavar)
    return _parameter(_key(setting), kind | None if default is None else kind, option)


def _key(setting: cs.probe.Setting) -> str:
    """What the command calls a setting: its option, or its name where Python has a word like that."""
    return setting.name if keyword.iskeyword(setting.option) else setting.option or setting.name


def _run(probe: cs.probe.Probe, values: dict[str, Any]) -> None:
    """Ask, and show the result."""
    output: ProbeOutput = values["output_as"]
    settings = _settings(probe, values)
    if output.out is not None and not probe.has_picture(settings):
        assert probe.picture_needs is not None
        raise cs.UsageError(probe.picture_needs[1])
    subject = _subject(probe, values, settings)
    if values.get("partial") is not None:
        settings["folder"] = values["partial"]
    with reading_progress() as progress:
        result = probe.run(subject, settings, progress)
    show_result(result, getattr(cs.plot, probe.function), output)
    if probe.fails and result:
        raise typer.Exit(1)


def _settings(probe: cs.probe.Probe, values: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the probe's function."""
    settings: dict[str, Any] = {}
    for setting in probe.settings:
        if setting.within:
            text = settings.get(setting.within)
            if text is not None:
                settings[setting.within], part = parse_cell(text)
                settings[setting.name] = part or None
        else:
            value = values[_key(setting)]
            settings[setting.name] = setting.parse(value or ()) if setting.several else value
    return settings


def _subject(probe: cs.probe.Probe, values: dict[str, Any], settings: dict[str, Any]) -> cs.probe.Subject:
    """The models, images and data that the command line names; all of it is loaded here."""
    names: list[str] = values.get("models") or [name for name in [values.get("model")] if name is not None]
    loading = values.get("loading") or Loading(trust=values.get("trust", False))
    models = [loading.load(name) for name in names]
    run = None
    if probe.split is None and names and is_run(names[0]) and loading.weights is None:
        run = cs.load_run(names[0])  # which knows its recipe and data
    subject = cs.probe.Subject(models, _names_of(names, models), run, part=values.get("split", ""))
    if "images_as" in values:
        return replace(subject, split=_data(probe, values, settings, subject, names))
    if "inputs_as" in values:
        trace = _traced(models[0], values)
        return replace(subject, trace=lambda _: trace)
    image = cs.prepare(values["image"], like=models[0], data_dir=values["data_dir"])
    return replace(subject, image=lambda: image)


def _traced(model: "cs.Module", values: dict[str, Any]) -> "cs.Trace":
    inputs: Inputs = values["inputs_as"]
    if values["image"] is None and not inputs.named:
        return inputs.trace(model, cs.random_inputs(model))
    return inputs.trace(model, inputs.take(model, values["image"], values["data_dir"]).value)


def _data(
    probe: cs.probe.Probe,
    values: dict[str, Any],
    settings: dict[str, Any],
    subject: cs.probe.Subject,
    names: Sequence[str],
) -> "Callable[[str], cs.Dataset | None]":
    """The images of each split that the probe takes."""
    images: Images = values["images_as"]
    dataset: str | None = values["dataset"]
    seed = {name: settings[name] for name in ("seed",) if name in settings}
    if probe.split is not None:
        scanned = _scanned(names[0], subject.model, dataset, values["split"], images, seed)
        if dataset is None:
            _note_other_data(names)
        data = scanned if values["first"] is None else scanned.part(slice(0, values["first"]))
        return lambda _: data
    if dataset is None and names and subject.run is None:
        raise cs.UsageError(f"name the data set that {names[0]} is trained on: shapes, mnist, folder:PATH, ...")
    parts = {} if dataset is None else {part: images.load(dataset, part, **seed) for part in ("train", "test")}
    return parts.get


def _note_other_data(names: Sequence[str]) -> None:
    """Say which of several runs were trained on other images than the first, whose data is used."""
    first = cs.load_run(names[0]).config["dataset"]["sha256"]
    for name in names[1:]:
        if is_run(name) and cs.load_run(name).config["dataset"]["sha256"] != first:
            remark(
                f"note: {name} was trained on other images than {names[0]}, whose data is used: some of these images "
                "may have been in its training"
            )


def _scanned(
    name: str, model: "cs.Module", dataset: str | None, split: str, images: Images, seed: dict[str, int]
) -> "cs.Dataset":
    """A data set by name, or a part of the one that a run was trained on."""
    if dataset is not None:
        alike = cs.card_of(model).preprocess.as_loaded() if dataset.startswith(FITTED) else {}
        return images.load(dataset, split, **seed, **alike)
    if not is_run(name):
        raise cs.UsageError(f"{name} is not a run, so name the data set: shapes, mnist, folder:PATH, ...")
    config = cs.load_run(name).config["dataset"]
    if config["source"] is None:
        raise cs.UsageError(f"{name} was trained on data given by hand; name a data set.")
    more = {"seed": config["seed"], **config["options"]}
    if split != "train":
        more.pop("size", None)
    return images.load(config["source"], split, **more)


def _names_of(names: Sequence[str], models: "Sequence[cs.Module]") -> list[str]:
    """What to call several models: what they are, or as they were named where two are the same."""
    cards = [cs.card_of(model).name for model in models]
    return list(names) if len(set(cards)) < len(cards) else cards


def show_result(result: "cs.probe.Result", draw: "Callable[[object], Figure]", shown: ProbeOutput) -> None:
    """Print a probe's result, and write its picture where one is asked for."""
    if hushed():
        return
    figure = None if shown.out is None else draw(result)
    if shown.as_json:
        if figure is not None:
            save(figure, target(shown.out))
        show_json({**result.to_json(), **({} if shown.out is None else {"figure": str(shown.out)})})
        return
    show_text(str(result))
    if figure is not None:
        write(figure, target(shown.out))


for _record in cs.probe.PROBES.values():
    probe_app.command(_record.name)(command_of(_record))


@probe_app.command("borders", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def borders() -> None:
    """Say where this question went."""
    raise cs.UsageError(
        "borders is an example now, a question asked of many trainings: run examples/borders.py of convscope's "
        "repository; docs/how-to/many-trainings.md describes it."
    )


COMMANDS: Commands = {"probe": probe_app}
