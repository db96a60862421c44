"""Verify: recompute every number of a trace by the reference, and explain a sample of each step's cells by the rules.

What the model returned is compared bit for bit with the steps that made it. Uses traces, rules and the reference
through their witnesses; draws and prints nothing.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.ops import OPS, Op
from convscope.progress import Progress, silent
from convscope.proof.calls import call_of, check_tables
from convscope.proof.derivatives import derivatives_of
from convscope.proof.explanation import explain
from convscope.proof.final_numbers import final, outside_numbers
from convscope.proof.gradient_check import check_gradients
from convscope.proof.recomputation import Recomputation, recompute_in_parts
from convscope.proof.status import PROVED, StepStatus
from convscope.proof.step_check import UNABLE, StepCheck
from convscope.proof.tolerance import mixes
from convscope.proof.verification_report import RESOLVED, Mismatch, Returned, StepReport, Verification
from convscope.reference.operation import Operation
from convscope.reference.parts import Box
from convscope.reference.table import OPERATIONS
from convscope.traces.step import Ref, Step, broken_chains
from convscope.traces.trace import Trace
from convscope.type_checks import takes
from convscope.typing import Array

CELLS = 200
"""Cells explained of each step, where it has as many."""


@takes(trace="Trace")
def verify(
    trace: Trace,
    *,
    cells: int = CELLS,
    seed: int = 0,
    ops: Mapping[str, Op] = OPS,
    references: Mapping[str, Operation] = OPERATIONS,
    progress: Progress = silent,
) -> Verification:
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
        ops: Another table of operations, such as `OPS | {"mylib::swirl": Op(my_rule, my_dependencies)}`.
        references: Another table of definitions, such as `cs.reference.OPERATIONS | {"mylib::swirl": Operation(...)}`.
        progress: Receives how many steps are done.

    Returns:
        A report: for each step whether it is proved, mismatched, unresolved, only recomputed or unsupported, with its
        worst error and its resolution; and whether the output is what the steps hold.
    """
    check_tables("verify", ops, references)
    if cells < 0:
        raise UsageError(f"cells is how many cells of each result are explained, 0 or more, not {cells}.")
    reports = []
    read_results, tables = _read(trace), Tables(ops, references)
    total = len(trace.all_steps)
    for done, step in enumerate(trace.all_steps):
        progress("verifying", done, total)
        with np.errstate(all="ignore"):  # memory that nothing has written yet holds anything
            reports.append(
                _verify_step(
                    trace, step, cells, np.random.default_rng((seed, step.id)), tables, read_results=read_results
                )
            )
    progress("verifying", total, total)
    broken = tuple(broken_chains(trace.all_steps))
    remarks = tuple(note for note in trace.notes if note not in broken)
    chains = tuple(note.removesuffix(".") for note in broken)
    report = Verification(tuple(reports), tuple(sorted(trace.changed())), returned(trace), trace.saved, chains, remarks)
    if trace.training_step is None:
        return report
    unresolved = [step.id for step in report.unresolved]
    undecided = any(step.finding in {"underived", "unsupported"} for step in report.steps)
    with np.errstate(all="ignore"):
        check = check_gradients(trace, seed=seed, ops=ops, unresolved=unresolved, undecided=undecided)
    return replace(report, training=trace.training_step.says, gradients=check)


class Tables(NamedTuple):
    """What operations mean, twice: the rules and the reference."""

    ops: Mapping[str, Op]
    references: Mapping[str, Operation]


def _read(trace: Trace) -> frozenset[tuple[int, int]]:
    """The results that matter, as pairs of step and output: the first of each, and those that something reads."""
    refs = [*(trace.returned or ()), *(ref for step in trace.all_steps for _, _, ref in step.refs())]
    return frozenset((ref.id, ref.output) for ref in refs if ref.kind == "step") | {(s.id, 0) for s in trace.all_steps}


def _verify_step(
    trace: Trace,
    step: Step,
    cells: int,
    random: np.random.Generator,
    tables: Tables,
    *,
    read_results: Collection[tuple[int, int]],
) -> StepReport:
    def report(finding: StepStatus, checks: Sequence[StepCheck] = ()) -> StepReport:
        wrong = max((check for check in checks if check.mismatch), key=lambda check: check.worst, default=None)
        return StepReport(
            step.id,
            step.name,
            step.op,
            finding,
            sum(c.recorded.size for c in checks) if checks else sum(math.prod(result.shape) for result in step.results),
            explained=sum(check.explained for check in checks),
            worst=max((check.worst for check in checks), default=0.0),
            resolution=max((c.resolution for c in checks if _is_read(step, c, read_results)), default=0.0),
            mismatch=None if wrong is None else _with_reason(wrong.mismatch, trace, step, tables),
            hidden=step.hidden,
            says=step.says,
        )

    if step.overridden or step.role == "random":
        return report("given")
    try:
        checks, explained = _check(trace, step, cells, random, tables)
        proved: StepStatus = "proved"
        if any(check.mismatch for check in checks) and mixes(checks[0].call):
            checks, explained = _check(trace, step, cells, random, tables, normwise=True)
            proved = "proved normwise"
    except UNABLE:
        return report("unsupported")
    if not checks:
        return report("unsupported")
    read_checks = [check for check in checks if _is_read(step, check, read_results)]
    open_ = [check.unbounded > 0 and check not in read_checks for check in checks]
    all_explained = all(is_explained or left for is_explained, left in zip(explained, open_, strict=True))
    finding = _finding(checks, read_checks, proved if all_explained else "recomputed")
    if trace.training_step is None or finding not in PROVED:
        return report(finding, checks)
    derived, wrong = derivatives_of(trace, tables.ops).status(step)
    result = report(derived or finding, checks)
    return result if wrong is None else replace(result, mismatch=wrong)


def _finding(checks: Sequence[StepCheck], read_checks: Sequence[StepCheck], otherwise: StepStatus) -> StepStatus:
    """The finding of a step, from its checks, and from those of the results that something reads.

    A number without a finite bound is not a mismatch, because the kernel may be right; nor is it proved, because any
    other number would be accepted too. The reference cannot decide: unsupported.
    """
    if any(check.mismatch for check in checks):
        return "mismatch"
    if any(check.unbounded for check in read_checks):
        return "unsupported"
    return "unresolved" if any(check.resolution > RESOLVED for check in read_checks) else otherwise


def _is_read(step: Step, check: StepCheck, read_results: Collection[tuple[int, int]]) -> bool:
    """Whether a result matters: it is the step's first, or something reads it."""
    return (step.id, check.call.output - step.position) in read_results


def _check(
    trace: Trace,
    step: Step,
    cells: int,
    random: np.random.Generator,
    tables: Tables,
    *,
    normwise: bool = False,
) -> tuple[list[StepCheck], list[bool]]:
    """Each result that the reference gives against both witnesses; whether the rule could explain each of them."""
    outputs = step.outputs
    checks: dict[int, StepCheck] = {}
    comparable: dict[int, bool] = {}
    for part in recompute_in_parts(trace, step, normwise=normwise, references=tables.references):
        for output, result in part.results.items():
            if output not in checks:
                checks[output] = StepCheck(call_of(trace, step, output, tables.ops), outputs[output], normwise=normwise)
            box = part.box_in(output, outputs[output].ndim)
            comparable[output] = comparable.get(output, True) and checks[output].compare(box, result)
    for output, check in checks.items():
        check.conclude(partial(_again, trace, step, output, tables, normwise=normwise))
    rule = tables.ops[step.op].rule if step.op in tables.ops else None
    explained = [comparable[output] and check.explain(rule, cells, random) for output, check in checks.items()]
    return list(checks.values()), explained


def _again(
    trace: Trace, step: Step, output: int, tables: Tables, *, normwise: bool
) -> Iterator[tuple[Box, Recomputation]]:
    """The parts of one result."""
    for part in recompute_in_parts(trace, step, normwise=normwise, references=tables.references):
        yield part.box_in(output, len(step.results[output].shape)), part.results[output]


def _with_reason(mismatch: Mismatch | None, trace: Trace, step: Step, tables: Tables) -> Mismatch | None:
    """A mismatch with the explanation of its cell, where it has one."""
    if mismatch is not None:
        mismatch = replace(mismatch, output=mismatch.output - step.position)
    if mismatch is None or len(mismatch.cell) != len(step.results[mismatch.output].shape):
        return mismatch
    try:
        explanation_text = explain(trace, step, mismatch.cell, output=mismatch.output, **tables._asdict()).to_text()
    except UNABLE:
        return mismatch
    return replace(mismatch, why=explanation_text)


# What the model returned, against the steps that made it.


def returned(trace: Trace) -> tuple[Returned, ...]:
    """Each tensor of a trace's output against the step, parameter or input that it came from.

    Where steps wrote into its memory later, each of its numbers is held against the last that wrote it.

    >>> import torch, convscope as cs
    >>> [str(one) for one in returned(cs.trace(torch.nn.ReLU(), torch.ones(1, 2)))]
    ['the output is what relu holds, bit for bit']
    """
    tensors, plain = list[tuple[str, Array]](), list[str]()
    for name, value in _parts(trace.output, "the output"):
        if isinstance(value, np.ndarray):
            tensors.append((name, value))
        elif isinstance(value, float | complex):
            plain.append(name)
    refs = trace.returned
    results = [
        _matching_tensor(trace, name, array) if refs is None else _compared(trace, name, array, refs[place])
        for place, (name, array) in enumerate(tensors)
    ]
    results += [Returned(name, "", False, "is a plain number that no step holds") for name in plain]
    return tuple(results) or (Returned("the output", "", False, "has no tensor, so nothing of it is proved"),)


def _parts(value: object, name: str) -> Iterator[tuple[str, object]]:
    """The parts of an output and what to call them, in order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(item, f"{name}[{key!r}]")
    elif isinstance(value, tuple):
        for place, item in enumerate(value):
            yield from _parts(item, f"{name}[{place}]")
    else:
        yield name, value


def _compared(trace: Trace, name: str, array: Array, ref: Ref) -> Returned:
    """A tensor of the output against the one that it was."""
    numbers = final(trace, ref)
    if numbers is None:
        return Returned(name, ref.name, False, f"comes from {ref.name}, which an unrecorded operation wrote into")
    return Returned(name, ref.name, _same(array, numbers))


def _matching_tensor(trace: Trace, name: str, array: Array) -> Returned:
    """A tensor of the output against all that a trace holds, the latest first: the first format does not say more."""
    for step in reversed(trace.all_steps):
        for ref in step.results:
            if ref.shape != array.shape:
                continue
            later = tuple(s.id for s in trace.all_steps[step.id + 1 :] if _wrote(s, ref.memory))
            numbers = final(trace, replace(ref, rewritten=later))
            if numbers is not None and _same(array, numbers):
                return Returned(name, step.name, True)
    for ref in trace.outside.values():
        if ref.shape == array.shape and _same(array, outside_numbers(trace, ref)):
            return Returned(name, ref.name, True)
    return Returned(name, "", False, "is held by no step, parameter or input of the trace")


def _wrote(step: Step, memory: int) -> bool:
    return not step.view and any(ref.memory == memory for ref in step.results)


def _same(first: Array, second: Array) -> bool:
    """Whether two arrays have the same shape, type and bits: NaN is the same NaN, 0.0 is not -0.0."""
    return first.shape == second.shape and first.dtype == second.dtype and bool((_bits(first) == _bits(second)).all())


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(f"u{min(array.itemsize, 8)}")
