"""Training progress: a training's events as a progress bar on a terminal, as plain lines elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from convscope.cli.console import drop_output, duration, err, hushed, remark, say
from convscope.render.numbers import decimal, percent


class TrainingProgress:
    """Draws the events of one training."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.start: Mapping[str, Any] = {}
        self.began: tuple[int, float] | None = None

    def tell(self, event: Mapping[str, Any]) -> None:
        """Draw one event; the training continues even if the output is closed or the disk is full."""
        kinds = {"start": self._start, "progress": self._progress, "train": self._train, "epoch": self._epoch}
        try:
            kinds[event["event"]](event)
        except OSError as error:
            if error.filename == "standard output":
                drop_output()
                with suppress(OSError):
                    remark(f"note: standard output: {error.strerror}; the training continues without it.")

    def _start(self, event: Mapping[str, Any]) -> None:
        self.start = event
        recipe = event["recipe"]
        self.task = self.bar.add_task("", total=event["total"], completed=event["step"], numbers="")
        say(
            f"{event['model']} ({event['parameters']:,} parameters) on {event['dataset']} "
            f"({event['images']:,} images): "
            f"{recipe['epochs']} epoch{'s' * (recipe['epochs'] != 1)}, batch {recipe['batch_size']}, "
            f"{recipe['optimizer']}, lr {recipe['lr']:g}, {recipe['loss']}"
        )
        for note in event["notes"]:
            remark(f"note: {note}")
        if event["resumed"]:
            say(f"continuing after step {event['step']:,} of {event['total']:,}")

    def _progress(self, event: Mapping[str, Any]) -> None:
        if self.began is None:
            self.began = event["step"], event["seconds"]
            return
        steps, seconds = event["step"] - self.began[0], event["seconds"] - self.began[1]
        means = f"loss {decimal(event['loss'])}  accuracy {percent(event['accuracy'])}"
        numbers = f"epoch {event['epoch']}/{event['epochs']}  {means}"
        if steps and seconds > 0:
            rate = steps / seconds
            left = (event["total"] - event["step"]) / rate
            numbers += f"  {rate * self.start['recipe']['batch_size']:,.0f} images/s  {duration(left)} left"
        self.bar.update(self.task, completed=event["step"], numbers=numbers)

    def _train(self, event: Mapping[str, Any]) -> None:
        if self.start["recipe"]["log_every"]:
            say(f"step {event['step']:>6,}  loss {decimal(event['loss'], 6)}")

    def _epoch(self, event: Mapping[str, Any]) -> None:
        if not self._worth_a_line(event["epoch"]):
            return
        line = f"epoch {event['epoch']:>3}  loss {decimal(event['loss'])}  accuracy {percent(event['accuracy'])}"
        if "test_accuracy" in event:
            line += f"  test loss {decimal(event['test_loss'])}  test accuracy {percent(event['test_accuracy'])}"
        if "skipped" in event:
            line += f"  ({event['skipped']:,} skipped)"
        say(f"{line}  {duration(event['seconds'])}")

    def _worth_a_line(self, epoch: int) -> bool:
        """Whether to print an epoch: all of up to thirty, else thirty of them evenly, and the last."""
        epochs = self.start["recipe"]["epochs"]
        return bool(epoch == epochs or epoch % max(1, epochs // 30) == 0)


@contextmanager
def training_progress() -> Iterator[TrainingProgress]:
    """A watcher whose bar is removed when the training ends; Ctrl-C prints the message of `cs.train`."""
    columns = (BarColumn(20), TextColumn("{task.fields[numbers]}"))
    try:
        with Progress(*columns, console=err, transient=True, disable=hushed() or not err.is_terminal) as bar:
            yield TrainingProgress(bar)
    except KeyboardInterrupt as stop:
        if not hushed():
            remark(str(stop) or "stopped")
        raise typer.Exit(130) from None
