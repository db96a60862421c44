"""The answer of a check: a record, and its text and JSON.

The text names the cause, shows the case, and sets the first wrong cell as two sums side by side.
"""

from dataclasses import dataclass, field
from textwrap import wrap
from typing import NoReturn

import numpy as np

from convscope.checking.comparison import Term
from convscope.checking.drawing import CELLS, array_lines, label, plural, side_by_side, sum_lines
from convscope.checking.operation import Values
from convscope.errors import ConvscopeError
from convscope.render.numbers import short
from convscope.rich_display import RichDisplay
from convscope.typing import Array


class WrongResult(ConvscopeError, AssertionError):
    """A function that was checked and is wrong; its message is one sentence.

    >>> import convscope as cs
    >>> try:
    ...     cs.check(abs, as_="relu").require()
    ... except cs.WrongResult as error:
    ...     print("absolute value" in str(error))
    True
    """


@dataclass(frozen=True, slots=True)
class Sums:
    """The arithmetic of one cell, as it should be and as the function does it."""

    expected: tuple[Term, ...] | None = None
    yours: tuple[Term, ...] | None = None
    """None if they could not be measured, or do not add up to the function's number."""
    lines: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """The same for an operation that is not a sum of products, as lines of text."""
    picks: bool = False
    """Whether the result is the largest term."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Check(RichDisplay):
    """The result of `cs.check`; print it for the whole report.

    >>> import convscope as cs
    >>> result = cs.check(lambda x: abs(x), as_="relu")
    >>> result.right, result.cause
    (False, 'absolute value')
    """

    operation: str
    function: str
    right: bool
    """Whether it agrees with the reference on every case, or differs only in a way that `notes` names and accepts."""
    cases: int
    """How many calls were compared."""
    form: str
    """The layout of its arrays, such as (N, C, H, W)."""
    kind: str
    """numpy, torch or lists."""
    notes: tuple[str, ...] = ()
    wrong: int = 0
    """How many of the calls differ; of a right function, by a valid choice or on the inputs of `except_on`."""
    except_on: str = ""
    """The inputs on which a right function differs from the reference, as some courses teach it; `notes` says how."""
    cause: str | None = None
    """The mistake, by name; None if no known mistake gives these results."""
    advice: str = ""
    """What the mistake is and what to do instead."""
    reproduced: int = 0
    """How many of the function's results the named mistake gives; they are all that it returned."""
    pattern: str = ""
    """What the calls that differ have in common, if no mistake is named."""
    values: Values = field(default_factory=dict)
    """The arguments of the first case that differs, images as (N, C, H, W), kernels as (K, C, R, S)."""
    result: str = ""
    """Which result differs: out; dx, dw, db; loss."""
    yours: Array | None = None
    expected: Array | None = None
    cell: tuple[int, ...] | None = None
    """The first wrong cell."""
    sums: Sums | None = None
    problem: str = ""
    """The exception, in one sentence, if the function failed."""
    lines: tuple[str, ...] = ()
    """The lines of the user's file in the traceback."""
    late: bool = False
    """Whether it was interrupted because it took too long."""

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        if self.right:
            return f"{self.function} is a correct {self.operation}{self._agreement()}."
        start = f"{self.function} is not a correct {self.operation}"
        if self.cause:
            return f"{start}: {self.cause}. {self.advice}"
        if self.problem:
            return f"{start}: it fails. {self.problem}{'.' if self.pattern else ''} {self.pattern}".rstrip(" ")
        if self.yours is not None and self.expected is not None and self.yours.shape != self.expected.shape:
            location = f", where {_settings(self.values)}" if _settings(self.values) else ""
            wanted, returned = _shapes(self.expected, self.yours)
            shapes = f"the shape {returned} and should have {wanted}"
            return f"{start}: {self.result} has {shapes}{location}."
        location = label(self.result, self.cell or (), () if self.expected is None else self.expected.shape)
        return f"{start}: {location} is {self._number(self.yours)} and should be {self._number(self.expected)}."

    def _agreement(self) -> str:
        calls = plural(self.cases, "call")
        if self.except_on:
            return f" except on {self.except_on} ({self.wrong} of {calls})"
        if self.wrong:
            return f": on {self.wrong} of {calls} it makes a valid choice that differs from the reference's"
        return f": it agrees with the reference on all {calls}"

    def require(self) -> None:
        """Do nothing if the function is right.

        Raises:
            WrongResult: it is wrong; the message is `sentence`.
        """
        if not self.right:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise WrongResult(self.sentence)

    def _number(self, array: Array | None) -> str:
        return "missing" if array is None or self.cell is None else short(float(array[self.cell]), 7)

    def to_text(self) -> str:
        """The whole answer: cause, case, arrays, two sums."""
        if self.right:
            lines = [self.sentence, f"Arrays: {self.form}, {_kind(self.kind)}; float64{_single(self.kind)}."]
            return "\n".join([*lines, *self.notes])
        differ = f"{self.wrong} of {plural(self.cases, 'call')} {'differs' if self.wrong == 1 else 'differ'}"
        lines = [f"{self.function} is not a correct {self.operation}: {differ}."]
        if self.cause:
            evidence = "Measured by calling your function; i, j: row and column of the result, r, s: of the kernel."
            if self.reproduced:
                several = f"all {plural(self.reproduced, 'result')}" if self.reproduced > 1 else "the result"
                fails = "fails on the same calls, and " if self.problem else ""
                evidence = f"The reference with this mistake {fails}reproduces {several} of your function."
            lines += [f"Likely cause: {self.cause}.", *_indented(self.advice), *_indented(evidence)]
        elif not self.problem:
            lines.append("No known mistake reproduces these results; the numbers below show the difference.")
        if self.pattern:
            lines.append(self.pattern)
        if "H, W, C" in self.form:
            lines.append("Your function received channels-last arrays; they are shown channels first below.")
        lines += ["", *self._case()]
        if self.problem:
            lines += ["", self.problem, *(f"  {line}" for line in self.lines)]
        elif self.yours is not None and self.expected is not None:
            results = self._results(self.yours, self.expected)
            lines += [*([""] if results else []), *results, *self._arithmetic()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _case(self) -> list[str]:
        arrays = {n: v for n, v in self.values.items() if isinstance(v, np.ndarray)}
        head = (
            f"The smallest case that differs: {_settings(self.values)}"
            if _settings(self.values)
            else ("The smallest case that differs:")
        )
        if sum(array.size for array in arrays.values()) > 3 * CELLS:
            return [head, "  " + ", ".join(f"{name} {_shape(array.shape)}" for name, array in arrays.items())]
        return [head, *(f"  {line}".rstrip() for line in array_lines(arrays))]

    def _results(self, yours: Array, expected: Array) -> list[str]:
        name = self.result
        if yours.shape != expected.shape:
            wanted, returned = _shapes(expected, yours)
            shapes = [f"{name} should have the shape {wanted}; yours has {returned}."]
            if max(yours.size, expected.size) > CELLS:
                return shapes
            return [
                *shapes,
                *(f"  {line}".rstrip() for line in array_lines({f"{name} expected": expected, f"{name} yours": yours})),
            ]
        if expected.size > CELLS or not expected.ndim:
            return []
        marks = {f"{name} yours": ~np.isclose(yours, expected, rtol=1e-5, atol=1e-6, equal_nan=True)}
        drawing = array_lines({f"{name} expected": expected, f"{name} yours": yours}, marks)
        return [f"  {line}".rstrip() for line in drawing]

    def _arithmetic(self) -> list[str]:
        """The first wrong cell as two sums side by side."""
        if self.cell is None or self.sums is None or self.expected is None or self.yours is None:
            return []
        sums, head = self.sums, label(self.result, self.cell, self.expected.shape)
        totals = float(self.expected[self.cell]), float(self.yours[self.cell])
        shapes = {n: np.shape(v) for n, v in self.values.items() if isinstance(v, np.ndarray)}
        order = list(dict.fromkeys(t.factors[0] for t in (*(sums.expected or ()), *(sums.yours or ()))))
        order.sort(key=lambda factor: (list(shapes).index(factor[0]), factor[1]))
        sides: list[list[str]] = []
        for terms, lines, total in zip((sums.expected, sums.yours), sums.lines, totals, strict=True):
            if terms is not None:
                sides.append(sum_lines(terms, total, shapes, order, picks=sums.picks))
            else:
                sides.append([*lines, f"= {short(total, 7)}"])
        return ["", *side_by_side(sides[0], sides[1], (f"{head} should be", f"{head} of your function"))]

    def to_json(self) -> dict[str, object]:
        """The answer as plain values."""
        names = (
            "operation", "function", "right", "sentence", "cause", "advice", "cases", "wrong", "reproduced", "form",
            "kind", "pattern", "problem", "late", "result",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "notes": list(self.notes),
            "lines": list(self.lines),
            "case": {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in self.values.items()},
            "expected": None if self.expected is None else self.expected.tolist(),
            "yours": None if self.yours is None else self.yours.tolist(),
            "cell": None if self.cell is None else list(self.cell),
            "sums": None
            if self.sums is None
            else {
                "expected": _terms(self.sums.expected, self.sums.lines[0]),
                "yours": _terms(self.sums.yours, self.sums.lines[1]),
            },
        }

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Check of {self.function} as {self.operation}: {'right' if self.right else self.cause or 'wrong'}>"


def _indented(text: str) -> list[str]:
    """A paragraph as lines of the report."""
    return wrap(text, 98, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _terms(terms: tuple[Term, ...] | None, lines: tuple[str, ...]) -> list[object] | None:
    if terms is None:
        return list(lines) or None
    return [
        {
            "factors": [
                {"array": n, "cell": list(c), "value": v} for (n, c), v in zip(t.factors, t.numbers, strict=True)
            ],
            "times": t.times,
            "value": t.value,
        }
        for t in terms
    ]


def _settings(values: Values) -> str:
    plain = {n: v for n, v in values.items() if not isinstance(v, np.ndarray) and v is not None}
    usual = {"dilation": 1, "groups": 1, "padding": 0, "eps": 1e-5}
    shown = [f"{n.replace('_', ' ')} {short(float(v))}" for n, v in plain.items() if usual.get(n) != v]
    return ", ".join(shown)


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _shapes(*arrays: Array) -> list[str]:
    """The shapes of arrays without the first axes that have one entry in all of them, as in the labels of cells.

    >>> _shapes(np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 1, 1))), _shapes(np.zeros((1, 2, 2)), np.zeros(2))
    (['(2, 3)', '(1, 1)'], ['(1, 2, 2)', '(2,)'])
    """
    lead = 0
    if len({array.ndim for array in arrays}) == 1:
        sizes = zip(*(array.shape[:-2] for array in arrays), strict=True)
        lead = next((axis for axis, size in enumerate(sizes) if {*size} != {1}), max(arrays[0].ndim - 2, 0))
    return [_shape(array.shape[lead:]) for array in arrays]


def _kind(kind: str) -> str:
    return {"numpy": "NumPy arrays", "torch": "torch tensors", "lists": "plain lists"}[kind]


def _single(kind: str) -> str:
    return "" if kind == "lists" else " and float32"
