"""Parsing lessons: whatever a file holds, it is a lesson or one sentence with its line; nothing of it is executed."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope.errors import LessonError
from convscope.lessons import LESSONS, Code, Question, Stop, Text, parse
from convscope.lessons.values import fill

HEAD = "---\ntitle: T\nminutes: 5\nneeds: nothing\n---\n"
QUESTION = "```question sum\nask: 1 + 1?\nanswer: 1 + 1\nwhy: two\n```\n"


def test_blocks_are_found_with_their_lines_and_screens() -> None:
    page = (
        HEAD
        + "Hello\n\n## One\n\nText\n\n```python\n1\n```\n\n```sh\nls\n```\n\n---\n\n"
        + QUESTION
        + "\n```stop\nmodel: crosses\ncaption: Look\n```\n\n## For the teacher\n\nSecret\n"
    )
    lesson = parse(page)
    lines = page.splitlines()
    kinds = [[type(block) for block in screen] for screen in lesson.screens]
    assert kinds == [[Text], [Text, Code, Text], [Question, Stop]]
    code = lesson.screens[1][1]
    assert isinstance(code, Code)
    assert lines[code.line - 1] == code.source.strip() == "1"
    assert lines[lesson.questions["sum"].line - 1] == "```question sum"
    assert "```sh" in str(lesson.screens[1][2])  # only text
    assert [block.source for block in lesson.teacher] == ["## For the teacher\n\nSecret"]


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("", "starts with its front matter"),
        ("# A page\n", "starts with its front matter"),
        (HEAD.replace("title: T\n", "") + "x", "line 2: title: is missing"),
        (HEAD.replace("5", "soon") + "x", "minutes is an integer from 1 to 999, not 'soon'"),
        (HEAD.replace("needs", "need") + "x", "needs: is missing"),
        (HEAD.replace("---\n", "---\nlevel: 3\n", 1) + "x", "unknown key 'level'"),
        (HEAD.replace("title: T", "title: [T"), "not valid YAML"),
        (HEAD, "the lesson is empty"),
        (HEAD.replace("title", "settings: {epochs: 5}\ntitle") + "x", r"epochs is written as epochs: \[full, short\]"),
        (HEAD.replace("title", "settings: {if: [1, 2]}\ntitle") + "x", "'if' is not the name of a variable"),
        (HEAD + "\n" + QUESTION + QUESTION, "line 12: line 7 has a question 'sum' too"),
        (HEAD + QUESTION.replace("sum", "The Sum"), "one name of lowercase letters"),
        (HEAD + QUESTION.replace("ask: 1 + 1?\n", ""), "line 6: ask: is missing"),
        (HEAD + QUESTION.replace("why: two\n", ""), "either because: "),
        (HEAD + QUESTION.replace("answer: 1 + 1", "answer: 1 +"), "answer is not a Python expression: '1 [+]'"),
        (HEAD + QUESTION.replace("answer: 1 + 1", "answer: [1, 2]"), "answer: must be text; quote a value"),
        (HEAD + QUESTION.replace("why: two", "why: a: b"), "line 9: not valid YAML"),
        (HEAD + QUESTION.replace("why: two", "why: &a x\nask: *a"), "needs quotes"),
        (HEAD + QUESTION.replace("why: two", "why: two\nchoices: [a]"), "two or more"),
        (HEAD + QUESTION.replace("why: two", "why: two\nchoices: [a, a]"), "the same choice twice"),
        (HEAD + "```stop\nmodel: m\n```", "caption: is missing"),
        (HEAD + "```stop\nmodel: m\ncaption: c\ncommand: rm -r x\n```", "starts with convscope, not 'rm -r x'"),
        (HEAD + "x\n\n## For the teacher\n\n" + QUESTION, "has only text; move this block up"),
        ("x" * 1_000_001, "at most 1,000,000 characters"),
    ],
)
def test_mistakes_of_authors_get_a_sentence(page: str, sentence: str) -> None:
    with pytest.raises(LessonError, match=sentence) as caught:
        parse(page, "mine.md")
    assert str(caught.value).startswith("mine.md")


def message_of(page: str) -> str:
    """Why this page is not a lesson; empty if it is one."""
    try:
        parse(page)
    except LessonError as error:
        return str(error)
    return ""


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_ends_in_a_traceback(text: str, block: str) -> None:
    for page in (text, HEAD + text, f"{HEAD}```question q\n{block}\n```\n{text}", f"---\n{block}\n---\n{text}"):
        assert "\n" not in message_of(page)


SHIPPED = {name: path.read_text(encoding="utf-8") for name, path in LESSONS.items()}


@settings(max_examples=25)
@given(st.sampled_from(sorted(SHIPPED)), st.data())
def test_a_damaged_lesson_is_a_lesson_or_a_sentence(name: str, data: st.DataObject) -> None:
    page = SHIPPED[name]
    start = data.draw(st.integers(0, len(page)))
    end = data.draw(st.integers(start, min(len(page), start + 200)))
    piece = data.draw(st.sampled_from(["", "```", "---\n", ": ", "[[", "{{", "\t", "'", "&a *a", "\x00", "\ud800"]))
    assert "\n" not in message_of(page[:start] + piece + page[end:])


@pytest.mark.parametrize("deep", ["[" * 5000, "> " * 3000, "{a: " * 3000, "- " * 3000])
def test_deep_nesting_is_a_sentence(deep: str) -> None:
    for page in (HEAD + deep, f"{HEAD}```question q\nask: {deep}\n```\n", f"---\ntitle: {deep}\n---\n"):
        assert len(message_of(page)) < 400


def test_values_are_filled_in_as_a_reader_expects() -> None:
    variables = {"x": -1.25, "many": 15742, "cells": [3, 4], "size": (5, 24), "flag": True}
    assert fill("{{x}}, {{x:.1f}}, {{many}}, {{size}}, {{cells[0:1]}}, {{flag}}", variables, "here") == (
        "−1.25, −1.2, 15,742, (5, 24), [3], yes"
    )
    for text, sentence in (("{{y}}", "needs 'y', which an earlier cell"), ("{{1/0}}", "ZeroDivisionError")):
        with pytest.raises(LessonError, match=re.escape(sentence)):
            fill(text, variables, "here")


def test_a_path_in_the_message_of_an_expression_is_not_cut() -> None:
    path = "/data/" + "folder/" * 35 + "train-images-idx3-ubyte.gz"

    def download() -> None:
        raise FileNotFoundError(f"no file; put it into {path}")

    with pytest.raises(LessonError) as caught:
        fill("{{download()}}", {"download": download}, "lesson, line 3")
    assert str(caught.value).endswith(f"put it into {path}.")
