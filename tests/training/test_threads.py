"""The number of threads of a training: chosen by measuring, recorded, followed by resumed and repeated trainings."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.training import threads as module
from convscope.training.replay import before_step
from convscope.training.threads import Threads
from convscope.training.writer import metrics_line

Times = dict[int, float]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """PyTorch's own number of threads during a test is two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Seconds of a step by number of threads, in place of measured ones."""
    times: Times = {}

    def take(work: Callable[[], object], count: int, _least: float) -> float:
        work()
        return times[count]

    monkeypatch.setattr(module, "_timed", take)
    monkeypatch.setattr(module, "SHARE", 0)  # the time that a comparison really takes on a busy machine does not count
    return times


def compared(threads: Threads) -> int:
    """The number of threads after a comparison."""
    threads.compare(lambda: lambda: None)
    assert torch.get_num_threads() == threads.count
    return threads.count


def test_fewer_threads_are_taken_where_they_are_clearly_faster(timed: Times) -> None:
    threads = Threads(2)
    assert [threads.due(0), threads.count] == [True, 2]
    timed.update({2: 0.003, 1: 0.0016})
    assert compared(threads) == 2  # the first comparison is short
    timed.update({2: 0.003, 1: 0.0026})
    assert compared(threads) == 2
    timed.update({2: 0.003, 1: 0.0024})
    assert compared(threads) == 1
    timed.update({2: 0.00245, 1: 0.0024})
    assert compared(threads) == 1
    timed.update({2: 0.0022, 1: 0.0024})
    assert compared(threads) == 2


def test_all_but_one_and_halves_are_compared_until_they_are_much_slower(timed: Times) -> None:
    threads = Threads(16)
    timed.update({16: 0.03, 15: 0.01, 8: 0.012, 4: 0.02})  # 2 and 1 are not tried: 4 are twice as slow as 15
    assert compared(threads) == 15
    timed.update({16: 0.009, 15: 0.01, 8: 0.02})
    assert compared(threads) == 16


def test_long_steps_are_not_repeated_at_the_start(timed: Times) -> None:
    threads = Threads(8)
    timed[8] = 0.5
    assert compared(threads) == 8
    timed.update({8: 3.0, 7: 1.0, 4: 2.0})
    assert compared(threads) == 7


def spend(threads: Threads, seconds: float, processor: float, step: float) -> None:
    """Train for some seconds, in steps of `step` seconds."""
    threads.spent(seconds, processor, round(seconds / step))


def wait_of(threads: Threads) -> float:
    """Seconds of training, undisturbed on one thread, until the next comparison."""
    wait = 0.0
    while not threads.due(1):
        spend(threads, 0.25, 0.25, step=0.003)
        wait += 0.25
    return wait


def test_a_comparison_is_due_where_threads_lack_processor_time(timed: Times) -> None:
    threads = Threads(2)
    timed.update({2: 0.003, 1: 0.003})
    compared(threads)
    assert not threads.due(1)
    spend(threads, 1.0, 1.9, step=0.003)
    assert not threads.due(2)
    spend(threads, 0.1, 0.13, step=0.003)
    assert not threads.due(3)  # too short to judge
    spend(threads, 0.15, 0.2, step=0.003)
    assert threads.due(4)
    assert compared(threads) == 2
    spend(threads, 0.3, 0.4, step=0.003)
    assert not threads.due(5)  # nothing was gained by the last comparison, so the next waits longer
    spend(threads, 0.3, 0.4, step=0.003)
    assert threads.due(6)


def test_the_time_of_real_steps_counts_for_the_present_number(timed: Times) -> None:
    threads = Threads(2)
    timed.update({2: 0.002, 1: 0.003})
    compared(threads)
    spend(threads, 0.5, 0.65, step=0.009)  # most steps are fast beside another program, and a few take long
    assert threads.due(1)
    assert compared(threads) == 1


def test_more_threads_are_tried_less_and_less_often(timed: Times) -> None:
    threads = Threads(2)
    timed.update({2: 0.009, 1: 0.003})
    assert compared(threads) == 1
    waits = []
    for _ in range(6):
        waits.append(wait_of(threads))
        assert compared(threads) == 1
    assert waits == pytest.approx([1.25, 2.25, 4.25, 8.25, 16.25, 16.25], abs=0.3)


def test_an_attempt_in_vain_is_taken_back_at_once_and_the_next_waits_longer(timed: Times) -> None:
    threads = Threads(2)
    timed.update({2: 0.009, 1: 0.003})
    compared(threads)
    waits = []
    for _ in range(4):
        timed[2] = 0.002  # looks fast
        waits.append(wait_of(threads))
        assert compared(threads) == 2
        spend(threads, 0.25, 0.3, step=0.009)  # and is slow
        assert threads.due(2)
        assert compared(threads) == 1
    assert waits == pytest.approx([1.25, 2.25, 4.25, 8.25], abs=0.3)


def test_the_last_recorded_number_holds_behind_the_record_and_until_another_is_chosen(timed: Times) -> None:
    threads = Threads(4, {10: 3, 20: 2})
    assert threads.follow(900)
    assert threads.count == torch.get_num_threads() == 2
    timed.update({4: 0.001, 3: 0.002, 2: 0.003, 1: 0.004})
    assert compared(threads) == 4
    assert not threads.follow(901)
    assert threads.count == 4


def test_a_training_is_resumed_behind_its_record_with_the_last_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def watch(event: cs.Event) -> None:
        counts.append(torch.get_num_threads())
        if event["event"] == "train" and event["step"] == 9 and "stopped" not in vars(watch):
            vars(watch)["stopped"] = True
            raise KeyboardInterrupt

    always_due(monkeypatch, [1])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", watch=watch, snapshot_seconds=0.0)
    counts.clear()
    run = cs.train(out=tmp_path / "run", resume=True, watch=watch)
    assert run.thread_changes == {0: 1}
    assert set(counts) == {1}


def test_a_fixed_number_one_thread_or_a_record_leave_nothing_to_choose() -> None:
    for threads in (Threads(1), Threads(4, choose=False), Threads(4, {10: 2, 20: 4})):
        threads.spent(10.0, 1.0)
        assert not threads.due(5)


def test_a_comparison_leaves_the_random_state_as_found(timed: Times) -> None:
    timed.update({2: 1e-3, 1: 1e-3})

    def draws() -> tuple[float, float, float]:
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    expected = draws()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    Threads(2).compare(lambda: draws)
    assert draws() == expected


def test_a_step_that_cannot_be_rehearsed_ends_the_comparisons() -> None:
    def fail() -> Callable[[], object]:
        raise RuntimeError("no copy of this model can be made")

    threads = Threads(2)
    assert not threads.compare(fail)
    assert (threads.count, threads.choose, torch.get_num_threads()) == (2, False, 2)


def test_work_is_timed_with_each_number_of_threads() -> None:
    seen: list[int] = []
    Threads(2).compare(lambda: lambda: seen.append(torch.get_num_threads()))
    assert set(seen) == {1, 2}
    assert min(seen.count(1), seen.count(2)) >= module.STEPS


def test_passes_over_data_compare_on_their_own_work(
    timed: Times, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = cs.load_model("simple-cnn", seed=1)
    data = cs.load_dataset("mnist", split="test")
    quiet = cs.probe.patches(model, data, "conv1")
    timed.update({2: 0.9, 1: 0.3})
    counts: list[int] = []
    spent = Threads.spent

    def beside_another(self: Threads, _wall: float, _processor: float) -> None:
        counts.append(self.count)
        spent(self, timed[self.count], timed[self.count])

    monkeypatch.setattr(Threads, "spent", beside_another)
    busy = cs.probe.patches(model, data, "conv1")
    assert counts[0] == 2
    assert len(counts) > 10
    assert set(counts[1:]) == {1}
    assert torch.get_num_threads() == 2
    assert busy.to_json() == quiet.to_json()


# In trainings


class Net(nn.Module):
    """Draws random numbers and changes buffers in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 5), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(4), nn.Dropout(0.3), nn.Flatten(),
            nn.Linear(1152, 4),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(images)
        return output


def net() -> nn.Module:
    """The same network each time."""
    torch.manual_seed(3)
    return Net()


def train(path: Path, *, model: nn.Module | str = "mnist-small", **settings: Any) -> cs.Run:
    settings = {"watch": lambda _event: None, "batch_size": 100, "data_options": {"size": 800}, **settings}
    return cs.train("shapes", model, epochs=2, out=path, **settings)


def always_due(monkeypatch: pytest.MonkeyPatch, counts: list[int]) -> None:
    """Compare before each chunk of steps, and go on with these numbers of threads in turn, then with the last."""
    monkeypatch.setattr(
        Threads, "due", lambda self, step: self.choose and step > max(self.recorded, default=-1) and bool(counts)
    )

    def fastest(_self: Threads, work: Callable[[], object]) -> int:
        work()
        return counts.pop(0)

    monkeypatch.setattr(Threads, "_fastest", fastest)


def weights(run: cs.Run) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in run.model.state_dict().items()}


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_comparisons_leave_a_training_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train(tmp_path / "plain", model=net(), threads=2)
    always_due(monkeypatch, [2] * 1000)
    compared = train(tmp_path / "compared", model=net())
    assert compared.thread_changes == {}
    assert equal(weights(plain), weights(compared))


def test_changes_are_recorded_and_a_repeated_step_follows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always_due(monkeypatch, [2, 1, 1, 2, 1, 2, 1])
    run = train(tmp_path / "run")
    changes = run.thread_changes
    assert list(changes.values()) == [1, 2, 1, 2, 1]
    assert {event["event"] for event in run.history} == {"train", "epoch"}
    assert run.config["environment"]["threads"] == 2
    seen: dict[int, int] = {}

    def look(state: object) -> None:
        seen[step] = torch.get_num_threads()

    for step in (1, *(step + 1 for step in changes)):  # each is compared with the weights that the run kept
        before_step(run, step, look)
    assert seen == {1: 2, **{step + 1: count for step, count in changes.items()}}


def test_a_killed_training_follows_its_record_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    at_kill: dict[str, Any] = {}

    def kill(event: cs.Event) -> None:
        if event["event"] == "train" and event["step"] == 7:
            run = cs.load_run(tmp_path / "run")
            at_kill.update(changes=run.thread_changes, weights={step: run.weights_at(step) for step in run.steps})
            raise Killed

    always_due(monkeypatch, [2, 1, 2, 1])
    with pytest.raises(Killed):
        train(tmp_path / "run", watch=kill, snapshot_seconds=1e9)
    changes = at_kill["changes"]
    assert list(changes.values()) == [1, 2, 1]
    always_due(monkeypatch, [2] * 1000)  # the choice after the record
    run = cs.train(out=tmp_path / "run", resume=True, watch=lambda _event: None)
    last = max(changes)
    assert list(run.thread_changes.items())[:3] == list(changes.items())
    assert list(run.thread_changes.values()) == [1, 2, 1, 2]
    kept = [step for step in at_kill["weights"] if step <= last + 1]
    assert len(kept) > 3
    assert all(equal(run.weights_at(step), at_kill["weights"][step]) for step in kept)


def test_a_fixed_number_of_threads_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    stopped: list[str] = []

    def watch(event: cs.Event) -> None:
        seen.append(torch.get_num_threads())
        if event["event"] == "train" and event["step"] == 8 and not stopped:
            stopped.append("once")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", threads=1, watch=watch)
    assert set(seen) == {1}
    with pytest.raises(cs.UsageError, match=r"was started with threads 1, not 2; leave it out to continue"):
        cs.train(out=tmp_path / "run", resume=True, threads=2)
    run = cs.train(out=tmp_path / "run", resume=True, threads=1, watch=watch)
    assert (run.config["threads"], run.thread_changes, set(seen)) == (1, {}, {1})


def test_numbers_of_threads_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    for count in (0, -1, 5000):
        with pytest.raises(cs.UsageError, match=f"threads is a number from 1 to 4096, not {count}"):
            train(tmp_path / "run", threads=count)


def test_damaged_records_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always_due(monkeypatch, [1])
    run = train(tmp_path / "run")
    lines = [{"event": "threads", "step": 3, "epoch": 1, "threads": value} for value in (0, "2", 1e9, None, True)]
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.writelines([*map(metrics_line, lines), json.dumps({"event": "threads", "step": 4}).encode() + b"\n"])
    with pytest.warns(UserWarning, match="damaged"):
        assert len(cs.load_run(run.path).history) > 0
    assert cs.load_run(run.path).thread_changes == {0: 1}
