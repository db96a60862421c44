"""Preprocess: how an image becomes a model's input: size, channels, scale, then mean and standard deviation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from PIL import Image

from convscope.errors import ShapeError, UnknownName, UsageError
from convscope.images import MAX_PIXELS, WHITE
from convscope.type_checks import huge, kind_of, takes
from convscope.typing import Array

Fit = Literal["stretch", "crop", "pad", "mnist"]
INK = 0.2
"""Values above this share of white belong to a drawing, for fit="mnist"."""
BOX = 20 / 28
"""The share of the edge that a drawing fills, for fit="mnist": 20 of 28 pixels."""
CENTRE = 14.5 / 28
"""The centre of mass of MNIST's digits as a share of the edge: the middle of pixel 14 of 0 to 27, as measured."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple | list) and all(map(_is_number, values))


def _are_whole(values: object) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(value, int | np.integer) for value in values)


_VALUES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "size": (lambda v: v is None or (_are_whole(v) and len(v) == 2), "None or (height, width)"),
    "channels": (lambda v: v is None or _are_whole((v,)), "None or an integer"),
    "scale": (_is_number, "a number"),
    "mean": (_are_numbers, "a tuple of numbers"),
    "std": (_are_numbers, "a tuple of numbers"),
    "fit": (lambda v: isinstance(v, str) and v in get_args(Fit), f"one of {', '.join(get_args(Fit))}"),
    "crop_ratio": (_is_number, "a number"),
    "background": (lambda v: v is None or (isinstance(v, str) and v in {"dark", "light"}), "None, 'dark' or 'light'"),
}
"""Field -> whether a value is of its kind, and which kind that is."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The preprocessing of an image for a model: size, channels, scale, then mean and standard deviation.

    >>> expected = Preprocess(size=(28, 28), channels=1)
    >>> expected.apply(np.full((3, 300, 200), 255, np.uint8)).shape
    (1, 28, 28)

    Source: the order (resize, crop, rescale, normalize) is that of torchvision's and transformers' image processors.
    """

    size: tuple[int, int] | None = None
    """(height, width) in pixels; None keeps the picture's own."""
    channels: int | None = None
    """1 for grey, 3 for colour, 4 for colour with opacity, or those of an array; None keeps the picture's own."""
    scale: float = WHITE
    """The pixel value that becomes 1.0: 255 for 8-bit pixels, 1 for data that is already scaled."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted after scaling; one number, or one per channel."""
    std: tuple[float, ...] = (1.0,)
    """Divided by after that; one number, or one per channel."""
    fit: Fit = "stretch"
    """How an image is fitted to `size`: stretched, cropped in the centre, zero-padded, or as MNIST's digits were.

    "mnist" crops to the drawing, scales its longer edge to 20 of 28 pixels and puts its centre of mass in the centre
    (Y. LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86, 1998, section III A).
    """
    crop_ratio: float = 1.0
    """With fit="crop": the crop's share of the shorter edge; with "stretch", of both (0.875: to 256, then crop 224)."""
    background: Literal["dark", "light"] | None = None
    """The background of the data; an image with the other background is inverted. None never inverts."""
    binary: bool = False
    """Whether the data have only 0 and 1, so that a picture's greys are rounded to them."""

    def __post_init__(self) -> None:
        for name, (fits, expected) in _VALUES.items():
            if bits := huge(getattr(self, name)):
                raise UsageError(f"{name} of a Preprocess is {expected}, not a number of {bits:,} bits.")
            if not fits(getattr(self, name)):
                value = getattr(self, name)
                shown = repr(value) if isinstance(value, str | int | float) else kind_of(value)
                raise UsageError(f"{name} of a Preprocess is {expected}, not {shown}.")
        if self.scale <= 0 or any(s <= 0 for s in self.std):
            raise UsageError(f"scale and std must be positive, not {self.scale} and {self.std}.")
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"a size is (height, width) in pixels, at least (1, 1), not {self.size}.")
        if self.size is not None and self.size[0] * self.size[1] > MAX_PIXELS:
            expected = f"{self.size[0]:,}x{self.size[1]:,}"
            raise UsageError(f"a picture of {expected} pixels is too large; at most {MAX_PIXELS:,} pixels are made.")
        if not 0 < self.crop_ratio <= 1:
            raise UsageError(
                f"crop_ratio is the crop's share of the shorter edge, above 0 and up to 1, not {self.crop_ratio}."
            )

    @property
    def plain(self) -> bool:
        """Whether values are only scaled, neither shifted nor stretched."""
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def normalize(self, images: Array) -> Array:
        """Raw values (..., C, H, W), in this preprocess' own scale, as the float32 a model takes.

        >>> Preprocess().normalize(np.array([[[51]]], np.uint8))
        array([[[0.2]]], dtype=float32)

        Raises:
            ShapeError: the mean or standard deviation is for another number of channels.
        """
        channels = max(len(self.mean), len(self.std))
        if channels not in {1, images.shape[-3]}:
            raise ShapeError(f"mean and std are for {channels} channels; the picture has {images.shape[-3]}.")
        values: Array = images.astype(np.float32)
        if self.scale != 1:
            values /= np.float32(self.scale)
        if not self.plain:
            values = (values - _per_channel(self.mean)) / _per_channel(self.std)
        return np.ascontiguousarray(values, np.float32)

    def restore(self, values: Array) -> Array:
        """The way back from `normalize`: values as 0..1, so that a picture can be shown in its own units."""
        return np.asarray(values * _per_channel(self.std) + _per_channel(self.mean), np.float32)

    def apply(self, image: Array, white: float = WHITE) -> Array:
        """Bring one picture to the model's size, channels and values.

        Args:
            image: Pixels, shape (C, H, W) or (H, W), from 0 to `white`.
            white: The pixel value that means 1.0.

        Returns:
            float32, shape (channels, *size).

        Raises:
            ShapeError: the picture has a number of channels that cannot be turned into `channels`.
        """
        shown = _as_channels(_three(image).astype(np.float32) / np.float32(white), self.channels)
        if self.inverts(image, white):
            shown = 1 - shown
        shown = resize(shown, self.size, self.fit, self.crop_ratio) if self.size else shown
        if self.binary:
            shown = (shown >= 0.5).astype(np.float32)
        return replace(self, scale=1.0).normalize(shown)

    def inverts(self, image: Array, white: float = WHITE) -> bool:
        """Whether the picture's border is of the other brightness than the data's background."""
        if self.background is None:
            return False
        shown = _three(image)
        border = np.concatenate([shown[:, (0, -1), :].ravel(), shown[:, :, (0, -1)].ravel()])
        light = float(np.median(border)) / white > 0.5
        return light == (self.background == "dark")

    def changes(self, image: Array, white: float = WHITE) -> tuple[str, ...]:
        """A description of what `apply` will do to this image; empty if it already fits.

        >>> Preprocess(size=(28, 28), channels=1, background="dark").changes(np.full((3, 300, 200), 255, np.uint8))
        ('resized from 300x200 to 28x28', 'turned to grey', 'inverted (the data has a dark background)')
        """
        shown = _three(image)
        parts = []
        if self.size and not _fits(shown, self.size, self.fit, self.crop_ratio):
            verb = VERBS[self.fit]
            parts.append(f"{verb} from {shown.shape[1]}x{shown.shape[2]} to {self.size[0]}x{self.size[1]}")
        if self.channels and shown.shape[0] != self.channels:
            names = {1: "grey", 3: "RGB", 4: "RGBA, opaque"}
            parts.append(f"turned to {names.get(self.channels, f'{self.channels} equal channels')}")
        if self.inverts(image, white):
            parts.append(f"inverted (the data has a {self.background} background)")
        if self.binary and not np.isin(shown, (0, white)).all():
            parts.append("made black and white (the data has no greys)")
        return tuple(parts)

    def as_loaded(self) -> dict[str, Any]:
        """How `load_dataset` brings the images of a folder, or of `hub:`, to this size and these channels.

        >>> Preprocess(size=(224, 224), fit="crop", crop_ratio=0.875).as_loaded()
        {'grey': False, 'image_size': (224, 224), 'fit': 'crop', 'crop_ratio': 0.875}
        """
        grey = {"grey": self.channels == 1}
        return grey | ({"image_size": self.size, "fit": self.fit, "crop_ratio": self.crop_ratio} if self.size else {})

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    @takes()
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        fields: dict[str, Any] = {str(k): tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        unknown = [name for name in fields if name not in cls.__dataclass_fields__]
        if unknown:
            raise UnknownName("value of a Preprocess", unknown[0], cls.__dataclass_fields__)
        return cls(**fields)


VERBS = {
    "stretch": "resized",
    "crop": "resized and cropped",
    "pad": "resized and padded",
    "mnist": "centred like MNIST's digits (cropped to the drawing, 20 of 28 pixels, centre of mass in the centre)",
}
"""The description of each fit for `changes`."""


def resize(image: Array, size: tuple[int, int], fit: Fit = "stretch", crop_ratio: float = 1.0) -> Array:
    """Scale a float picture (C, H, W) to (C, *size), bilinear with antialiasing, channel by channel."""
    height, width = image.shape[1:]
    if _fits(image, size, fit, crop_ratio):
        return image
    if fit == "stretch":
        return _centred(_scaled(image, (round(size[0] / crop_ratio), round(size[1] / crop_ratio))), size)
    if fit == "mnist":
        return _centred_drawing(image, size)
    ratios = size[0] / height, size[1] / width
    factor = max(ratios) / crop_ratio if fit == "crop" else min(ratios)
    to_integer = _floor if fit == "crop" else round
    scaled = _scaled(image, (max(1, to_integer(height * factor)), max(1, to_integer(width * factor))))
    return _centred(scaled, size)


def _centred_drawing(image: Array, size: tuple[int, int]) -> Array:
    """A drawing on a dark background, cropped, scaled to the box and placed by its centre of mass."""
    rows, columns = np.nonzero(image.max(axis=0) > INK)
    if not len(rows):
        return resize(image, size, "pad")
    drawing = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    factor = BOX * min(size[0] / drawing.shape[1], size[1] / drawing.shape[2])
    scaled = _scaled(drawing, (max(1, round(drawing.shape[1] * factor)), max(1, round(drawing.shape[2] * factor))))
    mass = scaled.sum(axis=0)
    out = np.zeros((image.shape[0], *size), image.dtype)
    corner = []
    for axis, (have, want) in enumerate(zip(scaled.shape[1:], size, strict=True)):
        centre = float(mass.sum(axis=1 - axis) @ (np.arange(have) + 0.5) / mass.sum())
        corner.append(min(max(round(CENTRE * want - centre), 0), want - have))
    out[:, corner[0] : corner[0] + scaled.shape[1], corner[1] : corner[1] + scaled.shape[2]] = scaled
    return out


def _floor(edge: float) -> int:
    """Whole pixels as torchvision and transformers count them before a crop, whatever the last bit of `edge`."""
    return math.floor(edge + 1e-6)


def _fits(image: Array, size: tuple[int, int], fit: Fit, crop_ratio: float) -> bool:
    """Whether `resize` has nothing to do: a crop of 0.875 of the edge is one even where the size is right."""
    return image.shape[1:] == size and (fit == "pad" or crop_ratio == 1)


def _scaled(image: Array, size: tuple[int, int]) -> Array:
    turned = (size[1], size[0])
    planes = [Image.fromarray(plane).resize(turned, Image.Resampling.BILINEAR) for plane in image.astype(np.float32)]
    return np.stack([np.asarray(plane) for plane in planes])


def _centred(image: Array, size: tuple[int, int]) -> Array:
    """Crop or zero-pad around the centre to `size`."""
    out = np.zeros((image.shape[0], *size), image.dtype)
    source, target = [], []
    for have, want in zip(image.shape[1:], size, strict=True):
        extra = (have - want) // 2
        source.append(slice(max(extra, 0), max(extra, 0) + min(have, want)))
        gap = math.ceil((want - have) / 2)
        target.append(slice(max(gap, 0), max(gap, 0) + min(have, want)))
    out[:, target[0], target[1]] = image[:, source[0], source[1]]
    return out


def _three(image: Array) -> Array:
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3:
        raise ShapeError(f"a picture has the shape (C, H, W) or (H, W), not {image.shape}.")
    return image


def _as_channels(image: Array, channels: int | None) -> Array:
    """Grey from colour by the ITU-R 601 luma weights, colour from grey by repetition, opacity of 1 where it lacks."""
    have = image.shape[0]
    if channels is None or have == channels:
        return image
    if have == 3 and channels == 1:
        return np.tensordot(np.array([[0.299, 0.587, 0.114]], np.float32), image, 1)
    if channels == 4 and have in {1, 3}:
        colour = np.repeat(image, 3, axis=0) if have == 1 else image
        return np.concatenate([colour, np.ones_like(colour[:1])])
    if have == 1:
        return np.repeat(image, channels, axis=0)
    raise ShapeError(f"a picture with {have} channels cannot be turned into {channels}; give one with {channels}.")


def _per_channel(values: tuple[float, ...]) -> Array:
    return np.array(values, np.float32)[:, None, None]
