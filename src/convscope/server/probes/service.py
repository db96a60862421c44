"""Probes: the questions that are being answered, few at a time, and the answers that are kept.

Each is answered in a thread of its own that steps back for the page's. Independent of what the questions are.
"""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Literal

from starlette.exceptions import HTTPException

import convscope as cs
from convscope.server.jobs import ClientGone, Subscribers
from convscope.server.probes.catalog import Progress
from convscope.server.probes.requests import ProbeArguments, ProbeResult
from convscope.server.probes.schema import ProbeInfo, ProbeRequest
from convscope.server.session.schema import InputRef, PixelsRef

log = logging.getLogger("convscope.server")

State = Literal["waiting", "running", "done", "stopped", "failed"]
OVER: frozenset[State] = frozenset({"done", "stopped", "failed"})
AT_ONCE = 2
WAITING = 6
KEPT = 32
"""Questions whose answers are kept, besides those that are under way."""
KEPT_BYTES = 100_000_000
"""Limit for all kept answers together; the newest is always kept."""
NICE = 10
PATIENCE = 2.0
"""Seconds that questions get to end when the server does."""

Work = Callable[[Progress], ProbeResult]


class RunningProbe:
    """A question that was asked."""

    def __init__(self, arguments: ProbeArguments, work: Work) -> None:
        self.arguments = arguments
        self.shown_request = arguments.request.model_copy(update={"edits": [], "input": _named(arguments.request)})
        self.work: Work | None = work
        self.state: State = "waiting"
        self.message = ""
        self.current: tuple[str, int, int] = ("", 0, 0)
        """The current activity, the finished units of work, and all units."""
        self.answer: ProbeResult | None = None
        self.left = False
        """Whether the answer is no longer wanted."""
        self.used = time.monotonic()
        """When it was last asked for."""
        self.followers = Subscribers()

    def info(self) -> ProbeInfo:
        """The progress so far."""
        activity, done, total = self.current
        return ProbeInfo(
            id=self.arguments.id,
            state="stopped" if self.left and self.state == "running" else self.state,
            what=activity,
            done=done,
            total=total,
            message=self.message,
            request=self.shown_request,
        )

    def run(self) -> None:
        """Answer it."""
        work = self.work
        if work is None:  # cancelled meanwhile
            return
        try:
            self._turn("running")
            self.progress("", 0, 0)
            self.answer = work(self.progress)
            self._turn("done")
        except ClientGone:
            self._turn("stopped")
        except HTTPException as error:
            self._turn("failed", error.detail)
        except cs.ConvscopeError as error:
            self._turn("failed", str(error))
        except BaseException as error:  # whatever a model raises, the next question is answered
            log.exception("a question failed")
            self._turn("failed", f"this should not have happened ({type(error).__name__}); the terminal says more.")

    def progress(self, activity: str, done: int, total: int) -> None:
        """Record the progress; end the work if its answer is no longer wanted."""
        if self.left:
            raise ClientGone
        self.current = (activity, done, total)
        self.followers.wake()

    def cancel(self) -> None:
        """End work that is no longer wanted: at once if it waits, when it next reports progress if it is running."""
        if self.state not in OVER:
            self.left = True
            if self.state == "waiting":
                self._turn("stopped")

    def _turn(self, state: State, message: str = "") -> None:
        self.state, self.message = state, message
        if state in OVER:
            self.work = None  # and with it the models
        self.followers.wake()

    async def events(self) -> AsyncGenerator[ProbeInfo | None]:
        """The current state, then every change until the end; None after a while without one."""
        async with aclosing(self.followers.news()) as rounds:
            async for news in rounds:
                info = self.info()
                yield info if news else None
                if news and (info.state in OVER or self.left):
                    return


class ProbeService:
    """All questions of a server."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._free, self._limit = at_once, waiting
        self._all: dict[str, RunningProbe] = {}
        """Id -> question, in the order in which they were asked."""
        self._waiting: deque[RunningProbe] = deque()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def all(self) -> list[RunningProbe]:
        """Every question that is kept, the one asked last at the end."""
        with self._lock:
            return list(self._all.values())

    def get(self, id: str) -> RunningProbe:  # noqa: A002 - what the page calls it
        """A question by its id.

        Raises:
            HTTPException: 404, there is none of this id, or it was forgotten.
        """
        with self._lock:
            question = self._all.get(id)
            if question is None:
                raise HTTPException(404, "this server does not have that answer any more; ask the question again.")
            question.used = time.monotonic()
            return question

    def find(self, id: str) -> RunningProbe | None:  # noqa: A002
        """A question that is answered or being answered, by its id; None if it has to be asked first."""
        with self._lock:
            question = self._all.get(id)
            if question is None or question.left or question.state == "failed":
                return None
            question.used = time.monotonic()
            return question

    def check_room(self) -> None:
        """Refuse a question that could not even wait.

        Raises:
            HTTPException: 409, too many wait already; 503, the server is ending.
        """
        if self._closed:
            raise HTTPException(503, "the server is ending; start it again.")
        if len(self._waiting) >= self._limit:
            raise HTTPException(
                409, f"{len(self._waiting)} questions wait for their answers already; cancel one, or come back later."
            )

    def ask(self, arguments: ProbeArguments, work: Work) -> RunningProbe:
        """Answer a question when its turn has come; one that is under way is not asked twice.

        Raises:
            HTTPException: as `check_room` raises.
        """
        with self._lock:
            self.check_room()
            running = self._all.get(arguments.id)
            if running is not None and running.state not in OVER and not running.left:
                return running
            self._all.pop(arguments.id, None)
            probe = self._all[arguments.id] = RunningProbe(arguments, work)
            self._trim(probe)
            self._waiting.append(probe)
            if self._free:
                self._free -= 1
                thread = threading.Thread(target=self._work, name="convscope probe", daemon=True)
                self._threads = [*(worker for worker in self._threads if worker.is_alive()), thread]
                thread.start()
            return probe

    def cancel(self, id: str) -> RunningProbe:  # noqa: A002
        """Do without an answer; one that is there stays.

        Raises:
            HTTPException: as `get` raises.
        """
        probe = self.get(id)
        probe.cancel()
        with self._lock:
            if probe in self._waiting:
                self._waiting.remove(probe)
        return probe

    def close(self) -> None:
        """Answer nothing more, and wait a little: what runs ends when it next tells how far it is."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
        for probe in self.all():
            probe.cancel()
            probe.followers.wake()
        until = time.monotonic() + PATIENCE
        for thread in list(self._threads):
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        """Answer what waits, until nothing does."""
        _step_back()
        while True:
            with self._lock:
                probe = next((self._waiting.popleft() for _ in range(len(self._waiting))), None)
                if probe is None:
                    self._free += 1
                    return
            if not probe.left:
                probe.run()
            with self._lock:
                self._trim(probe)

    def _trim(self, newest: RunningProbe) -> None:
        """Drop the least recently used answers if there are too many; the caller holds the lock."""
        ended = [probe for probe in self._all.values() if probe.state in OVER and probe is not newest]
        ended.sort(key=lambda probe: probe.used)
        size = sum(probe.answer.size for probe in [*ended, newest] if probe.answer is not None)
        for probe in ended:
            if len(self._all) <= KEPT and size <= KEPT_BYTES:
                return
            del self._all[probe.arguments.id]
            size -= probe.answer.size if probe.answer is not None else 0


def _named(request: ProbeRequest) -> InputRef | None:
    """The image of a request, unless it is painted: a page that sent pixels has them."""
    return None if isinstance(request.input, PixelsRef) else request.input


def _step_back() -> None:
    """Let this thread, and those that it starts, run when the others have nothing to do."""
    if sys.platform == "linux":  # elsewhere a priority is that of a whole process
        me = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, max(NICE, os.getpriority(os.PRIO_PROCESS, me)))
