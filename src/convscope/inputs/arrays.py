"""Array inputs: files of arrays, and arrays that are not pictures: signals, volumes, sequences, integers.

Uses NumPy and cards; no data sets, no torch.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convscope.cards.card import Card
from convscope.errors import ImageError, ShapeError
from convscope.files import unsuitable
from convscope.images import MAX_PIXELS, WHITE
from convscope.typing import Array

SLICES = 64
"""Planes of an input that are shown side by side."""


def read_array(path: Path) -> Array:
    """The array of a .npy file.

    Raises:
        ImageError: it is damaged, holds Python objects, or more numbers than are read.
    """
    if problem := unsuitable(Path(path)):
        raise ImageError(f"{path} {problem}.")
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(mapped, np.ndarray):
            raise ImageError(f"{path} holds several arrays; save the one that is meant by numpy.save.")
        if mapped.size > MAX_PIXELS:
            raise ImageError(f"{path} holds {mapped.size:,} numbers; at most {MAX_PIXELS:,} are read.")
        return np.array(mapped)
    except ImageError:
        raise
    except ValueError as error:
        problem = f"cannot be read as an array: {str(error).rstrip('.')}"
        if "Python objects" in str(error):
            remedy = "save numbers, such as images.astype(np.float32)"
            problem = f"cannot be read as an array: it holds Python objects, which may run code; {remedy}"
        raise ImageError(f"{path} {problem}.") from None
    except Exception as error:  # damaged headers raise whatever they stumble over
        raise ImageError(f"{path} cannot be read as an array: {str(error).rstrip('.')}.") from None


def taken(array: Array) -> str:
    """A note on numbers that are not scaled: their type, their range, and whether some are not finite.

    >>> taken(np.array([0, 255], np.float32))
    'float32 numbers from 0 to 255, taken as they are'
    """
    if array.dtype.kind == "c":
        return f"{array.dtype} numbers, taken as they are"
    finite = array[np.isfinite(array)]
    bounds = f" from {finite.min():.4g} to {finite.max():.4g}" if finite.size else ""
    wrong = array.size - finite.size
    return f"{array.dtype} numbers{bounds}, taken as they are" + (f"; not finite: {wrong:,}" if wrong else "")


def as_it_is(array: Array, card: Card | None, *, loose: bool = False) -> tuple[Array, tuple[str, ...]]:
    """An array for a model that takes something else than one picture: only its type is changed; and what was done.

    >>> as_it_is(np.zeros((2, 8, 8), np.uint8), Card("net", form="volume"))[1]
    ('uint8, divided by 255',)

    Args:
        array: Of any shape.
        card: The model's, if it is known.
        loose: Whether integers may be meant, whatever the card says.

    Returns:
        float32, or int64 where integers are meant.

    Raises:
        ShapeError: it holds no numbers, or whole ones that the model cannot take.
    """
    if array.dtype.kind not in "fiubc" or not array.size:
        raise ShapeError(f"the input holds {array.dtype} of shape {array.shape}; a model takes numbers, at least one.")
    form = "any" if card is None else card.form
    if array.dtype == np.uint8 and form != "tokens":
        return array.astype(np.float32) / np.float32(WHITE), ("uint8, divided by 255",)
    notes = (taken(array),)
    if array.dtype.kind == "c":
        return array, notes
    if array.dtype.kind == "f":
        return array.astype(np.float32), notes
    if loose or form in {"tokens", "any"}:
        return array.astype(np.int64), notes
    raise ShapeError(
        f"the input holds {array.dtype}, and {card.name if card else 'the model'} takes fractions; give float32, or "
        "uint8 for values from 0 to 255."
    )


def side_by_side(arrays: list[Array]) -> NDArray[np.float32]:
    """Arrays as one grey picture (1, H, W): their planes in rows and columns, each array from its least to its most.

    >>> side_by_side([np.arange(8).reshape(2, 2, 2)]).shape
    (1, 2, 5)
    """
    planes = [plane for array in arrays for plane in _planes(array)][:SLICES] or [np.zeros((1, 1), np.float32)]
    columns = math.ceil(math.sqrt(len(planes)))
    height, width = max(p.shape[0] for p in planes), max(p.shape[1] for p in planes)
    rows = math.ceil(len(planes) / columns)
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1), np.float32)
    for index, plane in enumerate(planes):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return sheet[None]


def _planes(array: Array) -> Iterator[Array]:
    values = np.abs(array) if array.dtype.kind == "c" else np.asarray(array, np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    shown = np.nan_to_num((values - low) / ((high - low) or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    edges = shown.shape[-2:] if shown.ndim > 1 else (1, shown.size)
    yield from shown.reshape(-1, *edges)[:SLICES] if shown.size else ()
