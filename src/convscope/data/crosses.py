"""Crosses and the square: the images of two tutorials that are small enough to write down.

Knows Dataset; draws nothing at random.
"""

import numpy as np

from convscope.data.dataset import Dataset
from convscope.data.options import DatasetOptions
from convscope.images import Preprocess

CROSSES = {
    "plus": (0, ("010", "111", "010")),
    "x": (1, ("101", "010", "101")),
    "damaged-plus": (0, ("010", "110", "010")),
    "damaged-x": (1, ("100", "010", "101")),
}
"""Name -> class and rows."""

SHOWN = {"train": ("plus", "x"), "test": ("damaged-plus", "damaged-x"), "all": tuple(CROSSES)}
CROSS_CLASSES = ("plus", "x")
CROSS_PREPROCESS = Preprocess(size=(3, 3), channels=1, scale=1, binary=True)

SQUARE_CLASSES = ("square",)
SQUARE_PREPROCESS = Preprocess(size=(10, 10), channels=1, background="dark", binary=True)


def load_crosses(request: DatasetOptions) -> Dataset:
    """The two crosses (train), the two damaged ones (test: `+` without its right arm, `x` without a corner), or all.

    >>> load_crosses(DatasetOptions("crosses")).images[0, 0]
    array([[0, 1, 0],
           [1, 1, 1],
           [0, 1, 0]], dtype=uint8)
    """
    names = SHOWN[request.split]
    pixels = [[[int(cell) for cell in row] for row in CROSSES[name][1]] for name in names]
    return Dataset(
        name=request.name,
        images=np.array(pixels, np.uint8)[:, None],
        labels=np.array([CROSSES[name][0] for name in names]),
        classes=CROSS_CLASSES,
        preprocess=CROSS_PREPROCESS,
        split=request.split,
        source="written down",
        names=names,
    )


def load_square(request: DatasetOptions) -> Dataset:
    """One 10x10 image, a white 4x4 square at rows and columns 3 to 6, the same in every split.

    >>> int(load_square(DatasetOptions("square")).images.sum()) // 255
    16
    """
    image = np.zeros((1, 1, 10, 10), np.uint8)
    image[..., 3:7, 3:7] = 255
    return Dataset(
        name=request.name,
        images=image,
        labels=np.array([0]),
        classes=SQUARE_CLASSES,
        preprocess=SQUARE_PREPROCESS,
        split=request.split,
        source="written down",
        names=("square",),
    )
