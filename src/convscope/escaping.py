"""Escaping: names from files in messages, without control characters and not too long. Imports nothing of convscope.

Names of classes, files, layers and runs come from other people. On a terminal ESC and its kin set titles, clear the
screen or write the clipboard, a newline forges a line, and a bidirectional control shows a line in another order.
"""

import re
from collections.abc import Iterable

STEERING = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible; the joiners of words stay
    "\ud800-\udfff"  # bytes of a name that is not UTF-8, as Python holds them
    "]"
)
"""Characters that are spelled out. U+200C and U+200D, which Persian and emoji need, are not."""


def spelled(text: str) -> str:
    r"""One line of text that steers no terminal: its control characters, newlines included, are spelled out.

    >>> print(spelled("cat\x1b[31m\nerror: forged \u202egnp.exe"))
    cat\x1b[31m\nerror: forged \u202egnp.exe
    """
    return STEERING.sub(_escape, text)


LONGEST_WORD, LONGEST = 300, 2_000
"""Longest word, such as a path, and longest message, in characters; the middle of a longer one is left out."""


def brief(text: str, longest: int = LONGEST) -> str:
    r"""A message as one line of bounded length, whatever names it quotes: the middle of what is longer is left out.

    >>> brief(f"no layer is called {'x' * 5000!r}.").count("x"), brief("a\nb")
    (294, 'a\\nb')
    """
    text = _LONG_WORD.sub(lambda match: _ends(match.group(), LONGEST_WORD), spelled(text))
    return _ends(text, longest) if len(text) > longest else text


_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


def _ends(text: str, longest: int) -> str:
    """The two ends of a text, two thirds of it from the beginning."""
    return f"{text[: longest * 2 // 3 - 2]} … {text[len(text) - longest // 3 + 1 :]}"


def joined(lines: Iterable[str]) -> str:
    r"""Lines as one text, where only the newlines between them break a line.

    >>> print(joined(["conv\n1 = 3", "✓ proved"]))
    conv\n1 = 3
    ✓ proved
    """
    return "\n".join(map(spelled, lines))


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def first_few(names: Iterable[str], limit: int = 3) -> str:
    """The first of some names, and how many more there are.

    >>> first_few("abcd", limit=2)
    'a, b and 2 more'
    """
    listed = list(names)
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
