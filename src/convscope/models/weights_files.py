"""Weights files: their formats, recognized by content and never by suffix, and the seal of those that convscope writes.

Archives that are something else, or would unpack to more than their size, are rejected before anything in them is read.
A seal is a SHA-256 in a safetensors file's own metadata, so a crash cannot part the two: that of the whole file with 64
zeros where the digest is. It only detects damage: anyone who changes a file on purpose can seal it again.
"""

import hashlib
import operator
import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors.torch import save
from torch import Tensor

from convscope.errors import WeightsError
from convscope.escaping import first_few
from convscope.files import open_to_read
from convscope.json_values import parse_json

SAFETENSORS_HEADER = 100_000_000
"""The maximum header length of a safetensors file, according to its specification."""
LEGACY_TAR = frozenset({"storages", "tensors", "pickle"})
"""Members of the archives that PyTorch wrote before 0.2."""
HEAD = 512  # bytes that are looked at

FOREIGN: Mapping[bytes, str] = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`",
    b"\x1f\x8b": "is compressed with gzip; unpack it first: `gunzip -k {name}`, or `tar -xzf {name}` for a .tar.gz",
    b"BZh": "is compressed with bzip2; unpack it first: `bunzip2 -k {name}`",
    b"\xfd7zXZ\x00": "is compressed with xz; unpack it first: `unxz -k {name}`",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first: `zstd -d {name}`",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first: `7z x {name}`",
    b"Rar!\x1a\x07": "is a RAR archive; unpack it first",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras writes it; weights are read from PyTorch's and safetensors files",
    b"\x93NUMPY": "is a NumPy array; weights are read from PyTorch's and safetensors files",
    b"GGUF": "is a GGUF file; weights are read from PyTorch's and safetensors files",
}
"""First bytes of files that are often mistaken for weights -> advice."""
KEY = "convscope"
VERSION = "1"
EMPTY = "0" * 64
_SEAL = re.compile(rb'\A\{"__metadata__":\{"convscope":"1 sha256 ([0-9a-f]{64})"\}')
"""Start of a sealed header: safetensors writes metadata first."""
_PIECE = 1 << 20


def format_of(path: Path, file: BinaryIO) -> str:
    """Whether an open file is "safetensors" or "torch" (written by `torch.save`); `file` is put back to its start.

    Raises:
        WeightsError: it is something else; the message says what, and what to do.
    """
    head = file.read(HEAD)
    size = file.seek(0, 2)
    file.seek(0)
    if not head:
        raise WeightsError(f"{path} is empty (0 bytes): its download or copy was probably interrupted; get it again.")
    if not head.strip(b"\0"):
        raise WeightsError(f"{path} begins with zeros only: its download or copy was interrupted; get it again.")
    for beginning, message in FOREIGN.items():
        if head.startswith(beginning):
            raise WeightsError(f"{path} {message.format(name=path.name)}.")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, not weights: the download was answered with a page (a login, an error); get the "
            "file itself."
        )
    if path.suffix == ".safetensors" or _is_safetensors(head, size):
        return "safetensors"
    if text.startswith(b"{"):
        raise WeightsError(
            f"{path} is JSON text, not weights; name the file that holds the tensors (.safetensors, .pt, .pth)."
        )
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path, file, size)
    else:
        _check_no_tar(path, file)
    file.seek(0)
    return "torch"


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether the first eight bytes are the length of a JSON header that follows."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return 2 <= int(length) <= min(SAFETENSORS_HEADER, size - 8)


def _check_zip(path: Path, file: BinaryIO, size: int) -> None:
    """Reject zip archives of other content, and those that would unpack to more than their size.

    `torch.save` stores without compression, so its members are never larger than the file; one that is compressed
    or that names the same bytes several times could fill the memory.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Exception:  # on damage zipfile raises whatever it meets
        raise WeightsError(damaged(path)) from None
    if not any(member.filename.endswith("/data.pkl") for member in members):
        content = first_few(member.filename for member in members) or "nothing"
        raise WeightsError(
            f"{path} is a zip archive that torch.save did not write (it holds {content}); unpack it first: `unzip "
            f"{path.name}`."
        )
    unpacked = sum(member.file_size for member in members)
    if unpacked > size:
        raise WeightsError(
            f"{path} claims to unpack to {unpacked:,} bytes and has {size:,}: torch.save does not compress, so it did "
            "not write this file."
        )


def _check_no_tar(path: Path, file: BinaryIO) -> None:
    """Reject tar archives before PyTorch sees them: releases before 2.6 run code from those (CVE-2025-32434)."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            names = [member.name for member, _ in zip(archive, range(20), strict=False)]
    except Exception:  # not a tar archive, or a damaged one
        file.seek(0)
        return
    if set(names) >= LEGACY_TAR:
        raise WeightsError(
            f"{path} was written by PyTorch before 0.2, in a format that cannot be read without running code from it; "
            "save it again with a later release."
        )
    content = first_few(names) or "nothing"
    raise WeightsError(
        f"{path} is a tar archive (it holds {content}); unpack it with `tar -xf {path.name}` and name the file of "
        "weights in it."
    )


def damaged(path: Path) -> str:
    """The message for a file that cannot be read."""
    return (
        f"{path} is damaged or was not written by torch.save; weights are read from .safetensors files and from "
        "PyTorch's (.pt, .pth, .bin, .ckpt, .pth.tar)."
    )


def sealed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a safetensors file that `check_seal` can check.

    >>> import torch
    >>> sealed({"bias": torch.zeros(1)})[8:38]
    b'{"__metadata__":{"convscope":"'
    """
    content = save(dict(tensors), {KEY: f"{VERSION} sha256 {EMPTY}"})
    start = content.index(EMPTY.encode())
    end = start + len(EMPTY)
    return b"".join((content[:start], hashlib.sha256(content).hexdigest().encode(), content[end:]))


def check_seal(path: Path) -> None:
    """Reject a file that differs from what was written; files of other programs, without a seal, are accepted.

    Raises:
        WeightsError: its digest is another than that of its content.
        OSError: it cannot be read, or is not a regular file.
    """
    with open_to_read(path) as file:
        size = file.read(8)
        length = int.from_bytes(size, "little")
        header = file.read(length) if length <= SAFETENSORS_HEADER else b""
        seal = _SEAL.match(header)
        if seal is None:
            return
        if os.fstat(file.fileno()).st_size != 8 + length + _data_bytes(header):  # reported before all of it is read
            raise WeightsError(f"{path} is damaged: its size is not the one that its header gives.")
        start, end = seal.span(1)
        digest = hashlib.sha256(size + header[:start] + EMPTY.encode() + header[end:])
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest().encode() != seal[1]:
        raise WeightsError(f"{path} is damaged: its content does not match the SHA-256 that it contains.")


def _data_bytes(header: bytes) -> int:
    """The bytes of all tensors according to a safetensors header; -1 if it is damaged."""
    try:
        entries: dict[str, Any] = parse_json(header)
        ends = (entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__")
        return max(map(operator.index, ends), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return -1
