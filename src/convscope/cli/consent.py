"""Consent: asking once, in a terminal, whether the code that a run names may be executed."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

import convscope as cs
from convscope.cli.console import remark

Result = TypeVar("Result")

Trust = Annotated[
    bool, typer.Option("--trust", help="Trust the code that a run names, now and as long as it does not change.")
]


def with_consent(action: Callable[[bool], Result], *, trust: bool) -> Result:
    """Do what may need the code that a run names; where it is not trusted yet, ask whether it is.

    Args:
        action: Called with whether the run is trusted from now on.
        trust: Whether the command line says so.

    Raises:
        TrustError: the code is not trusted, and a person says so, or cannot be asked.
    """
    try:
        return action(trust)
    except cs.TrustError as error:
        if not _may_ask() or not _agreed(error):
            raise
    return action(True)


def _may_ask() -> bool:
    """Whether a person is at the terminal, and no program reads the answer."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return alone and "--json" not in sys.argv and sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(error: cs.TrustError) -> bool:
    """Show which code would run, and ask."""
    remark(f"{error}")
    for file in cs.files_of(error.source):
        remark(f"  {file!r}")
    try:
        return typer.confirm("Code can do all that you can. Trust it and run it?", default=False, err=True)
    except typer.Abort:
        return False
