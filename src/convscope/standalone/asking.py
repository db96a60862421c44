"""Asking: the server's application answers a request in this process, without a socket or a port."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Asker:
    """Sends requests to an application, in an event loop of its own, as a notebook's loop is busy with the cell.

    Args:
        app: The application.
        headers: Of every request.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="convscope widget", daemon=True)
        self._thread.start()

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """The answer to a request for `path`, with its query, below /api/."""
        return asyncio.run_coroutine_threadsafe(self._asked(method, path, body), self._loop).result()

    async def _asked(self, method: str, path: str, body: bytes) -> Answer:
        place, _, query = path.partition("?")
        headers = [*self._headers, (b"host", b"localhost"), (b"content-type", b"application/json")]
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
            "method": method, "path": f"/api/{place}", "raw_path": f"/api/{place}".encode(), "headers": headers,
            "query_string": query.encode(), "client": ("notebook", 0), "server": ("localhost", 80),
        }  # fmt: skip
        sent = False
        status, found, parts = 500, {}, list[bytes]()

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # the widget never disconnects
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, found
            if message["type"] == "http.response.start":
                status = message["status"]
                found = {name.decode(): value.decode() for name, value in message.get("headers", [])}
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return Answer(status, found, b"".join(parts))

    def close(self) -> None:
        """Stop the loop; calling it again has no effect."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
