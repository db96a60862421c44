"""The fenced blocks of the documents, and how each is run: code in one namespace per page, commands in this process.

    ```python               executed, top to bottom
    ```python title="a.py"  written to a file, for the commands that follow; so is json
    ```sh                   each line is a command, perhaps with `> FILE`
    ```console              lines with `$` are commands; the lines below are their output, whose numbers may differ
    ```text                 output and drawings

After `<!-- not run: REASON -->` a block is only parsed: its Python compiles, its commands have these options.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from commands import Commands
from convscope.cli import app

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
LANGUAGES = {"python", "pycon", "json", "sh", "console", "text", "toml", "markdown"}
NUMBER = re.compile(r"[-−–]?\d[\d,.]*(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    body: str
    reason: str
    """Why it is not run; "" if it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command and the lines of its output."""
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.language == "sh":
            return [(line, []) for line in lines if line.strip() and not line.startswith("#")]
        result: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith("$ "):
                result.append((line[2:], []))
            elif result:
                result[-1][1].append(line)
        return result


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    result = []
    for match in BLOCK.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        mark = MARK.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        result.append(Block(page, line, language, title[1] if title else "", match["body"], mark[1] if mark else ""))
    return result


def run(block: Block, names: dict[str, Any], convscope: Commands) -> None:
    """Run a block as a reader would; it must not fail."""
    if block.language in {"python", "json"} and block.title:
        Path(block.title).write_text(block.body, encoding="utf-8")
    elif block.language == "python":
        exec(compile("\n" * block.line + block.body, str(block.page), "exec"), names)  # our own documents
        convscope.captured.readouterr()
    else:
        for line, expected in block.commands:
            command, _, file = line.partition(" > ")
            program, *arguments = shlex.split(command, comments=True)
            assert program == "convscope", f"{block}: {command}: mark the block as not run, with the reason"
            result = convscope(*arguments)
            if file:
                Path(file).write_text(result.out, encoding="utf-8")
            assert "Traceback" not in result.err
            # a check that finds something ends with status 1 and its report, a failure with a sentence
            assert result.status == 0 or (result.status == 1 and "error:" not in result.err), (
                f"{block}: {command}\n{result.err}"
            )
            missing = set(map(masked, expected)) - set(map(masked, result.out.splitlines()))
            assert not missing - {""}, f"{block}: {command} does not print {missing}\n{result.out}"


def masked(line: str) -> str:
    """A line of output without its numbers and alignment."""
    return " ".join(NUMBER.sub("#", line).split())


def parse(block: Block) -> None:
    """Check what can be checked without running a block: its syntax, its commands and their options."""
    if block.language in {"python", "pycon"}:
        ast.parse(block.body if block.language == "python" else "")
    for command, _ in block.commands if block.language in {"sh", "console"} else []:
        words = shlex.split(command, comments=True)
        while words and "=" in words[0]:  # variables of the environment
            words = words[1:]
        _parse(words, block)


def _parse(words: list[str], block: Block) -> None:
    program, *arguments = words
    if program == "make":
        targets = [word for word in arguments if "=" not in word]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), f"{block}: {words}"
    elif program == "python" and arguments[0] != "-m":
        assert (ROOT / arguments[0]).is_file(), f"{block}: {words}"
    elif program == "torchrun":
        _parse(words[words.index("-m") + 1 :], block)
    elif program == "convscope":
        for _ in contexts(arguments):
            pass
    else:
        assert program in {"pip", "python", "ssh"}, f"{block}: {words}"


def contexts(arguments: list[str]) -> Iterator[Any]:
    """Parse the arguments of the command line, group by group, without running anything."""
    command: Any = get_command(app)
    context = command.make_context("convscope", list(arguments))
    yield context
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(rest), parent=context)
        yield context
