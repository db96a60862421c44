"""Verify: recompute every number of a trace by the reference, and explain a sample of each step's cells by the rules.

Knows traces, rules and the reference through their witnesses; draws and prints nothing.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from convscope.arguments import takes
from convscope.capture import Step, Trace
from convscope.capture.notes import broken_chains
from convscope.progress import Progress, silent
from convscope.proof.agreement import mixes
from convscope.proof.answer import returned
from convscope.proof.calls import DRAWN, call_of
from convscope.proof.check import UNABLE, Check
from convscope.proof.explanation import explain
from convscope.proof.report import RESOLVED, Finding, Mismatch, Report, StepReport
from convscope.proof.witness import recompute
from convscope.rules import RULES, Rule

CELLS = 200
"""Cells explained of each step, where it has as many."""


@takes(trace="Trace")
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
        A report: for each step whether it is proved, mismatched, unresolved, only recomputed or unsupported, with its
        worst error and its resolution; and whether the output is what the steps hold.
    """
    found = []
    read = _read(trace)
    total = len(trace.all_steps)
    for done, step in enumerate(trace.all_steps):
        progress("verifying", done, total)
        with np.errstate(all="ignore"):  # memory that nothing has written yet holds anything
            found.append(_verify_step(trace, step, cells, np.random.default_rng((seed, step.id)), rules, read=read))
    progress("verifying", total, total)
    broken = tuple(broken_chains(trace.all_steps))
    remarks = tuple(note for note in trace.notes if note not in broken)
    chains = tuple(note.removesuffix(".") for note in broken)
    return Report(tuple(found), tuple(sorted(trace.changed())), returned(trace), trace.saved, chains, remarks)


def _read(trace: Trace) -> frozenset[tuple[int, int]]:
    """The results that matter, as pairs of step and output: the first of each, and those that something reads."""
    refs = [*(trace.returned or ()), *(ref for step in trace.all_steps for _, _, ref in step.refs())]
    return frozenset((ref.id, ref.output) for ref in refs if ref.kind == "step") | {(s.id, 0) for s in trace.all_steps}


def _verify_step(
    trace: Trace,
    step: Step,
    cells: int,
    random: np.random.Generator,
    rules: Mapping[str, Rule],
    *,
    read: Collection[tuple[int, int]],
) -> StepReport:
    def report(finding: Finding, checks: Sequence[Check] = ()) -> StepReport:
        wrong = max((check for check in checks if check.mismatch), key=lambda check: check.worst, default=None)
        return StepReport(
            step.id,
            step.name,
            step.op,
            finding,
            sum(c.recorded.size for c in checks) if checks else sum(math.prod(made.shape) for made in step.results),
            explained=sum(check.explained for check in checks),
            worst=max((check.worst for check in checks), default=0.0),
            resolution=_resolution(step, checks, read),
            mismatch=None if wrong is None else _with_reason(wrong.mismatch, trace, step, rules),
            hidden=step.hidden,
            says=step.says,
        )

    if step.overridden or step.op in DRAWN:
        return report("given")
    try:
        checks, explained = _check(trace, step, cells, random, rules)
        proved: Finding = "proved"
        if any(check.mismatch for check in checks) and mixes(checks[0].call):
            checks, explained = _check(trace, step, cells, random, rules, normwise=True)
            proved = "proved normwise"
    except UNABLE:
        return report("unsupported")
    if not checks:
        return report("unsupported")
    return report(_finding(checks, _resolution(step, checks, read), proved if explained else "recomputed"), checks)


def _finding(checks: Sequence[Check], resolution: float, otherwise: Finding) -> Finding:
    """What the checks of a step add up to.

    A number without a finite bound is no mismatch, for the kernel may be right; nor is it proved, for any other number
    would be as well. The reference has nothing to say about it: unsupported.
    """
    if any(check.mismatch for check in checks):
        return "mismatch"
    if any(check.unbounded for check in checks):
        return "unsupported"
    return "unresolved" if resolution > RESOLVED else otherwise


def _resolution(step: Step, checks: Sequence[Check], read: Collection[tuple[int, int]]) -> float:
    """That of the result which is resolved least, of those that matter."""
    return max((c.resolution for c in checks if (step.id, c.call.output) in read), default=0.0)


def _check(
    trace: Trace,
    step: Step,
    cells: int,
    random: np.random.Generator,
    rules: Mapping[str, Rule],
    *,
    normwise: bool = False,
) -> tuple[list[Check], bool]:
    """Each result that the reference gives against both witnesses; whether the rules could explain all of them."""
    outputs = step.outputs
    checks = [
        Check(call_of(trace, step, output), outputs[output], witness, normwise=normwise)
        for output, witness in recompute(trace, step, normwise=normwise).items()
    ]
    explained = [check.compare() and check.explain(rules.get(step.op), cells, random) for check in checks]
    return checks, all(explained)


def _with_reason(mismatch: Mismatch | None, trace: Trace, step: Step, rules: Mapping[str, Rule]) -> Mismatch | None:
    """A mismatch with the explanation of its cell, where it has one."""
    if mismatch is None or len(mismatch.cell) != len(step.results[mismatch.output].shape):
        return mismatch
<<<<<<< HEAD
    try:
        why = explain(trace, step, mismatch.cell, output=mismatch.output, rules=rules).to_text()
    except UNABLE:
        return mismatch
    return replace(mismatch, why=why)
=======
    why = explain(trace, step, mismatch.cell, output=mismatch.output, rules=rules)
    return replace(mismatch, why=why.to_text())


class _Check:
    """One result of a step against its two witnesses."""

    def __init__(self, call: Call, recorded: Array, witness: Recomputed, *, normwise: bool = False) -> None:
        self.call, self.recorded, self.witness, self.normwise = call, recorded, witness, normwise
        self.explained = 0
        self.worst = 0.0
        self.worst_cell: Cell | None = None
        self.mismatch: Mismatch | None = None

    @property
    def resolution(self) -> float:
        """The median bound over the output's root mean square, of the numbers that are finite."""
        if self.recorded.dtype.kind != "f":
            return 0.0
        finite = self.recorded[np.isfinite(self.recorded)]
        if not finite.size:
            return 0.0
        size = float(np.sqrt(np.mean(np.square(finite, dtype=np.float64))))
        return float(np.nanmedian(self.witness.bounds)) / size if size > 0 else 0.0

    def compare(self) -> bool:
        """Compare every number with the reference's, then every channel's mean; whether the shapes allow it."""
        expected = self.witness.values
        if expected.shape != self.recorded.shape:
            self.worst = np.inf
            self.mismatch = Mismatch((), np.nan, np.nan, 0.0, "shape", self.call.output, (expected.shape,))
            return False
        if not self.recorded.size:
            return True
        ratio = self._ratio()
        self.worst_cell = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
        self.worst = float(ratio[self.worst_cell])
        if self.worst > 1:
            allowed = float(self._bounds[self.worst_cell])
            self._contradict(self.worst_cell, float(expected[self.worst_cell]), allowed, "reference")
        elif self.worst > 0:
            self._means()
        return True

    @property
    def _bounds(self) -> Array:
        return np.broadcast_to(self.witness.bounds, self.recorded.shape)

    def _ratio(self) -> Array:
        """Every number's error as a fraction of its bound; nan agrees with nan, infinities with their like."""
        recorded, expected = self.recorded, self.witness.values
        with np.errstate(all="ignore"):
            error = (recorded != expected).astype(float) if recorded.dtype == bool else np.abs(recorded - expected)
            ratio: Array = np.atleast_1d(error / self._bounds).reshape(recorded.shape)
        ratio[(recorded == expected) | (np.isnan(recorded) & np.isnan(expected)) | self._beyond()] = 0.0
        ratio[np.isnan(ratio)] = np.inf
        return ratio

    def _beyond(self) -> Array:
        """Numbers beyond the type's largest are recorded as infinities of their sign."""
        infinite: Array = np.isinf(self.recorded)
        if infinite.any():
            reached = np.sign(self.recorded) * self.witness.values + self._bounds
            infinite &= reached >= 0.999 * Precision.of(self.call.dtype).largest
        return infinite

    def _means(self) -> None:
        given = {name: v.array if isinstance(v, Operand) else v for name, v in self.call.arguments.items()}
        found = offset(self.call.op, given, self.witness.values, self._bounds, self.recorded, dtype=self.call.dtype)
        if found is not None:
            self.worst = max(self.worst, abs(found.mean) / found.allowed)
            shown, output = found.expected + found.mean, self.call.output
            self.mismatch = Mismatch((found.channel,), shown, found.expected, found.allowed, "channel mean", output)

    def explain(self, rule: Rule | None, count: int, random: np.random.Generator) -> bool:
        """Explain a sample of cells, and compare with the recorded numbers; whether the rule could."""
        if rule is None:
            return False
        precision = self.call.precision
        for cell in self._sample(count, random):
            try:
                value, error = rule(self.call, cell).result(precision)
            except ConvscopeError:
                return False
            recorded, bound = float(self.recorded[cell]), whole_bound(value, error, precision)
            if self.normwise:
                bound = max(bound, convolution.normwise(self.call, cell))
            self.explained += 1
            if not agree(value, recorded, bound, self.call.dtype):
                share = abs(value - recorded) / bound if bound else np.inf
                if self.mismatch is None or share > self.worst:
                    self._contradict(cell, value, bound, "expression")
                self.worst = max(self.worst, 1.0 if np.isnan(share) else share)
        return True

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

    def _contradict(self, cell: Cell, expected: float, allowed: float, witness: Witness) -> None:
        self.mismatch = Mismatch(cell, float(self.recorded[cell]), expected, allowed, witness, self.call.output)


def _landmarks(shape: tuple[int, ...]) -> Array:
    """First, middle and last of up to the last three axes, the first of all before."""
    axes = [sorted({0, n // 2, n - 1}) if len(shape) - k <= 3 else [0] for k, n in enumerate(shape)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
>>>>>>> fix-numerics
