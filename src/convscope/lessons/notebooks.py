"""Lessons as Jupyter notebooks: questions are cells to fill in, the teacher's section is left out.

The cells call a `NotebookLesson`, which fills in text and judges answers from the notebook's own variables.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from convscope.errors import LessonError, UnknownName, UsageError
from convscope.files import read_file, write_whole
from convscope.lessons.lesson import Block, Code, Lesson, Question, Stop, Text
from convscope.lessons.parsing import find_lesson, is_file_name, is_short
from convscope.lessons.questions import AnswerError
from convscope.lessons.session import ask
from convscope.lessons.values import Namespace, Output, fill, holes
from convscope.type_checks import takes


@takes()
def write_notebook(folder: str | Path, name: str) -> Path:
    """Write a lesson as a notebook, FOLDER/NAME.ipynb; of a lesson in a file, the file is copied beside it.

    Args:
        folder: The folder, which is made if it is missing.
        name: A lesson's name, or the path of its Markdown file.

    Returns:
        The notebook's path.

    Raises:
        UsageError: the notebook exists already, or the folder cannot be written.
        LessonError: the file is not a lesson.
    """
    lesson = find_lesson(name)
    path = Path(folder).expanduser() / f"{Path(lesson.name).stem}.ipynb"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists and may hold your answers; move it, or choose another folder.")
        if is_file_name(name):
            _copy(Path(name).expanduser(), path.parent / lesson.name)
        write_whole(path, (json.dumps(notebook(lesson), indent=1, ensure_ascii=False) + "\n").encode())
    except FileExistsError:
        raise UsageError(f"{path.parent} is a file; give a folder.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.") from None
    return path


def _copy(source: Path, target: Path) -> None:
    content = read_file(source)
    if target.exists() and (target.stat().st_size != len(content) or read_file(target) != content):
        raise UsageError(f"{target} exists and is another file; choose another folder.")
    if not target.exists():
        write_whole(target, content)


def notebook(lesson: Lesson) -> dict[str, object]:
    """A lesson as the content of an .ipynb file (format 4.5).

    Source: The Jupyter Notebook Format (https://nbformat.readthedocs.io/en/latest/format_description.html).
    """
    cells = [*_first_cells(lesson), *(cell for block in lesson.blocks for cell in _cells(block))]
    return {
        "cells": [cell | {"id": f"cell-{number}"} for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _first_cells(lesson: Lesson) -> Iterator[dict[str, object]]:
    yield _markdown(
        f"# {lesson.title}\n\nAbout {lesson.minutes} minutes. {lesson.needs}\n\n"
        "Run the cells from top to bottom. At a question, predict first: replace `...` "
        "with your answer, and run the cell."
    )
    settings = [
        f"{name} = {setting.short!r} if lesson.short else {setting.full!r}"
        if setting.short != setting.full
        else f"{name} = {setting.full!r}"
        for name, setting in lesson.settings.items()
    ]
    yield _code("\n".join(["import convscope as cs", "", f"lesson = cs.lesson({lesson.name!r}, globals())", *settings]))


def _cells(block: Block) -> Iterator[dict[str, object]]:
    match block:
        case Text(source=source):
            yield from map(_text, _passages(source))
        case Code(source=source):
            yield _code(source.strip("\n"))
        case Question():
            choices = [
                f"- `{value!r}`" + (f": {text}" if text != value else "") for value, text in block.choices.items()
            ]
            yield _text("\n".join([f"**Question.** {block.ask}", *([""] if choices else []), *choices]))
            yield _code(f"lesson.answer({block.name!r}, ...)")
        case Stop(command=command, caption=caption):
            yield _text("\n\n".join([f"**In the explorer.** {caption}", *([f"`{command}`"] if command else [])]))


def _passages(source: str) -> Iterator[str]:
    """A text in passages, so that only paragraphs with values become code; a code block is one paragraph."""
    paragraphs: list[list[str]] = [[]]
    fence = ""
    for line in source.split("\n"):
        mark = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and fence and mark[1].startswith(fence) and not line.strip(" `~"):
            fence = ""
        if not line.strip() and not fence:
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    texts = ["\n".join(lines) for lines in paragraphs if lines]
    for filled, group in groupby(texts, lambda text: bool(holes(text))):
        passage = list(group)
        yield from passage if filled else ["\n\n".join(passage)]


def _text(source: str) -> dict[str, object]:
    """A cell of Markdown; of code that fills in the values, if there are any."""
    if not holes(source):
        return _markdown(source)
    # A raw string keeps the backslashes of formulas; it cannot end in one, nor hold its own quotes.
    quotes = "'''" if '"""' in source else '"""'
    if quotes in source or re.search(r"\\\s*$", source):
        raise LessonError(
            f"a text with values cannot hold both kinds of triple quotes or end in a backslash: {source[:60]!r}."
        )
    return _code(f"lesson.text(r{quotes}\n{source}\n{quotes})")


def _markdown(source: str) -> dict[str, object]:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(source: str) -> dict[str, object]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


# What the cells call


@dataclass(frozen=True, slots=True)
class Note:
    """Markdown that a notebook shows as such, and a terminal as text."""

    markdown: str

    def __str__(self) -> str:
        return self.markdown

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return self.markdown


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer gets. `right` is None if the question was not answered."""

    name: str
    right: bool | None
    text: str
    because: Output = Output()  # noqa: RUF009  # frozen

    def __str__(self) -> str:
        return "\n\n".join(part for part in (self.text, self.because.plain()) if part)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return "\n\n".join(part for part in (self.text, self.because.markdown()) if part)


class NotebookLesson:
    """The lesson that a notebook belongs to. `lesson.short` is its short setting."""

    def __init__(self, lesson: Lesson, variables: Namespace, short: bool) -> None:
        self._lesson = lesson
        self._variables = variables
        self.short = short

    def __repr__(self) -> str:
        return f"<lesson {self._lesson.title!r}: {len(self._lesson.questions)} questions>"

    def text(self, markdown: str) -> Note:
        """Markdown with each `{{expression}}` replaced by its value."""
        return Note(fill(markdown, self._variables, "this text"))

    def answer(self, name: str, value: object = ...) -> Reply:
        """Check an answer: `lesson.answer("middle-window", 2.21)`; as long as it is `...` nothing is judged.

        Returns:
            The verdict with the calculation; a sentence about an answer of the wrong kind, or a missing earlier cell.

        Raises:
            UnknownName: the lesson has no question of this name.
            LessonError: the answer depends on a cell that was not run yet.
        """
        questions = self._lesson.questions
        if name not in questions:
            raise UnknownName("question", name, questions)
        if value is ...:
            return Reply(name, None, "Not answered yet: replace `...` with your answer and run the cell again.")
        question = ask(questions[name], self._variables, self._lesson.name)
        try:
            answer = question.read(value) if isinstance(value, str) else question.check(value)
        except AnswerError as error:
            return Reply(name, None, f"{str(error)[0].upper()}{str(error)[1:]}")
        verdict = question.judge(answer)
        return Reply(name, verdict.right, verdict.text, verdict.because)


@takes()
def lesson(name: str, variables: Namespace, *, short: bool | None = None) -> NotebookLesson:
    """The lesson of a notebook; `convscope notebook` writes the cell that calls this.

    ```python
    lesson = cs.lesson("crosses", globals())
    lesson.answer("middle-window", 2.21)
    ```

    Args:
        name: A lesson's name, or the path of its Markdown file.
        variables: The notebook's variables, `globals()`: answers are calculated from them.
        short: Whether short settings are used; by default if the environment has CONVSCOPE_LESSON_SHORT=1.

    Raises:
        UnknownName: there is no lesson of this name.
        LessonError: the file cannot be read, or is not a lesson.
    """
    return NotebookLesson(find_lesson(name), variables, is_short() if short is None else short)
