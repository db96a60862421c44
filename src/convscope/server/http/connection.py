"""HTTP/1.1 connections with timeouts: uvicorn and h11, protected against slow, silent or too many clients.

uvicorn by itself waits indefinitely for the head of a request and for a client that does not read its response. Size
and time of request bodies are limited in `security`.
"""

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol


class SlowClientProtocol(H11Protocol):
    """A connection that is closed if its client takes too long, or if too many are open."""

    head_seconds = 10.0
    """Time limit for the head of a request, from connecting or from its first byte."""
    write_seconds = 60.0
    """Time limit for a client to read any part of the pending response."""
    most = 400
    """Maximum number of open connections; further ones are closed without a response."""

    _head: asyncio.TimerHandle | None = None
    _write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the timer for the first request, or refuse the connection."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._head = self.loop.call_later(self.head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, which are part of a head or of a body."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """The send buffer is full: watch whether the client keeps reading."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The send buffer has room again."""
        super().resume_writing()
        self._write = _cancelled(self._write)

    def _watch(self, left: int) -> None:
        self._write = self.loop.call_later(self.write_seconds, self._still_reading, left)

    def _still_reading(self, left: int) -> None:
        """Keep waiting for a client that reads, however slowly; drop one that does not read at all."""
        now = self.transport.get_write_buffer_size()
        if now < left:
            self._watch(now)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of a closed connection."""
        self._head, self._write = _cancelled(self._head), _cancelled(self._write)
        super().connection_lost(exc)


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; returns None, to be assigned in its place."""
    if timer is not None:
        timer.cancel()
    return None


def make_server(app: ASGIApp, connection: type[SlowClientProtocol] = SlowClientProtocol) -> uvicorn.Server:
    """A server without access logs and without a Server header."""
    config = uvicorn.Config(
        app,
        http=connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=32_768,
    )
    return uvicorn.Server(config)
