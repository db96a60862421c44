"""Weight formats: recognize a weights file by its first bytes, whatever its name.

Knows files; reads no tensor.
"""

import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from convscope.errors import WeightsError

WRITTEN = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Usual suffixes of weights files; used to list a folder, never to decide how a file is read."""
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
        raise WeightsError(
            f"{path} is a zip archive that torch.save did not write (it holds {_some(m.filename for m in members)}); "
            f"unpack it first: `unzip {path.name}`."
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
    raise WeightsError(
        f"{path} is a tar archive (it holds {_some(names)}); unpack it with `tar -xf {path.name}` and name the file of "
        "weights in it."
    )


def damaged(path: Path) -> str:
    """The message for a file that cannot be read."""
    return (
        f"{path} is damaged or was not written by torch.save; weights are read from .safetensors files and from "
        "PyTorch's (.pt, .pth, .bin, .ckpt, .pth.tar)."
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "") or "nothing"
