"""Images: read an image file safely, as pixels from 0 to 255.

Uses Pillow and NumPy; no data sets, no models, no torch.
"""

import re
import warnings
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from convscope.errors import ImageError
from convscope.files import unsuitable
from convscope.type_checks import takes
from convscope.typing import Array

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the formats that are read, from files, data sets and uploads alike, recognized by a file's content.

Each has a signature, is decoded within this process and in use for data sets (PPM stands for PBM, PGM, PPM and PFM).
Others start a program (EPS starts Ghostscript), have no signature (TGA), or are rare enough to be converted first.
"""
NAMED_FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"
MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 30
"""Bytes of the largest JPEG or WebP: their decoders take a whole file into memory, however few pixels it has."""
READ_WHOLE = (b"\xff\xd8", b"RIFF")
"""First bytes of these two formats."""
MAX_SCANS = 200
"""Maximum scans of a JPEG: each passes over all pixels, and a small file can hold thousands; ten are usual."""
STRIP = 500_000  # pixels that are turned into numbers at a time
WHITE = 255.0  # what a pixel of a file counts up to, whatever the file's own depth


@takes()
def read_image(
    source: str | Path | BinaryIO,
    *,
    name: str = "",
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
    alpha: bool = False,
) -> Array:
    """Read an image file, turned upright, in pixels from 0 to 255.

    >>> import io
    >>> read_image(io.BytesIO(b"P2 2 1 255 0 255"), name="two.pgm").tolist()
    [[[0, 255]]]

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
        with _opened(source, formats) as opened:
            if opened.width * opened.height > max_pixels:
                raise ImageError(
                    f"{name} has {opened.width}x{opened.height} pixels; at most {max_pixels:,} are read. Scale it down."
                )
            if opened.format in {"JPEG", "MPO"}:
                assert opened.fp is not None  # closed only after loading
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
        readable = NAMED_FORMATS if formats == FORMATS else " or ".join(formats)
        raise ImageError(f"{name} is not an image that can be read; save it as {readable}.") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has far more than the {max_pixels:,} pixels that are read. Scale it down.") from None
    except Exception as error:  # the decoders of damaged files raise whatever they stumble over
        raise ImageError(f"{name} cannot be read as an image: {_sentence(error)}.") from None
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name} has pixels that are not finite numbers; replace them before it can be used.")
    return values


def _opened(source: str | Path | BinaryIO, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """An image file with its header read; Pillow warns of what is below our own limit too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(source, formats=formats)


def _check_file(source: str | Path | BinaryIO, name: str) -> None:
    """Refuse a path that is not worth opening."""
    if not isinstance(source, str | Path):
        return
    path = Path(source)
    if not path.exists() or path.is_dir():
        return
    if problem := unsuitable(path):
        raise ImageError(f"{name} {problem}.")
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4).startswith(READ_WHOLE) and size > MAX_BYTES:
            raise ImageError(f"{name} has {size:,} bytes; a picture in this format may have at most {MAX_BYTES:,}.")


def _check_scans(file: IO[bytes], name: str) -> None:
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
    turn = _TURNS.get(_orientation(picture))
    picture = picture if turn is None else picture.transpose(turn)
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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the picture upright."""


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none, or where the metadata are damaged: the pixels are not."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata can hold anything
        return 1
    return orientation if isinstance(orientation, int) else 1


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
    is_integer = values.dtype.kind in "iu"
    full = (65535.0 if low >= 0 and high <= 65535 else None) if is_integer else white_of_floats(low, high)
    if full is None and np.isfinite([low, high]).all():  # others are refused by what reads the picture
        ranges = "0 to 65535" if is_integer else "0 to 1, or 0 to 255"
        raise ImageError(
            f"{name} has values from {low:g} to {high:g}, and pixels of this kind go from {ranges}; rescale them."
        )
    full = full or WHITE
    scaled = np.empty(values.shape, np.float32)
    np.multiply(values, WHITE / full, out=scaled, dtype=np.float64, casting="same_kind")
    return scaled.clip(0, WHITE, out=scaled)[None]


OVERSHOOT = 0.1
"""Tolerance outside the value range, relative to the range: resampling by cubic or Lanczos kernels rings by up to a
tenth at a step, and sums of weights near 1 end at 1.0000001."""
DARK = 16
"""Floating-point pixels that count to 255 and are all darker than this, of 255, are not distinguished from others."""


def white_of_floats(low: float, high: float) -> float | None:
    """The white value of floating-point pixels between these two: 1 or 255; None if ambiguous.

    >>> white_of_floats(0, 0.5), white_of_floats(0, 1.0001), white_of_floats(-3, 254), white_of_floats(0, 3)
    (1.0, 1.0, 255.0, None)
    """
    for white, least in ((1.0, 0.0), (WHITE, DARK)):
        if least <= high <= white * (1 + OVERSHOOT) and low >= -white * OVERSHOOT:
            return white
    return None
