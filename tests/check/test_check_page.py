"""The page on checking a function: its code runs, and its answers are those of the command."""

import re
from pathlib import Path

import pytest

import convscope as cs

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "check-your-own-convolution.md"
BLOCKS = re.findall(r"```(python)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
CODE = [text for language, text in BLOCKS if language]
ANSWERS = [re.match(r"\$ convscope check (\S+)\n(.*)", text, re.DOTALL) for language, text in BLOCKS if not language]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the page: its first two pieces of code, and the first one mended as the page says."""
    (tmp_path / "mine.py").write_text(CODE[0])
    (tmp_path / "pool.py").write_text(CODE[1])
    mended = CODE[0].replace("[::-1, ::-1]", "")
    assert mended != CODE[0]
    (tmp_path / "right.py").write_text(mended)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
def test_the_answers_on_the_page_are_those_of_the_command() -> None:
    assert len(ANSWERS) == 3
    for block in ANSWERS:
        assert block is not None
        assert cs.check_file(block[1]).text == block[2].rstrip("\n"), block[1]


@pytest.mark.parametrize("code", CODE[2:])
def test_the_code_on_the_page_runs(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(code, {})  # it is our own
    shown = re.findall(r"print\(.*\)\s+# (.*)", code)
    assert capsys.readouterr().out.splitlines() == shown


def test_the_page_lists_every_operation() -> None:
    from convscope.checking.operations import OPERATIONS

    listed = re.findall(r"`([a-z0-9_]+)`", " ".join(re.findall(r"(?m)^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"))))
    assert sorted(listed) == sorted(OPERATIONS)
