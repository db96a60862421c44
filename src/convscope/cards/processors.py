"""Processors: what an image processor's settings, transformers' or timm's, say in terms of Preprocess.

Knows the names of these settings; imports neither library.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from convscope.errors import UsageError
from convscope.images import WHITE, Fit, Preprocess

Geometry = tuple[tuple[int, int] | None, Fit, float]  # size, fit and crop_ratio of a Preprocess

BEYOND = ("do_flip_channel_order", "do_pad", "do_crop_margin", "do_grayscale", "size_divisor")
"""Settings of transformers that a Preprocess cannot say."""
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers


def preprocess_from_processor(config: Mapping[str, Any]) -> Preprocess:
    """What transformers' `preprocessor_config.json` says, as a Preprocess.

    Pictures are scaled bilinearly, whatever the processor's own filter is.

    >>> config = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224, "image_mean": [0.5] * 3,
    ...           "image_std": [0.5] * 3}
    >>> found = preprocess_from_processor(config)
    >>> found.size, found.fit, found.crop_ratio, found.mean
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
    """What timm's `pretrained_cfg` says, as a Preprocess.

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
    """What the shorter edge is scaled to; None where both are given."""
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
        twice = _numbers(config["image_std"])
        mean, std = _times(mean, (1.0,) * len(twice)), _times(std, twice)
    return tuple((m + shift) / factor for m in mean), tuple(s / factor for s in std)


def _times(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    length = max(len(a), len(b))
    return tuple(x * y for x, y in zip((a * length)[:length], (b * length)[:length], strict=True))


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values) if isinstance(values, Sequence) else (float(values),)


def _kind(config: Mapping[str, Any]) -> str | None:
    return config.get("image_processor_type") or config.get("feature_extractor_type")


def _beyond(what: str) -> UsageError:
    return UsageError(
        f"the image processor's setting {what} cannot be said as a Preprocess; "
        "prepare the picture yourself, or say what comes nearest: preprocess=Preprocess(size=..., mean=..., std=...)."
    )
