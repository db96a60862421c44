"""Followers: who wants to hear of something that goes on; each is woken in an event loop of its own.

Knows event loops; nothing of what goes on.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

BREATH = 0.05
"""Seconds between two events of a stream: what happens meanwhile is told together."""
HEARTBEAT = 10.0
"""Seconds of silence after which a stream says that it is alive."""


class Subscribers:
    """Those who follow one thing."""

    def __init__(self) -> None:
        self._all: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def __len__(self) -> int:
        return len(self._all)

    def wake(self) -> None:
        """Something happened; called from any thread."""
        for changed, loop in list(self._all.items()):
            with suppress(RuntimeError):  # a loop that has ended meanwhile
                loop.call_soon_threadsafe(changed.set)

    async def news(self) -> AsyncGenerator[bool]:
        """True at once and whenever something happened, at most every `BREATH`; False after each silent `HEARTBEAT`."""
        changed = asyncio.Event()
        self._all[changed] = asyncio.get_running_loop()
        try:
            while True:
                changed.clear()
                yield True
                await asyncio.sleep(BREATH)
                while not await _set_within(changed, HEARTBEAT):
                    yield False
        finally:
            del self._all[changed]


async def _set_within(changed: asyncio.Event, seconds: float) -> bool:
    """Wait for an event for so long; whether it came."""
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    return True
