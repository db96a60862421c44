"""IDX: the file format of MNIST, plain or compressed with gzip. The format alone, without data sets."""

import gzip
import math
import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from convscope.data.options import check_bytes
from convscope.errors import DataError
from convscope.files import LFS

UINT8 = 0x08  # the format's code for unsigned bytes, the only type these data sets use
GZIP = b"\x1f\x8b"
LONGEST_HEAD = 4 + 4 * 255  # bytes of a header of as many dimensions as can be written


def uncompressed(stored: bytes, name: str) -> bytes:
    """The content of a file, unpacked if it is a gzip file.

    >>> uncompressed(gzip.compress(b"seven"), "a file")
    b'seven'

    Of an IDX file no more is unpacked than its header says, and one byte, by which it is seen to be longer; of anything
    else as much as a header: a gigabyte of zeros takes a megabyte when compressed.

    Raises:
        DataError: the compressed file is damaged or cut off, or holds more than this machine has memory for.
    """
    if not stored.startswith(GZIP):
        return stored
    try:
        with gzip.GzipFile(fileobj=BytesIO(stored)) as file:
            head = file.read(LONGEST_HEAD)
            size = _size(head)
            if size <= len(head):
                return head + file.read(1)
            check_bytes(f"the numbers of {name}", size, "Free some, or replace the file with a fresh copy.")
            return head + file.read(size + 1 - len(head))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a damaged gzip file ({error}); replace it with a fresh copy.") from None


def _size(head: bytes) -> int:
    """The size of an IDX file in bytes by its header; 0 if it is not an IDX file."""
    dimensions = head[3] if len(head) > 3 and head[:3] == b"\x00\x00\x08" else 0
    header = 4 + 4 * dimensions
    if not dimensions or len(head) < header:
        return 0
    return header + math.prod(int(n) for n in np.frombuffer(head[4:header], ">u4"))


def parse_idx(content: bytes, dimensions: int, name: str) -> NDArray[np.uint8]:
    """The array in an IDX file, without copying it.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]), 1, "a file")
    array([5, 7], dtype=uint8)

    Args:
        content: The uncompressed file.
        dimensions: Required number of dimensions: 3 for images (N, H, W), 1 for labels (N,).
        name: Name of the file in messages.

    Raises:
        DataError: no IDX file of unsigned bytes, other dimensions, or not as long as its header says.

    Source: the format is described on the MNIST page, http://yann.lecun.com/exdb/mnist/.
    """
    if content.startswith(LFS):
        raise DataError(f"{name} is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`.")
    if content[:2] != b"\x00\x00" or len(content) < 4 or content[2] != UINT8:
        raise DataError(
            f"{name} is not an IDX file of unsigned bytes; it begins with {content[:4].hex(' ') or 'nothing'}."
        )
    if content[3] != dimensions:
        raise DataError(f"{name} holds an array of {content[3]} dimensions where {dimensions} are needed.")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{name} is cut off within its header; replace it with a fresh copy.")
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], ">u4"))
    if len(content) != header + math.prod(shape):
        size = "x".join(map(str, shape))
        raise DataError(f"{name} is cut off or too long: it has {len(content):,} bytes and its header says {size}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def to_idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an uncompressed IDX file; `parse_idx` reads it back.

    >>> to_idx(np.array([5, 7], np.uint8)).hex(" ")
    '00 00 08 01 00 00 00 02 05 07'
    """
    header = bytes([0, 0, UINT8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + np.ascontiguousarray(array, np.uint8).tobytes()
