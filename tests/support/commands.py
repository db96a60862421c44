"""Commands of the command line, run in the tests' own process: what they print, and how they end."""

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from convscope.cli import main


class Said(NamedTuple):
    """What a command printed, and how it ended."""

    out: str
    err: str
    status: int


class Commands:
    """Runs commands: `convscope("trace", "crosses", "crosses:plus")`."""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self.patch, self.captured = patch, captured

    def __call__(self, *arguments: str | Path) -> Said:
        self.patch.setattr(sys, "argv", ["convscope", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(*self.captured.readouterr(), int(ended.value.code or 0))

    def said(self, *arguments: str | Path) -> str:
        """What a command that does not fail prints."""
        message = self(*arguments)
        assert message.status == 0, message.err
        return message.out
