"""Digest: a hash of all weights of a model. Knows NumPy; no torch, no files."""

import hashlib
from collections.abc import Iterable

import numpy as np

from convscope.traces.step import Array


def weights_digest(weights: Iterable[tuple[str, str, Array]]) -> str:
    """SHA-256 of names, types, shapes and numbers, in order.

    >>> weights_digest([("bias", "float32", np.zeros(2, np.float32))])[:8]
    '52eda023'

    Args:
        weights: Name, recorded type as PyTorch names it, and numbers of each parameter and buffer.
    """
    digest = hashlib.sha256()
    for name, dtype, array in weights:
        digest.update(f"{name} torch.{dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
