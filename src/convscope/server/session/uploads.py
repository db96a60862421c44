"""Uploads: check the bytes of an image file before decoding it, and keep only its pixels.

Uses limits and `cs.read_image`; no routes, no models.
"""

from contextlib import suppress
from io import BytesIO
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

import convscope as cs

MAX_BYTES = 20_000_000
MAX_PIXELS = 16_000_000
"""Maximum number of pixels, as of a photo of 4,000 by 4,000. Decoding needs up to about 12 bytes a pixel."""
TYPES = (
    "image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff",
    "image/x-portable-pixmap", "image/x-portable-graymap", "image/x-portable-bitmap", "image/x-portable-anymap",
)  # fmt: skip
"""Accepted content types; the actual format is detected from the content, among those of `cs.read_image`."""

CHOOSE = "Choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file."
AGAIN = "Save it again in an image editor, or choose another one."

_one_at_a_time = Lock()  # so that several large uploads at once need the memory of one


def read_upload(content: bytes) -> NDArray[np.generic]:
    """Decode an uploaded picture: its first frame, upright, without its metadata.

    Args:
        content: The file's bytes.

    Returns:
        Pixels from 0 to 255: uint8, or float32 for deeper grey files; shape (C, H, W), C = 1 or 3.

    Raises:
        ImageError: the file is empty, damaged, of an unsupported format, or has too many pixels.
    """
    if not content:
        raise cs.ImageError(f"this file is empty. {CHOOSE}")
    with _one_at_a_time:
        _check_head(content)
        try:
            return cs.read_image(BytesIO(content), name="this picture", max_pixels=MAX_PIXELS)
        except cs.ImageError as error:
            raise cs.ImageError(f"{error} {AGAIN}") from None


def with_transparency(content: bytes) -> NDArray[np.generic] | None:
    """The same picture in four channels, the last its opacity, for models that take them; None if it is opaque."""
    with _one_at_a_time:
        pixels = cs.read_image(BytesIO(content), name="this picture", max_pixels=MAX_PIXELS, alpha=True)
    return pixels if len(pixels) == 4 else None


def notes_on(content: bytes) -> tuple[str, ...]:
    """Notes on an upload: that only the first of several pictures is used."""
    several = False
    with (
        suppress(Exception),
        Image.open(BytesIO(content), formats=cs.FORMATS) as opened,
    ):  # the second picture may be damaged
        several = getattr(opened, "is_animated", False)
    return ("the file has several pictures; the first one is used",) if several else ()


def _check_head(content: bytes) -> None:
    """Check format and size, which the head of a file states.

    Raises:
        ImageError: the file is not an image, or has too many pixels.
    """
    try:
        with Image.open(BytesIO(content), formats=cs.FORMATS) as opened:
            width, height = opened.size
    except UnidentifiedImageError:
        raise cs.ImageError(f"this file is not a picture that can be read here. {CHOOSE}") from None
    except Exception:  # a damaged head, which `read_image` reports in detail
        return
    if width * height > MAX_PIXELS:
        raise cs.ImageError(
            f"this picture is {width:,} pixels wide and {height:,} high; the limit is {MAX_PIXELS / 1e6:,.0f} million "
            "pixels, such as 4,000 by 4,000. Make it smaller in an image editor."
        )
