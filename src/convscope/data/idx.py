"""IDX: the file format of MNIST, plain or compressed with gzip. Knows the format alone, no data set."""

import gzip
import math
import zlib

import numpy as np
from numpy.typing import NDArray

from convscope.errors import DataError

UINT8 = 0x08  # the format's code for unsigned bytes, the only type these data sets use
GZIP = b"\x1f\x8b"


def uncompressed(stored: bytes, where: str) -> bytes:
    """What a file holds, unpacked where it begins as a gzip file does.

    >>> uncompressed(gzip.compress(b"seven"), "a file")
    b'seven'

    Raises:
        DataError: the compressed file is damaged or cut off.
    """
    if not stored.startswith(GZIP):
        return stored
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} is a damaged gzip file ({error}); replace it with a fresh copy.") from None


def parse_idx(content: bytes, dimensions: int, where: str) -> NDArray[np.uint8]:
    """The array in an IDX file, without copying it.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]), 1, "a file")
    array([5, 7], dtype=uint8)

    Args:
        content: The uncompressed file.
        dimensions: How many the array must have: 3 for images (N, H, W), 1 for labels (N,).
        where: What messages call the file.

    Raises:
        DataError: no IDX file of unsigned bytes, other dimensions, or not as long as its header says.

    Source: the format is described on the MNIST page, http://yann.lecun.com/exdb/mnist/.
    """
    if content[:2] != b"\x00\x00" or len(content) < 4 or content[2] != UINT8:
        raise DataError(
            f"{where} is no IDX file of unsigned bytes; it begins with {content[:4].hex(' ') or 'nothing'}."
        )
    if content[3] != dimensions:
        raise DataError(f"{where} holds an array of {content[3]} dimensions where {dimensions} are needed.")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{where} is cut off within its header; replace it with a fresh copy.")
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], ">u4"))
    if len(content) != header + math.prod(shape):
        said = "x".join(map(str, shape))
        raise DataError(f"{where} is cut off or too long: it has {len(content):,} bytes and its header says {said}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def to_idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an uncompressed IDX file; `parse_idx` reads it back.

    >>> to_idx(np.array([5, 7], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 02 05 07'
    """
    header = bytes([0, 0, UINT8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + np.ascontiguousarray(array, np.uint8).tobytes()
