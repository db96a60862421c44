"""Jobs: worker threads with a queue that is fair to clients and models, and event streams that report changes.

The allocator keeps freed blocks for the next pass. That saves time while passes follow each other, but holds a hundred
megabytes or more afterwards; glibc's `malloc_trim` returns them when the server is idle.

Clients take turns, each in the order of its requests. Jobs with the same key, such as all passes of one model, run one
at a time, and jobs that wait for their key occupy no thread. Uses requests and threads; nothing about the work itself.
"""

import asyncio
import ctypes
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Lock, Thread, local
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse


class MemoryTrimmer:
    """Trims memory `seconds` after the last heavy job."""

    def __init__(self, seconds: float = 1.0, release: Callable[[], None] | None = None) -> None:
        self._seconds = seconds
        self._release = release or give_back
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Schedule a trim after a heavy job; must be called in the server's event loop."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, loop.run_in_executor, None, self._release)


def give_back() -> None:
    """Return freed blocks to the operating system."""
    if sys.platform == "win32":  # where a library needs a name
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


T = TypeVar("T")

THREADS = 8
"""Worker threads."""
WAITING = 200
"""Maximum number of queued jobs."""
EACH = 64
"""Maximum number of queued jobs of one client; a page sends a few at a time and cancels those it no longer needs."""
NOBODY = "\0"
"""The client of prefetched work; a real client cannot have this name."""


@dataclass(eq=False)
class WorkItem:
    """A queued job with a callback for its result."""

    client: str
    key: str
    work: Callable[[], Any]
    tell: Callable[[Any, BaseException | None], object] = field(repr=False)
    """Callback, called in the worker thread with the result and the exception, one of which is None."""
    left: Event = field(default_factory=Event, repr=False)
    """Set when the client disconnects."""


def client_of(request: Request) -> str:
    """The client of a request: the name the page chose for itself, or else its network address."""
    name = request.headers.get("x-client", "")[:80]
    return name or (request.client.host if request.client else "")


class ClientGone(BaseException):
    """Aborts work whose client has left. A BaseException, so that `except Exception` in a model does not stop it."""


_worker = local()
"""In a worker thread, `left` of the job that it runs."""


def stop_if_left(_what: str = "", _done: int = 0, _total: int = 0) -> None:
    """Abort the job that this thread runs if its client has left; a `Progress`, to be called between its steps.

    Raises:
        ClientGone: the client has left, so the result is not needed.
    """
    left: Event | None = getattr(_worker, "left", None)
    if left is not None and left.is_set():
        raise ClientGone


class Workers:
    """Runs work in threads, at most `threads` at a time."""

    def __init__(self, threads: int = THREADS, waiting: int = WAITING, per_client: int = EACH) -> None:
        self._free, self._max_waiting, self._max_per_client = threads, waiting, per_client
        self._waiting: OrderedDict[str, deque[WorkItem]] = OrderedDict()
        self._busy: set[str] = set()
        self._idle: list[SimpleQueue[WorkItem | None]] = []
        self._lock = Lock()
        self._closed = False

    async def run(self, request: Request, key: str, work: Callable[[], T]) -> T:
        """Run `work` in a worker thread when its turn comes, and return its result.

        Args:
            request: The request that waits; if its client disconnects first, work that has not started is dropped, and
                work that has ends at its next call of `stop_if_left`.
            key: Jobs with the same key run one at a time; an empty key runs in parallel with any other.
            work: The function to run.

        Raises:
            HTTPException: 503, the queue is full, or the client disconnected.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        job = WorkItem(client_of(request), key, work, lambda *end: loop.call_soon_threadsafe(_finish, future, *end))
        self._enter(job)
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({future, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                job.left.set()
                raise HTTPException(503, "the client disconnected before the response was ready.")
            result: T = future.result()
            return result
        finally:
            leaving.cancel()
            self._drop(job)
            future.add_done_callback(_retrieve_exception)

    def begin(self, key: str, work: Callable[[], object]) -> None:
        """Run `work` in the background (prefetch); its result and its errors are discarded.

        Args:
            key: Jobs with the same key run one at a time, so a request with this key waits for the prefetch.
            work: The function to run.
        """
        with suppress(HTTPException):  # the server is shutting down
            self._enter(WorkItem(NOBODY, key, work, lambda _result, _error: None))

    def close(self) -> None:
        """Start no more jobs; running ones finish in daemon threads, which do not delay the interpreter's exit."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._waiting.clear()
            for inbox in self._idle:
                inbox.put(None)

    def _enter(self, job: WorkItem) -> None:
        with self._lock:
            client_jobs = self._waiting.get(job.client, ())
            count = sum(map(len, self._waiting.values()))
            if self._closed:
                raise HTTPException(503, "the server is shutting down; start it again.")
            if count >= self._max_waiting or len(client_jobs) >= self._max_per_client:
                queued = f"{len(client_jobs)} of your" if len(client_jobs) >= self._max_per_client else f"{count}"
                raise HTTPException(
                    503, f"{queued} requests are waiting already; try again in a moment.", headers={"Retry-After": "1"}
                )
            self._waiting.setdefault(job.client, deque()).append(job)
            self._start()

    def _drop(self, job: WorkItem) -> None:
        """Remove a job from the queue, if it has not started."""
        with self._lock:
            client_jobs = self._waiting.get(job.client)
            if client_jobs is not None and job in client_jobs:
                client_jobs.remove(job)
                if not client_jobs:
                    del self._waiting[job.client]

    def _start(self) -> None:
        """Hand runnable jobs to free threads; the caller holds the lock.

        The thread that finished last is used first, since each thread reuses its own freed memory.
        """
        while self._free and (job := self._next()) is not None:
            self._free -= 1
            if job.key:
                self._busy.add(job.key)
            if not self._idle:
                self._idle.append(SimpleQueue())
                Thread(target=self._work, args=self._idle[-1:], name="convscope", daemon=True).start()
            self._idle.pop().put(job)

    def _next(self) -> WorkItem | None:
        """The next runnable job: for each client in turn, its first job whose key is free."""
        for client, client_jobs in self._waiting.items():
            for job in client_jobs:
                if job.key not in self._busy:
                    client_jobs.remove(job)
                    self._waiting.move_to_end(client)
                    if not client_jobs:
                        del self._waiting[client]
                    return job
        return None

    def _work(self, inbox: "SimpleQueue[WorkItem | None]") -> None:
        while self._do_one(inbox):
            pass

    def _do_one(self, inbox: "SimpleQueue[WorkItem | None]") -> bool:
        """Run one job and keep no reference to it; returns False when the thread should end."""
        job = inbox.get()
        if job is None:
            return False
        result, failed = None, None
        _worker.left = job.left
        try:
            result = job.work()
        except (Exception, ClientGone) as error:  # raised again in the coroutine that waits
            failed = error
        except BaseException as error:  # a model that calls sys.exit, say
            failed = HTTPException(
                400, f"the work ended with {type(error).__name__} instead of a result; a model must not do that."
            )
        with self._lock:
            self._free += 1
            self._idle.append(inbox)
            self._busy.discard(job.key)
            self._start()
            ended = self._closed
        with suppress(RuntimeError):  # the event loop is closed, so the result is not needed
            job.tell(result, failed)
        return not ended


def _finish(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    """Set the result, in the event loop of the coroutine that waits."""
    if not future.done():
        future.set_exception(error) if error is not None else future.set_result(result)


def _retrieve_exception(future: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of an abandoned future, which asyncio would otherwise report as never retrieved."""
    if not future.cancelled():
        future.exception()


async def _left(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


# server-sent events: the response, and the coroutines that wait for changes, each in its own event loop


class Events(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"


async def lines(events: AsyncGenerator[BaseModel | None]) -> AsyncIterator[str]:
    """Events as text/event-stream; None becomes a comment line that keeps the connection alive."""
    async with aclosing(events):
        async for event in events:
            yield ": still here\n\n" if event is None else f"data: {event.model_dump_json()}\n\n"


BREATH = 0.05
"""Minimum seconds between two events of a stream; changes in between are reported together."""
HEARTBEAT = 10.0
"""Seconds without a change after which a stream sends a sign of life."""


class Subscribers:
    """The subscribers to one source of changes."""

    def __init__(self) -> None:
        self._all: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def __len__(self) -> int:
        return len(self._all)

    def wake(self) -> None:
        """Notify every subscriber of a change; may be called from any thread."""
        for changed, loop in list(self._all.items()):
            with suppress(RuntimeError):  # a loop that has ended meanwhile
                loop.call_soon_threadsafe(changed.set)

    async def news(self) -> AsyncGenerator[bool]:
        """Yield True at once and after changes, at most every `BREATH`; False after each `HEARTBEAT` without one."""
        changed = asyncio.Event()
        self._all[changed] = asyncio.get_running_loop()
        try:
            while True:
                changed.clear()
                yield True
                await asyncio.sleep(BREATH)
                while not await _set_within(changed, HEARTBEAT):
                    yield False
        finally:
            del self._all[changed]


async def _set_within(changed: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; returns whether it was set within `seconds`."""
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return False
    return True
