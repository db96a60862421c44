"""The answer from the trials of a function: its first wrong case, the first wrong cell of that, and the cell's sums.

Knows the records of this package and NumPy.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convscope.checking.calling import Attempt
from convscope.checking.comparison import SINGLE, Trial, bound, cells
from convscope.checking.operation import Mistake, Values
from convscope.checking.result import Check, Sums
from convscope.checking.signature import name_of
from convscope.checking.sums import Run, Term, terms, window
from convscope.typing import Array


def answer(attempt: Attempt, trials: Sequence[Trial], mistakes: Sequence[Mistake], reproduced: int) -> Check:
    """The answer for a function that finished.

    Args:
        trials: All trials, at least one.
        mistakes: The mistakes that explain its results, if any.
        reproduced: The number of trials that they reproduce.
    """
    needed = [t for t in trials if not t.case.optional]
    wrong = [t for t in needed if not t.right]
    base = Check(
        attempt.operation.name,
        name_of(attempt.caller.function),
        not wrong,
        len(needed),
        attempt.form.name,
        attempt.kind,
        notes=tuple(_notes(attempt, trials, right=not wrong)),
    )
    if not wrong:
        return base
    first = wrong[0]
    base = replace(
        base,
        wrong=len(wrong),
        cause=", and ".join(dict.fromkeys(m.cause for m in mistakes)) or None,
        advice=" ".join(dict.fromkeys(m.sentence for m in mistakes)),
        reproduced=reproduced,
        values={n: v for n, v in first.values.items() if v is not None},
    )
    if first.outcome.results is None:
        return replace(base, problem=first.outcome.problem, lines=first.outcome.lines)
    name = first.wrong[0]
    yours, expected = first.outcome.results[name], first.expected[name]
    cell = _first_wrong(attempt, first, name, yours, expected)
    sums = None if cell is None else _sums(attempt, first, name, cell, mistakes)
    return replace(base, result=name, yours=yours, expected=expected, cell=cell, sums=sums)


def late_answer(attempt: Attempt, seconds: float) -> Check:
    """The answer for a function that was interrupted."""
    assert attempt.caller.late is not None, "it was interrupted"
    values, lines = attempt.caller.late
    return Check(
        attempt.operation.name,
        name_of(attempt.caller.function),
        False,
        1,
        attempt.form.name,
        attempt.kind,
        wrong=1,
        late=True,
        lines=lines,
        values={n: v for n, v in values.items() if v is not None},
        problem=f"It did not finish within {seconds:g} s and was interrupted{' here:' if lines else '.'}",
    )


def _notes(attempt: Attempt, trials: Sequence[Trial], *, right: bool) -> list[str]:
    notes = [*attempt.caller.notes]
    if right and any(not t.right for t in trials):
        notes.append("It is correct for square kernels, but fails or differs with a 2 × 3 kernel.")
    if any(
        array.dtype == np.float32
        for t in trials
        if t.dtype == "float64"
        for array in (t.outcome.results or {}).values()
    ):
        notes.append("It calculates float64 input in float32, so it was compared at float32 precision.")
    return notes


def _first_wrong(attempt: Attempt, first: Trial, name: str, yours: Array, expected: Array) -> tuple[int, ...] | None:
    """The first cell that differs; if the shapes differ, the first in the part that both have."""
    if yours.ndim != expected.ndim:
        return None
    shared = tuple(slice(0, min(a, b)) for a, b in zip(yours.shape, expected.shape, strict=True))
    unit = SINGLE if first.dtype == "float32" or yours.dtype == np.float32 else SINGLE**2
    allowed = bound(attempt.operation, name, first.values, expected, unit)
    far = np.argwhere(cells(yours[shared], expected[shared], np.broadcast_to(allowed, expected.shape)[shared]))
    return tuple(int(i) for i in far[0]) if len(far) else None


def _sums(attempt: Attempt, first: Trial, name: str, cell: tuple[int, ...], mistakes: Sequence[Mistake]) -> Sums:
    """The arithmetic of one cell, the reference's and the function's."""
    operation, values = attempt.operation, first.values
    if operation.workings is not None:
        own = mistakes[0].workings if len(mistakes) == 1 else None
        return Sums(lines=(tuple(operation.workings(values, cell)), tuple(own(values, cell)) if own else ()))

    def reference(asked: Values) -> Array | None:
        return operation.reference(asked)[name]

    def function(asked: Values) -> Array | None:
        return (attempt(asked, first.dtype).results or {}).get(name)

    yours = (first.outcome.results or {})[name]
    return Sums(
        _terms(attempt, reference, values, (name, cell), float(first.expected[name][cell])),
        _terms(attempt, function, values, (name, cell), float(yours[cell])),
        picks=operation.picks,
    )


def _terms(
    attempt: Attempt, run: Run, values: Values, at: tuple[str, tuple[int, ...]], value: float
) -> tuple[Term, ...] | None:
    """The terms of one sum, if they add up to its value; of a maximum, the cells that it depends on.

    Args:
        at: The result and the cell in it.
        value: The number there.
    """
    name, cell = at
    if attempt.operation.picks:
        seen = window(run, values, cell)
        return None if seen is None else tuple(seen)
    result = terms(run, values, cell, attempt.operation.sums[name])
    if result is None:
        return None
    size = sum(abs(term.value) for term in result)
    return tuple(result) if abs(sum(term.value for term in result) - value) <= 1e-4 * max(1.0, size) else None
