"""Streams: server-sent events."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Events(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


async def lines(events: AsyncGenerator[BaseModel | None]) -> AsyncIterator[str]:
    """Events as they are sent; where there was none for a while, a line that says that the stream lives."""
    async with aclosing(events):
        async for event in events:
            yield ": still here\n\n" if event is None else f"data: {event.model_dump_json()}\n\n"
