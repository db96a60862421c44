"""Progress: callbacks for long-running work. Imports nothing of convscope."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`, first with done = 0, last with done = total; total 0 means unknown."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore all progress."""
