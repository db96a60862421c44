"""A trace that keeps less: the rest is made again, with the same numbers, and only from the same weights."""

from typing import Any

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.capture.session import TracingSession
from convscope.errors import TraceError
from replay import assert_replays, same
from small_networks import Runs, Small, image


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


@pytest.mark.parametrize("keep", ["conv2", ["conv1", "relu#2"], 0, 0.0005, 10])
def test_less_kept_gives_the_same_numbers(small: Small, keep: Any) -> None:
    everything, some = cs.trace(small, image(2, 6, 5)), cs.trace(small, image(2, 6, 5), keep=keep)
    for one, other in zip(everything.all_steps, some.all_steps, strict=True):
        assert (one.name, one.arguments, one.inputs) == (other.name, other.arguments, other.inputs)
    assert_replays(some)
    for one, other in zip(everything.steps, some.steps, strict=True):
        assert all(map(same, one.outputs, other.outputs))
    assert same(everything.output, some.output)


def test_what_is_kept_is_not_made_again(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    run = TracingSession.run

    def counted(self: TracingSession, recorder: Any) -> Any:
        runs.append(1)
        return run(self, recorder)

    monkeypatch.setattr(TracingSession, "run", counted)
    trace = cs.trace(small, image(2, 6, 5), keep=["conv2"])
    runs.clear()
    assert trace["conv2"].output.any()
    assert trace.operand("conv2", "input").any()
    assert not runs
    assert trace["conv1"].output.any()
    assert trace["bn"].output.any()
    assert len(runs) == 1  # and the ones after it come with it


def test_a_budget_bounds_what_is_held() -> None:
    net = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(50)])
    trace = cs.trace(net, image(1, 100, 100), keep=0.4)  # each result is 0.04 MB
    source: Any = trace._source
    held = [call for call in source.tape.calls if call is not None]
    assert 3 <= len(held) <= 5
    assert len(trace["49"].output)
    assert 1 <= sum(call is not None for call in source._again.calls) <= 5


def test_numbers_drawn_at_random_are_made_again() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 1, 1), nn.Dropout(0.5))
    trace = cs.trace(net, image(1, 8, 8), training=True, keep=0)
    torch.rand(3)
    first = trace["2"].output.copy()
    assert same(trace["0"].output * 0 + first, first)
    assert same(trace["2"].output, first)
    assert same(trace.output, first)


def test_what_was_not_kept_needs_the_same_weights(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5), keep=0)
    assert trace["conv1"].output.any()
    with torch.no_grad():
        small.conv1.weight[0, 0, 0, 0] = 7
    assert trace.changed() == ("conv1.weight",)
    with pytest.raises(TraceError, match=r"cannot be recomputed: conv1\.weight changed since the trace"):
        _ = trace["fc"].output


def test_a_model_that_does_something_else_the_second_time_is_found_out() -> None:
    times = iter(range(9))
    trace = cs.trace(Runs(lambda x: x.relu() if next(times) == 0 else x.sigmoid()), image(1, 2, 2), keep=0)
    with pytest.raises(TraceError, match="did something else the second time"):
        _ = trace["relu"].output


def test_changed_names_what_was_written_into_or_replaced(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    assert trace.changed() == trace.parameters.changed() == ()
    with torch.no_grad():
        small.get_parameter("conv1.bias").add_(1)
    small.fc.weight = nn.Parameter(torch.zeros(3, 4))
    small.get_buffer("bn.running_mean").data = torch.zeros(4)
    assert set(trace.changed()) == {"conv1.bias", "fc.weight", "bn.running_mean"}


def test_a_training_trace_does_not_count_as_a_change(small: Small) -> None:
    before = cs.trace(small, image(2, 6, 5))
    cs.trace(small.train(), image(2, 2, 6, 5), training=True)
    assert before.changed() == ()
