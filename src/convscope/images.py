"""Images: reading a file safely, and Preprocess, what a model expects of a picture.

Knows Pillow and NumPy; no data sets, no models, no torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from convscope.errors import ImageError, ShapeError, UsageError
from convscope.files import unsuitable

Array = NDArray[Any]
Fit = Literal["stretch", "crop", "pad"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the formats that are read, from files, data sets and uploads alike, told by a file's content.

Each has a signature, is decoded within this process and in use for data sets (PPM stands for PBM, PGM, PPM and PFM).
Others start a program (EPS starts Ghostscript), have no signature (TGA), or are rare enough to be converted first.
"""
NAMED_FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"
MAX_PIXELS = 100_000_000
MAX_SCANS = 200
"""Maximum scans of a JPEG: each passes over all pixels, and a small file can hold thousands; ten are usual."""
STRIP = 500_000  # pixels that are turned into numbers at a time
WHITE = 255.0  # what a pixel of a file counts up to, whatever the file's own depth


def read_image(
    source: str | Path | BinaryIO,
    *,
    name: str = "",
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
    alpha: bool = False,
) -> Array:
    """Read an image file, turned upright, in pixels from 0 to 255.

    Palettes become colours, transparency is laid over white unless `alpha` keeps it, CMYK and the like become RGB.
    Grey files of more than 8 bits keep their precision: they come as float32, scaled so that their full range is 0 to
    255. Of an animation the first frame is read.

    Args:
        source: A path, or an opened binary file.
        name: What messages call it; by default its path.
        formats: Pillow's names of the formats that are tried; by default `FORMATS`.
        max_pixels: Larger images are refused before they are decoded; by default above 100 million.
        alpha: Whether to keep transparency as a fourth channel, 255 for opaque.

    Returns:
        uint8 (or float32 for deeper grey files), shape (C, H, W), C = 1 for grey and 3 for colour; 4 with `alpha` for
        those with transparency.

    Raises:
        ImageError: no such file, not an image of these formats, damaged, more than `max_pixels`, or a JPEG of more
            than 200 scans.
    """
    name, max_pixels = name or str(source), max_pixels or MAX_PIXELS
    formats = FORMATS if formats is None else formats
    try:
        _check_file(source, name)
        with Image.open(source, formats=formats) as opened:
            if opened.width * opened.height > max_pixels:
                raise ImageError(
                    f"{name} has {opened.width}x{opened.height} pixels; at most {max_pixels:,} are read. Scale it down."
                )
            if opened.format in {"JPEG", "MPO"}:
                _check_scans(opened.fp, name)
            opened.load()
            values = pixels(opened, name, alpha=alpha)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"there is no file {name}; check the path.") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder; name one image, or use folder:{name} as a data set.") from None
    except UnidentifiedImageError:
        known = NAMED_FORMATS if formats == FORMATS else " or ".join(formats)
        raise ImageError(f"{name} is not an image that can be read; save it as {known}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name} has far more than the {max_pixels:,} pixels that are read. Scale it down.") from None
    except Exception as error:  # the decoders of damaged files raise whatever they stumble over
        raise ImageError(f"{name} cannot be read as an image: {_sentence(error)}.") from None
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name} has pixels that are not finite numbers; replace them before it can be used.")
    return values


def _check_file(source: str | Path | BinaryIO, name: str) -> None:
    """Refuse a path that is not worth opening."""
    if not isinstance(source, str | Path):
        return
    path = Path(source)
    if path.exists() and not path.is_dir() and (why := unsuitable(path)):
        raise ImageError(f"{name} {why}.")


def _check_scans(file: Any, name: str) -> None:
    """Refuse a JPEG of more scans than encoders write, before any is decoded."""
    position = file.tell()
    file.seek(0)
    too_many = _scans(file.read()) > MAX_SCANS
    file.seek(position)
    if too_many:
        raise ImageError(
            f"{name} is a JPEG of more than {MAX_SCANS} scans, too many to be read; save it again with fewer."
        )


_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Bytes that begin a segment of a JPEG: not a stuffed byte, a restart, a start of image or padding."""


def _scans(content: bytes) -> int:
    """The number of scans of the first image of a JPEG file, counted up to one more than are read.

    >>> _scans(bytes.fromhex("ffd8 ffe00004ffda ffda000201 ff00 02 ffda0002 ffd9 ffda0002"))
    2

    Source: ITU-T T.81, annex B: a segment says its length; only the data of a scan have none and end at a marker.
    """
    count, position = 0, 2
    while count <= MAX_SCANS and (result := _MARKER.search(content, position)) is not None:
        kind = result.group()[1]
        if kind == 0xD9:  # the end of the picture; what follows is a preview, a film, another picture
            break
        count += kind == 0xDA
        position = result.start() + 2 + max(2, int.from_bytes(content[result.end() : result.end() + 2], "big"))
    return count


def _sentence(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(reason).rstrip(".")


def pixels(picture: Image.Image, name: str = "the picture", *, alpha: bool = False) -> Array:
    """The pixels of an opened picture, upright: (C, H, W), 0 to 255; with `alpha` the opacity, if it has one, last.

    >>> pixels(Image.new("L", (4, 2), 7)).shape, pixels(Image.new("RGBA", (4, 2)), alpha=True).shape
    ((1, 2, 4), (4, 2, 4))
    """
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        values = np.array(picture, np.float32)
        values /= np.float32(257)
        return values[None]
    if picture.mode in {"I", "F"}:
        return _deep(np.asarray(picture), name)
    alpha = alpha and picture.has_transparency_data
    mode = "RGBA" if alpha else "L" if picture.mode in {"1", "L", "LA", "La"} else "RGB"
    shown = np.empty((len(mode), picture.height, picture.width), np.uint8)
    rows = max(1, STRIP // max(1, picture.width))
    for top in range(0, picture.height, rows):  # in strips, so that only picture and result are in memory
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        strip = strip.convert("LA") if strip.mode == "La" else strip  # which Pillow turns into nothing else
        levels = np.asarray((strip if alpha else _opaque(strip)).convert(mode))
        shown[:, top : top + rows] = levels if mode == "L" else levels.transpose(2, 0, 1)
    return shown


def _opaque(picture: Image.Image) -> Image.Image:
    """A picture without transparency: laid over white."""
    if not picture.has_transparency_data:
        return picture
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _deep(values: Array, name: str) -> Array:
    """32-bit pixels in 0..255: as 16-bit ones where they are integers, else as 0..1 or 0..255, whichever they show.

    What overshoots that range a little is cut off at its ends.

    Raises:
        ImageError: they show neither.
    """
    low, high = float(np.nanmin(values, initial=0)), float(np.nanmax(values, initial=0))
    whole = values.dtype.kind in "iu"
    full = (65535.0 if low >= 0 and high <= 65535 else None) if whole else white_of_floats(low, high)
    if full is None and np.isfinite([low, high]).all():  # others are refused by what reads the picture
        known = "0 to 65535" if whole else "0 to 1, or 0 to 255"
        raise ImageError(
            f"{name} has values from {low:g} to {high:g}, and pixels of this kind go from {known}; rescale them."
        )
    full = full or WHITE
    scaled = np.empty(values.shape, np.float32)
    np.multiply(values, WHITE / full, out=scaled, dtype=np.float64, casting="same_kind")
    return scaled.clip(0, WHITE, out=scaled)[None]


OVERSHOOT = 0.1
"""Tolerance outside the value range, relative to the range: resampling by cubic or Lanczos kernels rings by up to a
tenth at a step, and sums of weights near 1 end at 1.0000001."""
DARK = 16
"""Floating-point pixels that count to 255 and are all darker than this, of 255, are not told from others."""


def white_of_floats(low: float, high: float) -> float | None:
    """The white value of floating-point pixels between these two: 1 or 255; None if ambiguous.

    >>> white_of_floats(0, 0.5), white_of_floats(0, 1.0001), white_of_floats(-3, 254), white_of_floats(0, 3)
    (1.0, 1.0, 255.0, None)
    """
    for white, least in ((1.0, 0.0), (WHITE, DARK)):
        if least <= high <= white * (1 + OVERSHOOT) and low >= -white * OVERSHOOT:
            return white
    return None


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
    """How an image of another aspect ratio is fitted to `size`: stretched, cropped in the centre, or zero-padded."""
    crop_ratio: float = 1.0
    """With fit="crop": the crop's share of the shorter edge; with "stretch", of both (0.875: to 256, then crop 224)."""
    background: Literal["dark", "light"] | None = None
    """The background of the data; an image with the other background is inverted. None never inverts."""
    binary: bool = False
    """Whether the data have only 0 and 1, so that a picture's greys are rounded to them."""

    def __post_init__(self) -> None:
        if self.scale <= 0 or any(s <= 0 for s in self.std):
            raise UsageError(f"scale and std must be positive, not {self.scale} and {self.std}.")
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"a size is (height, width) in pixels, at least (1, 1), not {self.size}.")
        if self.size is not None and self.size[0] * self.size[1] > MAX_PIXELS:
            wanted = f"{self.size[0]:,}x{self.size[1]:,}"
            raise UsageError(f"a picture of {wanted} pixels is too large; at most {MAX_PIXELS:,} pixels are made.")
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
            verb = {"stretch": "resized", "crop": "resized and cropped", "pad": "resized and padded"}[self.fit]
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

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**known)


def resize(image: Array, size: tuple[int, int], fit: Fit = "stretch", crop_ratio: float = 1.0) -> Array:
    """Scale a float picture (C, H, W) to (C, *size), bilinear with antialiasing, channel by channel."""
    height, width = image.shape[1:]
    if _fits(image, size, fit, crop_ratio):
        return image
    if fit == "stretch":
        return _centred(_scaled(image, (round(size[0] / crop_ratio), round(size[1] / crop_ratio))), size)
    ratios = size[0] / height, size[1] / width
    factor = max(ratios) / crop_ratio if fit == "crop" else min(ratios)
    whole = _floor if fit == "crop" else round
    scaled = _scaled(image, (max(1, whole(height * factor)), max(1, whole(width * factor))))
    return _centred(scaled, size)


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
