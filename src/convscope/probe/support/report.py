"""Report: what a probe has to say, as sentences and tables: printed, or drawn by a page. Knows text alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from convscope.escaping import joined, spelled


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a head.

    >>> print(Table(("step", "units", "dead"), (("relu1", "8", "0"), ("fc", "not an activation")), right=(1, 2)))
    step   units  dead
    relu1      8     0
    fc     not an activation
    """

    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    """A row that is shorter than the head ends in a remark, which reaches over the columns that are left."""
    right: tuple[int, ...] = ()
    """The columns that are aligned by their last digit."""

    def __str__(self) -> str:
        lines = [[spelled(cell) for cell in row] for row in (self.head, *self.rows)]
        count = len(self.head)
        wide = [max(len(row[k]) for row in lines if len(row) == count or k < len(row) - 1) for k in range(count)]
        return "\n".join(self._line(row, wide) for row in lines)

    def _line(self, row: Sequence[str], wide: Sequence[int]) -> str:
        *cells, last = row
        aligned = [f"{cell:>{wide[k]}}" if k in self.right else f"{cell:<{wide[k]}}" for k, cell in enumerate(cells)]
        whole = len(row) == len(self.head)
        return "  ".join([*aligned, f"{last:>{wide[-1]}}" if whole and len(cells) in self.right else last]).rstrip()


def noted(notes: Sequence[str]) -> list[str]:
    """What a reader should know before believing the numbers, a line each.

    >>> noted(["classes go by number"])
    ['note: classes go by number']
    """
    return [f"note: {note}" for note in notes]


Part = str | Table
"""Lines of text, of which indented ones belong to the line above them; or a table."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, from the most important on.

    >>> print(Report(("all is well", Table(("a", "b"), [("1", "2")]))))
    all is well
    <BLANKLINE>
    a  b
    1  2
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: Part | Sequence[str]) -> "Report":
        """Of these parts, empty ones left out: a text is one line, several are a sequence."""
        return cls(tuple(part if isinstance(part, Table) else _text(part) for part in parts if part))

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.parts))


def _text(part: str | Sequence[str]) -> str:
    return spelled(part) if isinstance(part, str) else joined(part)
