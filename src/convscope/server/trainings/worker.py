"""The child process of a training: `python -m convscope.server.trainings.worker`.

It reads JSON lines from standard input, first the training's arguments, then commands, and writes JSON lines to
standard output: the events of `cs.train`, its state and its end. When its input is closed, the server has exited: the
training saves and ends too.
"""

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from typing import IO

import convscope as cs
from convscope.server.trainings.events import TrainingOrder, WorkerEvent

POINTS = 5_000
"""Maximum number of metrics of one kind that are reported; longer trainings report every second, third, ... one."""
QUIET = 0.05
"""Minimum seconds between two progress events."""
PATIENCE = 60.0
"""Seconds that a training has to save after its input was closed."""


class TrainingWorker:
    """A training that reports events and can be paused, stepped and stopped by commands.

    Every method but `_listen` runs in the training's own thread.
    """

    def __init__(self, commands: IO[str], events: IO[str]) -> None:
        self.events = events
        self.order: TrainingOrder = json.loads(commands.readline())
        self.changed = threading.Condition()
        self.steps: float = 0 if self.order["paused"] else math.inf
        """Number of steps to take before waiting; infinite while running."""
        self.stop = False
        self.stopping = False
        self.is_kept = True
        """Whether the weights of the current step are in the history; the initial ones always are."""
        self.every = {"train": 1, "epoch": 1}
        self.total = 0
        self.step = 0
        self.last_report = -math.inf
        threading.Thread(target=self._listen, args=(commands,), daemon=True).start()

    def work(self) -> None:
        """Train, and report how it ended."""
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
            message = (
                f"stopped at step {self.step} of {self.total}; its weights are kept." if self.total else "stopped."
            )
            self.tell({"event": "end", "state": "stopped", "message": message})
        except cs.ConvscopeError as error:
            self.tell({"event": "end", "state": "failed", "message": str(error)})
        except Exception as error:
            traceback.print_exc()
            message = f"unexpected error ({type(error).__name__}: {error}); the terminal shows the traceback."
            self.tell({"event": "end", "state": "failed", "message": message})

    def watch(self, event: cs.Event) -> float | None:
        """Report an event; after a step, wait if paused. See `Watch` in training/events.py."""
        self.step = event["step"]
        if event["event"] == "progress":
            return self._pace(event)
        if event["event"] == "start":
            self._begin(event)
            self.tell(event)
        elif (event["epoch"] if event["event"] == "epoch" else event["step"]) % self.every[event["event"]] == 0:
            self.tell(event)
        return None

    def reading(self, activity: str, done: int, total: int) -> None:
        """Report the progress of loading or downloading."""
        if self.stop:
            raise KeyboardInterrupt
        share = f", {done / total:.0%}" if total else ""
        self._tell_at_intervals({"event": "reading", "message": f"{activity}{share}"}, at_once=done in {0, total})

    def tell(self, event: WorkerEvent) -> None:
        """Write one event; if the pipe is closed, stop the training."""
        try:
            self.events.write(json.dumps(event) + "\n")
            self.events.flush()
        except OSError:
            self.stop = True

    def _begin(self, event: cs.StartEvent) -> None:
        self.total = event["total"]
        thin = math.ceil(self.total / event["log_every"] / POINTS)
        self.every = {"train": event["log_every"] * thin, "epoch": math.ceil(event["recipe"]["epochs"] / POINTS)}

    def _pace(self, event: cs.ProgressEvent) -> float | None:
        """Wait while paused, but only at steps whose weights were kept, so that the page can show them."""
        with self.changed:
            over = self.step >= self.total
            if "step_loss" in event:
                self._tell_step(event)
            if self.steps == 0 and self.is_kept and not (over or self.stop):
                self.tell({**event, "state": "paused"})
                self.changed.wait_for(lambda: self.steps > 0 or self.stop)
                if self.steps == math.inf:
                    self.tell({**event, "state": "running"})
            else:
                self._tell_at_intervals({**event, "state": "running"}, at_once=over or self.stop)
            self._obey_stop()
            self.is_kept = self.steps < math.inf
            if self.is_kept:
                self.steps = max(self.steps - 1, 0)
            return 0.0 if self.is_kept else None

    def _tell_step(self, event: cs.ProgressEvent) -> None:
        """Report the loss of a step that was taken alone, as a point of the curves."""
        loss, accuracy = event["step_loss"], event["step_accuracy"]
        self.tell({"event": "step", "loss": loss, "accuracy": accuracy, "step": event["step"], "epoch": event["epoch"]})

    def _tell_at_intervals(self, event: WorkerEvent, *, at_once: bool) -> None:
        now = time.monotonic()
        if at_once or now - self.last_report > QUIET:
            self.last_report = now
            self.tell(event)

    def _obey_stop(self) -> None:
        """Stop as Ctrl-C does: after this step, with everything saved."""
        if self.stop and not self.stopping:
            self.stopping = True
            signal.raise_signal(signal.SIGINT)

    def _listen(self, commands: IO[str]) -> None:
        """Handle commands until the input is closed, then stop; exit after `PATIENCE` seconds at the latest."""
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
    """Run the training described on standard input. All other output goes to standard error.

    Exits without the interpreter's clean-up, as a thread still waits for commands.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if sys.platform != "win32":
        os.nice(5)  # the page comes first
    TrainingWorker(sys.stdin, events).work()
    os._exit(0)


if __name__ == "__main__":
    main()
