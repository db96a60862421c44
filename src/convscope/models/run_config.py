"""Run config: write a run's config.json, and read it back with every value checked before it is used.

The file holds the SHA-256 of the rest of itself, so that damage is seen. It is data and may come from anybody: what it
names is neither imported nor called here.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # that of typing is not read by pydantic before Python 3.12

from convscope.cards.card import Card
from convscope.errors import ConvscopeError, RunError
from convscope.files import read_file
from convscope.json_values import parse_json
from convscope.preprocess import Fit

CONFIG = "config.json"
FORMAT = 2
"""Version of the file; version 1 had no digest."""
DIGEST = "sha256"
LARGEST = 1 << 16
"""Upper limits of an edge in pixels, and of the number of channels."""

Text = Annotated[str, Field(max_length=100_000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Edge = Annotated[int, Field(ge=1, le=LARGEST)]
Size = tuple[Edge, Edge]
Flag = Annotated[bool, Field(strict=False)]
"""Python callers may have passed 0 or 1."""
Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
ThreadCount = Annotated[int, Field(ge=1, le=4096)]


STRICT = ConfigDict(strict=True)
"""Values of other types are rejected, unknown keys are ignored."""
EXACT = ConfigDict(strict=True, extra="forbid")
"""Unknown keys are rejected, too: these become arguments."""


def _fits_channels(part: "PreprocessPart") -> "PreprocessPart":
    counts = {len(part.get("mean", [0.0])), len(part.get("std", [1.0])), part.get("channels") or 1} - {1}
    if len(counts) > 1:
        raise ValueError(f"mean, std and channels are for {' and '.join(map(str, sorted(counts)))} channels")
    return part


@with_config(EXACT)
class PreprocessPart(TypedDict, total=False):
    """The JSON form of `Preprocess`."""

    size: Size | None
    channels: Edge | None
    scale: Number
    mean: Annotated[list[Number], Field(min_length=1, max_length=LARGEST)]
    std: Annotated[list[Number], Field(min_length=1, max_length=LARGEST)]
    fit: Fit
    crop_ratio: Number
    background: Literal["dark", "light"] | None
    binary: bool


@with_config(STRICT)
class CardPart(TypedDict):
    """The JSON form of `Card`."""

    name: Text
    preprocess: Annotated[PreprocessPart, AfterValidator(_fits_channels)]
    classes: list[Text]
    source: NotRequired[Text]
    fixed_size: NotRequired[bool]


_ModelClass = TypedDict(
    "_ModelClass", {"class": NotRequired[object]}
)  # `class` is a keyword, so only a call can define it


@with_config(STRICT)
class ModelPart(_ModelClass):
    """The network and how to build it; `source` is None if only the user can."""

    source: Text | None
    args: dict[str, Any]
    name: Text | None
    """What it is called in messages; None where an earlier version wrote the file."""


@with_config(EXACT)
class OptionsPart(TypedDict, total=False):
    """Further arguments of `load_dataset`."""

    size: Annotated[int, Field(ge=1, lt=1 << 40)] | None
    sampling: Text
    data_dir: Text | None
    image_size: Size | None
    fit: Fit
    crop_ratio: Number
    grey: Flag
    strict: Flag


@with_config(STRICT)
class DatasetPart(TypedDict):
    """The training data; `source` is None for data passed as arrays."""

    name: Text
    source: Text | None
    seed: Seed
    options: OptionsPart
    sha256: NotRequired[Text | None]


@with_config(STRICT)
class EnvironmentPart(TypedDict):
    """The environment that results depend on besides the settings; versions and the processor are for readers."""

    threads: ThreadCount
    launch: NotRequired[Text | None]
    convscope: NotRequired[object]
    torch: NotRequired[object]
    numpy: NotRequired[object]
    python: NotRequired[object]
    processor: NotRequired[object]
    device: NotRequired[object]
    processes: NotRequired[object]
    created: NotRequired[object]


@with_config(STRICT)
class ModelConfig(TypedDict):
    """The part of the config needed to load the model."""

    format: Annotated[int, Field(ge=1)]
    model: ModelPart
    card: CardPart


@with_config(STRICT)
class RunConfig(ModelConfig):
    """The part needed to evaluate or resume a run. The recipe is checked by the training."""

    dataset: DatasetPart
    test: Text | None
    recipe: dict[str, Any]
    recipe_name: Text
    seed: Seed
    device: Text
    precision: Text
    engine: Text
    threads: ThreadCount | None
    """The number of threads, if the user fixed it."""
    environment: EnvironmentPart
    notes: NotRequired[Annotated[list[str], BeforeValidator(lambda notes: notes or [])]]


Config = TypeVar("Config", bound=ModelConfig)
RUN_DEFAULTS = {
    "test": None, "recipe_name": "fast", "device": "auto", "precision": "float32", "engine": "torch", "threads": None,
}  # fmt: skip
"""Keys that earlier versions did not write."""


def config_text(config: Mapping[str, object]) -> str:
    """The text of config.json."""
    content = {name: value for name, value in config.items() if name not in {"format", DIGEST}}
    digest = _digest({"format": FORMAT, **content})
    return json.dumps({"format": FORMAT, DIGEST: digest, **content}, indent=1)


def read_config(run: Path) -> RunConfig:
    """The values of a run's config.json, without its digest.

    Args:
        run: The run's folder.

    Raises:
        RunError: it cannot be read, it is damaged or not a run's, or a newer convscope wrote it.
        FileNotFoundError: there is none.
        NotADirectoryError: `run` is a file.
    """
    return _read(run, TypeAdapter(RunConfig), RUN_DEFAULTS)


def read_model_config(run: Path) -> ModelConfig:
    """The part of config.json that names the model: the rest is neither required nor checked.

    Raises:
        RunError: as `read_config`.
        FileNotFoundError: there is none.
        NotADirectoryError: `run` is a file.
    """
    return _read(run, TypeAdapter(ModelConfig), {})


def _read(run: Path, schema: TypeAdapter[Config], defaults: Mapping[str, object]) -> Config:
    path = run / CONFIG
    try:
        config = parse_json(read_file(path))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(config, dict):
        raise _damaged(path, "it holds no settings")
    digest = config.pop(DIGEST, None)
    if digest is not None and digest != _digest(config):
        raise RunError(
            f"{path} is damaged or was edited: its content is not what its sha256 says. If you mean your edit, remove "
            'the line "sha256" from it; else take the file from a copy.'
        )
    form = config.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise RunError(f"{path} was written by a newer convscope (format {form}; this one reads {FORMAT}); update it.")
    config = {"format": 1, **defaults, **config}
    if isinstance(config.get("model"), dict):
        config["model"].setdefault("name", None)
    _check(path, config, schema)
    return cast("Config", config)  # including keys that only people read


def _check(path: Path, config: dict[str, Any], schema: TypeAdapter[Config]) -> None:
    """Reject anything that no training of this or an earlier version writes."""
    try:
        schema.validate_json(json.dumps(config))
        Card.from_json(config["card"])
    except ValidationError as error:
        raise _damaged(path, _first(error)) from None
    except (ConvscopeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _damaged(path, str(error).rstrip(".")) from None


def _first(error: ValidationError) -> str:
    """The first invalid value, and why it is invalid."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(map(str, first["loc"])) or "it"
    if first["type"] == "missing":
        return f"it lacks {name}"
    shown = repr(first["input"])
    shown = shown if len(shown) <= 40 else f"{shown[:40]}.."
    return f"{name} is {shown}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _damaged(path: Path, reason: str) -> RunError:
    return RunError(f"{path} is damaged, or not written by a training of convscope: {reason}.")


def _digest(config: Mapping[str, object]) -> str:
    """SHA-256 of the values, independent of formatting."""
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
