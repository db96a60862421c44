"""Check a function of one's own against the reference: right or wrong, where first, and why.

The one entrance of this room. Knows its other files and errors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convscope.checking import report
from convscope.checking.calling import Caller, Outcome
from convscope.checking.comparison import Trial, bound, cells, diagnose, trial
from convscope.checking.operation import Array, Case, Form, Operation, Values
from convscope.checking.operations import OPERATIONS, operation_of
from convscope.checking.result import Check, Sums
from convscope.checking.signature import Plan, name_of, plan
from convscope.checking.sums import Run, Term, terms, window
from convscope.errors import UsageError

SCOUTS = 3
"""Cases on which the form and the kind of arrays of a function are found out."""


def check(
    function: Callable[..., Any], as_: str | None = None, *, layout: str | None = None, seconds: float = 10.0
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
        as_: What it should calculate, "conv2d", "max_pool2d_backward"; a wrong name lists all. None to go by the
            function's name.
        layout: How it wants its arrays, "nhwc" for instance; None to find out.
        seconds: Time for all calls together. The function is interrupted between two Python instructions; inside one
            that never ends it is not. The command line ends the process in that case.

    Returns:
        What was found: `right`, `cause`, `sentence`, the first wrong cell; print it for the arithmetic.

    Raises:
        UsageError: no such operation or layout, or a parameter that is not recognised.
    """
    if not callable(function):
        raise UsageError(f"check takes a function, not a {type(function).__name__}.")
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise UsageError(f"the time limit is a number of seconds above 0, not {seconds!r}.")
    operation = operation_of(as_, name_of(function))
    how = plan(function, operation)
    caller = Caller(function, how, float(seconds))
    form, kind = _form(operation, how, caller, how.forms(layout))
    if caller.late is not None:
        return _late(operation, caller, form, kind, float(seconds))
    trials = _trials(operation, how, caller, form, kind)
    if caller.late is not None:
        return _late(operation, caller, form, kind, float(seconds))
    return _answer(operation, caller, form, kind, trials)


def _form(operation: Operation, how: Plan, caller: Caller, forms: Sequence[Form]) -> tuple[Form, str]:
    """The form and kind of arrays with which the function does best on the smallest cases."""
    best, score = (forms[0], how.kinds[0]), -1
    for form in forms:
        if score >= 3 and _narrower(form, best[0]):
            continue  # it takes batches, and gets them wrong
        usable = [
            (case, values) for case in operation.cases(form.limits)
            if not case.optional and (values := how.usable(case.values)) is not None
        ]  # fmt: skip
        scouts = [*usable[:SCOUTS], *usable[SCOUTS::3]]
        for kind in how.kinds:
            reached = 0
            for case, values in scouts:
                result = trial(operation, case, values, "float64", caller(values, form, kind))
                reached += _score(result)
                if caller.late is not None:
                    return form, kind
                if result.outcome.results is None and len(scouts) > 1 and case is scouts[0][0]:
                    break  # another kind of array, or another form
            share = reached / max(1, len(scouts))
            if share == 4:
                return form, kind
            if share > score:
                best, score = (form, kind), share
    return best


def _narrower(form: Form, than: Form) -> bool:
    """Whether a form has fewer images, channels or kernels."""
    a, b = form.limits, than.limits
    return (a.images, a.channels, a.kernels) != (b.images, b.channels, b.kernels) and form.layout != "nhwc"


def _score(result: Trial) -> int:
    """4 for a right result, 3 for the right shapes, 2 for the right number of axes, 1 for any result."""
    if result.right:
        return 4
    arrays = result.outcome.results
    if arrays is None:
        return 0
    if all(arrays[name].shape == result.expected[name].shape for name in arrays):
        return 3
    return 2 if all(arrays[name].size and arrays[name].ndim == result.expected[name].ndim for name in arrays) else 1


def _trials(operation: Operation, how: Plan, caller: Caller, form: Form, kind: str) -> list[Trial]:
    """Every case in float64; those with fractions in float32 too."""
    out: list[Trial] = []
    for case in operation.cases(form.limits):
        values = how.usable(case.values)
        if values is None:
            continue
        fractions = any(_fractions(v) for v in values.values())
        for dtype in ("float64", "float32") if fractions and kind != "lists" else ("float64",):
            out.append(trial(operation, case, values, dtype, caller(values, form, kind, dtype)))
            if caller.late is not None:
                return out
    if not out:
        needs = ", ".join(operation.settings)
        raise UsageError(f"no case of {operation.name} fits the parameters of {name_of(caller.function)}; it passes {needs}.")
    return out


def _fractions(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and bool((value != np.rint(value)).any())


def _late(operation: Operation, caller: Caller, form: Form, kind: str, seconds: float) -> Check:
    """The answer for a function that was interrupted."""
    assert caller.late is not None, "it was interrupted"
    values, lines = caller.late
    problem = f"It did not finish within {seconds:g} s and was interrupted{' here:' if lines else '.'}"
    return Check(
        operation.name, name_of(caller.function), False, 1, form.name, kind, wrong=1, late=True, problem=problem, lines=lines,
        values={n: v for n, v in values.items() if v is not None},
    )  # fmt: skip


def _answer(operation: Operation, caller: Caller, form: Form, kind: str, trials: list[Trial]) -> Check:
    needed = [t for t in trials if not t.case.optional]
    wrong = [t for t in needed if not t.right]
    notes = [*caller.notes]
    if not wrong and any(not t.right for t in trials):
        notes.append("It is right for square kernels; with a kernel of 2 × 3 it is not, or fails.")
    if any(_single(t.outcome) for t in trials if t.dtype == "float64"):
        notes.append("It calculates in float32 where float64 comes in; it was compared at the precision of float32.")
    common = {
        "operation": operation.name, "function": name_of(caller.function), "cases": len(needed), "form": form.name,
        "kind": kind, "notes": tuple(notes),
    }  # fmt: skip
    if not wrong:
        return Check(**common, right=True)
    first = wrong[0]
    mistakes, reproduced = diagnose(operation, needed)
    cause = ", and ".join(dict.fromkeys(m.cause for m in mistakes)) or None
    common |= {
        "right": False, "wrong": len(wrong), "cause": cause, "reproduced": reproduced,
        "advice": " ".join(dict.fromkeys(m.sentence for m in mistakes)),
        "values": {n: v for n, v in first.values.items() if v is not None},
    }  # fmt: skip
    if first.outcome.results is None:
        return Check(**common, problem=first.outcome.problem, lines=first.outcome.lines)
    return _with_cell(operation, caller, form, kind, first, common, mistakes)


def _single(outcome: Outcome) -> bool:
    return any(array.dtype == np.float32 for array in (outcome.results or {}).values())


def _with_cell(
    operation: Operation, caller: Caller, form: Form, kind: str, first: Trial, common: Mapping[str, Any], mistakes: Sequence[Any]
) -> Check:  # fmt: skip
    results = first.outcome.results or {}
    name = first.wrong[0]
    yours, expected = results[name], first.expected[name]
    if yours.shape != expected.shape:
        fits = yours.ndim == expected.ndim and all(yours.shape)
        cell = _differing(yours, expected) if fits else None
    else:
        allowed = bound(operation, name, first.values, expected, 2.0**-24 if first.dtype == "float32" else 2.0**-52)
        cell = tuple(int(i) for i in np.argwhere(cells(yours, expected, allowed))[0]) if expected.ndim else ()
    sums = None if cell is None else _sums(operation, caller, form, kind, first, name, cell, mistakes)
    return Check(**common, result=name, yours=yours, expected=expected, cell=cell, sums=sums)


def _differing(yours: Array, expected: Array) -> tuple[int, ...] | None:
    """The first cell that both arrays have and that differs."""
    shared = tuple(slice(0, min(a, b)) for a, b in zip(yours.shape, expected.shape, strict=True))
    far = np.argwhere(~np.isclose(yours[shared], expected[shared], rtol=1e-6))
    return tuple(int(i) for i in far[0]) if len(far) else None


def _sums(
    operation: Operation, caller: Caller, form: Form, kind: str, first: Trial, name: str, cell: tuple[int, ...], mistakes: Sequence[Any]
) -> Sums:  # fmt: skip
    """The arithmetic of one cell, the reference's and the function's."""
    values = first.values
    if operation.workings is not None:
        own = next((m.workings for m in mistakes if m.workings), None)
        return Sums(lines=(tuple(operation.workings(values, cell)), tuple(own(values, cell)) if own and len(mistakes) == 1 else ()))

    def theirs(asked: Values) -> Array | None:
        results = caller(asked, form, kind, first.dtype).results
        return None if results is None else results.get(name)

    pairs = []
    for run, target in ((lambda asked: operation.reference(asked)[name], first.expected), (theirs, first.outcome.results or {})):
        pairs.append(_terms(operation, run, values, cell, name, float(target[name][cell])))
    return Sums(expected=pairs[0], yours=pairs[1], picks=operation.picks)


def _terms(
    operation: Operation, run: Run, values: Values, cell: tuple[int, ...], name: str, value: float
) -> tuple[Term, ...] | None:
    """The terms of one sum, if they add up to its value; of a maximum, the cells that it depends on."""
    if operation.picks:
        seen = window(run, values, cell)
        return None if seen is None else tuple(seen)
    result = terms(run, values, cell, operation.sums[name])
    if result is None:
        return None
    total = sum(term.value for term in result)
    size = sum(abs(term.value) for term in result)
    return tuple(result) if abs(total - value) <= 1e-4 * max(1.0, size) else None
