"""Consent: ask once, in a terminal, whether the code that a run names may be executed."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

import convscope as cs
from convscope.cli.console import remark

Result = TypeVar("Result")

Trust = Annotated[bool, typer.Option("--trust", help="Trust the code that a run names, as long as it does not change.")]


def with_consent(action: Callable[[bool], Result], *, trust: bool) -> Result:
    """Run an action that may need the code that a run names; if it is not trusted yet, ask the user.

    Args:
        action: Called with whether to trust the run from now on.
        trust: Whether --trust was given.

    Raises:
        TrustError: the code is not trusted, and the user declined or cannot be asked.
    """
    try:
        return action(trust)
    except cs.TrustError as error:
        if not _may_ask() or not _agreed(error):
            raise
    return action(True)


def _may_ask() -> bool:
    """Whether the command runs in an interactive terminal."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return alone and "--json" not in sys.argv and sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(error: cs.TrustError) -> bool:
    """Show the code that would run, and ask."""
    remark(f"{error}")
    for file in cs.files_of(error.source):
        remark(f"  {file!r}")
    try:
        return typer.confirm("This code can do anything you can do. Trust it and run it?", default=False, err=True)
    except typer.Abort:
        return False
