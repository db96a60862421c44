"""Lessons as Jupyter notebooks: questions are cells to fill in, the teacher's section is left out."""

import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from convscope.errors import LessonError, UsageError
from convscope.files import write_whole
from convscope.lessons.catalog import find_lesson, is_file_name
from convscope.lessons.expressions import holes
from convscope.lessons.lesson import Block, Code, Lesson, Question, Stop, Text


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
    content = source.read_bytes()
    if target.exists() and target.read_bytes() != content:
        raise UsageError(f"{target} exists and is another file; choose another folder.")
    if not target.exists():
        write_whole(target, content)


def notebook(lesson: Lesson) -> dict[str, Any]:
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


def _first_cells(lesson: Lesson) -> Iterator[dict[str, Any]]:
    yield _markdown(
        f"# {lesson.title}\n\nAbout {lesson.minutes} minutes. {lesson.needs}\n\n"
        "Run the cells from top to bottom. At a question, predict first: replace `...` "
        "by your answer, and run the cell."
    )
    settings = [
        f"{name} = {each.short!r} if lesson.short else {each.full!r}"
        if each.short != each.full
        else f"{name} = {each.full!r}"
        for name, each in lesson.settings.items()
    ]
    yield _code("\n".join(["import convscope as cs", "", f"lesson = cs.lesson({lesson.name!r}, globals())", *settings]))


def _cells(block: Block) -> Iterator[dict[str, Any]]:
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


def _text(source: str) -> dict[str, Any]:
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


def _markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
