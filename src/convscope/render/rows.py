"""Sheet: lines of a calculation: what is added on the left, its number on the right, points below points."""

from collections.abc import Sequence
from dataclasses import dataclass

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Row:
    """A label with its number, as text.

    >>> Row("conv1.bias[0]", "2.2435").number
    '2.2435'
    """

    label: str
    number: str
    after: str = ""
    """What stands behind the number."""
    term: int | None = None
    """Which term of a sum, or which of a function's cells, the row shows."""


RULE = Row("─", "")
BLANK = Row("", "")
Lines = Sequence[Row | str]
"""Rows, and whole lines of text between them."""


def render(lines: Lines) -> list[str]:
    """Rows with their numbers aligned at the point, whole lines as they are.

    >>> print(*render(["a line", Row("sum", "−3.25"), RULE, Row("calculated", "10.5")]), sep="\\n")
    a line
    sum          −3.25
    ──────────────────
    calculated   10.5
    """
    rows = [line for line in lines if isinstance(line, Row) and line not in {RULE, BLANK}]
    left = max((len(row.label) for row in rows), default=0)
    wholes = max((len(row.number.partition(".")[0]) for row in rows), default=0)
    behind = max((len(row.number) - len(row.number.partition(".")[0]) for row in rows), default=0)
    drawn = []
    for line in lines:
        if isinstance(line, str):
            drawn.append(line)
        elif line is RULE:
            drawn.append("─" * (left + 3 + wholes + behind))
        elif line is BLANK:
            drawn.append("")
        else:
            whole, point, rest = line.number.partition(".")
            number = whole.rjust(wholes) + (point + rest).ljust(behind)
            drawn.append(f"{line.label.ljust(left)}   {number}   {line.after}".rstrip())
    return drawn


def indented(lines: Sequence[str], by: str = INDENT) -> list[str]:
    """Lines moved to the right; empty ones stay empty."""
    return [by + line if line else "" for line in lines]
