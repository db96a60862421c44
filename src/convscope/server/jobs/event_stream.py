"""Server-sent events: the response class and the text format."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

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
