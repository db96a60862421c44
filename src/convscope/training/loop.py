"""The training loop: forward, loss, backward, step; around it metrics, history, snapshots, interrupts.

A chunk of steps runs without any bookkeeping; everything else happens between two chunks. Uses no names of models or
data sets, no command line, no data set formats.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from types import FrameType

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import TrainingError
from convscope.training.batches import Batches, Stream, batch_count, batch_parts, epoch_order, shifted
from convscope.training.engines import Engine, rehearsal
from convscope.training.evaluation import measure
from convscope.training.events import Alone, Means, MetricsEvent, Tested, Watch
from convscope.training.objectives import Loss
from convscope.training.outputs import decide
from convscope.training.processes import gathered
from convscope.training.recipes import Recipe
from convscope.training.reproducibility import random_state
from convscope.training.runtime import Runtime
from convscope.training.snapshots import Position, State
from convscope.training.threads import Threads
from convscope.training.writer import STEPPED, Writer, history_steps, replay_steps


class Interrupt:
    """Whether a stop was requested; a second Ctrl-C interrupts at once."""

    asked = False

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Within it, SIGINT, SIGTERM and SIGHUP only set `asked` (in the main thread; other threads leave them unchanged).

    A SIGHUP that is ignored, as under `nohup`, stays ignored.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt.ask) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


TICK = 0.1
MANY = 1_000_000
"""More steps than the longest possible history has."""
SUMS = ("loss", "hits", "images")
ALL_SUMS = (*SUMS, *("epoch_" + name for name in SUMS))
"""The running sums of a position: since the last line of the metrics, and over the epoch."""
CHEAP = 100
"""An epoch ends with a snapshot if the last one took less than this fraction of the time since."""


@dataclass(slots=True, eq=False)
class Loop:
    """One training: its parts and its position. `run()` continues from `position` to the end."""

    model: nn.Module
    engine: Engine
    optimizer: torch.optim.Optimizer
    loss: Loss
    train: Batches
    test: Batches | None
    recipe: Recipe
    seed: int
    runtime: Runtime
    writer: Writer
    watch: Watch
    interrupt: Interrupt
    threads: Threads
    snapshot_seconds: float = 10.0
    position: Position = field(default_factory=Position)
    kept_steps: frozenset[int] = field(init=False)
    replay_steps: frozenset[int] = field(init=False)
    """The kept steps at which the optimizer's state is kept too; several processes keep none."""
    saved: int = -1
    """The step of the newest snapshot; -1 before there is one."""
    agreed: bool = field(init=False, default=False)
    """Whether any process received a stop request."""
    due: bool = field(init=False, default=False)
    """Whether it is time for a snapshot, by the clock of the first process."""
    pace: float | None = field(init=False, default=None)
    """The watcher's last return value."""
    room: int = field(init=False)
    """Number of points that the history may still take in addition to `kept`."""
    saved_at: float = field(init=False, default_factory=time.perf_counter)
    alone: Alone = field(init=False, default_factory=Alone)
    """Loss and accuracy of the newest step, if it was taken alone."""
    cost: float = field(init=False, default=0.0)
    """Seconds that it took to write the newest snapshot."""

    def __post_init__(self) -> None:
        points = history_steps(self.model, self.total)
        self.kept_steps = frozenset(points)
        self.replay_steps = frozenset(replay_steps(self.model, points) if self.runtime.world == 1 else ())
        self.room = len(history_steps(self.model, MANY)) // STEPPED
        if not self.position.sums:
            self.position = replace(self.position, sums=dict.fromkeys(ALL_SUMS, 0.0))

    @property
    def stopping(self) -> bool:
        """Whether to stop; several processes agree on it between two chunks."""
        return self.interrupt.asked if self.runtime.world == 1 else self.agreed

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        images = self.recipe.draws or len(self.train)
        return batch_count(images, self.recipe.batch_size, join_last=self.recipe.join_last)

    @property
    def total(self) -> int:
        """Steps in all epochs."""
        return self.batches * self.recipe.epochs

    @property
    def log_every(self) -> int:
        """Steps between two "train" events."""
        return self.recipe.log_every or max(1, self.total // 50)

    def run(self) -> bool:
        """Train to the end, or until interrupted; returns whether it reached the end.

        Raises:
            TrainingError: the loss or a weight is no longer a finite number; the last good weights are kept.
        """
        self.room -= self.writer.begin(self.position, self.kept_steps, self.room)
        if self.saved < 0:
            self._keep()
            self._save()
        self._report()
        while self.position.epoch < self.recipe.epochs and not self.stopping:
            self._epoch()
        if self.saved != self.position.step:
            self._save()
        return self.position.epoch == self.recipe.epochs

    def _epoch(self) -> None:
        order = epoch_order(len(self.train), self.recipe.draws, self.seed, self.position.epoch, self.train.window)
        order = order.to(self.train.labels.device)
        parts = batch_parts(order, self.recipe.batch_size, join_last=self.recipe.join_last)
        self.model.train()
        own_parts = [self.runtime.mine(part) for part in parts[self.position.batch :]]
        with contextlib.closing(self.train.taken(own_parts)) as batches:
            while self.position.batch < self.batches and not self.stopping:
                self._chunk(parts, batches)
                self._between()
        if self.position.batch == self.batches:
            self._end_epoch()

    def _chunk(self, parts: tuple[Tensor, ...], batches: Stream) -> None:
        """Run steps up to the next log line, history point or end of epoch; a single process also obeys the pace."""
        if self.threads.follow(self.position.step):
            self._log_threads()
        start, first = time.perf_counter(), self.position.batch
        last = first + self._until_next()
        pace = TICK if self.pace is None else self.pace
        until = start + (pace if self.runtime.world == 1 else math.inf)
        losses: list[Tensor] = []
        outputs: list[tuple[Tensor, Tensor]] = []
        for offset, batch in enumerate(islice(batches, last - first)):
            self._set_lr(self.position.step + offset)
            count, full_count = (
                min(self.runtime.count(parts[first + offset]), len(batch[1])),
                len(parts[first + offset]),
            )
            images, labels = batch if len(batch[1]) else _nothing(*batch)
            shown = shifted(images, self.recipe.shift) if self.recipe.shift else images
            if offset == 0 and self.threads.due(self.position.step):
                self._compare_threads(shown, labels)
            if offset == 0:
                clocks = time.perf_counter(), time.process_time()
            loss, output = self.engine.step(shown, labels, count / full_count)
            losses.append(loss)
            outputs.append((output[:count], labels[:count]))
            if time.perf_counter() >= until or (self.interrupt.asked and self.runtime.world == 1):
                break
        self.threads.spent(time.perf_counter() - clocks[0], time.process_time() - clocks[1], len(losses))
        sums = self._summed(losses, outputs)
        self.alone = self._added(sums) if len(losses) == 1 else {}
        self.position = replace(
            self.position,
            step=self.position.step + len(losses),
            batch=first + len(losses),
            sums=sums,
            seconds=self.position.seconds + time.perf_counter() - start,
        )

    def _compare_threads(self, images: Tensor, labels: Tensor) -> None:
        """Time a few steps on a copy of the model with several numbers of threads, and go on with the fastest."""
        if self.threads.compare(lambda: rehearsal(self.model, self.loss, self.runtime, images, labels)):
            self._log_threads()

    def _log_threads(self) -> None:
        self.writer.log(
            {
                "event": "threads",
                "step": self.position.step,
                "epoch": self.position.epoch + 1,
                "threads": self.threads.count,
            }
        )

    def _added(self, sums: Mapping[str, float]) -> Alone:
        """The means of the images that these sums have more than the position's."""
        loss, hits, images = (sums[f"epoch_{name}"] - self.position.sums[f"epoch_{name}"] for name in SUMS)
        return {"step_loss": loss / images, "step_accuracy": hits / images} if images else {}

    def _until_next(self) -> int:
        step = self.position.step
        stops = [self.log_every - step % self.log_every, self.batches - self.position.batch]
        stops += [point - step for point in self.kept_steps if point > step]
        change = self.threads.next_recorded(step)
        return min(stops if change is None else [*stops, change - step])

    def _set_lr(self, step: int) -> None:
        if self.recipe.schedule != "constant":
            lr = self.recipe.lr_at(step / self.total)
            for group in self.optimizer.param_groups:
                group["lr"] = lr

    def _summed(self, losses: list[Tensor], outputs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """The running sums with a chunk's steps added one by one, over all processes; raises if one is not finite."""
        values = torch.stack(losses)
        values = values.cpu().double() if self.runtime.world == 1 else values.double()
        labels = torch.cat([labels for _, labels in outputs])
        decided = decide(torch.cat([output for output, _ in outputs]), len(self.train.data.classes))
        sizes = torch.tensor([len(labels) for _, labels in outputs], device=values.device)
        hits = (decided == labels).sum().to(values)
        wishes = values.new_tensor([self.interrupt.asked, self.runtime.rank == 0 and self._is_late(len(losses))])
        counts = torch.stack([hits, sizes.sum().to(values), *wishes])
        *added, hits_all, images, stop_requests, due = self.runtime.total(torch.cat([values * sizes, counts])).tolist()
        if not np.isfinite(added).all():
            self._refuse(self.position.step + 1 + int(np.flatnonzero(~np.isfinite(added))[0]))
        self.agreed, self.due = stop_requests > 0, due > 0
        sums = dict(self.position.sums)
        for prefix in ("", "epoch_"):
            for value in added:
                sums[prefix + "loss"] += value
            sums[prefix + "hits"] += hits_all
            sums[prefix + "images"] += images
        return sums

    def _is_late(self, steps: int) -> bool:
        """Whether a snapshot is due after `steps` more steps; a cheap one comes sooner, at the end of an epoch."""
        ends = self.position.batch + steps == self.batches
        patience = min(self.snapshot_seconds, CHEAP * self.cost) if ends else self.snapshot_seconds
        return time.perf_counter() - self.saved_at > patience

    def _refuse(self, step: int) -> None:
        if self.saved < 0:
            raise TrainingError("a weight of the model is not finite before the first step; initialize it differently.")
        if step == 1 and self.position.step == 0:
            raise TrainingError(
                "the loss is not finite at the very first step, before anything was learned: the model overflows on "
                "these images, or they hold NaN; look at its output for one of them."
            )
        raise TrainingError(
            f"the loss is no longer finite at step {step} (epoch {self.position.epoch + 1}); "
            f"the weights of step {self.saved} are kept. Try a smaller --lr than {self.recipe.lr:g}."
        )

    def _between(self) -> None:
        """Between two chunks: a metrics line, a point of the history, a snapshot, a report to the watcher."""
        step = self.position.step
        if step % self.log_every == 0:
            self._log(
                {
                    "event": "train",
                    "step": step,
                    "epoch": self.position.epoch + 1,
                    **self._means(""),
                    "lr": self._lr,
                    "seconds": round(self.position.seconds, 3),
                }
            )
            self._reset("")
        self._keep()
        if self.due and self.position.batch < self.batches:
            self._save()
        self._report()

    def _report(self) -> None:
        """Report progress to the watcher, which may take its time before it returns."""
        single: Alone = self.alone if self.pace == 0 else {}
        self.pace = self.watch(
            {
                "event": "progress",
                "step": self.position.step,
                "epoch": self.position.epoch + 1,
                "total": self.total,
                "epochs": self.recipe.epochs,
                **self._means("epoch_"),
                "lr": self._lr,
                "seconds": round(self.position.seconds, 3),
                **single,
            }
        )

    def _end_epoch(self) -> None:
        means = self._means("epoch_")
        tested: Tested = {}
        skipped = (self.recipe.draws or len(self.train)) - int(self.position.sums["epoch_images"])
        if skipped:
            tested["skipped"] = skipped
        self._reset("epoch_")
        self.position = replace(self.position, epoch=self.position.epoch + 1, batch=0)
        if self.test is not None:
            self.runtime.share_buffers(self.model)
            fixed = Threads(self.threads.count, choose=False)
            result = measure(self.model, self.test, self.loss, self.runtime, fixed)
            tested["test_loss"], tested["test_accuracy"] = result.loss, result.accuracy
        self._log(
            {
                "event": "epoch",
                "step": self.position.step,
                "epoch": self.position.epoch,
                **means,
                **tested,
                "lr": self._lr,
                "seconds": round(self.position.seconds, 3),
            }
        )
        if self.due:
            self._save()

    def _means(self, prefix: str) -> Means:
        """Mean loss and accuracy; empty before the first image."""
        sums = self.position.sums
        images = sums[prefix + "images"]
        return {"loss": sums[prefix + "loss"] / images, "accuracy": sums[prefix + "hits"] / images} if images else {}

    def _reset(self, prefix: str) -> None:
        zeros = {prefix + name: 0.0 for name in SUMS}
        self.position = replace(self.position, sums={**self.position.sums, **zeros})

    @property
    def _lr(self) -> float:
        lr: float = self.optimizer.param_groups[0]["lr"]
        return lr

    def _log(self, event: MetricsEvent) -> None:
        self.writer.log(event)
        self.watch(event)

    def _keep(self) -> None:
        """Add the weights to the history, at its points and whenever the watcher single-steps."""
        point = self.position.step in self.kept_steps
        if point or (self.pace == 0 and self.room):
            self.room -= not point
            self.writer.keep(self.position.step, self.model)
        if self.position.step in self.replay_steps:
            self.writer.keep_state(self._state())

    def _state(self) -> State:
        return State(self.position, self.model, self.optimizer, gathered(random_state()))

    def _save(self) -> None:
        """Write a snapshot, unless a weight is not finite: any saved state can be resumed."""
        if not all(torch.isfinite(value).all() for value in self.model.parameters()):
            self._refuse(self.position.step)
        began = time.perf_counter()
        self.writer.snapshot(self._state())
        self.saved, self.saved_at = self.position.step, time.perf_counter()
        self.cost = self.saved_at - began


def _nothing(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A stand-in for a batch without readable images: a black one of class 0 with weight 0."""
    return images.new_zeros(1, *images.shape[1:]), labels.new_zeros(1)
