"""Epoch lines: `cs.train` prints a line for each epoch in a terminal or a notebook."""

import sys
from collections.abc import Mapping
from typing import Any

from convscope.render.numbers import decimal, percent

LINES = 30
"""With more epochs than this, only evenly spaced ones and the last are printed."""


def is_interactive() -> bool:
    """Whether a person sees the output: a terminal, or a notebook."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()


class EpochLines:
    """A watcher that prints each epoch's loss and accuracies to standard error.

    >>> EpochLines()({"event": "progress"})
    """

    epochs = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print an epoch; other events print nothing."""
        if event["event"] == "start":
            self.epochs = event["recipe"]["epochs"]
        epoch = event.get("epoch", 0)
        if event["event"] != "epoch" or (epoch != self.epochs and epoch % max(1, self.epochs // LINES)):
            return
        line = f"epoch {epoch}/{self.epochs}  loss {decimal(event['loss'])}  accuracy {percent(event['accuracy'])}"
        if "test_accuracy" in event:
            line += f"  test accuracy {percent(event['test_accuracy'])}"
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
