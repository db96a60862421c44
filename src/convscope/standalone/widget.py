"""Widget: the explorer's main view in a notebook's cell, with answers over the widget's own channel."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from starlette.types import ASGIApp, Message

from convscope.errors import UsageError
from convscope.memory import collection_paused
from convscope.models import Module
from convscope.models.loading import load_model
from convscope.server.http.security import Access, new_token
from convscope.server.session.workspace import Workspace
from convscope.server.traces.descriptions import trace_info
from convscope.server.traces.passes import TracePass
from convscope.server.traces.schema import TraceRequest
from convscope.standalone.document import built
from convscope.training.runs import Run
from convscope.type_checks import takes

log = logging.getLogger("convscope.widget")
MISSING = "a widget needs anywidget: pip install 'convscope[notebook]'; print(cs.explain(...)) shows the same as text."


@takes(model="Module | Run | str | Path")
def widget(model: Module | Run | str | Path, image: object = None, *, data_dir: str | Path | None = None) -> Any:
    """The explorer in a notebook's cell: click any number of the network and read its sum.

    ```python
    cs.widget(model, image)
    ```

    No server is started: the kernel answers over the widget's channel, and while it runs a cell the widget waits and
    says so. A front end without widgets shows the steps as text.

    Args:
        model: A module of this session, a `Run`, or what `load_model` accepts: a built-in network, your own, a folder.
        image: The input, as `load_image` accepts it; by default a sample of the model's data, or noise.
        data_dir: Folder searched first for the files of the MNIST family.

    Returns:
        An `anywidget.AnyWidget`.

    Raises:
        UsageError: anywidget is not installed, the page was not built, or model or image are invalid.
        ConvscopeError: as raised by `load_model` and `load_image`.
    """
    with collection_paused():  # the first widget imports its parts
        kind = _widget_type()
        loaded = (
            model.model if isinstance(model, Run) else load_model(model) if isinstance(model, str | Path) else model
        )
        workspace = Workspace.of_model(loaded, image, data_dir=Path(data_dir) if data_dir else None)
        client = uuid4().hex
        # before the widget is made: one that is only half made would complain when it is deleted
        return kind(workspace, client, *_first_pass(workspace, client))


@cache
def _widget_type() -> Any:
    """The class of the widgets, which needs anywidget."""
    try:
        import anywidget  # noqa: PLC0415  # an extra
        import traitlets  # noqa: PLC0415
    except ImportError:
        raise UsageError(MISSING) from None
    return _class_from(anywidget.AnyWidget, traitlets)


def _class_from(base: Any, traitlets: Any) -> Any:
    """The class of the widgets, derived from anywidget's."""

    class Widget(base):  # type: ignore[misc]  # anywidget has no types
        """A view whose requests come as messages and are answered as messages."""

        style = traitlets.Unicode().tag(sync=True)
        """The style of the view, which is put into its shadow root."""
        first = traitlets.Dict().tag(sync=True)
        """The answers that the view asks for first, so that it draws the network without a message to the kernel."""

        def __init__(self, workspace: Workspace, client: str, recorded: TracePass, request: TraceRequest) -> None:
            script, style = built("widget")
            token = new_token()
            self._workspace, self._pass = workspace, recorded
            headers = {"authorization": f"Bearer {token}", "x-client": client}
            self._asker = Asker(lambda: _application(workspace, token), headers)
            first = _first_answers(workspace, self._pass, request)
            # a text of its own: notebooks load equal ones once, and two widgets would share one state
            super().__init__(_esm=f"{script}\n// {uuid4()}", style=style, first=first)
            self.on_msg(self._answer)

        def __repr__(self) -> str:
            return f"<explorer of {self._pass.trace!r}>"

        def _repr_mimebundle_(self, **options: object) -> object:
            """The view, and the steps as text for a front end without widgets."""
            bundle = super()._repr_mimebundle_(**options)
            data, *more = bundle if isinstance(bundle, tuple) else (bundle,)
            words = {**(data or {}), "text/plain": str(self._pass.trace)}
            self._asker.start()  # while the front end loads the view, not before
            return (words, *more) if more else words

        def _answer(self, _widget: object, message: object, buffers: Sequence[bytes]) -> None:
            if not isinstance(message, dict) or not {"id", "method", "path"} <= message.keys():
                return
            body = bytes(buffers[0]) if buffers else str(message.get("body", "")).encode()
            answer = self._asker.ask(str(message["method"]), str(message["path"]), body)
            head = {"id": message["id"], "status": answer.status, "headers": dict(answer.headers)}
            self.send(head, buffers=[answer.body])

        def close(self) -> None:
            """Remove the view, and stop answering."""
            self._asker.close()
            self._workspace.close()
            super().close()

    return Widget


def _first_pass(workspace: Workspace, client: str) -> tuple[TracePass, TraceRequest]:
    """The pass that the view shows first, and the request for it."""
    handle = workspace.session_models()[0]
    assert handle.start is not None
    request = TraceRequest(model=handle.id, input=handle.start)
    return workspace.traces.make(handle, workspace.picture, request, client), request


def _first_answers(workspace: Workspace, trace_pass: TracePass, request: TraceRequest) -> dict[str, str]:
    """The answers that the view asks for first, by what it asks for."""
    return {
        "session": workspace.session().model_dump_json(),
        "request": request.model_dump_json(),
        "traces": trace_info(trace_pass).model_dump_json(),
    }


def _application(workspace: Workspace, token: str) -> ASGIApp:
    """The server's application; it takes as long as the front end needs to draw an empty view."""
    from convscope.server.app import make_app, put_together  # noqa: PLC0415  # all routes, which the cell need not wait for

    app = make_app(workspace, Access(token))
    put_together(app)
    return app


# the server's application answers a request in this process, without a socket or a port


class WidgetResponse(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Asker:
    """Sends requests to an application, in an event loop of its own, as a notebook's loop is busy with the cell.

    Args:
        make: Makes the application, in the thread of that loop; requests wait until it is made.
        headers: Of every request.
    """

    def __init__(self, make: Callable[[], ASGIApp], headers: Mapping[str, str]) -> None:
        self._make = make
        self._app: ASGIApp | None = None
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the application, in a thread; calling it again has no effect."""
        if self._thread is None and not self._loop.is_closed():
            self._thread = threading.Thread(target=self._run, name="convscope widget", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            with collection_paused():
                self._app = self._make()
        except Exception:  # each request says so
            log.exception("the widget could not be made")
        self._loop.run_forever()

    def ask(self, method: str, path: str, body: bytes = b"") -> WidgetResponse:
        """The answer to a request for `path`, with its query, below /api/."""
        self.start()
        return asyncio.run_coroutine_threadsafe(self._request(method, path, body), self._loop).result()

    async def _request(self, method: str, path: str, body: bytes) -> WidgetResponse:
        if self._app is None:
            message = {"message": "the widget could not be made; the kernel's log has the error."}
            return WidgetResponse(500, {"content-type": "application/json"}, json.dumps(message).encode())
        place, _, query = path.partition("?")
        headers = [*self._headers, (b"host", b"localhost"), (b"content-type", b"application/json")]
        scope: dict[str, object] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
            "method": method, "path": f"/api/{place}", "raw_path": f"/api/{place}".encode(), "headers": headers,
            "query_string": query.encode(), "client": ("notebook", 0), "server": ("localhost", 80),
        }  # fmt: skip
        sent = False
        status, reply_headers, parts = 500, dict[str, str](), list[bytes]()

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # the widget never disconnects
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, reply_headers
            if message["type"] == "http.response.start":
                status = message["status"]
                reply_headers = {name.decode(): value.decode() for name, value in message.get("headers", [])}
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return WidgetResponse(status, reply_headers, b"".join(parts))

    def close(self) -> None:
        """Stop the loop; calling it again has no effect."""
        if self._loop.is_closed():
            return
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
