"""Workers: threads that do the work, and a queue that is fair to clients and to models.

Clients take turns, each in its own order; work with the same key, such as all passes of one model, runs one at a time,
and what waits for it holds no thread. Knows requests and threads; nothing of what the work is.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

T = TypeVar("T")

THREADS = 8
WAITING = 200
EACH = 64
"""Of one client: a page that draws sends a few at a time, and forgets those it no longer wants."""
NOBODY = "\0"
"""For whom work is done before anybody asks for it; no client can be called so."""


@dataclass(eq=False)
class WorkItem:
    """A piece of work and who is told of its end."""

    client: str
    key: str
    work: Callable[[], Any]
    tell: Callable[[Any, BaseException | None], object] = field(repr=False)
    """Called in the thread that did the work, with its result or with what it raised."""


def client_of(request: Request) -> str:
    """Who asks: the name that a page gave itself, else the address it asks from."""
    named = request.headers.get("x-client", "")[:80]
    return named or (request.client.host if request.client else "")


class ClientGone(BaseException):
    """Ends work that nobody waits for any more; no `except Exception` of a model stops it."""


class Workers:
    """Runs work in threads, at most `threads` at a time."""

    def __init__(self, threads: int = THREADS, waiting: int = WAITING, each: int = EACH) -> None:
        self._free, self._most, self._each = threads, waiting, each
        self._waiting: OrderedDict[str, deque[WorkItem]] = OrderedDict()
        self._busy: set[str] = set()
        self._idle: list[SimpleQueue[WorkItem | None]] = []
        self._lock = Lock()
        self._closed = False

    async def run(self, request: Request, key: str, work: Callable[[], T], left: Event | None = None) -> T:
        """The result of `work`, made in a thread when its turn has come.

        Args:
            request: Who waits; when that client leaves first, work that has not begun is dropped.
            key: What runs one at a time; empty for work that may run beside any other.
            work: What is to be done; where `left` is set it may raise `Left`.
            left: Set when the client left.

        Raises:
            HTTPException: 503, too many wait already, or the client left.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        job = WorkItem(client_of(request), key, work, lambda *end: loop.call_soon_threadsafe(_finish, done, *end))
        self._enter(job)
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({done, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                if left is not None:
                    left.set()
                raise HTTPException(503, "the client left before the answer.")
            result: T = done.result()
            return result
        finally:
            leaving.cancel()
            self._drop(job)
            done.add_done_callback(_seen)

    def begin(self, key: str, work: Callable[[], object]) -> None:
        """Have work done that nobody waits for yet, so that it is there when somebody does; how it ends is not told.

        Args:
            key: What runs one at a time; whoever asks for work of this key waits for its end.
            work: What is to be done.
        """
        with suppress(HTTPException):  # the server is ending
            self._enter(WorkItem(NOBODY, key, work, lambda _result, _error: None))

    def close(self) -> None:
        """Begin nothing more; whatever is being worked on ends by itself, in threads that no exit waits for."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._waiting.clear()
            for inbox in self._idle:
                inbox.put(None)

    def _enter(self, job: WorkItem) -> None:
        with self._lock:
            mine = self._waiting.get(job.client, ())
            count = sum(map(len, self._waiting.values()))
            if self._closed:
                raise HTTPException(503, "the server is ending; start it again.")
            if count >= self._most or len(mine) >= self._each:
                many = f"{len(mine)} of your" if len(mine) >= self._each else f"{count}"
                raise HTTPException(
                    503, f"{many} requests wait already; try again in a moment.", headers={"Retry-After": "1"}
                )
            self._waiting.setdefault(job.client, deque()).append(job)
            self._start()

    def _drop(self, job: WorkItem) -> None:
        """Take a job out of the queue, if it is still there."""
        with self._lock:
            mine = self._waiting.get(job.client)
            if mine is not None and job in mine:
                mine.remove(job)
                if not mine:
                    del self._waiting[job.client]

    def _start(self) -> None:
        """Give work to free threads, as long as there is any that may begin; the lock is held.

        The thread that was busy last comes first: each has memory of its own to use again.
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
        """The next job that may begin: the first of each client in turn whose key is free."""
        for client, mine in self._waiting.items():
            for job in mine:
                if job.key not in self._busy:
                    mine.remove(job)
                    self._waiting.move_to_end(client)
                    if not mine:
                        del self._waiting[client]
                    return job
        return None

    def _work(self, inbox: "SimpleQueue[WorkItem | None]") -> None:
        while self._do_one(inbox):
            pass

    def _do_one(self, inbox: "SimpleQueue[WorkItem | None]") -> bool:
        """Work off one job, and hold on to nothing of it; False at the end."""
        job = inbox.get()
        if job is None:
            return False
        result, failed = None, None
        try:
            result = job.work()
        except (Exception, ClientGone) as error:  # handed over to whoever waits
            failed = error
        except BaseException as error:  # a model that calls sys.exit, say
            failed = HTTPException(
                400, f"the work broke off with {type(error).__name__} instead of an answer; a model must not do that."
            )
        with self._lock:
            self._free += 1
            self._idle.append(inbox)
            self._busy.discard(job.key)
            self._start()
            ended = self._closed
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            job.tell(result, failed)
        return not ended


def _finish(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    """Hand the result over, in the thread of whoever waits."""
    if not done.done():
        done.set_exception(error) if error is not None else done.set_result(result)


def _seen(done: "asyncio.Future[Any]") -> None:
    """Look at what failed, also where nobody waits for it any more."""
    if not done.cancelled():
        done.exception()


async def _left(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
