"""Asking the explorer's page for probes, and waiting for their answers."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convscope as cs
from asking import Page
from convscope.server.probes import catalog

PATIENCE = 600
"""Seconds for what comes, also on a machine with much else to do."""


def ended(page: Page, info: Any) -> Any:
    """The question when it is over."""
    until(lambda: page.get(f"probes/{info['id']}")["state"] in {"done", "stopped", "failed"})
    return page.get(f"probes/{info['id']}")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def asked(page: Page, question: str, **more: Any) -> Any:
    """What a question's answer says, beside its result."""
    info = ended(page, page.post("probes", question=question, **more))
    assert info["state"] == "done", info["message"]
    answer = page.get(f"probes/{info['id']}/answer")
    return {**answer, "id": info["id"], "result": page.get(f"probes/{info['id']}/json")}


def model_of(folder: Path, name: str) -> Any:
    return cs.load_run(folder / name).model


class Slow:
    """A question that goes on until it is let go."""

    def __init__(self) -> None:
        self.models: list[Any] = []
        self.priorities: list[int] = []
        self.go = threading.Event()

    def __call__(self, subject: cs.probe.Subject, _: Any, progress: catalog.Progress) -> Any:
        self.models.append(subject.models[0])
        self.priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        while not self.go.wait(0.01):
            progress("waiting", len(self.models), 9)
        return cs.probe.dead(subject.models[0], subject.data, progress=progress)
