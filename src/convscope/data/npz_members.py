"""Members: the arrays of a NumPy archive, first what their headers claim, then their numbers. Knows zip and NPY alone.

A header is read and checked before any number is, so that a file of a few megabytes cannot ask for gigabytes unseen,
and nothing in a file is unpickled or evaluated.
"""

import ast
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from convscope.errors import DataError
from convscope.files import unsuitable
from convscope.images import Array

MAGIC = b"\x93NUMPY"
LENGTHS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
"""Version of the format -> how the length of its header is written."""
LONGEST_HEADER = 10_000  # as NumPy's own limit
OBJECTS = "it holds Python objects, which are never loaded"

DAMAGE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    RecursionError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What the readers of damaged archives raise; an unknown compression is a NotImplementedError, so a RuntimeError."""


@dataclass(frozen=True, slots=True)
class Member:
    """What the header of an array says."""

    file: str
    """Its name in the archive."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int
    """Where its numbers begin, in bytes."""

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def headers(path: Path, wanted: Collection[str]) -> dict[str, Member]:
    """The headers of the arrays that are wanted and there, by name.

    Raises:
        DataError: not a regular file, no archive, or a header that is damaged, holds objects or does not fit its array.
    """
    if why := unsuitable(path):
        raise DataError(f"{path} {why}.")
    with _archive(path) as archive:
        results: dict[str, Member] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in wanted:
                continue
            if name in results:
                raise ValueError(f"it has the array {name} twice")
            if info.flag_bits & 1:
                raise ValueError(f"its array {name} is encrypted")
            with archive.open(info) as file:
                results[name] = _header(file, info.filename, name)
            claimed = info.file_size - results[name].start
            if results[name].size != claimed:
                raise ValueError(
                    f"the header of {name} says {results[name].size:,} bytes and the archive has {claimed:,}"
                )
        return results


def numbers(path: Path, member: Member) -> Array:
    """The numbers of an array.

    Raises:
        DataError: they are damaged or fewer than the header says.
    """
    with _archive(path) as archive, archive.open(member.file) as file:
        file.read(member.start)
        content = memoryview(bytearray(member.size))
        done = 0
        while done < len(content):
            count = file.readinto(content[done : done + (1 << 24)])  # type: ignore[attr-defined]  # as every BufferedIOBase
            if not count:
                raise EOFError(f"{member.file} is cut off")
            done += count
        if file.read(1):  # reads to the end, where zip compares its checksum
            raise ValueError(f"{member.file} is longer than its header says")
    array = np.frombuffer(content, member.dtype)
    return array.reshape(member.shape, order="F" if member.fortran else "C")


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The opened archive; whatever a damaged one raises becomes a sentence."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                raise DataError(f"{path} holds one array where images and labels are needed; write both with np.savez.")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except DataError:
        raise
    except DAMAGE as error:
        why = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(f"{path} cannot be read as an .npz file of arrays: {why}. Write it with np.savez.") from None


def _header(file: IO[bytes], name: str, array: str) -> Member:
    """The header at the start of an array.

    Source: the NPY format, numpy.lib.format.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError(f"{array} is not an array")
    version = tuple(file.read(2))
    if version not in LENGTHS:
        raise ValueError(f"{array} is of an unknown version of the format")
    form = LENGTHS[version]
    (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if length > LONGEST_HEADER:
        raise ValueError(f"the header of {array} has {length:,} bytes")
    text = file.read(length).decode("utf-8" if version == (3, 0) else "latin-1")
    start = len(MAGIC) + 2 + struct.calcsize(form) + length
    return _parsed(_literal(text, array), name, array, start)


def _literal(text: str, array: str) -> Mapping[str, Any]:
    try:
        said = ast.literal_eval(text)
    except (*DAMAGE, AttributeError):
        said = None
    if not isinstance(said, dict) or said.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"the header of {array} is damaged")
    return said


def _parsed(said: Mapping[str, Any], name: str, array: str, start: int) -> Member:
    shape, descr = said["shape"], said["descr"]
    try:
        dtype = np.lib.format.descr_to_dtype(descr)
    except (*DAMAGE, AttributeError, IndexError):
        raise ValueError(f"the type of {array} is damaged") from None
    if dtype.hasobject:
        raise ValueError(OBJECTS)
    if dtype.itemsize == 0 and dtype.kind not in "SU":
        raise ValueError(f"the type of {array} is damaged")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**63 for n in shape) or len(shape) > 32:
        raise ValueError(f"the shape of {array} is damaged")
    return Member(name, dtype, shape, bool(said["fortran_order"]), start)
