"""Child: one training in a process of its own, `python -m convscope.server.trainings.worker`.

It reads JSON lines: first what to train, then commands; it writes JSON lines: the events of `cs.train`, its state, its
end. When its input ends, whoever asked for it is gone: it saves and ends too. Knows no HTTP.
"""

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import IO, Any

import convscope as cs

POINTS = 5_000
"""Lines of the metrics of one kind that are passed on; of more, only every second, third, ..."""
QUIET = 0.05
"""Seconds between two reports of progress."""
PATIENCE = 60.0
"""Seconds that a training may take to save itself when nobody listens any more."""


class TrainingWorker:
    """A training that obeys: it tells what happens, and waits where it is told to.

    Every method but `_listen` runs in the training's own thread.
    """

    def __init__(self, commands: IO[str], events: IO[str]) -> None:
        self.events = events
        self.order: Mapping[str, Any] = json.loads(commands.readline())
        self.changed = threading.Condition()
        self.steps: float = 0 if self.order["paused"] else math.inf
        """How many steps may still be taken before it waits."""
        self.stop = False
        self.stopping = False
        self.kept = True
        """Whether the weights of this very step are in the history; those before the first step are."""
        self.every = {"train": 1, "epoch": 1}
        self.total = 0
        self.step = 0
        self.told = -math.inf
        threading.Thread(target=self._listen, args=(commands,), daemon=True).start()

    def work(self) -> None:
        """Train, and tell how it ended."""
        try:
            cs.train(
                self.order["dataset"],
                self.order["model"],
                out=self.order["out"],
                data_options=self.order["options"],
                device="cpu",
                watch=self.watch,
                progress=self.reading,
                **self.order["settings"],
            )
            self.tell({"event": "end", "state": "done", "message": ""})
        except KeyboardInterrupt:
            where = f"stopped at step {self.step} of {self.total}; its weights are kept." if self.total else "stopped."
            self.tell({"event": "end", "state": "stopped", "message": where})
        except cs.ConvscopeError as error:
            self.tell({"event": "end", "state": "failed", "message": str(error)})
        except Exception as error:
            traceback.print_exc()
            message = f"this should not have happened ({type(error).__name__}: {error}); the terminal says more."
            self.tell({"event": "end", "state": "failed", "message": message})

    def watch(self, event: Mapping[str, Any]) -> float | None:
        """Pass an event on; after a step, wait if that is wanted. See `Watch` in training/loop.py."""
        kind, self.step = event["event"], event["step"]
        if kind == "progress":
            return self._pace(event)
        if kind == "start":
            self._begin(event)
        if kind == "start" or event["epoch" if kind == "epoch" else "step"] % self.every[kind] == 0:
            self.tell(event)
        return None

    def reading(self, what: str, done: int, total: int) -> None:
        """Say how far reading or downloading is."""
        if self.stop:
            raise KeyboardInterrupt
        share = f", {done / total:.0%}" if total else ""
        self._tell_now_and_then({"event": "reading", "message": f"{what}{share}"}, at_once=done in {0, total})

    def tell(self, event: Mapping[str, Any]) -> None:
        """Write one line; nobody there to read it is a reason to stop."""
        try:
            self.events.write(json.dumps(event) + "\n")
            self.events.flush()
        except OSError:
            self.stop = True

    def _begin(self, event: Mapping[str, Any]) -> None:
        self.total = event["total"]
        thin = math.ceil(self.total / event["log_every"] / POINTS)
        self.every = {"train": event["log_every"] * thin, "epoch": math.ceil(event["recipe"]["epochs"] / POINTS)}

    def _pace(self, event: Mapping[str, Any]) -> float | None:
        """Wait while no step may be taken: only where the weights were kept, so that they can be looked at."""
        with self.changed:
            over = self.step >= self.total
            if self.steps == 0 and self.kept and not (over or self.stop):
                self.tell({**event, "state": "paused"})
                self.changed.wait_for(lambda: self.steps > 0 or self.stop)
                if self.steps == math.inf:
                    self.tell({**event, "state": "running"})
            else:
                self._tell_now_and_then({**event, "state": "running"}, at_once=over or self.stop)
            self._obey_stop()
            self.kept = self.steps < math.inf
            if self.kept:
                self.steps = max(self.steps - 1, 0)
            return 0.0 if self.kept else None

    def _tell_now_and_then(self, event: Mapping[str, Any], *, at_once: bool) -> None:
        now = time.monotonic()
        if at_once or now - self.told > QUIET:
            self.told = now
            self.tell(event)

    def _obey_stop(self) -> None:
        """Stop as Ctrl-C stops a training: after this step, with everything saved."""
        if self.stop and not self.stopping:
            self.stopping = True
            signal.raise_signal(signal.SIGINT)

    def _listen(self, commands: IO[str]) -> None:
        """Take commands until there can be no more of them."""
        for line in commands:
            command = json.loads(line)["command"]
            with self.changed:
                if command == "step":
                    self.steps = 0 if self.steps == math.inf else self.steps + 1
                else:
                    self.steps = {"pause": 0, "resume": math.inf, "stop": self.steps}[command]
                    self.stop |= command == "stop"
                self.changed.notify()
        with self.changed:
            self.stop = True
            self.changed.notify()
        time.sleep(PATIENCE)
        os._exit(1)


def main() -> None:
    """Train what standard input says. What else is printed goes to standard error.

    It leaves without the interpreter's goodbye: a thread still waits for commands.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.nice(5)  # the page comes first
    TrainingWorker(sys.stdin, events).work()
    os._exit(0)


if __name__ == "__main__":
    main()
