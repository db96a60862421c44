"""Detail: how much of a calculation is shown."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detail:
    """How many terms of a long sum are listed.

    >>> Detail().count(4608), Detail().count(12), Detail(everything=True).count(4608)
    (8, 12, 4608)
    """

    terms: int = 8
    """The largest ones; all where there are no more than half as many again."""
    everything: bool = False

    def count(self, of: int) -> int:
        """Number of terms to show out of a total."""
        return of if self.everything or of <= self.terms * 1.5 else self.terms
