"""Sealed weights: safetensors files that contain their own SHA-256, so that damage is detected before use.

The digest is in the file's own metadata, not in a file beside it: a crash cannot part the two. It is that of the whole
file with 64 zeros where the digest is. It only detects damage: anyone who changes a file on purpose can seal it again.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from convscope.errors import WeightsError
from convscope.files import open_to_read

KEY = "convscope"
VERSION = "1"
EMPTY = "0" * 64
LONGEST = 100_000_000
"""Bytes of the longest header that safetensors reads."""
_SEAL = re.compile(rb'\A\{"__metadata__":\{"convscope":"1 sha256 ([0-9a-f]{64})"\}')
"""Start of a sealed header: safetensors writes metadata first."""
_PIECE = 1 << 20


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
        header = file.read(length) if length <= LONGEST else b""
        seal = _SEAL.match(header)
        if seal is None:
            return
        start, end = seal.span(1)
        digest = hashlib.sha256(size + header[:start] + EMPTY.encode() + header[end:])
        while piece := file.read(_PIECE):
            digest.update(piece)
    if digest.hexdigest().encode() != seal[1]:
        raise WeightsError(f"{path} is damaged: its content does not match the SHA-256 that it contains.")
