"""Launch: from a model or a folder of runs to a page that is open: token, thread, browser, end.

Knows how a server is started and stopped; what is shown is the gallery's matter, who may ask security's.
"""

import atexit
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import convscope as cs
from convscope.server.app import make_app, put_together
from convscope.server.http import page
from convscope.server.http.address import ANYWHERE, HOST, PORT, address_of, bind, has_browser
from convscope.server.http.connection import make_server
from convscope.server.http.security import Access, is_host, is_loopback, new_token
from convscope.server.session.workspace import Workspace
from convscope.server.traces import warmup
from convscope.server.trainings.registry import Trainings


class Explorer:
    """A page that is being served: `url` opens it, `close()` ends it, `wait()` stays until Ctrl-C.

    It is served by a thread of this process; use it as a context manager to have it closed in the end.
    """

    def __init__(self, gallery: Workspace, folder: Path, listening: socket.socket, allow_hosts: Sequence[str]) -> None:
        access = Access(new_token(), frozenset({*allow_hosts, listening.getsockname()[0]} - ANYWHERE))
        self._trainings = Trainings(gallery, folder)
        app = make_app(gallery, access, self._trainings)
        put_together(app)
        self._begin = partial(warmup.begin, gallery)
        self._begun = threading.Lock()
        self.address = address_of(listening)
        """Where it listens, without the token."""
        self.url = f"{self.address}#token={access.token}"
        """What a browser opens: the page's address with the token in its fragment, which browsers send nowhere."""
        self.notes: list[str] = []
        """What a person should know about how it was started."""
        self._probes = app.state.probes
        self._invite = app.state.invitations.new
        self._server = make_server(app)
        self._ended = threading.Event()  # Ctrl-C within `Thread.join` lets a running thread pass for an ended one
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
        """Open the page in this machine's browser; whether there is one to try.

        The browser is started with an address that works once: a command line can be read by the machine's other
        users, and the token must not stand in it.
        """
        if not has_browser():
            return False
        self._make_first_view()
        invitation = f"{self.address}open/{self._invite()}"
        threading.Thread(target=webbrowser.open, args=(invitation,), daemon=True).start()
        return True

    def _make_first_view(self) -> None:
        """Once, when a page is about to open, or when the program that has the model only waits."""
        if self._begun.acquire(blocking=False):
            self._begin()

    def _serve(self, listening: socket.socket) -> None:
        try:
            self._server.run([listening])
        finally:
            listening.close()  # a server that is told to end before it has begun leaves it open
            self._ended.set()

    def wait(self) -> None:
        """Serve until Ctrl-C or a request to end, then close."""
        try:
            with _ends_like_ctrl_c():
                self._make_first_view()
                while not self._ended.wait(3600):
                    pass
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End it, its trainings and its questions; nothing happens where it has ended."""
        atexit.unregister(self.close)
        self._probes.close()
        self._trainings.close()  # both end the streams of events that the server would wait for
        self._server.should_exit = True
        if self._thread is not threading.current_thread() and self._ended.wait(60):
            self._thread.join()


@contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP (a closed terminal) interrupt as Ctrl-C does.

    Signals are heard by the main thread alone, so nothing else is changed. A SIGHUP that is ignored, as `nohup` has it,
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


def open(  # noqa: A001  # people say cs.open
    model: Any,
    image: Any = None,
    *,
    host: str = HOST,
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    browser: bool | None = None,
    data_dir: str | Path | None = None,
) -> Explorer:
    """Open the explorer, a page on which every number of a network can be clicked, on one model.

    ```python
    explorer = cs.open(model, "dog.jpg")  # a thread of this process serves it
    explorer.url, explorer.close()
    ```

    Args:
        model: What `load_model` takes: a module of this session, a built-in network, your own, or a run folder.
        image: What to show first, as `load_image` takes it; without one, a sample of the model's data, or noise.
        host: Address to listen at. Another one than this machine's own opens it to the network; the token is kept.
        port: Port to listen at, or the next free one; 0 takes any.
        allow_hosts: Further names by which browsers reach this server.
        browser: Whether to open the browser; by default where the output is a terminal.
        data_dir: Where the files of the MNIST family are looked for first.

    Returns:
        The served page: `.url`, `.close()`, `.wait()`.

    Raises:
        UsageError: the page was not built, the address cannot be listened at, or model or image cannot be meant.
        ConvscopeError: as `load_model` and `load_image` raise.
    """
    _check_page()
    loaded = cs.load_model(model) if isinstance(model, str | Path) else model
    make = partial(Workspace.of_model, loaded, image, data_dir=Path(data_dir) if data_dir else None)
    return _launch(make, Path("runs"), host=host, port=port, allow_hosts=allow_hosts, browser=browser)


def serve(
    folder: str | Path = "runs",
    *,
    host: str = HOST,
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    browser: bool | None = None,
    data_dir: str | Path | None = None,
) -> Explorer:
    """Open the explorer on all runs of a folder; trainings that are started in it are written there.

    ```python
    cs.serve("runs").wait()
    ```

    Args:
        folder: The folder with the runs; it need not exist yet.
        host: As of `open`.
        port: As of `open`.
        allow_hosts: As of `open`.
        browser: As of `open`.
        data_dir: As of `open`.

    Raises:
        UsageError: the page was not built, the address cannot be listened at, or `folder` is a file.
    """
    _check_page()
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise cs.UsageError(f"{folder} is a file; name a folder with runs.")
    make = partial(Workspace.of_folder, path, data_dir=Path(data_dir) if data_dir else None)
    return _launch(make, path, host=host, port=port, allow_hosts=allow_hosts, browser=browser)


def _launch(
    make: Callable[[], Workspace],
    folder: Path,
    *,
    host: str,
    port: int | None,
    allow_hosts: Sequence[str],
    browser: bool | None,
) -> Explorer:
    for name in allow_hosts:
        if not is_host(name):
            raise cs.UsageError(
                f"{name!r} is no name of a machine; --allow-host takes one like lab.example, without port."
            )
    listening = bind(host, port)
    try:
        explorer = Explorer(make(), folder, listening, allow_hosts)
    except BaseException:
        listening.close()
        raise
    wished = PORT if port is None else port
    taken = listening.getsockname()[1]
    if wished not in {0, taken}:
        explorer.notes.append(f"port {wished} is in use; this is the next free one, {taken}.")
    reached = listening.getsockname()[0]
    if not is_loopback(reached):
        explorer.notes.append(_who_can_ask(reached, allow_hosts))
    if sys.stdout.isatty() if browser is None else browser:
        explorer.show()
    return explorer


def _who_can_ask(reached: str, allow_hosts: Sequence[str]) -> str:
    """What a server that listens to the network says: by which names it answers."""
    names = [*([] if reached in ANYWHERE else [reached]), *(f"{name} (--allow-host)" for name in allow_hosts)]
    if not names:
        return (
            "this page answers other machines only by a name given with --allow-host, and none is: "
            "give this machine's name or address, as in --allow-host lab.example."
        )
    return (
        f"other machines can reach this page as {', '.join(names)}; whoever has its address with the token can use it."
    )


def _check_page() -> None:
    if not page.is_built():
        raise cs.UsageError(page.MISSING)
