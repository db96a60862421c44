"""Check a user's function against the reference: whether it is correct, and if not, where it first differs and why.

The entry point of this package: it tries the layouts that the function may take, runs the cases, and makes the answer
from the first wrong case and its first wrong cell. Uses its other files and errors.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from convscope.checking.calling import Attempt, Caller, check_limit
from convscope.checking.comparison import (
    SINGLE,
    Run,
    Term,
    Trial,
    bound,
    cells,
    diagnose,
    only_where,
    terms,
    trial,
    window,
)
from convscope.checking.operation import Case, Form, Mistake, Values
from convscope.checking.operations import operation_of
from convscope.checking.result import Check, Sums
from convscope.checking.signature import name_of, plan
from convscope.checking.windows import Windows, misplaced, misplaced_pool
from convscope.errors import UsageError
from convscope.type_checks import kind_of, takes
from convscope.typing import Array

SCOUTS = 3
"""Number of first cases used to detect a function's layout and array type; every third later one is used too."""
RIGHT, SHAPED = 4, 3
"""Scores of a right result, and of a wrong one with the right shapes."""


@takes(function="Any", seconds="Any")
def check(
    function: Callable[..., object],
    as_: str | None = None,
    *,
    layout: str | None = None,
    seconds: float = 10.0,
    strict: bool = False,
) -> Check:
    """Compare a function of your own with the reference on small cases, and name its mistake.

    >>> def my_relu(x):
    ...     return abs(x)
    >>> answer = check(my_relu, as_="relu")
    >>> answer.right, answer.cause
    (False, 'absolute value')

    In an autograder, `check(conv2d, as_="conv2d").require()` raises WrongResult with one sentence if it is wrong.

    Args:
        function: A function of NumPy arrays, torch tensors or plain lists. Its parameters are recognised by their
            names (`x, w, b, conv_param` and `A_prev, W, b, hparameters` of courses too), other names by their order.
        as_: Its operation, such as "conv2d" or "max_pool2d_backward"; the error for a wrong name lists all. None to
            choose by the function's name.
        layout: The layout of its arrays, such as "nhwc"; None to detect it.
        seconds: Time limit for all calls together. The function is interrupted between two Python instructions, but not
            inside one that never ends; the command line ends the process in that case.
        strict: Whether to refuse what some courses teach and PyTorch does differently: a softmax whose exponentials
            overflow, a maximum's gradient given to every equal cell. Without it, a note names the difference.

    Returns:
        A `Check` with `right`, `cause`, `sentence` and the first wrong cell; print it for the arithmetic.

    Raises:
        UsageError: no such operation or layout, or a parameter that is not recognised.
    """
    if not callable(function):
        raise UsageError(f"check takes a function, not {kind_of(function)}.")
    check_limit(seconds)
    caller = Caller(function, plan(function, operation_of(as_, name_of(function))), float(seconds))
    attempts = _best_attempts(caller, layout)
    answers = []
    for attempt in attempts:
        trials = [] if caller.late else _trials(attempt)
        if caller.late:
            return late_answer(attempt, seconds)
        answers.append((attempt, trials, *diagnose(attempt.operation, _needed(trials))))
        if len(answers[-1][2]) == 1 and answers[-1][2][0].count == 1:
            break  # one cause; without one, or with several, the form may have been misjudged
    named = [a for a in answers if a[2]]
    explained = min(named or answers[:1], key=lambda a: sum(mistake.count for mistake in a[2]))
    return answer(*explained, strict=strict)


def _needed(trials: list[Trial]) -> list[Trial]:
    return [t for t in trials if not t.case.optional]


def _best_attempts(caller: Caller, layout: str | None) -> list[Attempt]:
    """The layouts and array types with which the function does best on the smallest cases, usually one."""
    best: list[Attempt] = []
    score = -1.0
    shaped: Attempt | None = None
    for form in caller.plan.forms(layout):
        if score >= SHAPED and _narrower(form, best[0].form):
            continue  # it takes batches, and gets them wrong
        for kind in caller.plan.kinds:
            attempt = Attempt(caller, form, kind)
            reached = _share(attempt)
            if reached == RIGHT and shaped and shaped.form is not form:
                caller.notes[_only_for(form, shaped)] = None
            if caller.late or reached == RIGHT:
                return [attempt]
            if reached >= SHAPED:
                shaped = shaped or attempt
            if reached >= score:
                best = [*(best if reached == score else []), attempt]
                score = reached
    return best


def _only_for(form: Form, wider: Attempt) -> str:
    """A note about a function that is correct for one form of arrays, but wrong for a more general one."""
    mistakes, _ = diagnose(wider.operation, _needed(_trials(wider)))
    causes = f": {', and '.join(dict.fromkeys(m.cause for m in mistakes))}" if mistakes else ""
    return f"It is correct for arrays of the form {form.name}, but wrong for {wider.form.name}{causes}."


def _share(attempt: Attempt) -> float:
    """The mean score of some cases; 0 as soon as the smallest fails."""
    usable = list(_usable(attempt, optional=False))
    scouts = [*usable[:SCOUTS], *usable[SCOUTS::3]]
    reached = 0
    for index, (case, values) in enumerate(scouts):
        result = trial(attempt.operation, case, values, "float64", attempt(values))
        if attempt.caller.late or (index == 0 and result.outcome.results is None):
            return 0
        reached += _score(result)
    return reached / max(1, len(scouts))


def _usable(attempt: Attempt, *, optional: bool) -> Iterator[tuple[Case, Values]]:
    """The cases that the function's parameters can express."""
    for case in attempt.operation.cases(attempt.form.limits):
        values = attempt.caller.plan.usable(case.values)
        if values is not None and (optional or not case.optional):
            yield case, values


def _narrower(form: Form, than: Form) -> bool:
    """Whether a form has fewer images, channels or kernels."""
    a, b = form.limits, than.limits
    return (a.images, a.channels, a.kernels) != (b.images, b.channels, b.kernels) and form.layout != "nhwc"


def _score(result: Trial) -> int:
    """Right, of the right shapes, of the right number of axes (2), of any kind (1), or failed (0)."""
    if result.right:
        return RIGHT
    arrays = result.outcome.results
    if arrays is None:
        return 0
    if all(arrays[name].shape == result.expected[name].shape for name in arrays):
        return SHAPED
    return 2 if all(arrays[name].size and arrays[name].ndim == result.expected[name].ndim for name in arrays) else 1


def _trials(attempt: Attempt) -> list[Trial]:
    """Every case in float64; those with fractions in float32 too."""
    out: list[Trial] = []
    for case, values in _usable(attempt, optional=True):
        fractions = any(_fractions(v) for v in values.values())
        for dtype in ("float64", "float32") if fractions and attempt.kind != "lists" else ("float64",):
            out.append(trial(attempt.operation, case, values, dtype, attempt(values, dtype)))
            if attempt.caller.late:
                return out
    if not out:
        function, operation = name_of(attempt.caller.function), attempt.operation
        raise UsageError(
            f"no case of {operation.name} fits the parameters of {function}; "
            f"the settings are {', '.join(operation.settings)}."
        )
    return out


def _fractions(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and bool((value != np.rint(value)).any())


# The answer, from the trials of a function.


def answer(
    attempt: Attempt, trials: Sequence[Trial], mistakes: Sequence[Mistake], reproduced: int, *, strict: bool = False
) -> Check:
    """The answer for a function that finished.

    Args:
        trials: All trials, at least one.
        mistakes: The mistakes that explain its results, if any.
        reproduced: The number of trials that they reproduce.
        strict: Whether to refuse mistakes that are accepted elsewhere.
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
    if mistakes and all(m.harmless or (m.except_on and not strict) for m in mistakes):
        remarks = dict.fromkeys(m.sentence for m in mistakes)
        exceptions = ", and ".join(dict.fromkeys(m.except_on for m in mistakes if m.except_on))
        hint = ("To refuse this, use --strict, in Python strict=True.",) if exceptions else ()
        notes = (*base.notes, *remarks, *hint)
        return replace(base, right=True, wrong=len(wrong), except_on=exceptions, notes=notes)
    first = wrong[0]
    causes: Sequence[Mistake | Windows] = mistakes
    if not mistakes and (windows := _misplaced(attempt, wrong)):
        causes, first = [windows[0]], windows[1]
    base = replace(
        base,
        wrong=len(wrong),
        cause=", and ".join(dict.fromkeys(m.cause for m in causes)) or None,
        advice=" ".join(dict.fromkeys(m.sentence for m in causes)),
        reproduced=reproduced if mistakes else 0,
        pattern="" if causes else only_where(needed),
        values={n: v for n, v in first.values.items() if v is not None},
    )
    if first.outcome.results is None:
        return replace(base, problem=first.outcome.problem, lines=first.outcome.lines)
    name = first.wrong[0]
    yours, expected = first.outcome.results[name], first.expected[name]
    cell = _first_wrong(attempt, first, name, yours, expected)
    sums = None if cell is None else _sums(attempt, first, name, cell, mistakes)
    return replace(base, result=name, yours=yours, expected=expected, cell=cell, sums=sums)


def _misplaced(attempt: Attempt, wrong: Sequence[Trial]) -> tuple[Windows, Trial] | None:
    """How the windows of a convolution, its gradient or a pooling differ, and the first case that shows it."""
    for t in wrong:
        for name in t.wrong if t.outcome.results is not None and t.dtype == "float64" else ():
            assert t.outcome.results is not None
            product = attempt.operation.sums.get(name, ((),))[0]
            run, yours, windows = _function(attempt, name, t.dtype), t.outcome.results[name], None
            if len(product) == 2 and "weight" in t.values and t.values["x"].ndim == 4:
                windows = misplaced(run, t.values, name, product, yours)
            elif name == "out" and "kernel_size" in t.values and attempt.operation.name != "im2col":
                windows = misplaced_pool(run, t.values, yours, largest=attempt.operation.picks)
            if windows is not None:
                return windows, t
    return None


def _function(attempt: Attempt, name: str, dtype: str) -> Run:
    """One result of the user's function."""
    return lambda values: (attempt(values, dtype).results or {}).get(name)


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
    wrong_cells = np.argwhere(cells(yours[shared], expected[shared], np.broadcast_to(allowed, expected.shape)[shared]))
    return tuple(int(i) for i in wrong_cells[0]) if len(wrong_cells) else None


def _sums(attempt: Attempt, first: Trial, name: str, cell: tuple[int, ...], mistakes: Sequence[Mistake]) -> Sums:
    """The arithmetic of one cell, the reference's and the function's."""
    operation, values = attempt.operation, first.values
    if operation.workings is not None:
        mistaken_workings = mistakes[0].workings if len(mistakes) == 1 else None
        return Sums(
            lines=(
                tuple(operation.workings(values, cell)),
                tuple(mistaken_workings(values, cell)) if mistaken_workings else (),
            )
        )

    def reference(inputs: Values) -> Array | None:
        return operation.reference(inputs)[name]

    function = _function(attempt, name, first.dtype)
    yours = (first.outcome.results or {})[name]
    return Sums(
        _terms(attempt, reference, values, (name, cell), float(first.expected[name][cell])),
        _terms(attempt, function, values, (name, cell), float(yours[cell])),
        picks=operation.picks,
    )


def _terms(
    attempt: Attempt, run: Run, values: Values, result_cell: tuple[str, tuple[int, ...]], value: float
) -> tuple[Term, ...] | None:
    """The terms of one sum, if they add up to its value; of a maximum, the cells that it depends on.

    Args:
        result_cell: The result and the cell in it.
        value: The number there.
    """
    name, cell = result_cell
    if attempt.operation.picks:
        window_terms = window(run, values, cell)
        return None if window_terms is None else tuple(window_terms)
    result = terms(run, values, cell, attempt.operation.sums[name])
    if result is None:
        return None
    size = sum(abs(term.value) for term in result)
    return tuple(result) if abs(sum(term.value for term in result) - value) <= 1e-4 * max(1.0, size) else None
