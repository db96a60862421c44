"""CLI reference: generates docs/reference/cli.md from the commands (`make docs-cli`)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from convscope.cli import app

HEAD = """# Commands

Every command with its arguments and options, as printed by `convscope COMMAND --help`. The terms *image*, *model* and
*cell* are explained on the [first page](../index.md#where-to-go-next). Commands that read take
`--json`. Exit status: 0, 2 for an invalid argument, 1 for a failed job, 130 after Ctrl-C. This page is generated:
`make docs-cli`.
"""


def page() -> str:
    """The whole page.

    >>> "## convscope plot maps" in page()
    True
    """
    return "\n".join(
        [HEAD, *(line for path, command in commands(get_command(app)) for line in _section(path, command))]
    )


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is not a group, with its path, in the order of `--help`."""
    inner = getattr(command, "commands", {})
    if not inner and not command.hidden:
        yield path, command
    for name, part in inner.items():
        yield from commands(part, (*path, name))


def _section(path: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    options = [part for part in command.params if part.param_type_name == "option" and not part.hidden]
    yield f"## convscope {' '.join(path)}"
    yield ""
    yield " ".join((command.help or "").split())
    yield ""
    yield f"`{' '.join(['convscope', *path, *map(_usage, arguments)])}`"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for part in arguments:
        yield f"| `{part.name.upper()}` | {_help(part)} |"
    for part in options:
        if part.name != "help":
            value = "" if part.is_flag else f" {part.metavar or part.name.upper().replace('_', '-')}"
            yield f"| `{', '.join(part.opts)}{value}` | {_help(part)} |"
    yield ""


def _usage(argument: Any) -> str:
    name = argument.name.upper() + "..." * (argument.nargs == -1)
    return name if argument.required else f"[{name}]"


def _help(part: Any) -> str:
    """The help text of an argument or option, with its default if there is one."""
    text = " ".join((part.help or "").split()).replace("|", "\\|")
    notes = ["required"] * bool(part.required and part.param_type_name == "option")
    if isinstance(part.default, str | int | float | Path) and not isinstance(part.default, bool):
        plain = f"{part.default:g}" if isinstance(part.default, float) else str(part.default)
        notes.append(f"by default `{plain}`")
    return f"{text} ({', '.join(notes)})" if notes else text


if __name__ == "__main__":
    sys.stdout.write(page())
