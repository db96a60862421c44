"""Questions with calculated answers: read what a learner types, and judge it."""

import ast
import math
import numbers
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.errors import UsageError
from convscope.lessons.values import Output, in_words

Answer = bool | str | float | NDArray[np.float64]
YES, NO = {"yes", "y", "true"}, {"no", "n", "false"}
SHARE = 0.005
"""Without a tolerance: the accepted difference of a number that is not whole, as a share of the largest number."""
LONGEST = 2000
"""Characters of the longest answer that is read."""


class AnswerError(UsageError):
    """A learner's answer of the wrong kind; the question is still open."""


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What an answer gets: `text` is Markdown, `because` the calculation of the right answer."""

    right: bool
    text: str
    because: Output


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question with its calculated answer.

    >>> asked = Asked("sum", "1 + 2?", 3.0, {}, None, Output(text="1 + 2 = 3"), ())
    >>> asked.judge(asked.read("1 + 2")).right, asked.judge(12.0).text
    (True, 'Not quite: the answer is **3**.')
    """

    name: str
    ask: str
    answer: Answer
    choices: Mapping[str, str]
    tolerance: float | None
    because: Output
    wrong: Sequence[tuple[Answer, str]]

    @property
    def kind(self) -> str:
        """What is expected: "yes or no", "choice", "number" or "numbers"."""
        if isinstance(self.answer, bool):
            return "yes or no"
        if isinstance(self.answer, str):
            return "choice"
        return "number" if isinstance(self.answer, float) else "numbers"

    def read(self, reply: str) -> Answer:
        """The value of what a learner typed.

        Raises:
            AnswerError: it is of another kind than the answer.
        """
        text = reply.strip()[:LONGEST].replace("−", "-")
        match self.kind:
            case "yes or no" if text.lower() in YES | NO:
                return text.lower() in YES
            case "choice":
                values = list(self.choices)
                if text in values:
                    return text
                if re.fullmatch(r"[0-9]{1,3}", text) and 1 <= int(text) <= len(values):
                    return values[int(text) - 1]
                folded = {value.lower(): value for value in values}
                if text.lower() in folded:
                    return folded[text.lower()]
            case "number" | "numbers":
                return self._numbers(text, reply)
        raise self._wrong_kind(reply)

    def _numbers(self, text: str, reply: str) -> Answer:
        if self.kind == "number" and re.fullmatch(r"-?\d{1,3}(,\d{3})+", text):
            text = text.replace(",", "")  # thousands, as convscope writes them
        for form in (text, re.sub(r"(?<=[\d.])\s*[x×,;\s]\s*(?=[-+\d.])", ", ", text)):
            try:
                return self.check(calculated(form))
            except (ArithmeticError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
        raise self._wrong_kind(reply)

    def check(self, value: object) -> Answer:
        """A value that a learner gave in Python, as an answer of this kind.

        Raises:
            AnswerError: it is of another kind than the answer.
        """
        try:
            result = answer_of(value)
        except (TypeError, ValueError):
            raise self._wrong_kind(value) from None
        if self.kind == "choice" and (not isinstance(result, str) or result not in self.choices):
            raise self._wrong_kind(value)
        if self.kind == "numbers" and isinstance(result, float):
            result = np.array([result])
        if type(result) is not type(self.answer):
            raise self._wrong_kind(value)
        return result

    def expects(self) -> str:
        """What an answer must be, in words."""
        count = np.size(self.answer)
        return {
            "yes or no": "yes or no",
            "choice": f"one of {', '.join(map(repr, self.choices))}",
            "number": "a number, such as 0.25 or 3 * 4 + 1",
            "numbers": f"{count} numbers, such as {' '.join(map(str, range(1, count + 1)))}",
        }[self.kind]

    def _wrong_kind(self, reply: object) -> AnswerError:
        expected = self.expects()
        shown = repr(reply)
        return AnswerError(
            f"the question {self.name!r} expects {expected}, not {shown[:60]}{'...' if len(shown) > 60 else ''}."
        )

    def judge(self, answer: Answer) -> Verdict:
        """Whether an answer is right, and what a learner should read."""
        if self._same(answer, self.answer):
            return Verdict(True, "Right.", self.because)
        text = next((text for wrong, text in self.wrong if self._same(answer, wrong)), "")
        solution = self.solution()
        start = f"{text}\n\nThe" if text else "Not quite: the"
        return Verdict(False, f"{start} answer is {solution}", self.because)

    def solution(self) -> str:
        """The answer in bold, as the end of a sentence; a choice that is a sentence has its own full stop."""
        shown = self.shown(self.answer)
        return f"**{shown}**{'' if shown.endswith(('.', '!', '?')) else '.'}"

    def shown(self, answer: Answer) -> str:
        """An answer in a sentence: a choice by its text."""
        return self.choices.get(answer, answer) if isinstance(answer, str) else shown_answer(answer)

    def _same(self, a: Answer, b: Answer) -> bool:
        if isinstance(a, bool | str) or isinstance(b, bool | str):
            return type(a) is type(b) and a == b
        first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if first.ndim == 1 and first.size == second.size:  # numbers in a row stand for an array of any shape
            first = first.reshape(second.shape)
        if first.shape != second.shape:
            return False
        tolerance = self.tolerance
        if tolerance is None:
            is_integer = bool((np.asarray(self.answer) == np.rint(self.answer)).all())
            tolerance = 1e-9 if is_integer else SHARE * float(np.abs(self.answer).max(initial=0))
        # A number that is given as 0.35 may differ by 0.01 from 0.36, whatever the last bit of their difference is.
        return bool(np.all((first == second) | (np.abs(first - second) <= tolerance * (1 + 1e-9))))


def answer_of(value: object) -> Answer:
    """A value as an answer: a boolean, text, a float (of one number in any number of axes), or an array.

    >>> answer_of((2, 3)), answer_of(np.float32(0.5))
    (array([2., 3.]), 0.5)

    Raises:
        TypeError: it is none of these.
        ValueError: a list of rows of different lengths.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"not numbers: {array.dtype}")
    return float(array.item()) if array.size == 1 else array.astype(np.float64)


def shown_answer(answer: Answer) -> str:
    """An answer in a sentence."""
    if isinstance(answer, np.ndarray):
        return in_words(tuple(_shown(row) for row in answer.tolist()) if answer.ndim == 1 else _nested(answer.tolist()))
    return in_words(_shown(answer))


def _nested(values: object) -> object:
    return [_nested(item) for item in values] if isinstance(values, list) else _shown(values)


def _shown(value: object) -> object:
    """Whole numbers without their point."""
    return int(value) if isinstance(value, float) and math.isfinite(value) and value == int(value) else value


BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def calculated(text: str) -> Any:
    """The value of arithmetic, or of a tuple or list of it; nothing else is evaluated.

    >>> calculated("3*3*1 + 1"), calculated("(5, 24, 24)"), calculated("-1/4")
    (10, (5, 24, 24), -0.25)

    Raises:
        SyntaxError: the text is not Python.
        TypeError: a tuple or list is calculated with.
        ValueError: the text holds anything but numbers, + - * / // and brackets.
    """
    return _value(ast.parse(text.strip(), mode="eval").body)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if type(value) in {int, float}:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in BINARY:
            return BINARY[type(sign)](_number(left), _number(right))
        case ast.Tuple(elts=elements):
            return tuple(map(_value, elements))
        case ast.List(elts=elements):
            return list(map(_value, elements))
    raise ValueError("only arithmetic is read")


def _number(node: ast.expr) -> float:
    value = _value(node)
    if not isinstance(value, int | float):
        raise TypeError("only numbers can be added and multiplied")
    return value
