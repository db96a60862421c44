"""Reports of probes: their results as sentences and tables, and proportions with Wilson's interval. Uses text alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convscope.escaping import joined, spelled

Z95 = 1.959963984540054
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


def sample_size(images: int, skipped: int) -> str:
    """A sample's size in words.

    >>> sample_size(1000, 0), sample_size(1, 2)
    ('1,000 images', '1 image (2 more cannot be read)')
    """
    return f"{images:,} image{'s' * (images != 1)}" + (f" ({skipped:,} more cannot be read)" if skipped else "")


@dataclass(frozen=True, slots=True)
class Proportion:
    """A count out of a total.

    >>> print(Proportion(189, 200))
    94.5 % of 200 (90.4 to 96.9 %)
    >>> print(Proportion(0, 20))
    0.0 % of 20 (0.0 to 16.1 %)
    """

    hits: int
    n: int

    @property
    def share(self) -> float:
        """hits / n, 0 to 1; nan of an empty sample."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % score interval for the share that the sample was drawn from; 0 to 1 for an empty sample.

        Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
        """
        if not self.n:
            return 0.0, 1.0
        middle = (self.hits + Z95**2 / 2) / (self.n + Z95**2)
        half = Z95 / (self.n + Z95**2) * math.sqrt(self.hits * (self.n - self.hits) / self.n + Z95**2 / 4)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.share:.1f} % of {self.n:,} ({100 * low:.1f} to {100 * high:.1f} %)"

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        low, high = self.interval
        return {
            "share": self.share,
            "hits": self.hits,
            "n": self.n,
            "low": low,
            "high": high,
            "interval": "Wilson 95 %",
        }


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
        is_full = len(row) == len(self.head)
        return "  ".join([*aligned, f"{last:>{wide[-1]}}" if is_full and len(cells) in self.right else last]).rstrip()


def noted(notes: Sequence[str]) -> list[str]:
    """The caveats of the numbers, a line each.

    >>> noted(["classes go by number"])
    ['note: classes go by number']
    """
    return [f"note: {note}" for note in notes]


Part = str | Table
"""Lines of text, of which indented ones belong to the line above them; or a table."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """The result, the most important part first.

    >>> print(ProbeReport(("all is well", Table(("a", "b"), [("1", "2")]))))
    all is well
    <BLANKLINE>
    a  b
    1  2
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: Part | Sequence[str]) -> "ProbeReport":
        """A report of these parts without empty ones: a text is one line, several are a sequence."""
        return cls(tuple(part if isinstance(part, Table) else _text(part) for part in parts if part))

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.parts))


def _text(part: str | Sequence[str]) -> str:
    return spelled(part) if isinstance(part, str) else joined(part)
