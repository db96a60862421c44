"""Connection: HTTP/1.1 by uvicorn and h11, for clients that may be slow, silent or many.

Knows sockets' timers; a body's size and time are `security`'s. uvicorn itself waits for ever for the head of a
request and for a client that does not read its answer.
"""

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol


class SlowClientProtocol(H11Protocol):
    """A connection that is closed when its client takes too long, or when there are too many."""

    head_seconds = 10.0
    """For the head of a request, from connecting, or from its first byte."""
    write_seconds = 60.0
    """For a client to read any of what lies ready for it."""
    most = 400
    """Connections at once; a further one is closed unanswered."""

    _head: asyncio.TimerHandle | None = None
    _write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client came."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        else:
            self._head = self.loop.call_later(self.head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """It sent something: part of a head, or of a body."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """It does not read as fast as we write."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It read on."""
        super().resume_writing()
        self._write = _cancelled(self._write)

    def _watch(self, left: int) -> None:
        self._write = self.loop.call_later(self.write_seconds, self._still_reading, left)

    def _still_reading(self, left: int) -> None:
        """However slowly: one that reads is waited for, one that does not is left."""
        now = self.transport.get_write_buffer_size()
        if now < left:
            self._watch(now)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        self._head, self._write = _cancelled(self._head), _cancelled(self._write)
        super().connection_lost(exc)


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """The timer that there is then: none."""
    if timer is not None:
        timer.cancel()
    return None


def make_server(app: ASGIApp, connection: type[SlowClientProtocol] = SlowClientProtocol) -> uvicorn.Server:
    """A server that says nothing by itself, neither in logs nor in headers."""
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
