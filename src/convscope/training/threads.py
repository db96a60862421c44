"""How many threads a training uses: as many as PyTorch would, or fewer where these are faster, as on a busy machine.

OpenMP's threads wait for one another after every operation. Where another program takes the core of one of them, all
wait until it runs again: beside one busy program, a second thread makes the training of a small network three times
slower; without that program it makes it half as fast again. So the processor time that the threads receive is watched;
when some of it is missing, a few steps on a copy of the model are timed with fewer threads.

Another number of threads adds up the terms of a gradient in another order, so each change is recorded with its step,
and a training that is resumed or repeated follows the record.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from convscope.training.events import LoggedEvent
from convscope.training.reproducibility import random_state, restore_random_state

T = TypeVar("T")
MISSING = 0.3
"""Processor time that the threads did not receive, in cores, from which on fewer threads are tried."""
WINDOW = 0.2
"""Seconds of training over which it is measured."""
FEWER, MORE, FIRST = 1.2, 1.05, 2.0
"""How many times faster fewer threads, or more, must be to be preferred, and fewer at the first, short comparison: so
the choice is steady, and the same in every training on a machine without other programs."""
SHORT, LONG = 1.0, 16.0
"""Seconds until more threads are tried: at first, and after several attempts that were in vain."""
SHARE = 20
"""Comparisons take at most about one part in this many of the time."""
TIMED, TIMED_MORE = 0.03, 0.1
"""Seconds for which fewer threads, and more, are timed: beside another program most steps are fast, a few take long."""
STEPS, LONGEST = 3, 1.0
"""At least this many steps are timed, unless they take this many seconds."""
SLOW = 0.1
"""Seconds of a step from which on more threads are certain to be worth it, unless another program is running."""
MOST = 4096


@dataclass(slots=True, eq=False)
class Threads:
    """The number of threads of a training: first as recorded, then by comparing.

    >>> threads = Threads(8, {100: 7}, choose=False)
    >>> threads.follow(0), threads.count, threads.next_recorded(0)
    (False, 8, 100)
    >>> threads.follow(100), threads.count
    (True, 7)
    """

    most: int
    """Number of threads at the start, and the largest that is tried."""
    recorded: Mapping[int, int] = field(default_factory=dict)
    """Step -> number of threads from the next step on."""
    choose: bool = True
    """Whether to compare after the last recorded change."""
    at_once: bool = True
    """Whether to compare before the first step already."""
    count: int = field(init=False)
    """Number of threads now."""
    _followed: int = field(init=False, default=-1)
    """The newest recorded change that was followed."""
    _due: bool = field(init=False)
    _wall: float = field(init=False, default=0.0)
    _processor: float = field(init=False, default=0.0)
    _steps: int = field(init=False, default=0)
    _step_seconds: float | None = field(init=False, default=None)
    """Seconds of a step in the last window with this number of threads."""
    _since: float = field(init=False, default=0.0)
    """Seconds of training since the last comparison."""
    _patience_fewer: float = field(init=False, default=WINDOW)
    _patience_more: float = field(init=False, default=SHORT)
    _begun: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.count = self.most
        self.choose = self.choose and self.most > 1
        self._due, self._begun = self.choose and self.at_once, not self.at_once

    def follow(self, step: int) -> bool:
        """Set the recorded number of threads for the steps after `step`; returns whether it is another than before."""
        before = self.count
        newest = max((change for change in self.recorded if change <= step), default=-1)
        if newest > self._followed:
            self.count, self._followed = self.recorded[newest], newest
        torch.set_num_threads(self.count)
        return self.count != before

    def next_recorded(self, step: int) -> int | None:
        """The first recorded change after a step."""
        return min((change for change in self.recorded if change > step), default=None)

    def due(self, step: int) -> bool:
        """Whether to compare before the next step."""
        return self._due and self.choose and step > max(self.recorded, default=-1)

    def spent(self, wall: float, processor: float, steps: int = 1) -> None:
        """Note the time that some steps took.

        Args:
            wall: Seconds that passed.
            processor: Seconds that all threads of this process ran in that time.
            steps: Number of steps.
        """
        self._wall, self._processor, self._since = self._wall + wall, self._processor + processor, self._since + wall
        self._steps += steps
        if self._wall < WINDOW:
            return
        missing = self.count - self._processor / self._wall > MISSING
        self._step_seconds = self._wall / self._steps
        self._wall, self._processor, self._steps = 0.0, 0.0, 0
        more = self.count < self.most and self._since > self._patience_more
        self._due = more or (missing and self.count > 1 and self._since > self._patience_fewer)

    def compare(self, prepare: Callable[[], Callable[[], object]]) -> bool:
        """Time a step with several numbers of threads, set the fastest; returns whether it is another than before.

        Args:
            prepare: Returns a function that takes such a step and leaves the training unchanged. It is called several
                times; the random state is left as found.
        """
        before, state, start = self.count, random_state(), time.perf_counter()
        try:
            self.count = self._fastest(prepare())
        except Exception:  # the model's own code may raise anything on a copy; the step itself will say so
            self.choose = False
        finally:
            restore_random_state(state)
            torch.set_num_threads(self.count)
        self._wait_longer(before, SHARE * (time.perf_counter() - start))
        self._begun, self._due, self._since = True, False, 0.0
        self._wall, self._processor, self._steps, self._step_seconds = 0.0, 0.0, 0, None
        return self.count != before

    def _wait_longer(self, before: int, least: float) -> None:
        """Set the time until the next comparison: attempts to use more threads, which cost most, become rarer."""
        if before < self.most:
            self._patience_more = min(2 * self._patience_more, LONG)
        elif self._since > LONG:  # so long all threads were worth it
            self._patience_more = SHORT
        self._patience_more = max(self._patience_more, least)
        unchanged = self._begun and self.count == before
        self._patience_fewer = max(min(2 * self._patience_fewer, LONG), least) if unchanged else WINDOW

    def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is also used to compare, where that is due: it must not change anything."""
        if self._due:
            self.compare(lambda: work)
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.spent(time.perf_counter() - wall, time.process_time() - processor)
        return result

    def _fastest(self, work: Callable[[], object]) -> int:
        """The number of threads to go on with."""
        times: dict[int, float] = {}
        for count in self._candidates():
            if count == self.count and self._step_seconds is not None:
                times[count] = self._step_seconds
                continue
            least = TIMED_MORE if count > self.count else TIMED
            times[count] = _timed(work, count, least if self._begun else 0.0)
            if not self._begun and times[count] > SLOW:
                return self.count
            if self.count in times and times[count] > 1.5 * min(times.values()):
                break
        best = min(times, key=times.__getitem__)
        needed = FIRST if not self._begun else FEWER if best < self.count else MORE
        return best if times[self.count] / times[best] > needed else self.count

    def _candidates(self) -> list[int]:
        """Numbers of threads to compare: all, all but one, and halves down to one."""
        counts = {self.most, self.most - 1, self.count}
        counts |= {max(1, self.most >> shift) for shift in range(1, self.most.bit_length())}
        return sorted(counts, reverse=True)


def _timed(work: Callable[[], object], count: int, least: float) -> float:
    """Seconds of one `work` with `count` threads, after one that starts them."""
    torch.set_num_threads(count)
    work()
    steps, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < least or (steps < STEPS and elapsed < LONGEST):
        work()
        steps, elapsed = steps + 1, time.perf_counter() - start
    return elapsed / steps


@contextmanager
def threads_of_pass(*, choose: bool) -> Iterator[Threads]:
    """The number of threads of a pass over a data set, chosen as it goes on; afterwards it is as before.

    >>> before = torch.get_num_threads()
    >>> with threads_of_pass(choose=True) as threads:
    ...     sums = [threads.run(lambda: torch.ones(3).sum().item()) for _ in range(2)]
    >>> sums, torch.get_num_threads() == before
    ([3.0, 3.0], True)
    """
    before = torch.get_num_threads()
    try:
        yield Threads(before, choose=choose, at_once=False)
    finally:
        torch.set_num_threads(before)


def thread_changes(events: Iterable[LoggedEvent]) -> dict[int, int]:
    """The recorded changes of a training: step -> number of threads from the next step on.

    >>> thread_changes([{"event": "threads", "step": 40, "epoch": 1, "threads": 1}])
    {40: 1}
    """
    changes: dict[int, int] = {}
    for event in events:
        if event["event"] == "threads":
            threads = event.get("threads")
            if type(threads) is int and 1 <= threads <= MOST:
                changes[event["step"]] = threads
    return changes
