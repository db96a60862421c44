"""Bounded work: bodies, slow clients, silent ones and many; the figures are in docs/explanation/security.md."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from convscope.server.app import make_app
from convscope.server.http import security
from convscope.server.http.connection import SlowClientProtocol
from convscope.server.http.security import Guard
from convscope.server.session import uploads
from serving import ACCESS, KEY, TOKEN, all_of, asked, connected, head, served, status_of


class Quick(SlowClientProtocol):
    """Loses its patience at once, so that the tests need none."""

    head_seconds = 2.0
    write_seconds = 0.3
    most = 8


async def _big(request: Request) -> Response:
    request.app.state.begun.set()

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(2000):
            yield bytes(100_000)

    return StreamingResponse(parts())


async def _echo(request: Request) -> Response:
    return Response(str(len(await request.body())))


@pytest.fixture
def echo(static: Path) -> FastAPI:
    """Counts the bytes of bodies; big answers at /api/big."""
    app = make_app(None, ACCESS)
    app.state.begun = threading.Event()
    app.add_route("/api/inputs", _echo, ["POST"])
    app.add_route("/api/echo", _echo, ["POST"])
    app.add_route("/api/big", _big)
    app.router.routes[:] = [*app.router.routes[-3:], *app.router.routes[:-3]]
    return app


@pytest.mark.parametrize(("path", "kind", "most"), [
    ("/api/echo", "application/json", security.MAX_JSON), ("/api/inputs", "image/png", uploads.MAX_BYTES)
])  # fmt: skip
def test_a_body_is_counted_while_it_streams(echo: FastAPI, path: str, kind: str, most: int) -> None:
    with served(echo) as port:
        good = {"authorization": f"Bearer {TOKEN}", "content_type": kind}
        assert asked(port, path, "POST", bytes(most), **good)[1].endswith(str(most).encode())
        status, answer = asked(port, path, "POST", b"x", **good | {"content_length": str(most + 1)})
        assert (status, b"larger than" in answer) == (413, True)
        with connected(port) as client:  # no length is announced, and the end never comes
            client.sendall(head("POST", path, port, **good, transfer_encoding="chunked"))
            answer = _sent_until_refused(client, b"186a0\r\n" + bytes(100_000) + b"\r\n", most // 100_000 + 200)
        assert b"413" in answer.split(b"\r\n")[0]


def _sent_until_refused(client: Any, part: bytes, most: int) -> bytes:
    try:
        for _ in range(most):
            client.sendall(part)
    except ConnectionError:
        pass
    else:
        raise AssertionError("the server read on")
    return all_of(client) or b"HTTP/1.1 413"


def test_a_get_has_no_body_and_a_compressed_one_is_not_taken(echo: FastAPI) -> None:
    client = TestClient(echo, base_url="http://localhost")
    kind = KEY | {"Content-Type": "application/json"}
    assert client.post("/api/echo", headers=kind | {"Content-Encoding": "gzip"}, content=b"x").status_code == 415
    assert client.post("/api/echo", headers=kind | {"Content-Length": "-1"}, content=b"x").status_code == 413
    assert client.post("/api/echo", headers=kind | {"Content-Length": "9" * 99}, content=b"x").status_code == 413


def test_a_client_that_does_not_say_what_it_wants_is_left(echo: FastAPI) -> None:
    with served(echo, Quick) as port, ExitStack() as opened:
        clients = [opened.enter_context(connected(port)) for _ in range(3)]
        for client, sent in zip(clients, (b"", b"GET / HT", head("GET", "/", port)[:-2]), strict=True):
            client.sendall(sent)
        assert [all_of(client) for client in clients] == [b""] * 3


def test_a_second_request_on_a_connection_has_no_more_time_than_the_first(echo: FastAPI) -> None:
    with served(echo, Quick) as port, connected(port) as client:
        client.sendall(head("GET", "/", port))
        answer = b""
        while not answer.endswith(b"</title>"):
            part = client.recv(1000)
            assert part, "it was left with its answer"
            answer += part
        with suppress(ConnectionError):
            for _ in range(600):  # a letter now and then is no reason to wait longer
                client.sendall(b"G")
                time.sleep(0.05)
            raise AssertionError("the server waits on")
        assert all_of(client) == b""


def test_a_client_that_drips_its_body_is_told_off(echo: FastAPI) -> None:
    guarded = Guard(_raw_echo, ACCESS, body_seconds=0.3)
    with served(guarded) as port, connected(port) as client:
        good = {"authorization": f"Bearer {TOKEN}", "content_type": "application/json", "content_length": "100"}
        client.sendall(head("POST", "/api/echo", port, **good) + b"[1,")
        assert b"did not arrive within 0.3 seconds" in all_of(client)


async def _raw_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is only that route, with errors as the real one answers them."""
    app = make_app(None, ACCESS)
    app.user_middleware.clear()
    app.add_route("/api/echo", _echo, ["POST"])
    app.router.routes.insert(0, app.router.routes.pop())
    await app(scope, receive, send)


def test_a_client_that_does_not_read_its_answer_is_left(echo: FastAPI) -> None:
    with served(echo, Quick) as port, connected(port, receive_buffer=4096) as client:
        client.sendall(head("GET", "/api/big", port, authorization=f"Bearer {TOKEN}"))
        assert echo.state.begun.wait(240)
        deadline = time.monotonic() + 240
        while _active(echo):  # though nothing is read
            assert time.monotonic() < deadline, "it is still being answered"
            time.sleep(0.01)
        assert len(all_of(client)) < 2000 * 100_000


def _active(app: FastAPI) -> int:
    guard: Any = app.middleware_stack
    while guard is not None and not isinstance(guard, Guard):
        guard = guard.app
    return guard.active if guard else 0


def test_a_flood_of_silent_clients_passes(echo: FastAPI) -> None:
    with served(echo, Quick) as port, ExitStack() as opened:
        for client in [opened.enter_context(connected(port)) for _ in range(50)]:
            assert all_of(client) == b""
        assert asked(port, "/assets/a.js")[0] == 200


def test_more_requests_at_once_than_are_answered_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_WAITING", 2)

    async def run() -> list[int]:
        gate = asyncio.Event()

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await gate.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        guard = Guard(inner, ACCESS)
        good = {"host": "localhost", "authorization": f"Bearer {TOKEN}"}
        waiting = [asyncio.create_task(status_of(guard, "GET", "/api/x", good)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await status_of(guard, "GET", "/api/x", {"host": "localhost"}) == 401
        gate.set()
        statuses = [await one for one in waiting]
        return [*statuses, await status_of(guard, "GET", "/api/x", good)]

    assert asyncio.run(run()) == [200, 200, 503, 200]
