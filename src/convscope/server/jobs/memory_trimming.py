"""Memory: what heavy passes let go is given back to the system once it is quiet.

An allocator keeps freed blocks for the next pass, which spares work while passes follow each other, and is a
hundred megabytes and more afterwards. Knows glibc's `malloc_trim`; where there is another allocator it does nothing.
"""

import asyncio
import ctypes
from collections.abc import Callable


class MemoryTrimmer:
    """Gives memory back `seconds` after the last heavy piece of work."""

    def __init__(self, seconds: float = 1.0, release: Callable[[], None] | None = None) -> None:
        self._seconds = seconds
        self._release = release or give_back
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Heavy work was done; called on the server's loop."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, loop.run_in_executor, None, self._release)


def give_back() -> None:
    """Hand freed blocks to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
