"""Style: the colours, numbers and typefaces that every figure shares, and the Figure that draws in them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.textpath import TextToPath
from numpy.typing import NDArray

from convscope.typing import Array

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
BLANK = "□"  # in place of a character that no font here has


def font(text: str, points: float, *, bold: bool = False, mono: bool = False) -> FontProperties:
    """The font for one text: matplotlib's own DejaVu, and for characters it lacks another font of this machine."""
    fallback = _font_with(_missing(text))
    if fallback is not None:  # which may have no bold face
        return FontProperties(family=[MONO if mono else SANS, fallback], size=points)
    return FontProperties(
        family="monospace" if mono else "sans-serif", weight="bold" if bold else "normal", size=points
    )


def printable(text: str) -> str:
    """The text without what cannot be drawn: control characters, and characters that no font of this machine has.

    >>> printable("two\\nlines")
    'two lines'
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    missing = _missing(text)
    if missing and _font_with(missing) is None:
        text = "".join(BLANK if letter in missing else letter for letter in text)
    return text


@lru_cache(maxsize=4096)
def width(text: str, points: float, *, bold: bool = False, mono: bool = False) -> float:
    """How wide a line of text is, in inches."""
    set_in = FontProperties(family=MONO if mono else SANS, weight="bold" if bold else "normal", size=points)
    measurable = "".join(BLANK if letter in _missing(text) else letter for letter in text)
    across, _, _ = TextToPath().get_text_width_height_descent(measurable, set_in, ismath=False)
    return float(across) / 72


def shorten(text: str, points: float, longest: float, *, bold: bool = False, mono: bool = False) -> str:
    """The text, or as much of its end as fits into `longest` inches behind an ellipsis; paths lose whole parts.

    >>> shorten("encoder.stages.0.layers.1", 8, 1.1)
    '…stages.0.layers.1'
    """
    if width(text, points, bold=bold, mono=mono) <= longest:
        return text
    ends = ["…" + text[i + 1 :] for i, letter in enumerate(text) if letter == "."]
    ends += ["…" + text[i:] for i in range(text.rfind(".") + 2, len(text))]
    return next((end for end in ends if width(end, points, bold=bold, mono=mono) <= longest), "…")


def abridge(text: str, points: float, longest: float, *, bold: bool = False) -> str:
    """The text, or as much of both of its ends as fits into `longest` inches: for names that people gave.

    >>> abridge("golden retriever from the side", 8, 1.1)
    'golden re…the side'
    """
    if width(text, points, bold=bold) <= longest:
        return text
    cuts = (
        f"{text[: (length + 1) // 2].rstrip()}…{text[len(text) - length // 2 :].lstrip()}"
        for length in range(len(text))
    )
    return max((cut for cut in cuts if width(cut, points, bold=bold) <= longest), key=len, default="…")


@lru_cache(maxsize=4096)
def _missing(text: str) -> frozenset[str]:
    """The characters that DejaVu Sans Mono, and so every DejaVu here, does not have."""
    available = _charmap()
    return frozenset(letter for letter in text if ord(letter) not in available)


@lru_cache(maxsize=1)
def _charmap() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=MONO))).get_charmap())


@lru_cache(maxsize=256)
def _font_with(letters: frozenset[str]) -> str | None:
    """A font of this machine that has all of these characters."""
    if not letters:
        return None
    characters = {ord(letter) for letter in letters}
    for entry in fontManager.ttflist:
        if "Last Resort" not in entry.name and characters <= set(get_font(entry.fname).get_charmap()):
            return str(entry.name)
    return None


PAGE = "#fbfaf7"
INK = "#1c1c1a"
MUTED = "#6f6d68"
LINE = "#dfdcd5"
ACCENT = "#0f6b4f"
NOT_FINITE = "#b9a44c"  # NaN and infinities: a colour that no number has
DPI = 200

DIVERGING = LinearSegmentedColormap.from_list(
    "convscope",
    ["#2166ac", "#4393c3", "#92c5de", "#d1e5f0", PAGE, "#fddbc7", "#f4a582", "#d6604d", "#b2182b"],
).with_extremes(bad=NOT_FINITE)
"""Blue below zero, red above, the page itself at zero. Steps: ColorBrewer's RdBu, safe for colour-blind eyes."""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.monospace": ["DejaVu Sans Mono", "Menlo", "Consolas", "monospace"],
    "font.size": 8,
    "text.color": INK,
    "text.usetex": False,
    "axes.unicode_minus": True,
    "image.composite_image": False,  # each picture stays a picture of its own in SVG and PDF
    "path.simplify": True,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "convscope",  # the same figure gives the same file
}


@contextmanager
def styled() -> Iterator[None]:
    """Within this context, Matplotlib uses its own defaults and this style; afterwards the global settings are back.

    Those may come from a file `matplotlibrc` in the working folder, and so from other people.
    """
    defaults = {name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(_NOT_DRAWN)}
    with mpl.rc_context({**defaults, **STYLE}):
        yield


_NOT_DRAWN = ("backend", "date.epoch", "docstring", "figure.max", "figure.raise", "interactive", "savefig.directory",
              "timezone", "tk.", "toolbar", "webagg.")  # fmt: skip
"""Settings for programs and windows, not for figures."""


class StyledFigure(Figure):
    """A matplotlib Figure that always draws and saves in this style, whatever the global settings are."""

    def __init__(self, width: float = 4, height: float = 3) -> None:
        with styled():
            super().__init__(figsize=(width, height), dpi=DPI, facecolor=PAGE)

    def draw(self, renderer: RendererBase) -> None:
        """Draw with this style's settings, then leave the global ones as they were."""
        with styled():
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:
        """Save with this style's settings, as `matplotlib.figure.Figure.savefig` does."""
        with styled():
            super().savefig(*args, **options)


@dataclass(frozen=True, slots=True)
class ColorScale:
    """What the colours of one step mean: zero is the middle of the map, `limit` its end on either side.

    >>> ColorScale.of(np.array([-0.5, 2.0])).ends
    (-2.0, 2.0)
    >>> ColorScale.of(np.array([0.0, 3.0])).ends
    (0.0, 3.0)
    """

    low: float
    """The smallest finite number, at most 0."""
    high: float
    """The largest finite number, at least 0."""
    strange: int = 0
    """How many numbers are NaN or infinite: they have no place on the scale."""
    beyond: int = 0
    """How many numbers are farther from 0 than the ends: they have the ends' colours."""

    @classmethod
    def of(cls, *arrays: Array) -> "ColorScale":
        """The one scale that holds every number of all these arrays."""
        low, high, strange = 0.0, 0.0, 0
        for array in arrays:
            values = np.asarray(array, np.float64)
            finite = values[np.isfinite(values)]
            strange += values.size - finite.size
            low = min(low, float(finite.min(initial=0)))
            high = max(high, float(finite.max(initial=0)))
        return cls(low, high, strange)

    @classmethod
    def of_maps(cls, *arrays: Array) -> "ColorScale":
        """A scale for feature maps: in large ones a few extreme cells do not make all the others pale.

        Of at least 2,000 cells, it ends at the magnitude that 99.5 % of them do not exceed, if the largest is at least
        one and a half times that.

        >>> maps = np.ones((50, 50))
        >>> maps[0, 0] = 10
        >>> ColorScale.of_maps(maps).ends, ColorScale.of_maps(maps).beyond
        ((0.0, 1.0), 1)
        """
        full = cls.of(*arrays)
        sizes = np.concatenate([np.abs(np.asarray(array, np.float64)).ravel() for array in arrays])
        sizes = sizes[np.isfinite(sizes)]
        if sizes.size < 2000 or full.low == full.high:
            return full
        end = float(np.quantile(sizes, 0.995))
        if end == 0 or full.limit < 1.5 * end:
            return full
        return cls(max(full.low, -end), min(full.high, end), full.strange, int((sizes > end).sum()))

    @property
    def limit(self) -> float:
        """The magnitude at both ends of the map."""
        return max(-self.low, self.high) or 1.0

    @property
    def ends(self) -> tuple[float, float]:
        """The two ends of the legend: the half of the map that no number uses is left out."""
        if self.low == self.high == 0:
            return 0.0, 0.0
        return (-self.limit if self.low < 0 else 0.0), (self.limit if self.high > 0 else 0.0)

    @property
    def norm(self) -> Normalize:
        """From numbers to the map, zero in the middle."""
        return Normalize(-self.limit, self.limit)

    def colors(self, values: Array) -> NDArray[np.float64]:
        """The red, green and blue that numbers are drawn in, each 0 to 1: shape (..., 3)."""
        return np.asarray(DIVERGING(self.norm(np.ma.masked_invalid(values))))[..., :3]


def on(color: Sequence[float] | NDArray[np.float64]) -> str:
    """Ink or page, whichever is easier to read on `color`.

    >>> on((1, 1, 1)) == INK, on((0, 0, 0)) == PAGE
    (True, True)

    Source: relative luminance and contrast of WCAG 2.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.2 else PAGE


def size(shape: tuple[int, ...]) -> str:
    """A shape as people write it: (8, 28, 28) is 8×28×28."""
    return "×".join(f"{n:,}" for n in shape) or "1"
