"""Answers: what learners type is read as they mean it, and judged; anything else is a sentence, never evaluated."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.errors import UsageError
from convscope.lessons import AnswerError, Asked
from convscope.lessons.questions import answer_of, calculated, shown_answer
from convscope.lessons.values import Output


def asked(answer: Any, *, tolerance: float | None = None, wrong: Any = (), choices: Any = ()) -> Asked:
    texts = dict(zip(choices, choices, strict=True))
    return Asked("q", "?", answer_of(answer), texts, tolerance, Output(text="why"), wrong)


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        (10, "10", True),
        (10, " 3*3*1 + 1 ", True),
        (10, "10.4", False),
        (401920, "401,920", True),
        (0.376, "0.3761", True),
        (0.376, "0.38", False),
        (-0.0338, "−0.0338", True),
        (2.5, "5/2", True),
        (True, "Yes", True),
        (False, "y", False),
        ((5, 24, 24), "5 24 24", True),
        ((5, 24, 24), "5x24x24", True),
        ((5, 24, 24), "(5, 24, 24)", True),
        ((5, 24, 24), "24, 24, 5", False),
        ([[1, 2], [3, 4]], "1 2 3 4", True),
        ([[1, 2], [3, 4]], "[[1, 2], [3, 4]]", True),
        ([[1, 2], [3, 4]], "[[1, 2, 3, 4]]", False),
        ((-1, 0.5), "-1 0.5", True),
    ],
)
def test_what_is_typed_is_read_as_it_is_meant(answer: Any, reply: str, right: bool) -> None:
    question = asked(answer)
    assert question.judge(question.read(reply)).right is right


def test_a_choice_is_taken_by_number_or_text() -> None:
    question = asked("their sum", choices=["their mean", "their sum"])
    assert all(question.judge(question.read(reply)).right for reply in ("2", "their sum", "Their Sum"))
    assert not question.judge(question.read("1")).right
    for reply in ("3", "0", "sum of them", ""):
        with pytest.raises(AnswerError, match="expects one of 'their mean', 'their sum', not"):
            question.read(reply)


@pytest.mark.parametrize(
    ("answer", "reply", "sentence"),
    [
        (10, "ten", "expects a number, such as 0.25 or 3 [*] 4 [+] 1, not 'ten'"),
        (10, "1 2", "expects a number"),
        (10, "1/0", "expects a number"),
        (10, "__import__('os').getcwd()", "expects a number"),
        (10, "9**9**9", "expects a number"),
        (10, "(" * 500, "expects a number"),
        ((2, 3), "a b", "expects 2 numbers, such as 1 2, not 'a b'"),
        (True, "perhaps", "expects yes or no, not 'perhaps'"),
    ],
)
def test_an_answer_of_the_wrong_kind_is_a_sentence(answer: Any, reply: str, sentence: str) -> None:
    with pytest.raises(AnswerError, match=sentence):
        asked(answer).read(reply)


@pytest.mark.parametrize("value", [None, "text", [[1], [2, 3]], {"a": 1}, object(), True])
def test_a_python_value_of_the_wrong_kind_is_a_sentence(value: Any) -> None:
    with pytest.raises(AnswerError, match="expects a number"):
        asked(10).check(value)


@given(st.text(max_size=60) | st.text(alphabet="0123456789 .,+-*/()[]x×e_", max_size=40))
def test_any_reply_is_an_answer_or_a_sentence(reply: str) -> None:
    for question in (asked(10), asked((1, 2)), asked(True), asked("a", choices=["a", "b"])):
        message = ""
        try:
            question.judge(question.read(reply))
        except UsageError as error:
            message = str(error)
        assert len(message) < 300


NUMBERS = st.floats(-999, 999).filter(lambda x: x == 0 or abs(x) > 1e-3)


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_the_right_answer_as_shown_is_right(values: list[float]) -> None:
    question = asked(values if len(values) > 1 else values[0])
    assert question.judge(question.read(shown_answer(question.answer))).right


def test_a_misconception_gets_its_text_and_any_answer_its_calculation() -> None:
    question = asked(10, wrong=((9.0, "You forgot the bias."),))
    verdict = question.judge(question.read("9"))
    assert (verdict.right, verdict.text, verdict.because.text) == (
        False,
        "You forgot the bias.\n\nThe answer is **10**.",
        "why",
    )
    assert question.judge(question.read("8")).text == "Not quite: the answer is **10**."
    assert question.judge(question.read("10")).because.text == "why"


def test_an_answer_that_is_a_sentence_gets_no_second_full_stop() -> None:
    asked = Asked("q", "?", "They move.", {"They move.": "They move.", "no": "no"}, None, Output(), ())
    assert asked.judge("no").text == "Not quite: the answer is **They move.**"


def test_a_tolerance_is_absolute() -> None:
    question = asked(0.36, tolerance=0.01)
    assert [question.judge(value).right for value in (0.35, 0.37, 0.349, 0.3711)] == [True, True, False, False]


def test_only_arithmetic_is_calculated() -> None:
    assert calculated("[1, -2.5, (3 + 4) // 2]") == [1, -2.5, 3]
    for text in ("a", "f()", "2 ** 3", "'a'", "[x for x in 1]", "1 if 1 else 2", "True"):
        with pytest.raises(ValueError, match="only arithmetic"):
            calculated(text)
    assert isinstance(answer_of(np.float32(1)), float)
