"""One training: its child process, the events it has reported so far, and their subscribers.

A thread reads the child's events and wakes the subscribers, each in its own event loop; they then read what is new.
Uses processes, threads and event loops; no HTTP.
"""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

import convscope as cs
from convscope.server.jobs import Subscribers
from convscope.server.trainings.events import PacedEvent, State, TrainingOrder, WorkerEvent
from convscope.server.trainings.schema import TrainCommand, TrainingEvent, TrainingInfo, TrainRequest

log = logging.getLogger("convscope.server")

OVER: frozenset[State] = frozenset({"done", "stopped", "failed"})
SHOWN = ("event", "step", "epoch", "loss", "accuracy", "test_loss", "test_accuracy")
"""Keys of the metrics that are sent to the page."""
Point = dict[str, float | int | str | None]
"""The metrics of one event, for curves."""
OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""What `start_new_session` is to Windows: Ctrl-C in the terminal reaches the server alone, which ends its trainings."""
PATIENCE = 30.0
"""Seconds that a training has to stop by itself before it is killed."""


class Training:
    """A training in its own process.

    Args:
        name: The training's id.
        request: The request that started it.
        order: The arguments for the child process, see worker.py.
        on_first_weights: Called once in the reading thread when the run's first weights can be loaded.
    """

    def __init__(
        self, name: str, request: TrainRequest, order: TrainingOrder, on_first_weights: Callable[[str, Path], None]
    ) -> None:
        self.name, self.request, self.path, self._on_first_weights = name, request, Path(order["out"]), on_first_weights
        self.state: State = "starting"
        self.message = ""
        self.latest: PacedEvent | None = None
        """The latest progress event."""
        self.total = self.epochs = 0
        self.points: list[Point] = []
        self.history: list[int] = []
        self.asked_to_stop = False
        self._lock = threading.RLock()
        self._followers = Subscribers()
        command = [sys.executable, "-P", "-m", "convscope.server.trainings.worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=_environment(),
            start_new_session=True, creationflags=OWN_GROUP,
        )  # fmt: skip
        self._send(order)
        self._reader = threading.Thread(target=self._read, name=f"training {name}", daemon=True)
        self._reader.start()

    @property
    def over(self) -> bool:
        """Whether the training has ended, for whatever reason."""
        return self.state in OVER

    @property
    def listeners(self) -> int:
        """Number of subscribers."""
        return len(self._followers)

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return 0 if self.latest is None else self.latest["step"]

    def info(self) -> TrainingInfo:
        """The training's current state and progress."""
        with self._lock:
            event = self.latest
            return TrainingInfo(
                id=self.name,
                source=self.request.source,
                model=self.request.model,
                state=self.state,
                message=self.message,
                step=self.step,
                total=self.total,
                epoch=0 if event is None else event["epoch"],
                epochs=self.epochs,
                loss=None if event is None else event.get("loss"),
                accuracy=None if event is None else event.get("accuracy"),
                request=self.request,
            )

    def command(self, word: TrainCommand) -> None:
        """Send a command to the child; one that does not stop in time is killed."""
        if word.command == "stop":
            self.asked_to_stop = True
            timer = threading.Timer(PATIENCE, self.process.kill)
            timer.daemon = True
            timer.start()
        self._send(word.model_dump())

    def leave(self) -> None:
        """Let the child save and end, which it does when its standard input is closed."""
        self.asked_to_stop = True
        self._hang_up()

    def end(self, seconds: float) -> None:
        """Wait for the child to exit; after `seconds`, kill it."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join()

    async def events(self) -> AsyncGenerator[TrainingEvent | None]:
        """Everything reported so far, then new events until the training ends; None after each silent interval."""
        points = history = 0
        async with aclosing(self._followers.news()) as rounds:
            async for news in rounds:
                if not news:
                    yield None
                    continue
                with self._lock:
                    new = TrainingEvent(info=self.info(), points=self.points[points:], history=self.history[history:])
                points, history = points + len(new.points), history + len(new.history)
                yield new
                if new.info.state in OVER:
                    return

    def _send(self, message: Mapping[str, object]) -> None:
        with self._lock, suppress(OSError, ValueError):  # the reading thread reports a child that has ended
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message, default=str) + "\n")  # paths become strings
            self.process.stdin.flush()

    def _hang_up(self) -> None:
        """Close the child's standard input."""
        with self._lock, suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):  # a line truncated by a kill
                self._take(json.loads(line))
        code = self.process.wait()
        self.process.stdout.close()
        self._hang_up()
        with self._lock:
            if not self.over:
                self.state, self.message = self._unexpected(code)
        self._look()
        self._followers.wake()

    def _take(self, event: WorkerEvent) -> None:
        if event["event"] in {"progress", "end"}:
            self._look()
        with self._lock:
            if event["event"] == "start":
                self.total, self.epochs = event["total"], event["recipe"]["epochs"]
                self.state, self.message = "running", ""
            elif event["event"] == "progress":
                self.latest, self.state = event, event["state"]
            elif event["event"] == "reading":
                self.message = event["message"]
            elif event["event"] == "end":
                self.state, self.message = event["state"], event["message"]
            else:
                self.points.append(shown(event))
        self._followers.wake()

    def _look(self) -> None:
        """Look for new weights in the history; the first ones mean that the run can be opened."""
        steps = cs.Run(self.path).steps
        with self._lock:
            first = not self.history and bool(steps)
            self.history += sorted(set(steps) - set(self.history))
        if first:
            try:
                self._on_first_weights(self.name, self.path)
            except Exception:  # the training continues, but is not shown
                log.exception("%s cannot be opened", cs.spelled(str(self.path)))

    def _unexpected(self, code: int) -> tuple[State, str]:
        """State and message of a child that ended without reporting it."""
        saved = f"after step {self.step}; its saved weights are kept." if self.history else "early."
        if self.asked_to_stop:
            return "stopped", f"the training did not stop in time and was killed {saved}"
        ending = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return "failed", f"the training's process {ending} {saved}"


def shown(event: Mapping[str, object]) -> Point:
    """The metrics of an event that are sent to the page."""
    return {name: value for name in SHOWN if isinstance(value := event.get(name), float | int | str)}


def _environment() -> dict[str, str]:
    """The child's environment: no GPU, and at most half of the processors, so that the page stays responsive.

    The server's OMP_WAIT_POLICY is not inherited: OpenMP's default is faster for threads with their own processors.
    """
    half = max(1, (os.cpu_count() or 1) // 2)
    requested = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(half, int(requested)) if re.fullmatch("[1-9][0-9]{0,8}", requested) else half
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return {**inherited, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}
