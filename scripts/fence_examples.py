"""A griffe extension for the site: examples (`>>>`) in docstrings become code blocks, not quotations."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:^ *\S.*\n?)*", re.MULTILINE)
"""From the first prompt to the next empty line."""


class FenceExamples(griffe.Extension):
    """Fences the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    r"""A docstring with its examples as code blocks.

    >>> fenced("Add.\n\n>>> 1 + 1\n2\n\nNo more.").splitlines()[2:6]
    ['```pycon', '>>> 1 + 1', '2', '```']
    """
    return EXAMPLE.sub(lambda match: f"{match[1]}```pycon\n{_plain(match[0])}\n{match[1]}```\n", text)


def _plain(example: str) -> str:
    """Without what only doctest needs."""
    return re.sub(r" *# doctest: .*|<BLANKLINE>", "", example).rstrip()
