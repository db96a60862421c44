"""Server-sent events: the response, and the coroutines that wait for changes, each in its own event loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Events(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"


async def lines(events: AsyncGenerator[BaseModel | None]) -> AsyncIterator[str]:
    """Events as text/event-stream; None becomes a comment line that keeps the connection alive."""
    async with aclosing(events):
        async for event in events:
            yield ": still here\n\n" if event is None else f"data: {event.model_dump_json()}\n\n"


BREATH = 0.05
"""Minimum seconds between two events of a stream; changes in between are reported together."""
HEARTBEAT = 10.0
"""Seconds without a change after which a stream sends a sign of life."""


class Subscribers:
    """The subscribers to one source of changes."""

    def __init__(self) -> None:
        self._all: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def __len__(self) -> int:
        return len(self._all)

    def wake(self) -> None:
        """Notify every subscriber of a change; may be called from any thread."""
        for changed, loop in list(self._all.items()):
            with suppress(RuntimeError):  # a loop that has ended meanwhile
                loop.call_soon_threadsafe(changed.set)

    async def news(self) -> AsyncGenerator[bool]:
        """Yield True at once and after changes, at most every `BREATH`; False after each `HEARTBEAT` without one."""
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
    """Wait for an event; returns whether it was set within `seconds`."""
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    return True
