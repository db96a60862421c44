"""Inputs: turn an image that the page names or paints into a model's input, noting the preprocessing applied.

Uses pictures and a model's card; no models, no traces.
"""

import math
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.session.schema import Change, InputInfo, InputPart, PixelsRef
from convscope.server.traces.array_pictures import base64url, extent, number, shades, shrunk
from convscope.typing import Array

LARGEST = 512
"""Maximum pixels a side of an input for a model without a fixed input size."""
SHOWN = 256
"""Maximum pixels a side of a picture sent to the page."""


class Misfit(HTTPException):
    """An image whose size differs from the model's input size, in a request that does not set `fit`."""

    def __init__(self, message: str) -> None:
        super().__init__(409, message)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image before preprocessing."""

    name: str
    pixels: Array = field(repr=False)
    """Pixels from 0 to `white`, shape (C, H, W)."""
    white: float = 255.0
    transparent: Array | None = field(default=None, repr=False)
    """The pixels with their opacity as a fourth channel, which a model of four channels takes instead."""
    label: int | None = None
    classes: tuple[str, ...] = ()
    """Class names that `label` indexes."""
    exact: bool = False
    """Whether to use the pixels unchanged, neither inverted nor rounded: they were painted or prepared before."""
    background: str | None = None
    """Background of the data set; a model trained on the same background takes the image without inversion."""
    notes: tuple[str, ...] = ()
    ready: NDArray[np.float32] | None = field(default=None, repr=False)
    """The preprocessed numbers, valid for a model with the preprocessing `ready_for`."""
    ready_for: cs.Preprocess | None = None
    inputs: cs.ModelInput | None = None
    """Model inputs that are not a single picture; `pixels` are then only their display."""

    @property
    def model_input(self) -> cs.ModelInput:
        """The input that a model of this session was opened with."""
        prepared = self.pixels if self.ready is None else self.ready
        return prepared if self.inputs is None else self.inputs


@dataclass(frozen=True, slots=True, eq=False)
class PageInput:
    """A preprocessed input, ready for the model."""

    name: str
    array: NDArray[np.float32] = field(repr=False)
    """Normalized pixels, shape (C, H, W)."""
    picture: NDArray[np.float32] = field(repr=False)
    """The pixels from 0 to 1, for display."""
    label: int | None
    notes: tuple[str, ...]
    inputs: cs.ModelInput | None = None
    """Model inputs that are not a single picture; `array` is then their display."""
    parts: tuple[InputPart, ...] = ()
    """Positions of several inputs in `array`."""

    @property
    def value(self) -> cs.ModelInput:
        """The argument of the model call."""
        return self.array if self.inputs is None else self.inputs

    def traced(self, named: Mapping[str, Array]) -> "PageInput":
        """A copy that displays the recorded inputs of a pass, if they are not a single picture."""
        if self.inputs is None:
            return self
        shown, parts = planes_of_all(named)
        return replace(self, array=shown, parts=tuple(parts))

    def info(self) -> InputInfo:
        """The input's description for the page."""
        shown = shades(shrunk(np.clip(self.picture[:3], 0, 1), SHOWN), 0, 1)
        shown = shown[:1] if len(shown) == 2 else shown
        low, high = extent(self.array)
        return InputInfo(
            name=self.name,
            shape=list(self.array.shape),
            form="picture" if self.inputs is None else "several" if self.parts else "array",
            parts=list(self.parts),
            label=self.label,
            notes=list(self.notes),
            low=number(low),
            high=number(high),
            picture=base64url(shown),
            picture_shape=(shown.shape[0], shown.shape[1], shown.shape[2]),
        )


def planes_of_all(
    named: Mapping[str, Array], filled_with: float = math.nan
) -> tuple[NDArray[np.float32], list[InputPart]]:
    """The inputs of a pass as one array for display: a single input without its batch axis, or the planes of several.

    >>> shown, parts = planes_of_all({"left": np.zeros((1, 3, 4, 5)), "right": np.ones((2, 6))})
    >>> shown.shape, [(part.name, part.first) for part in parts]
    ((4, 4, 6), [('left', 0), ('right', 3)])

    Args:
        named: One array per input: the recorded inputs, or other numbers of the same shapes.
        filled_with: Padding of smaller planes.

    Returns:
        The array, and the position of each input in it if there are several.
    """
    bare = {name: _bare(array) for name, array in named.items()}
    if len(bare) == 1:
        return next(iter(bare.values())), []
    planes = [array.reshape(-1, *((1, 1, *array.shape)[-2:])) for array in bare.values()]
    edges = [max(plane.shape[axis] for plane in planes) for axis in (1, 2)]
    shown = np.full((sum(map(len, planes)), *edges), filled_with, np.float32)
    parts: list[InputPart] = []
    first = 0
    for (name, array), plane in zip(bare.items(), planes, strict=True):
        shown[first : first + len(plane), : plane.shape[1], : plane.shape[2]] = plane
        parts.append(InputPart(name=name, shape=list(array.shape), first=first))
        first += len(plane)
    return shown, parts


def _bare(array: Array) -> NDArray[np.float32]:
    plain = np.abs(array) if array.dtype.kind == "c" else array
    return np.asarray(plain[0] if plain.ndim > 1 and len(plain) == 1 else plain, np.float32)


def painted(ref: PixelsRef) -> Picture:
    """Decode the pixels of a painted image.

    Raises:
        HTTPException: 422, their number does not match the shape, or they are not from 0 to 1.
    """
    count = math.prod(ref.shape)
    try:
        content = urlsafe_b64decode(ref.data + "=" * (-len(ref.data) % 4))
    except ValueError:
        raise HTTPException(422, "the pixels of a painted image must be float32 in base64url.") from None
    if min(ref.shape) < 1 or len(content) != 4 * count:
        shape = "x".join(map(str, ref.shape))
        raise HTTPException(
            422, f"a painted image of shape {shape} has {4 * count:,} bytes of pixels, not {len(content):,}."
        )
    pixels = np.frombuffer(content, "<f4").reshape(ref.shape)
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise HTTPException(422, "the pixels of a painted image must be numbers from 0 to 1.")
    return Picture("drawing", pixels, 1.0, exact=True)


def take(picture: Picture, card: cs.Card, change: Change, fit: str | None) -> PageInput:
    """Preprocess a picture for a model, then rotate, shift and add noise.

    Raises:
        Misfit: the picture has another size than the model takes, and `fit` is None.
        ShapeError: the channels cannot be converted to those of the model.
        HTTPException: 422, the model does not take pictures, or the input to be changed is not a picture.
    """
    expected, model_name = card.preprocess, card.name
    if picture.inputs is not None:
        if change != Change():
            raise HTTPException(422, f"{picture.name} is not a single picture; it cannot be moved or given noise here.")
        return PageInput(picture.name, picture.pixels, picture.pixels, None, picture.notes, picture.inputs)
    if card.inputs or card.form in {"signal", "tokens"}:
        form = "signals" if card.form == "signal" else "integers"
        wants = f"several inputs ({', '.join(card.inputs)})" if card.inputs else form
        raise HTTPException(
            422,
            f"{model_name} takes {wants}, not a picture; open the explorer with such an input: cs.open(model, input).",
        )
    if picture.ready is not None and picture.ready_for == expected and change == Change():
        return PageInput(picture.name, picture.ready, expected.restore(picture.ready), picture.label, picture.notes)
    if expected.channels == 4 and picture.transparent is not None:
        picture = replace(picture, pixels=picture.transparent)
    expected, notes = _fitted(picture, model_name, expected, fit)
    shown = replace(expected, scale=1.0, mean=(0.0,), std=(1.0,)).apply(picture.pixels, picture.white)
    notes = (*picture.notes, *expected.changes(picture.pixels, picture.white), *notes)
    changed = changes(shown, change)
    return PageInput(picture.name, replace(expected, scale=1.0).normalize(changed), changed, picture.label, notes)


def _fitted(
    picture: Picture, model_name: str, expected: cs.Preprocess, fit: str | None
) -> tuple[cs.Preprocess, tuple[str, ...]]:
    """The preprocessing for this picture, and further notes."""
    _, height, width = picture.pixels.shape
    same = expected.size == (height, width)
    if picture.exact:
        expected = replace(expected, background=None, binary=False, crop_ratio=1.0 if same else expected.crop_ratio)
    elif picture.background is not None and picture.background == expected.background:
        expected = replace(expected, background=None)
    if expected.size is None:
        longest = max(height, width)
        if longest <= LARGEST:
            return expected, ()
        size = (max(1, round(height * LARGEST / longest)), max(1, round(width * LARGEST / longest)))
        return replace(expected, size=size), (
            f"the model has no fixed input size; the picture was reduced to at most {LARGEST} pixels a side",
        )
    if not same and fit is None:
        expected_size = "x".join(map(str, expected.size))
        raise Misfit(
            f"the image is {height}x{width} (height x width) and {model_name} takes {expected_size}; "
            "choose to resize it or to pad it."
        )
    if fit == "pad":
        return replace(expected, fit="pad", crop_ratio=1.0), ()
    return expected, ()


def changes(picture: NDArray[np.float32], change: Change) -> NDArray[np.float32]:
    """A picture (C, H, W) rotated, shifted, with noise; uncovered pixels take the median brightness of the border."""
    fill = [_border(plane) for plane in picture]
    if change.rotate % 360:
        picture = np.stack([_rotated(p, change.rotate, f) for p, f in zip(picture, fill, strict=True)])
    if change.down or change.right:
        picture = np.stack([_shifted(p, change.down, change.right, f) for p, f in zip(picture, fill, strict=True)])
    if change.noise:
        noise = np.random.default_rng(change.seed).standard_normal(picture.shape, np.float32)
        picture = picture + np.float32(change.noise) * noise
    return np.ascontiguousarray(picture, np.float32)


def _border(plane: Array) -> float:
    return float(np.median(np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])))


def _rotated(plane: Array, degrees: float, fill: float) -> Array:
    turned = Image.fromarray(np.asarray(plane, np.float32)).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(turned)


def _shifted(plane: Array, down: int, right: int, fill: float) -> Array:
    height, width = plane.shape
    out = np.full_like(plane, fill)
    if abs(down) < height and abs(right) < width:
        to = (slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0)))
        out[to] = plane[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    return out
