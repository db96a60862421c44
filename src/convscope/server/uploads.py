"""Uploads: the bytes of somebody's picture, checked before they are decoded, then its pixels and nothing else.

Knows limits and `cs.read_image`; no routes, no models.
"""

from io import BytesIO
from threading import Lock

import numpy as np
from numpy.typing import NDArray

import convscope as cs

MAX_BYTES = 20_000_000
MAX_PIXELS = 16_000_000
"""A photo of 4,000 by 4,000. Decoding takes at most about 24 bytes a pixel for a moment."""
MAX_SCANS = 200
"""Of a JPEG: each scan passes over all pixels, and a small file can hold thousands."""
TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is tried, whatever the upload calls itself."""

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
        raise cs.ImageError("the upload is empty; choose a picture: PNG, JPEG, WebP, GIF, BMP or TIFF.")
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
        raise cs.ImageError(f"the upload is a JPEG of more than {MAX_SCANS} scans; save it anew in a picture program.")
    with _one_at_a_time:
        return cs.read_image(BytesIO(content), name="the upload", formats=FORMATS, max_pixels=MAX_PIXELS)
