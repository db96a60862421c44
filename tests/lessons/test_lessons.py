"""The lessons that come with the package: they run, in the short setting, and every question keeps what it promises."""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from convscope.lessons import LESSONS, Lesson, find_lesson, parse
from convscope.lessons.check import mistakes
from convscope.lessons.notebooks import notebook
from convscope.lessons.site import write_site
from launching import environment, run

RUN_NOTEBOOKS = """
import json, os, sys, traceback
from IPython.core.interactiveshell import InteractiveShell
from convscope.lessons import find_lesson
from convscope.lessons.session import ask

def judged(name):
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.display_formatter.active_types = ["text/plain", "text/markdown"]  # test_notebook.py draws pictures
    for cell in json.load(open("lesson.ipynb"))["cells"]:
        if cell["cell_type"] == "code":
            result = shell.run_cell("".join(cell["source"]))
            result.raise_error()
            if "lesson.answer(" in "".join(cell["source"]):
                assert "Not answered yet" in result.result._repr_markdown_(), cell
    lesson, variables = find_lesson(name), shell.user_ns
    for question in lesson.questions.values():
        asked = ask(question, variables, name)
        replies = [variables["lesson"].answer(question.name, asked.answer)]
        replies += [variables["lesson"].answer(question.name, wrong) for wrong, _ in asked.wrong]
        texts = [text for _, text in asked.wrong]
        yield question.name, [reply.right for reply in replies], texts, [str(reply) for reply in replies]

for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        answer = [*judged(os.path.basename(folder))]
    except BaseException:
        answer = traceback.format_exc()
    with open("answer.json", "w") as file:
        json.dump(answer, file)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """Lesson -> the answers of its notebook and their judgements, or how it failed; all run in one process."""
    pytest.importorskip("IPython", reason="notebooks need IPython")
    here = tmp_path_factory.mktemp("notebooks")
    names = [name for name in LESSONS if not needs_mnist(name) or os.environ.get("CONVSCOPE_DATA")]
    for name in names:
        (here / name).mkdir()
        (here / name / "lesson.ipynb").write_text(json.dumps(notebook(find_lesson(name))))
    folders = [str(here / name) for name in names]
    done = run(sys.executable, "-c", RUN_NOTEBOOKS, *folders, cwd=here, env=environment(CONVSCOPE_LESSON_SHORT="1"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {name: json.loads((here / name / "answer.json").read_text()) for name in names}


def needs_mnist(name: str) -> bool:
    return "mnist" in LESSONS[name].read_text(encoding="utf-8")


@pytest.fixture(params=LESSONS)
def shipped(request: pytest.FixtureRequest) -> Lesson:
    """Each lesson; those on MNIST need its files."""
    if needs_mnist(request.param):
        request.getfixturevalue("shared_data")
    return find_lesson(request.param)


def test_no_lesson_has_a_mistake(shipped: Lesson) -> None:
    assert mistakes(shipped, short=True) == []


def test_a_notebook_runs_and_judges_every_answer(shipped: Lesson, answers: Mapping[str, Any]) -> None:
    judged = answers[shipped.name]
    assert not isinstance(judged, str), judged
    assert len(judged) == len(shipped.questions)
    for name, right, texts, replies in judged:
        assert right == [True, *[False] * len(texts)], name
        assert all(reply.startswith(text) for reply, text in zip(replies[1:], texts, strict=True)), name
        assert all(reply.count("\n") >= 2 for reply in replies), name  # the calculation follows
        assert not any(re.search(r"\b[A-Z]\w+\(\w+=", reply) for reply in replies), (
            name
        )  # not a record as Python writes it


def test_lessons_ask_much_and_expect_misconceptions(shipped: Lesson) -> None:
    assert len(shipped.questions) >= 12
    assert sum(bool(question.wrong) for question in shipped.questions.values()) >= 10
    assert shipped.teacher
    assert shipped.tutorial == list(LESSONS).index(shipped.name) + 1


def test_a_notebook_holds_no_answer_and_nothing_for_the_teacher(shipped: Lesson) -> None:
    text = json.dumps(notebook(shipped))
    assert "For the teacher" not in text
    for question in shipped.questions.values():
        assert f"lesson.answer('{question.name}', ...)" in text
        assert all(json.dumps(wrong.misconception)[1:-1] not in text for wrong in question.wrong)


PAGE = "---\ntitle: T\nminutes: 5\nneeds: n\nsettings: {epochs: [5, 1]}\n---\n"


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ("```python\na = 1\na.b\n```", "line 9: AttributeError: 'int' object has no attribute 'b'"),
        ("```python\ndef f():\n    return 1 / 0\n\nf()\n```", "line 9: ZeroDivisionError"),
        ("```python\na = \n```", "line 8: SyntaxError"),
        ("```python\nraise SystemExit(3)\n```", "line 8: SystemExit: 3"),
        ("{{nothing}}", "line 7 needs 'nothing', which an earlier cell of the lesson makes"),
        ("```question q\nask: how many?\nanswer: a\nwhy: w\n```", "question 'q' needs 'a'"),
        (
            "```question q\nask: how many?\nanswer: epochs\nwhy: w\nwrong: [{answer: '1', misconception: m}]\n```",
            "judged right",
        ),
        (
            "```question q\nask: how many?\nanswer: '2'\nwhy: w\n"
            "wrong: [{answer: '1', misconception: a}, {answer: '1.0', misconception: b}]\n```",
            "misconception 2 gets the text of another one",
        ),
        ("```question q\nask: how many?\nanswer: float('nan')\nwhy: w\n```", "its own answer is not judged right"),
        ("```question q\nask: how many?\nanswer: '{1: 2}'\nwhy: w\n```", "is not a number, numbers, text"),
        (
            "```question q\nask: how many?\nanswer: \"'c'\"\nwhy: w\nchoices: [a, b]\n```",
            "'c' is not among its choices",
        ),
        (
            "```python\na = 1\n```\n```question q\nask: how many?\nanswer: a\nwhy: w\n```\n```python\na = 2\n```",
            "at the end of the lesson its answer is another one",
        ),
        ("```stop\nmodel: no-model\ncaption: c\n```", "no-model"),
        ("```stop\nmodel: crosses\nimage: crosses:pluss\ncaption: c\n```", "pluss"),
        (
            "```stop\nmodel: crosses\nimage: crosses:plus\npage: step=conv9\ncaption: c\n```",
            "no step is called 'conv9'",
        ),
        (
            "```stop\nmodel: crosses\nimage: crosses:plus\npage: step=conv1&cell=0.3.1\ncaption: c\n```",
            "cells are 0.0.0",
        ),
        ("```stop\nmodel: crosses\nimage: crosses:plus\npage: vew=look\ncaption: c\n```", "has no part 'vew'"),
        ("```stop\nmodel: crosses\nimage: crosses:plus\npage: view=lock\ncaption: c\n```", "no view is called 'lock'"),
        ("```stop\nmodel: crosses\nimage: crosses:plus\npage: view=kernels&layer=conv2\ncaption: c\n```", "'conv2'"),
    ],
)
def test_the_check_finds_the_mistakes_of_an_author(block: str, sentence: str) -> None:
    found = mistakes(parse(f"{PAGE}{block}\n", "mine"), short=True)
    assert found
    assert sentence in found[0]


def test_the_views_of_the_check_are_those_of_the_page() -> None:
    from convscope.lessons.session import PARTS, VIEWS

    source = (Path(__file__).parents[2] / "web/src/lib/page-state.ts").read_text()
    listed = re.search(r"export const VIEWS = \[(.*?)\]", source)
    assert listed is not None
    assert re.findall(r'"(\w+)"', listed[1]) == list(VIEWS)
    parts = re.search(r"function partsOf.*?return \[(.*?)\n  \];", source, re.DOTALL)
    assert parts is not None
    elsewhere = {"model", "input", "other", "otherat", "training", "blocks"}  # a stop's own keys, and second models
    assert {*PARTS} | elsewhere == {*re.findall(r'^\s+\[?\s*"(\w+)"', parts[1], re.MULTILINE)}


def test_the_site_has_a_page_with_pictures_and_folded_answers(tmp_path: Path) -> None:
    pages = write_site(tmp_path, names=["crosses"], short=True)
    assert [page.name for page in pages] == ["index.md", "crosses.md"]
    text = pages[1].read_text(encoding="utf-8")
    pictures = re.findall(r"!\[output\]\((.+?)\)", text)
    assert len(pictures) > 3
    assert all((tmp_path / picture).stat().st_size > 1000 for picture in pictures)
    assert text.count("<details markdown>") == len(find_lesson("crosses").questions)
    assert "{{" not in text
    assert "[Crosses: a whole network by hand](crosses.md)" in pages[0].read_text(encoding="utf-8")
