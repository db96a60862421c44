"""Filters: kernels with a name, kernels typed as numbers, and what they make of a picture.

Uses NumPy and the reference convolution; no files, no models, no figures.
A filter is *cross-correlated* with the picture, as in every PyTorch convolution: the kernel is not turned over.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convscope.data.options import check_bytes
from convscope.errors import ShapeError, UnknownName, UsageError
from convscope.preprocess import Preprocess
from convscope.reference.functional import conv2d
from convscope.rich_display import RichDisplay
from convscope.type_checks import check_kind, takes
from convscope.typing import Array

Mode = Literal["valid", "same"]
MODES = ("valid", "same")

HINT = "Or type numbers, rows separated by semicolons: '1 0; 0 1'."


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A kernel and what it is for.

    >>> Filter("difference", np.array([[-1, 1]]), "vertical edges").shape
    (1, 2)
    """

    name: str
    kernel: NDArray[np.float64]
    """float64, shape (R, S); read-only."""
    finds: str
    """The structure it responds to; empty for your own numbers."""
    source: str = ""

    def __post_init__(self) -> None:
        check_kind("Filter", "kernel", self.kernel, "array")
        kernel = np.array(self.kernel, np.float64)
        if kernel.ndim != 2 or kernel.size == 0 or not np.isfinite(kernel).all():
            raise ShapeError(f"a kernel is a table of finite numbers of shape (R, S), not one of {kernel.shape}.")
        kernel.flags.writeable = False
        object.__setattr__(self, "kernel", kernel)

    @property
    def shape(self) -> tuple[int, int]:
        """(R, S): rows and columns."""
        return self.kernel.shape[0], self.kernel.shape[1]

    @property
    def total(self) -> float:
        """The sum of its numbers: what it makes of a plain white area; 0 for all that find edges."""
        return math.fsum(self.kernel.ravel())


_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
_PREWITT = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]])
_STRIPE = np.array([[-1, -1, 1, 1]] * 4)
_SOBEL_SOURCE = "I. Sobel, G. Feldman: A 3x3 isotropic gradient operator for image processing, 1968"
_PREWITT_SOURCE = "J. M. S. Prewitt: Object enhancement and extraction, 1970"
_DIGITAL = "R. C. Gonzalez, R. E. Woods: Digital Image Processing, chapter 3"
_PLUS = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
_SHAPES_SOURCE = "the fifth tutorial, Introduction to Convolutional Neural Networks"
_STRIPE_SOURCE = "the second tutorial, Looking at layers: hand-made 4x4 stripes"

FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        f.name: f
        for f in (
            Filter("sobel-x", _SOBEL, "vertical edges: brightness that changes along x", _SOBEL_SOURCE),
            Filter("sobel-y", _SOBEL.T, "horizontal edges: brightness that changes along y", _SOBEL_SOURCE),
            Filter("edge", np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]), "edges of every direction", _DIGITAL),
            Filter("vertical", _PREWITT, "vertical edges", _PREWITT_SOURCE),
            Filter("horizontal", _PREWITT.T, "horizontal edges", _PREWITT_SOURCE),
            Filter("corner", np.array([[1, 0, -1], [0, 0, 0], [-1, 0, 1]]), "corners, and no straight edge", _DIGITAL),
            Filter("blur", np.full((3, 3), 1 / 9), "nothing: each pixel becomes the mean of its window", _DIGITAL),
            Filter("sharpen", np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]), "nothing: edges get steeper", _DIGITAL),
            Filter("stripe-1", _STRIPE, "vertical edges, dark left and bright right", _STRIPE_SOURCE),
            Filter("stripe-2", -_STRIPE, "vertical edges, bright left and dark right", _STRIPE_SOURCE),
            Filter("stripe-3", _STRIPE.T, "horizontal edges, dark above and bright below", _STRIPE_SOURCE),
            Filter("stripe-4", -_STRIPE.T, "horizontal edges, bright above and dark below", _STRIPE_SOURCE),
            Filter(
                "tutorial-horizontal",
                -_PREWITT.T,
                "horizontal edges, bright above and dark below: the negative of `horizontal`",
                _SHAPES_SOURCE,
            ),
            Filter(
                "tutorial-corner",
                _PLUS,
                "edges of every direction, corners twice as strongly: its title says corners alone",
                _SHAPES_SOURCE,
            ),
        )
    }
)
"""Kernels by name. Named for the edges they find: a vertical edge is a change along x."""


@takes()
def parse_kernel(text: str) -> Filter:
    """A kernel by its name, or from its numbers: rows separated by semicolons, numbers by spaces or commas.

    >>> parse_kernel("sobel-x").kernel[1]
    array([-2.,  0.,  2.])
    >>> parse_kernel("1,0; 0,1").shape
    (2, 2)
    >>> float(parse_kernel("1/4 1/4; 1/4 1/4").total)
    1.0

    Raises:
        UnknownName: no kernel has this name.
        UsageError: the rows have different lengths, or hold something other than finite numbers.
    """
    stripped = text.strip()
    if stripped.lower() in FILTERS:
        return FILTERS[stripped.lower()]
    if not any(c.isdigit() for c in stripped) or (
        stripped[0].isalpha() and ";" not in stripped and " " not in stripped
    ):
        raise UnknownName("kernel", stripped, FILTERS, HINT)
    numbers = parse_numbers(stripped, "kernel")
    return Filter(f"custom {_size(numbers.shape)}", numbers, "")


@takes()
def parse_numbers(text: str, what: str = "picture") -> NDArray[np.float64]:
    """A table of numbers: rows separated by semicolons, numbers by spaces or commas.

    >>> parse_numbers("1 2 0 1; 0 1 3 1").shape
    (2, 4)

    Args:
        text: The numbers.
        what: What an error calls them.

    Returns:
        float64, shape (R, S).

    Raises:
        UsageError: the rows have different lengths, or hold something other than finite numbers.
    """
    lines = [line for line in text.replace("\n", ";").split(";") if line.strip(" ,")]
    rows = [[_number(word, text, what) for word in line.replace(",", " ").split()] for line in lines]
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        raise UsageError(
            f"the {what} {text!r} has rows of {', '.join(map(str, lengths[:-1]))} and {lengths[-1]} numbers; "
            "every row needs the same number."
        )
    return np.array(rows)


def _number(word: str, text: str, noun: str) -> float:
    top, _, below = word.replace("−", "-").partition("/")
    try:
        value = float(top) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        hint = f" {HINT}" if noun == "kernel" else ""
        raise UsageError(f"{word!r} in the {noun} {text!r} is not a number.{hint}")
    return value


BYTES = 26
"""Bytes of memory that filtering takes at most for each number of a picture, besides the picture."""
SMALLER = "Scale the picture down."


@takes(picture="array", kernel="Filter | ndarray | array | str")
def apply_filter(
    picture: Array, kernel: Filter | Array | str, *, mode: Mode = "valid", per_channel: bool = False
) -> NDArray[np.float64]:
    """Slide one kernel over a picture. A colour picture is turned to grey first, or filtered channel by channel.

    >>> square = np.zeros((1, 10, 10))
    >>> square[:, 3:7, 3:7] = 1
    >>> apply_filter(square, "vertical")[0, 3]
    array([ 0.,  3.,  3.,  0.,  0., -3., -3.,  0.])

    Args:
        picture: Pixels from 0 to 1, shape (C, H, W) or (H, W).
        kernel: A Filter, numbers of shape (R, S), or what `parse_kernel` reads.
        mode: "valid" takes only windows inside the picture; "same" surrounds it with zeros so that the
            output is as large as the picture (for an even kernel one more row below and column on the right).
        per_channel: Filter each channel by itself instead of turning colours to grey.

    Returns:
        float64, shape (C, P, Q), C = 1 unless per_channel; P = H - R + 1 and Q = W - S + 1, or H and W.

    Raises:
        ShapeError: the picture is none, or smaller than the kernel.
        UnknownName, UsageError: as in `parse_kernel`.
        DataError: picture and output need more memory than is free.
    """
    chosen = kernel if isinstance(kernel, Filter) else _as_filter(kernel)
    if mode not in MODES:
        raise UnknownName("mode", mode, MODES)
    shape = np.shape(picture)
    check_bytes(f"the pixels of a filtered {_size(shape)} picture", BYTES * math.prod(shape), SMALLER)
    pixels = np.asarray(picture, np.float64)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not np.isfinite(pixels).all():
        raise ShapeError(f"a picture has finite numbers of shape (C, H, W) or (H, W), not {np.shape(picture)}.")
    if not per_channel and len(pixels) > 1:
        pixels = Preprocess(channels=1).apply(pixels, white=1.0).astype(np.float64)
    if mode == "same":
        pixels = np.pad(pixels, [(0, 0), *(((n - 1) // 2, n // 2) for n in chosen.shape)])
    if any(length < kernel_length for length, kernel_length in zip(pixels.shape[1:], chosen.shape, strict=True)):
        raise ShapeError(
            f"the kernel {chosen.name} ({_size(chosen.shape)}) is larger than the picture ({_size(pixels.shape[1:])}); "
            'take a larger picture, a smaller kernel, or mode="same" (--same).'
        )
    weight = np.repeat(chosen.kernel[None, None], len(pixels), axis=0)  # (C, 1, R, S)
    return conv2d(pixels, weight, groups=len(pixels))


@dataclass(frozen=True, slots=True)
class EdgeResponse(RichDisplay):
    """The response of a kernel to two test edges, beyond its responses to plain black and white.

    >>> EdgeResponse(vertical=4.0, horizontal=0.0).direction
    'vertical'
    """

    vertical: float
    """To an upright edge: brightness that changes along x."""
    horizontal: float
    """To a level edge: brightness that changes along y."""

    @property
    def direction(self) -> Literal["vertical", "horizontal", "both", "none"]:
        """The edges it finds: one kind where it answers that at least twice as strongly as the other."""
        smallest, largest = sorted((self.vertical, self.horizontal))
        if largest < 1e-6:
            return "none"
        if largest < 2 * smallest:
            return "both"
        return "vertical" if self.vertical == largest else "horizontal"

    def __str__(self) -> str:
        return f"{self.vertical:.4g} to a vertical edge, {self.horizontal:.4g} to a horizontal one"


@takes(kernel="Filter | ndarray | array | str")
def edge_response(kernel: Filter | Array | str) -> EdgeResponse:
    """Measure which edges a kernel finds, on a black and white test edge of either direction and either sign.

    >>> edge_response("sobel-x")
    EdgeResponse(vertical=4.0, horizontal=0.0)
    >>> edge_response("sobel-x").direction, edge_response("edge").direction, edge_response("blur").direction
    ('vertical', 'both', 'none')

    Args:
        kernel: The filter, as `apply_filter` takes it.
    """
    chosen = kernel if isinstance(kernel, Filter) else _as_filter(kernel)
    rows, columns = chosen.shape
    dark_left = np.tile(np.arange(2 * columns) >= columns, (rows, 1)).astype(np.float64)
    dark_above = np.tile(np.arange(2 * rows) >= rows, (columns, 1)).T.astype(np.float64)
    plain = sorted((0.0, chosen.total))

    def beyond(edge: NDArray[np.float64]) -> float:
        answers = np.concatenate([apply_filter(e, chosen).ravel() for e in (edge, 1 - edge)])
        return float(max(answers.max() - plain[1], plain[0] - answers.min(), 0.0))

    result = EdgeResponse(beyond(dark_left), beyond(dark_above))
    size = float(np.abs(chosen.kernel).sum()) * 1e-9
    return EdgeResponse(*(value if value > size else 0.0 for value in (result.vertical, result.horizontal)))


def _as_filter(kernel: Array | str) -> Filter:
    return parse_kernel(kernel) if isinstance(kernel, str) else Filter("custom", kernel, "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
