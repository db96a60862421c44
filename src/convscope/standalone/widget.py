"""Widget: the explorer's main view in a notebook's cell, with answers over the widget's own channel."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from starlette.types import ASGIApp, Message

from convscope.errors import UsageError
from convscope.models import Module
from convscope.models.loading import load_model
from convscope.server.app import make_app, put_together
from convscope.server.http.security import Access, new_token
from convscope.server.jobs import NOBODY
from convscope.server.session.workspace import Workspace
from convscope.server.traces.schema import TraceRequest
from convscope.standalone.document import built
from convscope.traces.trace import Trace
from convscope.type_checks import takes

MISSING = "a widget needs anywidget: pip install 'convscope[notebook]'; print(cs.explain(...)) shows the same as text."


@takes(model="Module | str | Path")
def widget(model: Module | str | Path, image: object = None, *, data_dir: str | Path | None = None) -> Any:
    """The explorer in a notebook's cell: click any number of the network and read its sum.

    ```python
    cs.widget(model, image)
    ```

    No server is started: the kernel answers over the widget's channel, and while it runs a cell the widget waits and
    says so. A front end without widgets shows the steps as text.

    Args:
        model: A module of this session, or what `load_model` accepts: a built-in network, your own, or a run folder.
        image: The input, as `load_image` accepts it; by default a sample of the model's data, or noise.
        data_dir: Folder searched first for the files of the MNIST family.

    Returns:
        An `anywidget.AnyWidget`.

    Raises:
        UsageError: anywidget is not installed, the page was not built, or model or image are invalid.
        ConvscopeError: as raised by `load_model` and `load_image`.
    """
    kind = _widget_type()
    loaded = load_model(model) if isinstance(model, str | Path) else model
    workspace = Workspace.of_model(loaded, image, data_dir=Path(data_dir) if data_dir else None)
    return kind(workspace)


@cache
def _widget_type() -> Any:
    """The class of the widgets, which needs anywidget."""
    try:
        import anywidget  # noqa: PLC0415  # an extra
        import traitlets  # noqa: PLC0415
    except ImportError:
        raise UsageError(MISSING) from None

    class Widget(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget has no types
        """A view whose requests come as messages and are answered as messages."""

        style = traitlets.Unicode().tag(sync=True)
        """The style of the view, which is put into its shadow root."""

        def __init__(self, workspace: Workspace) -> None:
            script, style = built("widget")
            token = new_token()
            app = make_app(workspace, Access(token))
            put_together(app)
            self._workspace = workspace
            self._asker = Asker(app, {"authorization": f"Bearer {token}", "x-client": uuid4().hex})
            # a text of its own: notebooks load equal ones once, and two widgets would share one state
            super().__init__(_esm=f"{script}\n// {uuid4()}", style=style)
            self.on_msg(self._answer)

        def __repr__(self) -> str:
            return f"<explorer of {self._trace!r}>"

        def _repr_mimebundle_(self, **options: object) -> object:
            """The view, and the steps as text for a front end without widgets."""
            bundle = super()._repr_mimebundle_(**options)
            data, *more = bundle if isinstance(bundle, tuple) else (bundle,)
            words = {**(data or {}), "text/plain": str(self._trace)}
            return (words, *more) if more else words

        @property
        def _trace(self) -> Trace:
            """The pass that the view shows first."""
            handle = self._workspace.session_models()[0]
            assert handle.start is not None
            request = TraceRequest(model=handle.id, input=handle.start)
            return self._workspace.traces.make(handle, self._workspace.picture, request, NOBODY).trace

        def _answer(self, _widget: object, asked: object, buffers: Sequence[bytes]) -> None:
            if not isinstance(asked, dict) or not {"id", "method", "path"} <= asked.keys():
                return
            body = bytes(buffers[0]) if buffers else str(asked.get("body", "")).encode()
            answer = self._asker.ask(str(asked["method"]), str(asked["path"]), body)
            head = {"id": asked["id"], "status": answer.status, "headers": dict(answer.headers)}
            self.send(head, buffers=[answer.body])

        def close(self) -> None:
            """Remove the view, and stop answering."""
            self._asker.close()
            self._workspace.close()
            super().close()

    return Widget


# the server's application answers a request in this process, without a socket or a port


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
        scope: dict[str, object] = {
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
