"""Status: what is known about a number or a step, in one vocabulary for text, plots, command line, server and page.

Uses words alone: no traces, no rules, no colours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

StepStatus = Literal[
    "proved", "proved normwise", "unresolved", "mismatch", "wrong derivative", "underived", "recomputed", "unsupported",
    "given",
]  # fmt: skip
"""What `verify` may find about a step."""
Status = Literal[StepStatus, "not recomputed", "weights changed"]
"""What `explain` may find about a number."""
Tone = Literal["good", "bad", "open", "neutral"]
"""good: proved; bad: wrong, or not the model's number; open: neither proved nor wrong; neutral: nothing to prove."""


@dataclass(frozen=True, slots=True)
class StatusText:
    """How a status is shown.

    >>> STATUSES["recomputed"].line
    'recomputed: the NumPy reference agrees within the bound, but no rule explains the operation'
    """

    word: str
    """A word or two, for a badge."""
    sentence: str
    """What it means; true of a number and of every number of a step."""
    tone: Tone
    """How good that is, for a colour."""

    @property
    def line(self) -> str:
        """Word and sentence as one line of text."""
        return f"{self.word}: {self.sentence}"


STATUSES: Mapping[Status, StatusText] = {
    "proved": StatusText(
        "✓ proved", "explained here and recomputed by the NumPy reference, both within the bound", "good"
    ),
    "proved normwise": StatusText(
        "✓ proved normwise", "both agree within the bound of kernels that mix planes (Winograd, Fourier)", "good"
    ),
    "unresolved": StatusText(
        "unresolved", "within the bound, but that is above a tenth of the step's numbers: too wide", "open"
    ),
    "mismatch": StatusText(
        "✗ mismatch", "the recorded number is not what its operation gives for the recorded inputs", "bad"
    ),
    "wrong derivative": StatusText(
        "✗ wrong derivative",
        "the gradient is not the derivative of its forward step, even if it was calculated correctly",
        "bad",
    ),
    "underived": StatusText(
        "underived",
        "recomputed, but not compared with the derivative of its forward step, "
        "which has no rule or exceeds its type's range",
        "open",
    ),
    "recomputed": StatusText(
        "recomputed", "the NumPy reference agrees within the bound, but no rule explains the operation", "open"
    ),
    "not recomputed": StatusText(
        "not recomputed", "explained within the bound, but the NumPy reference lacks the operation", "open"
    ),
    "unsupported": StatusText(
        "unsupported", "the NumPy reference lacks the operation, this form of it, or a finite bound", "open"
    ),
    "given": StatusText("given", "not calculated: drawn at random, or put in the place of a result", "neutral"),
    "weights changed": StatusText(
        "weights changed since the trace", "the numbers shown are not those it ran with", "bad"
    ),
}
"""Every status, with its word, sentence and tone."""
PROVED = frozenset(status for status, text in STATUSES.items() if text.tone == "good")
"""Statuses of what is proved."""
CHECKED = frozenset({*PROVED, "recomputed", "underived", "unresolved"})
"""Statuses of what the reference recomputed, within its bound."""
