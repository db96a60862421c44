"""Data to train on that no file is needed for."""

import numpy as np

import convscope as cs


def digits(count: int = 640, *, seed: int = 0) -> cs.Dataset:
    """Images a simple-cnn can learn: a bright column whose place is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count)
    images = random.integers(0, 60, (count, 1, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, :, 2 * label + 3] = 255
    return cs.Dataset("columns", images, labels, tuple("0123456789"))
