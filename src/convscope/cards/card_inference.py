"""Card inference: a model's card, the one it carries or what its own config, processor and layers say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscope.cards.card import AXES, Card, Form, InputLayer, attached, input_layers, is_module, square
from convscope.errors import ModelError, UsageError
from convscope.files import read_file
from convscope.images import WHITE
from convscope.json_values import parse_json
from convscope.preprocess import Fit, Preprocess

if TYPE_CHECKING:
    from convscope.cards.trial_runs import Expectation

Geometry = tuple[tuple[int, int] | None, Fit, float]  # size, fit and crop_ratio of a Preprocess

BEYOND = ("do_flip_channel_order", "do_pad", "do_crop_margin", "do_grayscale", "size_divisor")
"""Settings of transformers that a Preprocess cannot say."""
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


def preprocess_from_processor(config: Mapping[str, Any]) -> Preprocess:
    """The Preprocess that transformers' `preprocessor_config.json` describes.

    Pictures are scaled bilinearly, whatever the processor's own filter is.

    >>> config = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224, "image_mean": [0.5] * 3,
    ...           "image_std": [0.5] * 3}
    >>> result = preprocess_from_processor(config)
    >>> result.size, result.fit, result.crop_ratio, result.mean
    ((224, 224), 'crop', 0.875, (0.5, 0.5, 0.5))

    Args:
        config: The settings by name, as in the file.

    Raises:
        UsageError: the processor does something that a Preprocess cannot say, such as to swap red and blue.

    Source: transformers' documentation of image processors, and their Pillow code for crop_pct.
    """
    for name in BEYOND:
        if config.get(name):
            raise _beyond(f"{name} = {config[name]}")
    size, fit, ratio = _geometry(config)
    mean, std = _affine(config)
    channels = len(mean) if len(mean) > 1 else 3
    return Preprocess(size=size, channels=channels, mean=mean, std=std, fit=fit, crop_ratio=ratio)


def preprocess_from_timm(config: Mapping[str, Any]) -> Preprocess:
    """The Preprocess that timm's `pretrained_cfg` describes.

    >>> preprocess_from_timm({"input_size": (3, 224, 224), "mean": (0.5,), "std": (0.5,), "crop_pct": 0.875}).crop_ratio
    0.875

    Source: timm's documentation of pretrained_cfg (input_size, mean, std, crop_pct, crop_mode).
    """
    channels, height, width = config["input_size"]
    fits: Mapping[str, Fit] = {"center": "crop", "squash": "stretch", "border": "pad"}
    fit = fits.get(config.get("crop_mode") or "center", "crop")
    edge = math.floor(height / (config.get("crop_pct") or 1.0))
    return Preprocess(
        size=(height, width),
        channels=channels,
        mean=_numbers(config.get("mean") or 0.0),
        std=_numbers(config.get("std") or 1.0),
        fit=fit,
        crop_ratio=1.0 if fit == "pad" else height / edge,
    )


def resampling(config: Mapping[str, Any]) -> str:
    """The name of the filter that a processor of transformers or timm resizes with."""
    if "interpolation" in config:
        return str(config["interpolation"])
    return RESAMPLING.get(config.get("resample", 2), "another filter")


def _geometry(config: Mapping[str, Any]) -> Geometry:
    """Size, fit and crop ratio; transformers scales either one edge or both, then may crop the centre."""
    crop = _pair(config.get("crop_size")) if config.get("do_center_crop") else None
    if not config.get("do_resize", True):
        if crop:
            raise _beyond("a crop without resizing")
        return None, "stretch", 1.0
    edge, share = _edge(config), config.get("crop_pct")
    if edge is None:
        box = _pair(config.get("size"))
        if box is None:
            raise _beyond(f"size = {config.get('size')}")
        return (box, "stretch", 1.0) if crop is None else _cropped(crop, "stretch", box)
    if share is not None and crop is None:  # as ConvNeXT and ResNet do: below 384 cropped, from there on stretched
        crop, share = (edge, edge), share if edge < 384 else None
        if share is None:
            return crop, "stretch", 1.0
    if crop is None:
        raise _beyond(f"size = {config['size']} without a crop")
    scaled = int(edge / share) if share else edge
    if str(_kind(config)).startswith("Levit"):
        scaled = int(256 / 224 * edge)
    return _cropped(crop, "crop", (scaled, scaled))


def _cropped(crop: tuple[int, int], fit: Fit, scaled: tuple[int, int]) -> Geometry:
    """A centre crop out of what was scaled, where one ratio says it."""
    ratio = crop[0] / scaled[0]
    if crop[1] / scaled[1] != ratio or ratio > 1 or (fit == "crop" and crop[0] != crop[1]):
        raise _beyond(f"a crop of {crop[0]}x{crop[1]} out of {scaled[0]}x{scaled[1]}")
    return crop, fit, ratio


def _edge(config: Mapping[str, Any]) -> int | None:
    """The target length of the shorter edge; None if both are specified."""
    size = config.get("size")
    if isinstance(size, Mapping):
        if size.get("longest_edge"):
            raise _beyond(f"size = {dict(size)}")
        return size.get("shortest_edge")
    square = str(_kind(config)).startswith(("DeiT", "Beit"))  # older files have one number for either meaning
    crops = config.get("crop_pct") is not None or config.get("do_center_crop")
    return size if isinstance(size, int) and crops and not square else None


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        size = (size.get("height"), size.get("width"))
    if isinstance(size, int):
        size = (size, size)
    return (int(size[0]), int(size[1])) if isinstance(size, Sequence) and len(size) == 2 and all(size) else None


def _affine(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels from 0 to 1, whatever the processor rescales by."""
    factor = WHITE * config.get("rescale_factor", 1 / WHITE) if config.get("do_rescale", True) else WHITE
    factor = 1.0 if math.isclose(factor, 1.0, rel_tol=1e-6) else factor
    shift = 1.0 if config.get("rescale_offset") else 0.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if config.get("do_normalize", "image_mean" in config):
        mean, std = _numbers(config.get("image_mean") or 0.0), _numbers(config.get("image_std") or 1.0)
    if config.get("include_top") and "image_std" in config:  # EfficientNet divides once more
        second_std = _numbers(config["image_std"])
        mean, std = _times(mean, (1.0,) * len(second_std)), _times(std, second_std)
    return tuple((m + shift) / factor for m in mean), tuple(s / factor for s in std)


def _times(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    length = max(len(a), len(b))
    return tuple(x * y for x, y in zip((a * length)[:length], (b * length)[:length], strict=True))


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values) if isinstance(values, Sequence) else (float(values),)


def _kind(config: Mapping[str, Any]) -> str | None:
    return config.get("image_processor_type") or config.get("feature_extractor_type")


def _beyond(setting: str) -> UsageError:
    return UsageError(
        f"the image processor's setting {setting} cannot be expressed as a Preprocess; "
        "prepare the picture yourself, or say what comes nearest: preprocess=Preprocess(size=..., mean=..., std=...)."
    )


PROCESSOR = "preprocessor_config.json"


def card_of(model: object) -> Card:
    """A model's card: the one attached to it, else from its own config, else from runs of a copy of it.

    >>> card_of(object()).name
    'object'
    """
    return attached(model) or infer_card(model)


def infer_card(model: object, folder: Path | None = None) -> Card:
    """A card from the model's own config, else from trial runs of a copy, else from its layers.

    The card's `notes` say what was found where.

    Args:
        model: Any model; transformers' and timm's describe themselves.
        folder: The folder of its files, to find the config of an image processor there.
    """
    config = getattr(model, "config", None)
    name = type(model).__name__
    classes = _class_names(config, model)
    for candidate in (folder, _folder_of(config)):
        if candidate is not None and (candidate / PROCESSOR).is_file():
            preprocess, notes = _from_processor(candidate / PROCESSOR, config)
            return Card(name, preprocess, classes, notes=notes)
    timm = _settings(getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None))
    if timm.get("input_size"):
        return Card(name, preprocess_from_timm(timm), classes, notes=_other_filter(timm))
    expected = Preprocess(size=_image_size(config), channels=_channels(config))
    if expected.size or expected.channels:
        note = "its config says no mean and standard deviation: pixels are scaled to 0..1, no more"
        return Card(name, expected, classes, notes=(note,))
    form, preprocess, notes = _detected(model)
    result = preprocess.size is not None and not hasattr(model, "graph")
    return Card(name, preprocess, classes, notes=notes, form=form, inputs=_inputs(model), size_found=result)


def _from_processor(path: Path, config: object) -> tuple[Preprocess, tuple[str, ...]]:
    try:
        settings = parse_json(read_file(path))
        result = preprocess_from_processor(settings)
    except UsageError as error:
        return Preprocess(size=_image_size(config), channels=_channels(config)), (f"{path}: {error}",)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read as the config of an image processor: {error}.") from None
    channels = _channels(config)
    result = replace(result, channels=channels) if channels and len(result.mean) in {1, channels} else result
    return result, (f"pictures are prepared as {path} says", *_other_filter(settings))


def _other_filter(settings: Mapping[str, Any]) -> tuple[str, ...]:
    processor_filter = resampling(settings)
    return (
        ()
        if processor_filter == "bilinear"
        else (f"pictures are resized bilinearly; the model's own processor uses {processor_filter}",)
    )


Found = tuple[Form, Preprocess, tuple[str, ...]]


def _detected(model: object) -> Found:
    """The form, channels and size of a model's input without a config."""
    declared = _declared(model)
    if declared is not None:
        return declared
    result = _expectation(model)
    if result is None:
        return "picture", *_from_layers(model, input_layers(model))
    first = result.layers[0] if result.layers else None
    if not result.ran and result.form == "picture" and (first is None or first.kind == "numbers"):
        return "picture", *_from_layers(model, [*result.layers, *input_layers(model)])
    preprocess = Preprocess(size=result.size, channels=result.channels)
    if result.size is None or result.channels is None:
        return result.form, preprocess, ()
    if first is not None and first.kind == "numbers":
        return result.form, preprocess, (_note(model, first, preprocess),)
    edges = "x".join(map(str, result.size))
    note = (
        f"it runs with pictures of {edges}, so pictures are resized to that; for another size, --preprocess size=64 "
        '(in Python preprocess={"size": (64, 64)})'
    )
    return result.form, preprocess, (note,)


def entering(model: object) -> list[InputLayer]:
    """The layers that determine a model's input: those that runs of a copy reach, in that order, or all.

    A card that a model carries says what it takes already; then nothing is run.
    """
    result = None if attached(model) is not None else _expectation(model)
    layers = [] if result is None else [layer for layer in result.layers if layer.name]
    return layers or input_layers(model)


def at_size(model: object, card: Card, size: tuple[int, int]) -> Preprocess:
    """The card's Preprocess, without the size found by trial runs if the image's own size runs too."""
    expected = card.preprocess
    if not card.size_found or size == expected.size or not is_module(model):
        return expected
    from convscope.cards.trial_runs import runs_at  # noqa: PLC0415 - so that pictures alone do not load torch

    return replace(expected, size=None) if runs_at(model, expected.channels or 1, size) else expected


def vector_length(model: object) -> int | None:
    """The length of the vector that a model takes where a picture would not fit; None for all other models.

    >>> from torch import nn
    >>> vector_length(nn.Sequential(nn.Linear(784, 10), nn.ReLU())), vector_length(nn.Linear(4, 2))
    (784, 4)
    >>> vector_length(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    """
    card = card_of(model)
    layers = [] if card.form != "picture" or card.inputs else input_layers(model)
    return layers[0].count if layers and _takes_vector(model, layers[0], card.preprocess) else None


def _takes_vector(model: object, first: InputLayer, picture: Preprocess) -> bool:
    """Whether a model runs further with as many numbers as its first layer takes than with pictures."""
    if first.kind != "numbers" or not is_module(model):
        return False
    from convscope.cards.trial_runs import goes_further  # noqa: PLC0415 - so that pictures alone do not load torch

    shape = (picture.channels, *picture.size) if picture.channels and picture.size else None
    return goes_further(model, (first.count,), shape)


def _expectation(model: object) -> "Expectation | None":
    if not is_module(model):
        return None
    from convscope.cards.trial_runs import expectation  # noqa: PLC0415 - so that pictures alone do not load torch

    return expectation(model)


def _inputs(model: object) -> tuple[str, ...]:
    """The names of a model's inputs, if it has several."""
    if not is_module(model):
        return ()
    from convscope.cards.trial_copy import required_inputs  # noqa: PLC0415 - so that pictures alone do not load torch

    names = required_inputs(model)
    return names if len(names) > 1 else ()


def _declared(model: object) -> Found | None:
    """The inputs of a program of torch.export, from the shapes with which it was exported."""
    nodes = [node for node in getattr(getattr(model, "graph", None), "nodes", ()) if node.op == "placeholder"]
    shapes = [getattr(node.meta.get("val"), "shape", None) for node in nodes]
    forms: Mapping[int, Form] = {axes + 1: form for form, axes in AXES.items() if axes}  # type: ignore[misc]
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) not in forms:
        return None
    _, channels, *size = (edge if isinstance(edge, int) else None for edge in shapes[0])
    has_size = None not in size and len(size) == 2
    edges = (size[0], size[1]) if has_size else None
    return forms[len(shapes[0])], Preprocess(size=edges, channels=channels), ()  # type: ignore[arg-type]


def _from_layers(model: object, layers: list[InputLayer]) -> tuple[Preprocess, tuple[str, ...]]:
    """The channels of the first convolution; for a linear layer the square picture of as many numbers."""
    if not layers:
        return Preprocess(), ()
    first = layers[0]
    if first.kind == "channels":
        return Preprocess(channels=first.count), ()
    for channels in (1, 3):
        edge = square(first, channels)
        if edge:
            preprocess = Preprocess(size=(edge, edge), channels=channels)
            return preprocess, (_note(model, first, preprocess),)
    return Preprocess(), ()


def _note(model: object, first: InputLayer, picture: Preprocess) -> str:
    if _takes_vector(model, first, picture):
        return f"{first}, as a vector: give it an array (.npy) of that length"
    assert picture.size is not None
    kind, edges = "grey" if picture.channels == 1 else "colour", "x".join(map(str, picture.size))
    return f"{first}, so it is given {kind} pictures of {edges}"


def _folder_of(config: object) -> Path | None:
    name = getattr(config, "_name_or_path", None)
    return Path(name) if isinstance(name, str) and name and Path(name).is_dir() else None


def _image_size(config: object) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(edge, int) for edge in size):
        return size[0], size[1]
    return None


def _channels(config: object) -> int | None:
    channels = getattr(config, "num_channels", None)
    return channels if isinstance(channels, int) and channels > 0 else None


def _class_names(config: object, model: object) -> tuple[str, ...]:
    """Class names, without the placeholders LABEL_0, LABEL_1 that transformers fills in."""
    labels = getattr(config, "id2label", None)
    if isinstance(labels, Mapping) and labels:
        names = tuple(str(labels[key]) for key in sorted(labels, key=int))
        return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names
    result = _settings(getattr(model, "pretrained_cfg", None)).get("label_names")
    return tuple(map(str, result)) if isinstance(result, list | tuple) else ()


def _settings(config: Any) -> Mapping[str, Any]:
    """timm's settings, a mapping or an object with attributes."""
    if isinstance(config, Mapping):
        return config
    return vars(config) if hasattr(config, "__dict__") else {}
