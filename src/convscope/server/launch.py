"""Starting and stopping the explorer: socket, access token, server thread, first forward pass, browser, shutdown.

The first forward pass of each model starts before the browser does. A trace's id is a digest of its request, so the
page's own request finds this trace, or waits for it. The content comes from `session.workspace`, access control from
`http.security`.
"""

import atexit
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import convscope as cs
from convscope.server.app import make_app, put_together
from convscope.server.http import page
from convscope.server.http.connection import ANYWHERE, HOST, PORT, address_of, bind, has_browser, make_server
from convscope.server.http.security import Access, is_host, is_loopback, new_token
from convscope.server.jobs import NOBODY
from convscope.server.lessons import LessonService
from convscope.server.session.model_handle import ModelHandle
from convscope.server.session.workspace import Workspace
from convscope.server.traces.descriptions import trace_info
from convscope.server.traces.schema import TraceInfo, TraceRequest
from convscope.server.trainings.registry import Networks, Trainings, names_code
from convscope.type_checks import takes


def begin_first_views(workspace: Workspace) -> None:
    """Start to trace the first input of each model of this session, in the worker threads."""
    for opened in workspace.session_models():
        workspace.workers.begin(f"model {opened.id}", partial(_first_view, workspace, opened))


def _first_view(workspace: Workspace, opened: ModelHandle) -> TraceInfo | None:
    """The trace that the page requests if its URL specifies nothing else."""
    if opened.start is None:
        return None
    request = TraceRequest(model=opened.id, input=opened.start)
    return trace_info(workspace.traces.make(opened, workspace.picture, request, NOBODY))


class Explorer:
    """A running explorer: `url` opens its page, `close()` shuts it down, `wait()` blocks until Ctrl-C.

    A thread of this process serves the page. Used as a context manager, the explorer is closed on exit.
    """

    def __init__(
        self,
        workspace: Workspace,
        folder: Path,
        listening: socket.socket,
        allow_hosts: Sequence[str],
        *,
        lesson: "cs.lessons.LessonSession | None" = None,
        networks: Networks = MappingProxyType({}),
    ) -> None:
        access = Access(new_token(), frozenset({*allow_hosts, listening.getsockname()[0]} - ANYWHERE))
        self._trainings = Trainings(workspace, folder, networks)
        app = make_app(
            workspace, access, self._trainings, LessonService(lesson, workspace) if lesson is not None else None
        )
        put_together(app)
        self._begin = partial(begin_first_views, workspace)
        self._begun = threading.Lock()
        self.address = address_of(listening)
        """The server's address, without the token."""
        self.url = f"{self.address}#token={access.token}"
        """The page's address with the token in its fragment, which browsers never send over the network."""
        self.notes: list[str] = []
        """Notes on how the server was started, such as a port other than the requested one."""
        self._probes = app.state.probes
        self._invite = app.state.invitations.new
        self._server = make_server(app)
        self._ended = threading.Event()  # after Ctrl-C within `Thread.join`, a running thread is reported as ended
        self._thread = threading.Thread(target=self._serve, args=(listening,), name="explorer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<explorer at {self.url}>" if not self._ended.is_set() else "<explorer, closed>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self) -> bool:
        """Open the page in this machine's browser; returns False if there is none.

        The browser is started with an address that works once: other users of the machine can read its command
        line, so the token must not appear in it.
        """
        if not has_browser():
            return False
        self._make_first_view()
        invitation = f"{self.address}open/{self._invite()}"
        threading.Thread(target=webbrowser.open, args=(invitation,), daemon=True).start()
        return True

    def _make_first_view(self) -> None:
        """Prefetch the first view, once: when a page is about to open, or when the calling program starts to wait."""
        if self._begun.acquire(blocking=False):
            self._begin()

    def _serve(self, listening: socket.socket) -> None:
        try:
            self._server.run([listening])
        finally:
            listening.close()  # a server that is asked to stop before it has started leaves the socket open
            self._ended.set()

    def wait(self) -> None:
        """Serve until Ctrl-C or SIGTERM, then close."""
        try:
            with _ends_like_ctrl_c():
                self._make_first_view()
                while not self._ended.wait(3600):
                    pass
        except KeyboardInterrupt:
            pass  # the usual way to end it
        finally:
            self.close()

    def close(self) -> None:
        """Stop the server with its trainings and probes; calling it again has no effect."""
        atexit.unregister(self.close)
        self._probes.close()
        self._trainings.close()  # both end their event streams, which the server would otherwise wait for
        self._server.should_exit = True
        if self._thread is not threading.current_thread() and self._ended.wait(60):
            self._thread.join()


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a closed terminal) raise KeyboardInterrupt within the block, as Ctrl-C does.

    Does nothing outside the main thread, which alone receives signals. A SIGHUP that is ignored, as under `nohup`,
    stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    former = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@takes()
def open(  # noqa: A001  # users write cs.open
    model: cs.Module | cs.Run | str | Path,
    image: object = None,
    *,
    host: str = HOST,
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    browser: bool | None = None,
    data_dir: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Explorer:
    """Open the explorer on one model: a web page on which every number of the network can be clicked.

    ```python
    explorer = cs.open(model, "dog.jpg")  # a thread of this process serves it
    explorer.url, explorer.close()
    ```

    Args:
        model: A module of this session, a `Run`, or what `load_model` accepts: a built-in network, your own, a folder.
        image: The first input, as `load_image` accepts it; by default a sample of the model's data, or noise.
        host: Address to listen on. Any but a loopback address opens the page to the network; the token is still
            required.
        port: Port to listen on, or else the next free one; 0 picks any free port.
        allow_hosts: Additional host names under which browsers reach this server.
        browser: Whether to open the browser; by default only if the output is a terminal.
        data_dir: Folder searched first for the files of the MNIST family.
        model_args: Keyword arguments of a network of your own, `file.py:Class`, with which it was or is built; *Train*
            offers it for the data that it fits.

    Returns:
        The running explorer: `.url`, `.close()`, `.wait()`.

    Raises:
        UsageError: the page was not built, the address is not available, or model or image are invalid.
        ConvscopeError: as raised by `load_model` and `load_image`.
    """
    _check_page()
    if isinstance(model, cs.Run):
        model = model.model
    loaded = cs.load_model(model, args=model_args) if isinstance(model, str | Path) else model
    source = cs.card_of(loaded).source
    networks = {source: dict(model_args or {})} if names_code(source) else {}
    make = partial(Workspace.of_model, loaded, image, data_dir=Path(data_dir) if data_dir else None)
    return _launch(
        make, Path("runs"), host=host, port=port, allow_hosts=allow_hosts, browser=browser, networks=networks
    )


@takes()
def serve(
    folder: str | Path = "runs",
    *,
    host: str = HOST,
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    browser: bool | None = None,
    data_dir: str | Path | None = None,
    networks: Sequence[str] = (),
) -> Explorer:
    """Open the explorer on all runs of a folder; trainings started from the page are saved there.

    ```python
    cs.serve("runs").wait()
    ```

    Args:
        folder: The folder that contains the runs; it need not exist yet.
        host: Address to listen on. Any but a loopback address opens the page to the network; the token is still
            required.
        port: Port to listen on, or else the next free one; 0 picks any free port.
        allow_hosts: Additional host names under which browsers reach this server.
        browser: Whether to open the browser; by default only if the output is a terminal.
        data_dir: Folder searched first for the files of the MNIST family.
        networks: Networks of your own that *Train* offers for the data that they fit, each `file.py:Class` or
            `package.module:factory`.

    Returns:
        The running explorer: `.url`, `.close()`, `.wait()`.

    Raises:
        UsageError: the page was not built, the address is not available, `folder` is a file, or a network is not code.
        ModelError: the code of a network fails.
    """
    _check_page()
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise cs.UsageError(f"{folder} is a file; give a folder that contains runs.")
    make = partial(Workspace.of_folder, path, data_dir=Path(data_dir) if data_dir else None)
    configured = {_code_of(network): dict[str, Any]() for network in networks}
    return _launch(make, path, host=host, port=port, allow_hosts=allow_hosts, browser=browser, networks=configured)


def _code_of(network: str) -> str:
    """A network's code with the full path of its file; it is built once, so that its errors are seen at the start."""
    source = str(cs.card_of(cs.load_model(network)).source)
    if not names_code(source):
        raise cs.UsageError(f"{network} is not your own code; Train already offers the built-in networks.")
    return source


def serve_lesson(
    session: "cs.lessons.LessonSession",
    *,
    host: str = HOST,
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    browser: bool | None = None,
    data_dir: str | Path | None = None,
) -> Explorer:
    """Open the explorer with a lesson beside it; the lesson opens the networks that it needs.

    ```python
    lesson = cs.lessons.find_lesson("crosses")
    serve_lesson(cs.lessons.LessonSession(lesson)).wait()
    ```

    Args:
        session: The lesson's `LessonSession`; its code is executed screen by screen, in threads of this process.
        host: Address to listen on, as of `serve`.
        port: Port to listen on, or else the next free one; 0 picks any free port.
        allow_hosts: Additional host names under which browsers reach this server.
        browser: Whether to open the browser; by default only if the output is a terminal.
        data_dir: Folder searched first for the files of the MNIST family.

    Raises:
        UsageError: the page was not built, or the address is not available.
    """
    _check_page()
    make = partial(Workspace, Path(data_dir) if data_dir else None)
    return _launch(make, Path("runs"), host=host, port=port, allow_hosts=allow_hosts, browser=browser, lesson=session)


def _launch(
    make: Callable[[], Workspace],
    folder: Path,
    *,
    host: str,
    port: int | None,
    allow_hosts: Sequence[str],
    browser: bool | None,
    lesson: "cs.lessons.LessonSession | None" = None,
    networks: Networks = MappingProxyType({}),
) -> Explorer:
    for name in allow_hosts:
        if not is_host(name):
            raise cs.UsageError(
                f"{name!r} is not a host name; --allow-host takes one such as lab.example, without a port."
            )
    listening = bind(host, port)
    try:
        explorer = Explorer(make(), folder, listening, allow_hosts, lesson=lesson, networks=networks)
    except BaseException:
        listening.close()
        raise
    requested = PORT if port is None else port
    address, actual = listening.getsockname()[:2]
    if requested not in {0, actual}:
        explorer.notes.append(f"port {requested} is in use; using the next free one, {actual}.")
    if not is_loopback(address):
        explorer.notes.append(_network_note(address, allow_hosts))
    if sys.stdout.isatty() if browser is None else browser:
        explorer.show()
    return explorer


def _network_note(address: str, allow_hosts: Sequence[str]) -> str:
    """The note of a server that listens on the network: the host names it answers to."""
    names = [*([] if address in ANYWHERE else [address]), *(f"{name} (--allow-host)" for name in allow_hosts)]
    if not names:
        return (
            "other machines can reach this page only under a host name passed to --allow-host, and none was: "
            "pass this machine's name or address, as in --allow-host lab.example."
        )
    return (
        f"other machines can reach this page as {', '.join(names)}; "
        "anyone who has its address with the token can use it."
    )


def _check_page() -> None:
    if not page.is_built():
        raise cs.UsageError(page.MISSING)
