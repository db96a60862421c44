"""Verification report: what `verify` found, step by step and in total. Uses no traces, no rules, no reference."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from convscope.escaping import first_few, spelled
from convscope.json_values import plain_value
from convscope.proof.status import CHECKED, PROVED, STATUSES, StepStatus
from convscope.render.numbers import table
from convscope.rich_display import RichDisplay

Witness = Literal["reference", "expression", "channel mean", "shape", "derivative"]
RESOLVED = 0.1
"""The largest bound that still tells a number from others, as a fraction of the root mean square of its step."""

AGREES = 1e-4
"""The largest difference, as a share of the size of a parameter's gradient, that counts as agreement. Gradients are
calculated in float32; from a larger difference, all known roundings are subtracted first."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The worst number of a step that is not what it should be."""

    cell: tuple[int, ...]
    recorded: float
    expected: float
    allowed: float
    """Bound of their difference."""
    witness: Witness
    """The witness that contradicts; "channel mean" for an offset below each bound, `cell` is then a channel."""
    output: int = 0
    """The index of the result, for a step with several."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """The shape that the reference gives, where it is another than the recorded one."""
    why: str = ""
    """The explanation of the cell, where it has one."""

    def __str__(self) -> str:
        if self.witness == "shape":
            return f"has a shape that the reference contradicts: it gives {self.shapes[0]}"
        location = f"at {self.cell}" if self.witness != "channel mean" else f"on average over channel {self.cell[0]}"
        return (
            f"{location}: recorded {self.recorded:.9g}, {self.witness} {self.expected:.9g}, "
            f"difference {abs(self.recorded - self.expected):.3g}, allowed {self.allowed:.3g}"
        )


@dataclass(frozen=True, slots=True)
class StepReport:
    """The finding about one step."""

    COLUMNS: ClassVar = ("step", "operation", "finding", "numbers", "explained", "worst error", "resolution")
    """The heads of a table of steps; from the fourth on, its columns are numbers."""

    id: int
    name: str
    op: str
    finding: StepStatus
    """The proof status of its numbers; see `STATUSES`."""
    numbers: int
    """The number of values of the step."""
    explained: int = 0
    """The number of values that were sampled and explained."""
    worst: float = 0.0
    """The largest error, as a fraction of its bound."""
    resolution: float = 0.0
    """The median bound as a fraction of the output's root mean square: a smaller error cannot be seen in one cell.

    The largest of its results; 0 where the bounds are 0, infinite where all numbers are 0 and the bounds are not.
    """
    mismatch: Mismatch | None = None
    hidden: bool = False
    says: str = ""
    """The operation in words."""

    @property
    def listed(self) -> bool:
        """Whether tables list the step: hidden ones only if there is something to look at."""
        return not self.hidden or STATUSES[self.finding].tone in {"bad", "open"}

    @property
    def row(self) -> tuple[str, ...]:
        """The texts of its row under `COLUMNS`; the resolution is empty where nothing was recomputed."""
        resolution = f"{self.resolution:.1e}" if self.resolution else "exact"
        if self.finding in {"given", "unsupported"}:
            resolution = ""
        counts = (f"{self.numbers:,}", f"{self.explained:,}")
        return (self.name, self.says, self.finding, *counts, f"{self.worst:.2g}", resolution)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {name: plain_value(getattr(self, name)) for name in self.__slots__ if name != "mismatch"}
        wrong = self.mismatch
        values["mismatch"] = None if wrong is None else {n: plain_value(getattr(wrong, n)) for n in wrong.__slots__}
        return values


@dataclass(frozen=True, slots=True)
class Returned:
    """One tensor of what the model returned, against the step, parameter or input that it came from."""

    name: str
    """The part of the output: `the output`, `the output['scores']`, `the output[1]`."""
    source: str
    """The step, parameter or input."""
    held: bool
    """Whether that holds the same numbers, bit for bit."""
    why: str = ""
    """Why not, where it is anything but another number."""

    def __str__(self) -> str:
        if self.held:
            return f"{self.name} is what {self.source} holds, bit for bit"
        return f"{self.name} {self.why or f'is not what {self.source} holds'}"


@dataclass(frozen=True, slots=True)
class GradientCheck:
    """What both comparisons found.

    >>> GradientCheck(moved=12, flipped=1, furthest=2e-7, chained=3, chain_furthest=1e-7).lines[0]
    'finite difference: 11 weights moved, largest difference 2e-07 of the gradient; 1 skipped, a ReLU or winner flipped'
    """

    moved: int = 0
    """Weights that were moved."""
    flipped: int = 0
    """Of these, those that changed what a ReLU passes or which cell wins a pooling: no derivative there."""
    lost: int = 0
    """Of these, those whose finite difference is lost in the rounding of float64."""
    furthest: float = 0.0
    """The largest difference, as a share of the size of the parameter's gradient."""
    worst: str = ""
    """The weight with that difference."""
    chained: int = 0
    """Parameters and inputs that were compared with the chain."""
    chain_furthest: float = 0.0
    chain_worst: str = ""
    unable: str = ""
    """Why one of the comparisons could not be made."""
    too_large: int = 0
    """Bytes that the finite differences would need, where these are too many, so that they are left out."""
    left_out: int = 0
    """Gradients that are nothing but roundings of zero: their steps are unresolved."""
    withheld: str = ""
    """Which custom function gave no gradient where the derivative is not zero, in words."""

    @property
    def agrees(self) -> bool:
        """Whether the chain was compared and agrees, and so does every finite difference that was not skipped."""
        return self.chained > 0 and not self.unable and not self.wrong

    @property
    def wrong(self) -> bool:
        """Whether one of them contradicts."""
        return bool(self.withheld) or not max(self.furthest, self.chain_furthest) <= AGREES

    @property
    def lines(self) -> tuple[str, ...]:
        """Both in words."""
        compared = self.moved - self.flipped - self.lost
        skipped = f"; {self.flipped} skipped, a ReLU or winner flipped" if self.flipped else ""
        skipped += f"; {self.lost} skipped, lost in rounding" if self.lost else ""
        difference_line = (
            f"finite difference: {compared} weights moved, largest difference {self.furthest:.1g} of the gradient"
        )
        if not compared:
            difference_line = "finite difference: no weight could be compared"
        chain_line = (
            f"product of the chain in float64: {self.chained} gradients, largest difference {self.chain_furthest:.1g}"
        )
        unlike = f" ({self.worst})" if self.worst and self.furthest > AGREES else ""
        parted = f" ({self.chain_worst})" if self.chain_worst and self.chain_furthest > AGREES else ""
        lines = [difference_line + unlike + skipped] if self.moved else []
        if self.too_large:
            size = f"{self.too_large / 1e9:.1f} GB" if self.too_large >= 1e9 else f"{self.too_large / 1e6:.0f} MB"
            lines = [f"finite difference: left out, a repeated forward pass in float64 would need {size} of memory"]
        left_out = f"; {self.left_out} left out, unresolved" if self.left_out else ""
        lines += [chain_line + parted + left_out] if self.chained else []
        lines += [self.withheld] if self.withheld else []
        return (*lines, *([f"not compared: {self.unable}"] if self.unable else []))


@dataclass(frozen=True, slots=True)
class Verification(RichDisplay):
    """The findings of `verify` about a whole trace.

    >>> report = Verification((StepReport(0, "pool", "max_pool2d", "proved", 6272, 200, says="max pooling 2x2"),))
    >>> report.summary()
    '6,272 numbers in 1 step: 100 % recomputed, 100 % proved'
    >>> print(report)
    step  operation        finding  numbers  explained  worst error  resolution
    pool  max pooling 2x2  proved     6,272        200            0       exact
    <BLANKLINE>
    ✓ 6,272 numbers in 1 step: 100 % recomputed, 100 % proved
    """

    steps: tuple[StepReport, ...]
    changed: tuple[str, ...] = ()
    """Parameters that were changed since the trace, so that its numbers are not what the model gives now."""
    returned: tuple[Returned, ...] = ()
    """Each tensor of the output, and whether it is what its step holds."""
    saved: bool = False
    """Whether the trace was read from a file: then nothing shows that given numbers were drawn or put there."""
    broken: tuple[str, ...] = ()
    """Breaks of the chain from input to output, in sentences; such a report is not proved."""
    remarks: tuple[str, ...] = ()
    """Other notes of the trace, such as what was not kept."""
    training: str = ""
    """Of a training step: what was recorded, and in which mode."""
    gradients: GradientCheck | None = None
    """Of a training step: its gradients against finite differences and the product of the chain."""

    @property
    def proved(self) -> bool:
        """Whether every number of the pass is proved, the output included.

        Every step is proved, at least one; no weight changed since; each tensor of the output is what its step holds.
        What was given needs no proof, but only the pass itself shows that it was: not so in a trace from a file.
        """
        return not (self.changed or self.reasons) and all(step.finding in {*PROVED, "given"} for step in self.steps)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the whole is not proved, whatever was found about single steps; empty where nothing speaks against it."""
        reasons = list[str]()
        if self.saved and self.given:
            reasons.append(
                f"{self.given:,} numbers are given by the file, which alone says that they were not calculated"
            )
        if not self.steps:
            reasons.append("nothing was calculated: the trace has no steps")
        elif all(step.finding == "given" for step in self.steps):
            reasons.append("nothing was calculated: all numbers are given")
        reasons += [str(part) for part in self.returned if not part.held]
        if self.gradients is not None and not self.gradients.agrees:
            reasons.append("its gradients are not confirmed as those of the loss")
        return (*reasons, *self.broken)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks, in sentences."""
        changed = (f"{name} changed since the trace: weights changed." for name in self.changed)
        return (*changed, *(f"{reason[0].upper()}{reason[1:]}." for reason in self.reasons), *self.remarks)

    @property
    def lines(self) -> tuple[str, ...]:
        """Of a training step: what was recorded, then both comparisons of its gradients; else nothing."""
        return (*([self.training] if self.training else []), *(self.gradients.lines if self.gradients else ()))

    @property
    def mismatches(self) -> tuple[StepReport, ...]:
        """The steps that hold a wrong number."""
        return tuple(step for step in self.steps if step.finding in {"mismatch", "wrong derivative"})

    @property
    def unresolved(self) -> tuple[StepReport, ...]:
        """The steps whose bounds are too wide to mean much."""
        return tuple(step for step in self.steps if step.finding == "unresolved")

    @property
    def wrong(self) -> bool:
        """Whether a number is not what it should be: of a step, or of the output."""
        contradicted = self.gradients is not None and self.gradients.wrong
        return bool(self.mismatches) or contradicted or any(part.source and not part.held for part in self.returned)

    @property
    def numbers(self) -> int:
        """The number of values of the trace."""
        return sum(step.numbers for step in self.steps)

    @property
    def share(self) -> float:
        """The share of the calculated numbers that belong to proved steps."""
        return self._share(PROVED)

    @property
    def recomputed(self) -> float:
        """The share of the calculated numbers that the reference has recomputed within their bounds."""
        return self._share(CHECKED)

    @property
    def given(self) -> int:
        """The number of values that were drawn at random or set by the caller instead of calculated."""
        return sum(step.numbers for step in self.steps if step.finding == "given")

    @property
    def worst(self) -> StepReport | None:
        """The step with the largest error as a fraction of its bound."""
        return max(self.steps, key=lambda step: step.worst, default=None)

    def _share(self, findings: Collection[str]) -> float:
        """The share of the calculated numbers; without any, 1 if a step without numbers is among the findings."""
        counted = sum(step.numbers for step in self.steps if step.finding in findings)
        calculated = self.numbers - self.given
        return counted / calculated if calculated else float(any(step.finding in findings for step in self.steps))

    def __str__(self) -> str:
        """The report as `convscope verify` prints it."""
        rows = [StepReport.COLUMNS, *(step.row for step in self.steps if step.listed)]
        lines = [spelled(line) for line in (*self.lines, *table(rows, "<<<>>>>"), "", *self.conclusion)]
        return "\n".join(lines)

    @property
    def conclusion(self) -> tuple[str, ...]:
        """What follows the table of steps: wrong numbers and their sum, notes, the output, the summary."""
        lines = list[str]()
        unlisted = sum(not step.listed for step in self.steps)
        if unlisted:
            lines.append(f"hidden steps that prepare what these read: {unlisted}")
        lines += [f"✗ {step.name} {step.mismatch}" for step in self.mismatches]
        first = self.mismatches[0].mismatch if self.mismatches else None
        if first is not None and first.why:
            lines += ["", *first.why.split("\n"), ""]
        lines += [f"note: {note}" for note in self.notes]
        lines += [str(part) for part in self.returned if part.held]
        return (*lines, ("✓ " if self.proved else "") + self.summary())

    def summary(self) -> str:
        """The report in a line or two; what speaks against the whole comes first."""
        count = len(self.steps)
        line = "".join(f"not proved, {reason}; " for reason in self.reasons[:1])
        line += f"{self.numbers:,} numbers in {count} step{'s' * (count != 1)}: "
        line += f"{_percent(self.recomputed)} recomputed, {_percent(self.share)} proved"
        if self.given:
            line += f" of those calculated, {self.given:,} given"
        if self.worst is not None and self.worst.worst > 0:
            line += f"; worst error {self.worst.worst:.2g} of its bound ({self.worst.name})"
        if self.unresolved:
            line += f"; unresolved: {first_few(step.name for step in self.unresolved)}"
        underived = [step.name for step in self.steps if step.finding == "underived"]
        if underived:
            line += f"; not compared with the derivative of the forward step: {first_few(underived)}"
        lacking = sorted({step.op for step in self.steps if step.finding in {"unsupported", "recomputed"}})
        if lacking:
            line += f"; without a witness: {', '.join(lacking)}"
        return line

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "proved": self.proved,
            "numbers": self.numbers,
            "recomputed": self.recomputed,
            "share": self.share,
            "given": self.given,
            "unresolved": len(self.unresolved),
            "saved": self.saved,
            "summary": self.summary(),
            "notes": list(self.notes),
            **({"training": list(self.lines)} if self.training else {}),
            "returned": [{n: plain_value(getattr(part, n)) for n in part.__slots__} for part in self.returned],
            "steps": [step.to_json() for step in self.steps],
        }


def _percent(share: float) -> str:
    """A share as a percentage; 100 % only if it is exactly 1."""
    return "100 %" if share == 1 else f"{min(share, 0.9999):.2%}".replace("%", " %")
