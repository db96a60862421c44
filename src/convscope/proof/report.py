"""Reports: what `verify` found, step by step and in total. Knows no traces, no rules, no reference."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from convscope.plain import plain_value

Witness = Literal["reference", "expression", "channel mean", "shape"]
Finding = Literal["proved", "proved normwise", "mismatch", "recomputed", "unsupported", "given"]
PROVED = frozenset({"proved", "proved normwise"})
MEANS = {
    "proved": "every number recomputed by the reference, every sampled cell explained, all within their bounds",
    "proved normwise": "proved, but only within the wider bounds of kernels that mix whole planes (Winograd, Fourier)",
    "mismatch": "a recorded number is not what its operation gives for the recorded inputs",
    "recomputed": "every number recomputed, but no rule explains the operation",
    "unsupported": "the reference lacks this operation, or this form of it",
    "given": "drawn at random or put there by the caller: there is nothing to recompute",
}
"""What each finding means, in a sentence."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The worst number of a step that is not what it should be."""

    cell: tuple[int, ...]
    recorded: float
    expected: float
    allowed: float
    """How far the two may lie apart."""
    witness: Witness
    """Who contradicts; "channel mean" for an offset below each cell's own bound, `cell` is then the channel alone."""
    output: int = 0
    """Which result, of a step that has several."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """The shape that the reference gives, where it is another than the recorded one."""
    why: str = ""
    """The explanation of the cell, where it has one."""

    def __str__(self) -> str:
        if self.witness == "shape":
            return f"has a shape that the reference contradicts: it gives {self.shapes[0]}"
        where = f"at {self.cell}" if self.witness != "channel mean" else f"on average over channel {self.cell[0]}"
        return (
            f"{where}: recorded {self.recorded:.9g}, {self.witness} {self.expected:.9g}, "
            f"difference {abs(self.recorded - self.expected):.3g}, allowed {self.allowed:.3g}"
        )


@dataclass(frozen=True, slots=True)
class StepReport:
    """What was found about one step."""

    id: int
    name: str
    op: str
    finding: Finding
    numbers: int
    """How many numbers the step made."""
    explained: int = 0
    """How many of them were sampled and explained."""
    worst: float = 0.0
    """The largest error, as a fraction of its bound."""
    resolution: float = 0.0
    """The median bound as a fraction of the output's root mean square: a smaller error cannot be seen in one cell."""
    mismatch: Mismatch | None = None
    hidden: bool = False
    says: str = ""
    """The operation in words."""

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        found = {name: plain_value(getattr(self, name)) for name in self.__slots__ if name != "mismatch"}
        wrong = self.mismatch
        found["mismatch"] = None if wrong is None else {n: plain_value(getattr(wrong, n)) for n in wrong.__slots__}
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found about a whole trace.

    >>> Report((StepReport(0, "conv1", "convolution", "proved", 6272, 200, 0.3),)).summary()
    '6,272 numbers in 1 step: 100 % recomputed, 100 % proved; worst error 0.3 of its bound (conv1)'
    """

    steps: tuple[StepReport, ...]
    changed: tuple[str, ...] = ()
    """Parameters that were changed since the trace, so that its numbers are not what the model gives now."""
    remarks: tuple[str, ...] = ()
    """The notes of the trace: what was not kept, where the chain to the image is broken."""

    @property
    def proved(self) -> bool:
        """Whether every step is, and no weight changed since; what was given needs no proof."""
        return not self.changed and all(step.finding in {*PROVED, "given"} for step in self.steps)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else there is to know, in sentences."""
        return (*(f"{name} changed since the trace: weights changed." for name in self.changed), *self.remarks)

    @property
    def mismatches(self) -> tuple[StepReport, ...]:
        """The steps that hold a wrong number."""
        return tuple(step for step in self.steps if step.finding == "mismatch")

    @property
    def numbers(self) -> int:
        """How many numbers the trace has made."""
        return sum(step.numbers for step in self.steps)

    @property
    def share(self) -> float:
        """Which share of the calculated numbers lies in proved steps."""
        return self._share(PROVED)

    @property
    def recomputed(self) -> float:
        """Which share of the calculated numbers the reference has recomputed within their bounds."""
        return self._share({*PROVED, "recomputed"})

    @property
    def given(self) -> int:
        """How many numbers were drawn at random or put there by the caller, instead of calculated."""
        return sum(step.numbers for step in self.steps if step.finding == "given")

    @property
    def worst(self) -> StepReport | None:
        """The step with the largest error as a fraction of its bound."""
        return max(self.steps, key=lambda step: step.worst, default=None)

    def _share(self, findings: Iterable[str]) -> float:
        kept = sum(step.numbers for step in self.steps if step.finding in findings)
        calculated = self.numbers - self.given
        return kept / calculated if calculated else 1.0

    def summary(self) -> str:
        """The report in a line or two."""
        count = len(self.steps)
        line = f"{self.numbers:,} numbers in {count} step{'s' * (count != 1)}: "
        line += f"{_percent(self.recomputed)} recomputed, {_percent(self.share)} proved"
        if self.given:
            line += f" of those calculated, {self.given:,} given"
        if self.worst is not None and self.worst.worst > 0:
            line += f"; worst error {self.worst.worst:.2g} of its bound ({self.worst.name})"
        lacking = sorted({step.op for step in self.steps if step.finding in {"unsupported", "recomputed"}})
        if lacking:
            line += f"; without a witness: {', '.join(lacking)}"
        return line

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {
            "proved": self.proved,
            "numbers": self.numbers,
            "recomputed": self.recomputed,
            "share": self.share,
            "given": self.given,
            "summary": self.summary(),
            "notes": list(self.notes),
            "steps": [step.to_json() for step in self.steps],
        }


def _percent(share: float) -> str:
    """A share that says 100 % only where it is."""
    return "100 %" if share == 1 else f"{min(share, 0.9999):.2%}".replace("%", " %")
