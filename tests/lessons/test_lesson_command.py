"""The commands `lesson` and `notebook`: in the terminal, with files of other people, and where they cannot write."""

import io
import json
import os
from pathlib import Path

import pytest

import convscope as cs
from commands import Commands

PAGE = """---
title: Mine
minutes: 5
needs: nothing
---

There are {{2 + 3}} of them.

```python
from pathlib import Path

mark = Path(MARK)
mark.write_text("executed")
"output " + "of code"
```

```question sum
ask: How many are **6 + 4**?
answer: 6 + 4
because: "f'6 + 4 = {6 + 4}'"
wrong:
  - answer: 6 * 4
    misconception: That is the product.
```

## For the teacher

Ten fingers: {{5 + 5}}.
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.md"
    path.write_text(PAGE.replace("MARK", repr(str(tmp_path / "mark"))), encoding="utf-8")
    return path


def replies(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_list_names_every_lesson(convscope: Commands) -> None:
    listed = convscope.said("lesson")
    assert all(name in listed for name in cs.lessons.LESSONS)
    described = json.loads(convscope.said("lesson", "--json"))
    assert [each["name"] for each in described] == list(cs.lessons.LESSONS)
    assert json.loads(convscope.said("lesson", "crosses", "--json"))["questions"][0] == "common-pixels"


def test_code_of_a_file_runs_only_if_asked_to(convscope: Commands, monkeypatch: pytest.MonkeyPatch, mine: Path) -> None:
    replies(monkeypatch, "")
    result = convscope("lesson", mine, "--text")
    assert result.status == 0
    assert "is not executed" in result.err
    assert "There are … of them." in result.out
    assert "How many are **6 + 4**?" in result.out
    assert "output of code" not in result.out
    convscope("lesson", mine, "--teacher")
    assert not (mine.parent / "mark").exists()
    replies(monkeypatch, "")
    executed = convscope.said("lesson", mine, "--text", "--run")
    assert "There are 5 of them." in executed
    assert "output of code" in executed
    assert (mine.parent / "mark").exists()


def test_questions_are_asked_until_answered_and_any_answer_gets_its_sum(
    convscope: Commands, monkeypatch: pytest.MonkeyPatch, mine: Path
) -> None:
    replies(monkeypatch, "ten\n24\n")
    result = convscope("lesson", mine, "--text", "--run")
    assert "expects a number, such as 0.25 or 3 * 4 + 1, not 'ten'" in result.err
    assert "That is the product." in result.out
    assert "6 + 4 = 10" in result.out
    assert "0 of 1 answers were right" in result.out
    assert "Ten fingers" not in result.out
    replies(monkeypatch, "5 + 5\n")
    assert "1 of 1 answers were right" in convscope.said("lesson", mine, "--text", "--run")


def test_a_question_mark_shows_the_answer_and_counts_for_nothing(
    convscope: Commands, monkeypatch: pytest.MonkeyPatch, mine: Path
) -> None:
    replies(monkeypatch, "?\n?\n")
    told = convscope.said("lesson", mine, "--text", "--run")
    assert "The answer is **10**.\n" in told
    assert "6 + 4 = 10" in told
    assert "at the first try" not in told


STOP = """---
title: Mine
minutes: 5
needs: nothing
---

```python
import convscope as cs

cs.train("crosses", epochs=1, seed=0, watch=lambda event: None)
image = "crosses:damaged-x"
```

```question moves
ask: What do the maps do?
choices: [They stay., They move.]
answer: "'They move.'"
why: They move along.
```

```stop
model: crosses
image: image
command: convscope open runs/crosses --image {{image}}
caption: Look.
```
"""


def test_a_command_names_the_runs_folder_and_the_lessons_values(
    convscope: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "stop.md"
    path.write_text(STOP, encoding="utf-8")
    replies(monkeypatch, "?\n")
    told = convscope.said("lesson", str(path), "--text", "--run")
    line = next(line for line in told.splitlines() if "convscope open" in line)
    run = Path(line.split()[2])
    assert run.is_absolute()
    assert run.parts[-2:] == ("runs", "crosses")
    assert line.endswith("--image crosses:damaged-x")
    assert "until the lesson ends" in told
    assert "The answer is **They move.**\n" in told
    assert "--image …" in convscope.said("lesson", str(path), "--text")


def test_the_teacher_gets_the_answers(convscope: Commands, mine: Path) -> None:
    told = convscope.said("lesson", mine, "--teacher", "--run")
    assert "Ten fingers: 10." in told
    assert "Answer: **10**" in told
    assert "24: That is the product." in told
    assert "6 + 4 = 10" in convscope.said("lesson", mine, "--teacher", "--run")  # the calculation too


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("crosess", None, "no lesson is called 'crosess'; did you mean 'crosses'?"),
        ("missing.md", None, "missing.md cannot be read: No such file"),
        ("folder.md", "", "folder.md cannot be read"),
        ("text.md", "# Not a lesson", "text.md: a lesson starts with its front matter"),
        ("bytes.md", b"\xff\xfe\x00", "is not a text file in UTF-8"),
        ("fails.md", PAGE.partition("```")[0] + "\n```python\n1 / 0\n```\n", "line 11: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_a_lesson_is_one_sentence(
    convscope: Commands, tmp_path: Path, name: str, content: str | bytes | None, sentence: str
) -> None:
    path = tmp_path / name
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = convscope("lesson", path if name.endswith(".md") else name, "--text", "--run")
    assert result.status in {1, 2}
    assert sentence in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_a_lesson_steers_no_terminal(
    convscope: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal: bool
) -> None:
    path = tmp_path / "evil.md"
    text = "red \x1b[31m \u202egnp.exe\n\n```python\n'\x1b[2J'\n```\n"
    path.write_text(f"---\ntitle: a title\nminutes: 1\nneeds: n\n---\n{text}", encoding="utf-8")
    replies(monkeypatch, "")
    monkeypatch.setattr("convscope.cli.lessons.out_is_terminal", lambda: terminal)
    result = convscope("lesson", path, "--text")
    assert r"\u202egnp.exe" in result.out
    assert not any(sign in result.out + result.err for sign in "\x1b\u202e")


def test_notebooks_are_written_once(convscope: Commands, tmp_path: Path, mine: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert convscope.said("notebook", folder).count("wrote ") == len(cs.lessons.LESSONS)
    book = json.loads((folder / "crosses.ipynb").read_text())
    assert (book["nbformat"], len({cell["id"] for cell in book["cells"]})) == (4, len(book["cells"]))
    before = (folder / "crosses.ipynb").read_bytes()
    again = convscope("notebook", folder, "crosses")
    assert again.status == 2
    assert "exists and may hold your answers" in again.err
    assert (folder / "crosses.ipynb").read_bytes() == before
    convscope.said("notebook", folder, mine)
    assert (folder / "mine.md").read_bytes() == mine.read_bytes()  # the notebook reads its questions from it
    assert "cs.lesson('mine.md', globals())" in (folder / "mine.ipynb").read_text()


def test_a_folder_that_cannot_be_written_is_one_sentence(convscope: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        result = convscope("notebook", folder, "crosses")
        assert result.status == 2
        assert result.err.count("\n") == 1
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write every folder")
    assert "cannot be written: Permission denied" in convscope("notebook", closed / "deep", "crosses").err


def test_in_a_notebook_an_answer_too_early_or_of_the_wrong_type_is_a_sentence(mine: Path) -> None:
    variables: dict[str, object] = {}
    lesson = cs.lesson(str(mine), variables)
    assert str(lesson.answer("sum")) == "Not answered yet: replace `...` with your answer and run the cell again."
    assert "expects a number" in str(lesson.answer("sum", [1, 2]))
    assert lesson.answer("sum", "many").right is None
    assert lesson.answer("sum", 10).right
    reply = lesson.answer("sum", 24)
    assert reply.right is False
    assert reply._repr_markdown_() == "That is the product.\n\nThe answer is **10**.\n\n6 + 4 = 10"
    with pytest.raises(cs.UsageError, match="no question is called 'sums'; did you mean 'sum'"):
        lesson.answer("sums", 1)
    crosses = cs.lesson("crosses", variables)
    with pytest.raises(
        cs.ConvscopeError, match="needs 'plus', which an earlier cell of the lesson makes: run the cells"
    ):
        crosses.answer("common-pixels", 1)
