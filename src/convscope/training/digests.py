"""Digests: compare data or weights between processes, or with those that a training started with."""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from convscope.data.dataset import Dataset
from convscope.data.lazy_images import LazyImages

SAMPLE = 256


def whole_digest(data: Dataset) -> str:
    """SHA-256 of images, labels, classes and scaling; for images on disk, the quick digest.

    >>> data = Dataset("one", np.zeros((1, 1, 2, 2), np.uint8), np.array([0]), ("black",))
    >>> whole_digest(data) == whole_digest(data.part(slice(0, 1)))
    True
    """
    if isinstance(data.images, LazyImages):
        return quick_digest(data)
    summed = hashlib.sha256(np.ascontiguousarray(data.images).data)
    summed.update(data.labels.data)
    summed.update(repr((data.images.shape, str(data.images.dtype), data.classes, data.preprocess)).encode())
    return summed.hexdigest()


def quick_digest(data: Dataset) -> str:
    """SHA-256 of size, labels, classes, scaling, and up to 256 images spread over a data set.

    >>> data = Dataset("one", np.zeros((1, 1, 2, 2), np.uint8), np.array([0]), ("black",))
    >>> quick_digest(data) == quick_digest(data.part(slice(0, 1)))
    True
    """
    digest = hashlib.sha256(f"{data.images.shape} {data.images.dtype} {data.classes} {data.preprocess}".encode())
    digest.update(data.labels.tobytes())
    spread = range(0, len(data), max(1, len(data) // SAMPLE))
    for at in data.images.marks() if isinstance(data.images, LazyImages) else spread:
        digest.update(np.ascontiguousarray(data.readable([at])[0]).tobytes())
    return digest.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's class, parameters and buffers.

    >>> weights_digest(nn.Conv2d(1, 1, 3)) == weights_digest(nn.Conv2d(1, 1, 3))
    False
    """
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):  # extra state of a module
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
