"""Value range: infer layout and value range of images whose file does not specify them. Uses shapes and ranges.

One rule for all loaders: a clear case is accepted, an assumption becomes a note, and an ambiguous case raises an error
that names the option to decide it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from convscope.errors import DataError, UnknownName, UsageError
from convscope.images import OVERSHOOT, WHITE, white_of_floats

Layout = Literal["nchw", "nhwc"]
CHANNELS = frozenset({1, 3, 4})
"""Numbers of channels that pictures usually have."""
DEEP = 65535.0
CLEARLY_BRIGHT = 128.0
"""If some floats are negative, the smallest maximum at which 255 is white; standard scores stay below."""


def layout_of(name: str, shape: Sequence[int], stated: str | None) -> tuple[Layout, str]:
    """Whether images of four axes have their channels first or last, and a note where that was not obvious.

    >>> layout_of("x", (20, 28, 28, 3), None)
    ('nhwc', '')
    >>> layout_of("x", (20, 64, 64, 13), None)[1]
    'images of the shape (20, 64, 64, 13) are read as 13 channels of 64x64; if they are not, add layout=nchw.'

    Args:
        name: Name of the images in messages.
        shape: (N, a, b, c).
        said: The user's setting, or None.

    Raises:
        UnknownName: the setting is neither nchw nor nhwc.
        DataError: both layouts are plausible.
    """
    if stated is not None:
        if stated not in get_args(Layout):
            raise UnknownName(
                "layout", stated, get_args(Layout), "N images, C channels, H rows and W columns, in order."
            )
        return ("nchw", "") if stated == "nchw" else ("nhwc", "")
    _, a, b, c = shape
    is_first = channels_first(a, b, c)
    if is_first is None:
        raise DataError(
            f"the images of {name} have the shape {tuple(shape)}, which can be {a} channels of {b}x{c} or {c} channels "
            f"of {a}x{b}; say which: {name}?layout=nchw or {name}?layout=nhwc."
        )
    if (a if is_first else c) in CHANNELS:
        return ("nchw" if is_first else "nhwc"), ""
    reading, alternative = (f"{a} channels of {b}x{c}", "nhwc") if is_first else (f"{c} channels of {a}x{b}", "nchw")
    note = f"images of the shape {tuple(shape)} are read as {reading}; if they are not, add layout={alternative}."
    return ("nchw" if is_first else "nhwc"), note


def channels_first(a: int, b: int, c: int) -> bool | None:
    """Whether (a, b, c) is (C, H, W), not (H, W, C): by usual numbers of channels, square pictures, few channels."""
    first, last = a in CHANNELS, c in CHANNELS
    square_first, square_last = b == c, a == b  # the picture, where channels are first, and where they are last
    if first == last and square_first != square_last:
        return square_first
    if first != last:
        against = square_last if first else square_first
        return None if against and not (square_first and square_last) else first
    if first or square_first:
        return None
    return True if 2 * a <= min(b, c) else False if 2 * c <= min(a, b) else None


def white_of(name: str, low: float, high: float, kind: str, stated: str | None) -> tuple[float, str]:
    """The value that counts as 1.0, and a note where that was not obvious.

    >>> white_of("x", 0, 255, "u", None), white_of("x", 0, 0.7, "f", None)
    ((255.0, ''), (1.0, ''))
    >>> white_of("x", 0, 1.0001, "f", None)
    (1.0, 'values from 0 to 1.0001 are read as 0 to 1; if another value is white, add white=VALUE.')

    Args:
        name: Name of the images in messages.
        low: The smallest value, or 0.
        high: The largest value, or 0.
        kind: NumPy's kind of their type: "b", "u" or "i" for integers, "f" for floating-point numbers.
        said: The user's setting, or None.

    Raises:
        UsageError: the setting is not a positive number.
        DataError: the range is unknown, or two are plausible.
    """
    if stated is not None:
        return _stated_white(stated), ""
    white = _whole(low, high) if kind in "bui" else _floating(name, low, high)
    if white is None:
        raise DataError(
            f"the images of {name} have values up to {high:g}; at most {DEEP:.0f} can be pixels. Name the value that "
            f"is white: {name}?white=VALUE."
        )
    plain = kind == "b" or (kind == "f" and white == 1) or (white == WHITE and kind in "ui")
    if plain and low >= 0 and high <= white:
        return white, ""
    negative = low < -white * OVERSHOOT
    reading = "are taken as they are, for some are negative" if negative else f"are read as 0 to {white:g}"
    return white, f"values from {low:g} to {high:g} {reading}; if another value is white, add white=VALUE."


def _stated_white(text: str) -> float:
    try:
        white = float(text)
    except ValueError:
        white = 0.0
    if not 0 < white < float("inf"):
        raise UsageError(f"white is the value of a white pixel, a number above 0 such as 1 or 255, not {text!r}.")
    return white


def _whole(low: float, high: float) -> float | None:
    return 1.0 if low < 0 else next((white for white in (1.0, WHITE, DEEP) if high <= white), None)


def _floating(name: str, low: float, high: float) -> float | None:
    """As `white_of_floats`; negative values beyond an overshoot are normalized ones, larger ones those of 16 bits."""
    white = white_of_floats(low, high)
    if low < 0 and white is None:
        return 1.0
    if (low < 0 and white == WHITE and high < CLEARLY_BRIGHT) or (white is None and high < WHITE):
        raise _ambiguous(name, low, high)
    return white or (DEEP if high <= DEEP * (1 + OVERSHOOT) else None)


def _ambiguous(name: str, low: float, high: float) -> DataError:
    return DataError(
        f"the images of {name} have floating-point values from {low:g} to {high:g}, where white can be 1 or 255; say "
        f"which value is white: {name}?white=1 or {name}?white=255."
    )
