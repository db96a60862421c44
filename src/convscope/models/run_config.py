"""Run config: write a run's config.json, and read it back with every value checked before it is used.

The file holds the SHA-256 of the rest of itself, so that damage is seen. It is data and may come from anybody: what it
names is neither imported nor called here.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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


class Checked(BaseModel):
    """A part of config.json; values of other types are rejected, unknown keys are ignored."""

    model_config = ConfigDict(strict=True)


class PreprocessPart(Checked):
    """The JSON form of `Preprocess`."""

    model_config = ConfigDict(extra="forbid")

    size: Size | None = None
    channels: Edge | None = None
    scale: Number = 255.0
    mean: Annotated[list[Number], Field(min_length=1, max_length=LARGEST)] = [0.0]
    std: Annotated[list[Number], Field(min_length=1, max_length=LARGEST)] = [1.0]
    fit: Fit = "stretch"
    crop_ratio: Number = 1.0
    background: Literal["dark", "light"] | None = None
    binary: bool = False

    @model_validator(mode="after")
    def _fits_channels(self) -> Self:
        counts = {len(self.mean), len(self.std), self.channels or 1} - {1}
        if len(counts) > 1:
            raise ValueError(f"mean, std and channels are for {' and '.join(map(str, sorted(counts)))} channels")
        return self


class CardPart(Checked):
    """The JSON form of `Card`."""

    name: Text
    preprocess: PreprocessPart
    classes: list[Text]
    source: Text = ""
    fixed_size: bool = False


class ModelPart(Checked):
    """The network and how to build it; `source` is None if only the user can."""

    source: Text | None
    args: dict[str, object]
    name: Text | None = None


class OptionsPart(Checked):
    """Further arguments of `load_dataset`."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1, lt=1 << 40)] | None = None
    sampling: Text = "split"
    data_dir: Text | None = None
    image_size: Size | None = None
    fit: Fit = "stretch"
    crop_ratio: Number = 1.0
    grey: Flag = False
    strict: Flag = False


class DatasetPart(Checked):
    """The training data; `source` is None for data passed as arrays."""

    name: Text
    source: Text | None
    seed: Seed
    options: OptionsPart
    sha256: Text | None = None


class EnvironmentPart(Checked):
    """The environment that results depend on besides the settings."""

    threads: Annotated[int, Field(ge=1, le=4096)]
    launch: Text | None = None


class ModelConfig(Checked):
    """The part of the config needed to load the model."""

    format: Annotated[int, Field(ge=1)] = 1
    model: ModelPart
    card: CardPart


class RunConfig(ModelConfig):
    """The part needed to evaluate or resume a run. The recipe is checked by the training."""

    dataset: DatasetPart
    test: Text | None = None
    recipe: dict[str, object]
    recipe_name: Text = "fast"
    seed: Seed
    device: Text = "auto"
    precision: Text = "float32"
    engine: Text = "torch"
    environment: EnvironmentPart


def config_text(config: Mapping[str, object]) -> str:
    """The text of config.json."""
    rest = {name: value for name, value in config.items() if name not in {"format", DIGEST}}
    digest = _digest({"format": FORMAT, **rest})
    return json.dumps({"format": FORMAT, DIGEST: digest, **rest}, indent=1)


def read_config(run: Path, schema: type[ModelConfig] = RunConfig) -> dict[str, Any]:
    """The values of a run's config.json, without its digest.

    Args:
        run: The run's folder.
        schema: What must be in it.

    Raises:
        RunError: it cannot be read, it is damaged or not a run's, or a newer convscope wrote it.
        FileNotFoundError: there is none.
        NotADirectoryError: `run` is a file.
    """
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
    _check(path, config, schema)
    return config


def _check(path: Path, config: dict[str, Any], schema: type[ModelConfig]) -> None:
    """Reject anything that no training of this or an earlier version writes."""
    form = config.get("format")
    if isinstance(form, int) and form > FORMAT:
        raise RunError(f"{path} was written by a newer convscope (format {form}; this one reads {FORMAT}); update it.")
    try:
        parts = schema.model_validate_json(json.dumps(config))
        Card.from_json(config["card"])
    except ValidationError as error:
        raise _damaged(path, _first(error)) from None
    except (ConvscopeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _damaged(path, str(error).rstrip(".")) from None
    for values, part in ((config, parts), (config["model"], parts.model)):
        for name in type(part).model_fields:  # what earlier versions did not write has its default
            values.setdefault(name, getattr(part, name))


def _first(error: ValidationError) -> str:
    """The first invalid value, and why it is invalid."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(map(str, first["loc"])) or "it"
    if first["type"] == "missing":
        return f"it lacks {name}"
    shown = repr(first["input"])
    shown = shown if len(shown) <= 40 else f"{shown[:40]}.."
    return f"{name} is {shown}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path} is damaged, or not written by a training of convscope: {why}.")


def _digest(config: Mapping[str, object]) -> str:
    """SHA-256 of the values, independent of formatting."""
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
