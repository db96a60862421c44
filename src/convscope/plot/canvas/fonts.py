"""Typeface: which font a text is set in, how wide it becomes, and how to shorten it. Knows matplotlib's fonts."""

from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.textpath import TextToPath

SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
BLANK = "□"  # in place of a character that no font here has


def font(text: str, points: float, *, bold: bool = False, mono: bool = False) -> FontProperties:
    """The font for one text: matplotlib's own DejaVu, and for characters it lacks another font of this machine."""
    other = _font_with(_missing(text))
    if other is not None:  # which may have no bold face
        return FontProperties(family=[MONO if mono else SANS, other], size=points)
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
    known = "".join(BLANK if letter in _missing(text) else letter for letter in text)
    across, _, _ = TextToPath().get_text_width_height_descent(known, set_in, ismath=False)
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
    cuts = (f"{text[: (kept + 1) // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}" for kept in range(len(text)))
    return max((cut for cut in cuts if width(cut, points, bold=bold) <= longest), key=len, default="…")


@lru_cache(maxsize=4096)
def _missing(text: str) -> frozenset[str]:
    """The characters that DejaVu Sans Mono, and so every DejaVu here, does not have."""
    known = _charmap()
    return frozenset(letter for letter in text if ord(letter) not in known)


@lru_cache(maxsize=1)
def _charmap() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=MONO))).get_charmap())


@lru_cache(maxsize=256)
def _font_with(letters: frozenset[str]) -> str | None:
    """A font of this machine that has all of these characters."""
    if not letters:
        return None
    wanted = {ord(letter) for letter in letters}
    for entry in fontManager.ttflist:
        if "Last Resort" not in entry.name and wanted <= set(get_font(entry.fname).get_charmap()):
            return str(entry.name)
    return None
