"""Verify: recompute every number of a trace by the reference, and explain a sample of each step's cells by the rules.

Knows traces, rules and the reference through their witnesses; draws and prints nothing.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from convscope.capture import Step, Trace
from convscope.progress import Progress, silent
from convscope.proof.calls import DRAWN, call_of
from convscope.proof.explanation import agree, whole_bound
from convscope.proof.report import Finding, Mismatch, Report, StepReport
from convscope.proof.witness import Array, Cell, Recomputed, recompute
from convscope.rules import RULES, Call, Rule
from convscope.rules.precision import Precision

CELLS = 200
"""Cells explained of each step, where it has as many."""
DOUBT = 1e-12
"""How probable it may be that rounding alone moves a channel's mean so far."""


def verify(
    trace: Trace,
    *,
    cells: int = CELLS,
    seed: int = 0,
    rules: Mapping[str, Rule] = RULES,
    progress: Progress = silent,
) -> Report:
    """Recompute every number of every step from the step's recorded inputs, and explain a sample of its cells.

    >>> import torch, convscope as cs
    >>> report = verify(cs.trace(torch.nn.Conv2d(1, 2, 3), torch.ones(1, 5, 5)))
    >>> report.proved, report.numbers
    (True, 18)

    Args:
        trace: What `cs.trace` recorded.
        cells: How many cells of each result are explained: corners, borders, first and last channel, the one with
            the worst error, and random ones.
        seed: Which random ones.
        rules: Another table of rules.
        progress: Told how many steps are done.

    Returns:
        A report: for each step whether it is proved, mismatched, only recomputed or unsupported, with its worst error
        and its resolution.

    Source: the bound on a channel's mean is Hoeffding's (Probability Inequalities for Sums of Bounded Random
    Variables, 1963), for errors that are independent and without direction.
    """
    changed = set(trace.changed())
    found = []
    total = len(trace.all_steps)
    for done, step in enumerate(trace.all_steps):
        progress("verifying", done, total)
        found.append(_verify_step(trace, step, cells, np.random.default_rng((seed, step.id)), rules))
    progress("verifying", total, total)
    return Report(tuple(found), tuple(f"{name} changed since the trace: weights changed." for name in sorted(changed)))


def _verify_step(
    trace: Trace, step: Step, cells: int, random: np.random.Generator, rules: Mapping[str, Rule]
) -> StepReport:
    numbers = sum(int(np.prod(made.shape)) for made in step.results)

    def report(finding: Finding, checks: "list[_Check] | None" = None) -> StepReport:
        checked = checks or []
        worst = max(checked, key=lambda check: check.worst, default=None)
        return StepReport(
            step.id,
            step.name,
            step.op,
            finding,
            numbers,
            explained=sum(check.explained for check in checked),
            worst=worst.worst if worst else 0.0,
            resolution=checked[0].resolution if checked else 0.0,
            mismatch=next((check.mismatch for check in checked if check.mismatch), None),
            hidden=step.hidden,
        )

    if step.overridden or step.op in DRAWN:
        return report("given")
    witnesses = recompute(trace, step)
    if not witnesses:
        return report("unsupported")
    checks = [
        _Check(call_of(trace, step, output), recorded, witnesses[output])
        for output, recorded in enumerate(step.outputs)
        if output in witnesses
    ]
    for check in checks:
        check.recomputed()
        check.explain(rules.get(step.op), cells, random)
    if any(check.mismatch for check in checks):
        return report("mismatch", checks)
    return report("proved" if step.op in rules else "recomputed", checks)


class _Check:
    """One result of a step against its two witnesses."""

    def __init__(self, call: Call, recorded: Array, witness: Recomputed) -> None:
        self.call, self.recorded, self.witness = call, recorded, witness
        self.bounds = np.broadcast_to(witness.bounds, recorded.shape)
        self.explained = 0
        self.worst = 0.0
        self.worst_cell: Cell | None = None
        self.mismatch: Mismatch | None = None

    @property
    def resolution(self) -> float:
        """The median bound over the output's root mean square."""
        if self.recorded.dtype.kind != "f" or not self.recorded.size:
            return 0.0
        size = float(np.sqrt(np.mean(np.square(self.recorded, dtype=np.float64))))
        return float(np.median(self.witness.bounds)) / size if size > 0 else 0.0

    def recomputed(self) -> None:
        """Compare every number with the reference's, then every channel's mean."""
        if not self.recorded.size:
            return
        with np.errstate(all="ignore"):
            error = np.abs(self.recorded - self.witness.values) if self.recorded.dtype != bool else (
                self.recorded != self.witness.values
            ).astype(float)  # fmt: skip
            ratio = np.where(error == 0, 0.0, error / self.bounds)
        ratio[np.isnan(error) & (np.isnan(self.recorded) == np.isnan(self.witness.values))] = 0.0
        ratio[(self.recorded == self.witness.values) | self._beyond()] = 0.0
        ratio[np.isnan(ratio)] = np.inf
        self.worst_cell = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
        self.worst = float(ratio[self.worst_cell])
        if self.worst > 1:
            self._contradict(self.worst_cell, float(self.witness.values[self.worst_cell]), "reference")
        elif self.recorded.ndim > 2 and self.recorded.dtype.kind == "f" and self.worst > 0:
            self._means()

    def _beyond(self) -> Array:
        """Numbers beyond the type's largest are recorded as infinities of their sign."""
        values = self.witness.values
        if self.recorded.dtype.kind != "f":
            return np.zeros(self.recorded.shape, bool)
        reached = np.sign(self.recorded) * values + self.bounds >= 0.999 * Precision.of(self.call.dtype).largest
        found: Array = np.isinf(self.recorded) & reached
        return found

    def _means(self) -> None:
        """Look at each channel's mean error: an offset below every cell's bound adds up, rounding does not."""
        residual = (self.recorded - self.witness.values).swapaxes(0, 1).reshape(self.recorded.shape[1], -1)
        bounds = self.bounds.swapaxes(0, 1).reshape(residual.shape)
        values = self.witness.values.swapaxes(0, 1).reshape(residual.shape)
        finite = np.isfinite(residual).all(1)
        for channel in np.flatnonzero(finite & (np.abs(residual.mean(1)) > _allowed(bounds))):
            _, once = np.unique(values[channel], return_index=True)  # equal windows round equally: they count once
            mean, allowed = residual[channel, once].mean(), float(_allowed(bounds[None, channel, once])[0])
            if abs(mean) > allowed:
                expected = float(values[channel].mean())
                recorded = expected + float(mean)
                self.worst = max(self.worst, abs(mean) / allowed)
                self.mismatch = Mismatch((int(channel),), recorded, expected, allowed, "channel mean")
                return

    def explain(self, rule: Rule | None, count: int, random: np.random.Generator) -> None:
        """Explain a sample of cells, and compare with the recorded number."""
        if rule is None:
            return
        precision = self.call.precision
        for cell in self._sample(count, random):
            value, error = rule(self.call, cell).result(precision)
            recorded, bound = float(self.recorded[cell]), whole_bound(value, error, precision)
            self.explained += 1
            if not agree(value, recorded, bound, self.call.dtype) and self.mismatch is None:
                self.mismatch = Mismatch(cell, recorded, value, bound, "expression")
                self.worst = max(self.worst, abs(value - recorded) / bound if bound else np.inf)

    def _sample(self, count: int, random: np.random.Generator) -> Iterator[Cell]:
        """Corners and middles of borders, first and last channel, the worst cell, and random ones; each once."""
        shape = self.recorded.shape
        size = int(np.prod(shape))
        if size <= count:
            yield from (tuple(int(i) for i in np.unravel_index(k, shape)) for k in range(size))
            return
        marked = {tuple(int(i) for i in cell) for cell in _landmarks(shape)}
        if self.worst_cell is not None:
            marked.add(self.worst_cell)
        yield from sorted(marked)
        drawn = random.choice(size, min(size, count + len(marked)), replace=False)
        others = (tuple(int(i) for i in np.unravel_index(k, shape)) for k in drawn)
        fresh = (cell for cell in others if cell not in marked)
        yield from (cell for cell, _ in zip(fresh, range(max(0, count - len(marked))), strict=False))

    def _contradict(self, cell: Cell, expected: float, witness: str) -> None:
        recorded, allowed = float(self.recorded[cell]), float(self.bounds[cell])
        self.mismatch = Mismatch(cell, recorded, expected, allowed, witness)


def _allowed(bounds: Array) -> Array:
    """How far the mean of each row may lie from 0, by Hoeffding's inequality."""
    count = bounds.shape[1]
    allowed: Array = np.sqrt(2 * np.log(2 / DOUBT) * np.mean(np.square(bounds), axis=1) / count)
    return allowed


def _landmarks(shape: tuple[int, ...]) -> Array:
    """First, middle and last of up to the last three axes, the first of all before."""
    axes = [sorted({0, n // 2, n - 1}) if len(shape) - k <= 3 else [0] for k, n in enumerate(shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
