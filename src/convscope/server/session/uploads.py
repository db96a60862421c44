"""Uploads: the bytes of somebody's picture, checked before they are decoded, then its pixels and nothing else.

Knows limits and `cs.read_image`; no routes, no models.
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
"""A photo of 4,000 by 4,000. Decoding takes at most about 12 bytes a pixel for a moment."""
TYPES = (
    "image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff",
    "image/x-portable-pixmap", "image/x-portable-graymap", "image/x-portable-bitmap", "image/x-portable-anymap",
)  # fmt: skip
"""What an upload may call itself; what it is is told by its content, among the formats of `cs.read_image`."""

CHOOSE = "Choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file."
AGAIN = "Save it anew in a picture program, or choose another one."

_one_at_a_time = Lock()  # so that many large uploads at once take the memory of one


def read_upload(content: bytes) -> NDArray[np.generic]:
    """Decode an uploaded picture: its first frame, upright, without its metadata.

    Args:
        content: The file's bytes.

    Returns:
        Pixels from 0 to 255: uint8, or float32 for deeper grey files; shape (C, H, W), C = 1 or 3.

    Raises:
        ImageError: empty, no picture of the formats that are taken, damaged, or of too many pixels.
    """
    if not content:
        raise cs.ImageError(f"this file is empty. {CHOOSE}")
    with _one_at_a_time:
        _check_head(content)
        try:
            return cs.read_image(BytesIO(content), name="this picture", max_pixels=MAX_PIXELS)
        except cs.ImageError as error:
            raise cs.ImageError(f"{error} {AGAIN}") from None


def notes_on(content: bytes) -> tuple[str, ...]:
    """What a person should know about an upload that was read: that it holds several pictures."""
    several = False
    with suppress(Exception), Image.open(BytesIO(content), formats=cs.FORMATS) as opened:  # the second may be damaged
        several = getattr(opened, "is_animated", False)
    return ("the file has several pictures; the first one is used",) if several else ()


def _check_head(content: bytes) -> None:
    """What the head of a file already says.

    Raises:
        ImageError: it is no picture, or one of too many pixels.
    """
    try:
        with Image.open(BytesIO(content), formats=cs.FORMATS) as opened:
            width, height = opened.size
    except UnidentifiedImageError:
        raise cs.ImageError(f"this file is not a picture that can be read here. {CHOOSE}") from None
    except Exception:  # a damaged head; what is wrong with it, `read_image` says
        return
    if width * height > MAX_PIXELS:
        raise cs.ImageError(
            f"this picture is {width:,} pixels wide and {height:,} high; at most {MAX_PIXELS / 1e6:,.0f} million "
            "pixels are taken, 4,000 by 4,000, say. Make it smaller in a picture program."
        )
