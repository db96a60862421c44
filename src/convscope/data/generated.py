"""Generated images: crosses, the square, and squares and circles of 28x28 pixels, white on black or in colour.

Only 3,309 squares and 580 circles exist. A fixed fifth of each is test and the rest train, so that no seed and no size
lets the two share an image.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.data.options import DatasetOptions, check_memory
from convscope.errors import UsageError
from convscope.preprocess import Preprocess
from convscope.typing import Array

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
        source="fixed, part of the program",
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
        source="fixed, part of the program",
        names=("square",),
    )


Kind = Literal["square", "circle"]
Places = NDArray[np.int64]
"""Shape (n, 3): side, top, left of each square; radius, row, column of each circle."""

EDGE = 28  # of an image, in pixels
SIDES = range(5, 14)
RADII = range(5, 7)
SIZES = {"train": 1000, "test": 200}
COPIES = 3  # of the images, while they are drawn: part by part, one after the other, in their order
WHITE, YELLOW, RED = (1,), (1, 1, 0), (1, 0, 0)


@dataclass(frozen=True, slots=True)
class ShapePart:
    """One kind of image within a class."""

    kind: Kind
    color: tuple[int, ...]
    """The values of the channels: (1,) is white, (1, 1, 0) is yellow, red plus green."""


PARTS: Mapping[str, tuple[tuple[ShapePart, ...], ...]] = {
    "shapes": (
        (ShapePart("square", WHITE),),
        (ShapePart("circle", WHITE),),
    ),
    "color-shapes": (
        (ShapePart("square", YELLOW),),
        (ShapePart("square", RED), ShapePart("circle", YELLOW)),
    ),
}
"""Name -> class -> the parts that share its images equally."""

CLASSES: Mapping[str, tuple[str, ...]] = {
    "shapes": ("square", "circle"),
    "color-shapes": ("yellow square", "red square or yellow circle"),
}


def shape(name: str) -> tuple[int, int, int]:
    """(C, H, W) of each image: one channel, or three for the colours."""
    return len(PARTS[name][0][0].color), EDGE, EDGE


def preprocess(name: str) -> Preprocess:
    """The preprocessing that a model of this data set expects."""
    return Preprocess(size=(EDGE, EDGE), channels=shape(name)[0], background="dark", binary=True)


def load_shapes(request: DatasetOptions) -> Dataset:
    """Draw `size` images, half of each class; or, of the split `all`, every possible image once.

    >>> load_shapes(DatasetOptions("shapes", split="all")).counts()
    {'square': 3309, 'circle': 580}

    Returns:
        uint8 images of shape (size, 1 or 3, 28, 28), 0 or 255, in random order (`all`: in the order of their places).

    Raises:
        UsageError: a size or the published sampling for `all`, which is not drawn.
        DataError: more images than there is memory for.
    """
    if request.split == "all":
        images, labels = _everything(request)
    else:
        images, labels = _drawn(request)
    return Dataset(
        name=request.name,
        images=images,
        labels=labels,
        classes=CLASSES[request.name],
        preprocess=preprocess(request.name),
        split=request.split,
        source=_source(request),
    )


def _everything(request: DatasetOptions) -> tuple[Array, Array]:
    if request.size is not None or request.sampling != "split":
        raise UsageError(
            f"the split 'all' of {request.name} is each possible image once; size and sampling are for train and test."
        )
    parts = [(part, label) for label, parts in enumerate(PARTS[request.name]) for part in parts]
    images = [paint(part, every(part.kind)) for part, _ in parts]
    return np.concatenate(images), np.repeat(
        [label for _, label in parts], [len(label_images) for label_images in images]
    )


def _drawn(request: DatasetOptions) -> tuple[Array, Array]:
    size = request.size or SIZES[request.split]
    check_memory(request.name, size, shape(request.name), "Ask for fewer.", copies=COPIES)
    rng = np.random.default_rng([request.seed, list(SIZES).index(request.split)])
    images, labels = [], []
    for part, label, count in _shares(request.name, size):
        published = request.sampling == "published"
        places = independent(rng, part.kind, count) if published else distinct(rng, part.kind, count, request.split)
        images.append(paint(part, places))
        labels += [label] * count
    order = rng.permutation(len(labels))
    return np.concatenate(images)[order], np.array(labels)[order]


def _shares(name: str, size: int) -> Iterator[tuple[ShapePart, int, int]]:
    """Each part with its class and its number of images, as equal as they can be."""
    classes = PARTS[name]
    for label, (parts, images) in enumerate(zip(classes, _even(size, len(classes)), strict=True)):
        for part, count in zip(parts, _even(images, len(parts)), strict=True):
            yield part, label, count


def _even(total: int, ways: int) -> list[int]:
    return [total // ways + (i < total % ways) for i in range(ways)]


@cache
def every(kind: Kind) -> Places:
    """The place of each distinct square or circle: shape (3309, 3) or (580, 3).

    >>> len(every("square")), len(every("circle"))
    (3309, 580)
    """
    if kind == "square":
        results = [(side, i, j) for side in SIDES for i in range(EDGE - side) for j in range(EDGE - side)]
    else:
        results = [(r, i, j) for r in RADII for i in range(r, EDGE - r) for j in range(r, EDGE - r)]
    places = np.array(results, np.int64)
    places.flags.writeable = False
    return places


def is_test(count: int) -> NDArray[np.bool_]:
    """Mask of the test images among `count`: a fixed fifth, spread evenly by golden-ratio steps.

    >>> int(is_test(580).sum())
    116
    """
    step = 2654435769  # 2**32 divided by the golden ratio
    return np.arange(count, dtype=np.int64) * step % 2**32 < 2**32 // 5


def distinct(rng: np.random.Generator, kind: Kind, count: int, split: str) -> Places:
    """Places from the train or the test part, without repetition while there are enough, then all of them again."""
    places = every(kind)
    part = places[is_test(len(places)) == (split == "test")]
    return np.resize(rng.permutation(part), (count, 3))


def independent(rng: np.random.Generator, kind: Kind, count: int) -> Places:
    """Places drawn one by one, as the tutorial does: a size, then a place where it fits; repetitions happen."""
    sizes = SIDES if kind == "square" else RADII
    size = rng.integers(sizes.start, sizes.stop, (count, 1))
    low, high = (0, EDGE - size) if kind == "square" else (size, EDGE - size)
    return np.concatenate([size, rng.integers(low, high, (count, 2))], axis=1)


def published_chances(data: Dataset) -> NDArray[np.float64] | None:
    """The probability of each image of `all` in the tutorial: classes, then sizes, then positions are equally likely.

    >>> published_chances(load_shapes(DatasetOptions("shapes"))).shape
    (3889,)

    Returns:
        In the order of the split `all`, adding up to 1; None for data that are not generated here.
    """
    if data.name not in PARTS or not data.source.startswith("generated"):
        return None
    chances = []
    for parts in PARTS[data.name]:
        for part in parts:
            _, size, places = np.unique(every(part.kind)[:, 0], return_inverse=True, return_counts=True)
            chances.append(1 / len(PARTS[data.name]) / len(parts) / len(places) / places[size])
    return np.concatenate(chances)


def paint(part: ShapePart, places: Places) -> Array:
    """The images of one part at these places: uint8, shape (n, channels, 28, 28), 0 or 255."""
    inside = (inside_square if part.kind == "square" else inside_circle)(places)  # (n, 28, 28)
    lit = np.array(part.color, np.uint8) * np.uint8(255)  # (channels,)
    images: Array = inside[:, None] * lit[:, None, None]
    return images


def inside_square(places: Places) -> NDArray[np.bool_]:
    """Mask of the pixels of each square: shape (n, 28, 28)."""
    line = np.arange(EDGE)
    side, top, left = np.hsplit(places, 3)  # (n, 1) each
    rows = (line >= top) & (line < top + side)  # (n, 28)
    columns = (line >= left) & (line < left + side)  # (n, 28)
    return rows[:, :, None] & columns[:, None, :]


def inside_circle(places: Places) -> NDArray[np.bool_]:
    """Mask of the pixels of each circle, dx² + dy² <= r²: shape (n, 28, 28)."""
    line = np.arange(EDGE, dtype=np.int16)
    radius, row, column = np.hsplit(places.astype(np.int16), 3)  # (n, 1) each
    down, across = (line - row) ** 2, (line - column) ** 2  # (n, 28)
    inside: NDArray[np.bool_] = down[:, :, None] + across[:, None, :] <= radius[:, :, None] ** 2
    return inside


def _source(request: DatasetOptions) -> str:
    if request.split == "all":
        return "generated: each possible image once"
    sampling = "each drawn independently" if request.sampling == "published" else "drawn from its own part"
    return f"generated with seed {request.seed}, {sampling}"
