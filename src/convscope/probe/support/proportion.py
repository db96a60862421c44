"""Proportion: a share of a sample, always with its size and Wilson's interval. Knows numbers alone."""

import math
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054
"""How many standard deviations on either side hold 95 % of a normal distribution."""


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

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        low, high = self.interval
        return {
            "share": self.share,
            "hits": self.hits,
            "n": self.n,
            "low": low,
            "high": high,
            "interval": "Wilson 95 %",
        }
