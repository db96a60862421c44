"""Inference: a model's card, the one it carries or what its own config and layers say.

Knows the attributes by which transformers and timm describe their models; imports neither, and no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from convscope.cards.card import ATTRIBUTE, Card
from convscope.cards.layers import InputLayer, input_layers
from convscope.cards.processors import preprocess_from_processor, preprocess_from_timm, resampling
from convscope.errors import ModelError, UsageError
from convscope.files import read_file
from convscope.images import Preprocess
from convscope.plain import parse_json

PROCESSOR = "preprocessor_config.json"


def card_of(model: Any) -> Card:
    """The card that a model carries, else what its own config and its layers say.

    >>> card_of(object()).name
    'object'
    """
    attached = getattr(model, ATTRIBUTE, None)
    return attached if isinstance(attached, Card) else infer_card(model)


def infer_card(model: Any, folder: Path | None = None) -> Card:
    """What a model's own config says of its input and outputs, else its layers; `notes` say what was found where.

    Args:
        model: Any model; transformers' and timm's describe themselves.
        folder: Where its files lie, to find the config of an image processor there.
    """
    config = getattr(model, "config", None)
    name = type(model).__name__
    classes = _class_names(config, model)
    for place in (folder, _folder_of(config)):
        if place is not None and (place / PROCESSOR).is_file():
            preprocess, notes = _from_processor(place / PROCESSOR, config)
            return Card(name, preprocess, classes, notes=notes)
    timm = _settings(getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None))
    if timm.get("input_size"):
        return Card(name, preprocess_from_timm(timm), classes, notes=_other_filter(timm))
    expected = Preprocess(size=_image_size(config), channels=_channels(config))
    if expected.size or expected.channels:
        note = "its config says no mean and standard deviation: pixels are scaled to 0..1, no more"
        return Card(name, expected, classes, notes=(note,))
    preprocess, notes = _from_layers(input_layers(model))
    return Card(name, preprocess, classes, notes=notes)


def _from_processor(path: Path, config: Any) -> tuple[Preprocess, tuple[str, ...]]:
    try:
        settings = parse_json(read_file(path))
        found = preprocess_from_processor(settings)
    except UsageError as error:
        return Preprocess(size=_image_size(config), channels=_channels(config)), (f"{path}: {error}",)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read as the config of an image processor: {error}.") from None
    channels = _channels(config)
    found = replace(found, channels=channels) if channels and len(found.mean) in {1, channels} else found
    return found, (f"pictures are prepared as {path} says", *_other_filter(settings))


def _other_filter(settings: Mapping[str, Any]) -> tuple[str, ...]:
    own = resampling(settings)
    return () if own == "bilinear" else (f"pictures are resized bilinearly; the model's own processor uses {own}",)


def _from_layers(layers: list[InputLayer]) -> tuple[Preprocess, tuple[str, ...]]:
    """The channels of the first convolution; for a linear layer the square picture of as many numbers."""
    if not layers:
        return Preprocess(), ()
    first = layers[0]
    if first.kind == "channels":
        return Preprocess(channels=first.count), ()
    for channels in (1, 3):
        edge = math.isqrt(first.count // channels)
        if channels * edge * edge == first.count:
            note = f"{first}, so it is given {'grey' if channels == 1 else 'colour'} pictures of {edge}x{edge}"
            return Preprocess(size=(edge, edge), channels=channels), (note,)
    return Preprocess(), ()


def _folder_of(config: Any) -> Path | None:
    name = getattr(config, "_name_or_path", None)
    return Path(name) if isinstance(name, str) and name and Path(name).is_dir() else None


def _image_size(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(edge, int) for edge in size):
        return size[0], size[1]
    return None


def _channels(config: Any) -> int | None:
    channels = getattr(config, "num_channels", None)
    return channels if isinstance(channels, int) and channels > 0 else None


def _class_names(config: Any, model: Any) -> tuple[str, ...]:
    """Real names only: transformers fills in LABEL_0, LABEL_1 where nobody gave any."""
    labels = getattr(config, "id2label", None)
    if isinstance(labels, Mapping) and labels:
        names = tuple(str(labels[key]) for key in sorted(labels, key=int))
        return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names
    found = _settings(getattr(model, "pretrained_cfg", None)).get("label_names")
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def _settings(config: Any) -> Mapping[str, Any]:
    """timm's settings, a mapping or an object with attributes."""
    if isinstance(config, Mapping):
        return config
    return vars(config) if hasattr(config, "__dict__") else {}
