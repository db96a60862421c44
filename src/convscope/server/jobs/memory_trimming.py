"""Memory trimming: return freed memory to the operating system once no heavy pass follows.

The allocator keeps freed blocks for the next pass. That saves time while passes follow each other, but holds a hundred
megabytes or more afterwards. Uses glibc's `malloc_trim`; does nothing with other allocators.
"""

import asyncio
import ctypes
from collections.abc import Callable


class MemoryTrimmer:
    """Trims memory `seconds` after the last heavy job."""

    def __init__(self, seconds: float = 1.0, release: Callable[[], None] | None = None) -> None:
        self._seconds = seconds
        self._release = release or give_back
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Schedule a trim after a heavy job; must be called in the server's event loop."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, loop.run_in_executor, None, self._release)


def give_back() -> None:
    """Return freed blocks to the operating system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
