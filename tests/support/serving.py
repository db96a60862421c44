"""For tests of the server: a token, a real server on loopback, a client that sends exactly the bytes it is told to."""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from starlette.types import ASGIApp, Message

from convscope.server.http.connection import SlowClientProtocol, bind, make_server
from convscope.server.http.security import Access, Guard, new_token

TOKEN = new_token()
KEY = {"Authorization": f"Bearer {TOKEN}"}
ACCESS = Access(TOKEN, frozenset({"lab.example"}))


@contextmanager
def served(app: ASGIApp, connection: type[SlowClientProtocol] = SlowClientProtocol) -> Iterator[int]:
    """Serve `app` by uvicorn in a thread; gives its port."""
    listening = bind(port=0)
    server = make_server(app, connection)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield int(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected(port: int, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection to a server on this machine."""
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(120)
        client.connect(("127.0.0.1", port))
        yield client


def head(method: str, path: str, port: int, **headers: str) -> bytes:
    """The head of a request: one with `authorization="Bearer t"`, say."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def all_of(client: socket.socket) -> bytes:
    """Everything that still comes, until the server closes the connection."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def asked(port: int, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """One request, its path sent as it is; the answer's status and all its bytes."""
    if body:
        headers.setdefault("content_length", str(len(body)))
    with connected(port) as client:
        client.sendall(head(method, path, port, connection="close", **headers) + body)
        answer = all_of(client)
    return int(answer.split(b" ", 2)[1]), answer


async def status_of(guard: Guard, method: str, path: str, headers: Mapping[str, str | None]) -> int:
    """What a guard answers to these headers, without a server; 0 where it let them through to silence."""
    status = 0

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value is not None]
    await guard({"type": "http", "method": method, "path": path, "headers": pairs}, receive, send)
    return status
