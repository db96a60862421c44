"""Traces in files: every number is there again, and what is no trace is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.errors import DataError, TraceError, UsageError
from replay import assert_replays, same
from small_networks import Runs, Small, image


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


def test_a_saved_trace_has_every_number(small: Small, tmp_path: Path) -> None:
    for training in (False, True):
        trace = cs.trace(small.train(training), image(2, 2, 6, 5), training=training)
        trace.save(tmp_path / "t.trace")
        again = cs.Trace.load(tmp_path / "t.trace")
        for one, other in zip(trace.all_steps, again.all_steps, strict=True):
            assert (one.name, one.arguments, one.results, one.hidden) == (
                other.name,
                other.arguments,
                other.results,
                other.hidden,
            )
            assert all(map(same, one.outputs, other.outputs)) or "empty" in one.op
            for name, _, _ in one.refs():
                assert same(trace.operand(one, name), again.operand(other, name)) or "empty" in one.name
        assert_replays(again)
        assert same(trace.output, again.output)
        assert same(trace.input, again.input)
        assert (again.card, again.weights, again.model_type, again.modules) == (
            trace.card,
            trace.weights,
            trace.model_type,
            trace.modules,
        )
        assert again.changed() == ()
        assert [path.name for path in tmp_path.iterdir()] == ["t.trace"]


def test_the_weights_digest_tells_models_apart(small: Small) -> None:
    trace = cs.trace(small, image(2, 6, 5))
    assert trace.weights == cs.trace(small, image(2, 6, 5) + 1).weights
    with torch.no_grad():
        small.fc.bias[0] += 1
    assert trace.weights == trace.weights
    assert cs.trace(small, image(2, 6, 5)).weights != trace.weights


def test_a_saved_trace_holds_odd_values(tmp_path: Path) -> None:
    model = Runs(lambda x: {"a": x.clamp(min=float("-inf"), max=float("inf")), "n": 3, "t": (x.sum(), None)})
    cs.trace(model, image(1, 2, 2)).save(tmp_path / "odd")
    again = cs.Trace.load(tmp_path / "odd")
    assert again["clamp"].arguments["max"] == float("inf")
    assert again.output["n"] == 3
    assert again.output["t"][1] is None


def test_files_that_are_no_trace(tmp_path: Path, small: Small) -> None:
    with pytest.raises(DataError, match=r"there is no file .*x; trace\.save"):
        cs.Trace.load(tmp_path / "x")
    (tmp_path / "y").write_text("hello")
    with pytest.raises(DataError, match="is not a trace saved by convscope"):
        cs.Trace.load(tmp_path / "y")
    trace = cs.trace(small, image(2, 6, 5))
    with pytest.raises(UsageError, match="cannot be written to"):
        trace.save(tmp_path / "no" / "such" / "folder")
    small.fc.weight.data.zero_()
    small.fc.weight = nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(TraceError, match=r"cannot be saved: fc\.weight changed since; trace again"):
        trace.save(tmp_path / "z")
