"""The page of learners' questions names questions that the lessons ask, and commands that exist."""

import re
import shlex

import pytest
from typer.main import get_command

from convscope.cli import app
from convscope.lessons import find_lesson
from documents import ROOT

PAGE = (ROOT / "docs/lessons/questions.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.split("\n") if line.startswith("| ") and "`" in line]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_a_row_names_what_exists(row: str) -> None:
    codes = re.findall(r"`([^`]+)`", row)
    asked = [code.split(": ") for code in codes if re.fullmatch(r"[\w-]+: [\w-]+", code)]
    assert asked
    for lesson, question in asked:
        assert question in find_lesson(lesson).questions
    commands = [shlex.split(code)[1:] for code in codes if code.startswith("convscope ")]
    assert commands
    for name, *rest in commands:
        command = get_command(app).commands[name]  # type: ignore[attr-defined]  # a group
        assert not hasattr(command, "commands") or rest[0] in command.commands
