"""HTTP/1.1 on the server's socket: uvicorn and h11, protected against slow, silent or too many clients.

uvicorn by itself waits indefinitely for the head of a request and for a client that does not read its response. Size
and time of request bodies are limited in `security`.
"""

import asyncio
import errno
import os
import socket
import sys
import webbrowser

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

import convscope as cs

HOST = "127.0.0.1"
PORT = 8765
TRIED = 50
"""Number of consecutive ports to try, starting at the requested one."""
ANYWHERE = frozenset({"0.0.0.0", "::"})
"""Addresses that listen on every network interface."""


def bind(host: str = HOST, port: int | None = None) -> socket.socket:
    """A socket that listens on `host`: on `port`, or else the next free one; 0 picks any free port.

    Raises:
        UsageError: `host` is not an address of this machine, or none of the ports is free.
    """
    first = PORT if port is None else port
    if not 0 <= first < 65536:
        raise cs.UsageError(f"a port is a number from 0 (any free one) to 65535, not {first}.")
    family, address = _resolved(host)
    tried = range(first, min(first + TRIED, 65536)) if first else range(1)
    for number in tried:
        # asyncio sets TCP_NODELAY only if the protocol is given as TCP; without it each small response takes 40 ms
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # reuse a port that was just closed; on Windows this would share a port in use
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address, number))
            listening.listen(1024)
        except OSError as error:
            listening.close()
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise _no_address(host) from None
        else:
            return listening
    raise cs.UsageError(
        f"none of the ports {tried[0]} to {tried[-1]} is free for you at {host}; choose another with --port."
    )


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    """The address that a name resolves to, IPv4 if there is a choice."""
    try:
        candidates = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _no_address(host) from None
    family, *_, address = min(candidates, key=lambda candidate: candidate[0] != socket.AF_INET)
    return family, str(address[0])


def _no_address(host: str) -> cs.UsageError:
    return cs.UsageError(f"{host!r} is not an address of this machine; omit --host, or give one that is.")


def address_of(listening: socket.socket) -> str:
    """The page's URL, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    reachable_host = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)
    return f"http://{f'[{reachable_host}]' if ':' in reachable_host else reachable_host}:{port}/"


def has_browser() -> bool:
    """Whether a graphical browser can be opened for the user: not over SSH, and not one that runs in the terminal."""
    if "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


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

    def _still_reading(self, previous_size: int) -> None:
        """Keep waiting for a client that reads, however slowly; drop one that does not read at all."""
        size = self.transport.get_write_buffer_size()
        if size < previous_size:
            self._watch(size)
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
