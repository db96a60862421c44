"""A trace keeps as much as free memory allows, recomputes the rest with the same bits, and says so."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.capture import recompute as memory_budget
from convscope.capture.recompute import Recomputing
from convscope.errors import TraceError
from convscope.memory import available
from replay import same

MEGABYTE = 1_000_000


class Deep(nn.Module):
    """Twenty results of 0.16 MB each, some written into in place, some reused late."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(10))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        first = self.layers[0](x)
        y = first
        for layer in self.layers[1:]:
            y = self.relu(layer(y)) + first
        first.mul_(2)
        made: Tensor = y + first
        return made


@pytest.fixture
def deep() -> Deep:
    torch.manual_seed(0)
    return Deep()


@pytest.fixture
def picture() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, 200, 200)


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets this process have only some megabytes of free memory, whatever it holds already."""

    def left(megabytes: float) -> None:
        monkeypatch.setattr(memory_budget, "UNCOUNTED", 0)
        monkeypatch.setattr(memory_budget, "LARGE", 0)
        monkeypatch.setattr(memory_budget, "UNASKED", 0)
        monkeypatch.setattr(memory_budget, "free_memory", lambda _device: megabytes * MEGABYTE)

    return left


def test_a_trace_that_fits_keeps_everything_and_says_nothing(deep: Deep, picture: Tensor, scarce: Any) -> None:
    scarce(20)
    trace = cs.trace(deep, picture)
    assert not isinstance(trace._source, Recomputing)
    assert trace.notes == ()


@pytest.mark.parametrize("megabytes", [0, 0.5, 1.0, 2.0, 3.0])
def test_beyond_the_budget_numbers_are_recomputed_with_the_same_bits(
    deep: Deep, picture: Tensor, scarce: Any, megabytes: float
) -> None:
    whole = cs.trace(deep, picture, keep="all")
    scarce(megabytes)
    some = cs.trace(deep, picture)
    assert isinstance(some._source, Recomputing)
    assert [step.name for step in some.all_steps] == [step.name for step in whole.all_steps]
    for mine, other in zip(some.all_steps, whole.all_steps, strict=True):
        assert (mine.arguments, mine.inputs, mine.results) == (other.arguments, other.inputs, other.results)
        assert same(mine.output, other.output)
        for name in dict.fromkeys(name for name, _, _ in mine.refs()):
            assert same(some.operand(mine, name), whole.operand(other, name))
    assert same(some.output, whole.output)


def test_what_was_kept_is_said_by_trace_report_and_print(deep: Deep, picture: Tensor, scarce: Any) -> None:
    scarce(2)
    trace = cs.trace(deep, picture)
    recorder = trace._source._recorder  # type: ignore[attr-defined]
    assert 0 < recorder.kept_bytes <= 2 * MEGABYTE
    (note,) = trace.notes
    assert note == f"kept {recorder.kept_bytes / 1e6:.2g} of 4.8 MB of results; other steps are recomputed on demand."
    assert note in str(trace)
    assert note in cs.verify(trace).notes


def test_everything_is_kept_where_that_is_asked_for(deep: Deep, picture: Tensor, scarce: Any) -> None:
    scarce(0)
    assert not isinstance(cs.trace(deep, picture, keep="all")._source, Recomputing)


def test_verify_proves_such_a_trace_in_few_passes(
    deep: Deep, picture: Tensor, scarce: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce(2)
    trace = cs.trace(deep, picture)
    passes = [0]
    run = Recomputing._run_again

    def counted(self: Any, time: int) -> Any:
        passes[0] += 1
        return run(self, time)

    monkeypatch.setattr(Recomputing, "_run_again", counted)
    assert cs.verify(trace, cells=10).proved
    window = trace._source._recorder.window  # type: ignore[attr-defined]
    assert 1 <= passes[0] <= 4.8 * MEGABYTE / window + 2, "a pass for each window, not for each step"


def test_a_model_that_is_not_the_same_again_is_refused_not_mixed(picture: Tensor, scarce: Any) -> None:
    class Drifts(nn.Module):
        """Multiplies by a number from a generator whose state cannot be restored."""

        def __init__(self) -> None:
            super().__init__()
            self.other = iter(range(1, 10_000))

        def forward(self, x: Tensor) -> Tensor:
            factor = float(next(self.other))
            for _ in range(10):
                x = x * factor + 1
            return x

    scarce(0.5)
    trace = cs.trace(Drifts(), picture)
    assert isinstance(trace._source, Recomputing)
    with pytest.raises(TraceError, match="keep='all'"):
        _ = [step.output for step in trace.all_steps]


def test_dropout_in_training_is_recomputed_as_it_was_drawn(picture: Tensor, scarce: Any) -> None:
    net = nn.Sequential(*[nn.Dropout(0.5) for _ in range(10)])
    torch.manual_seed(3)
    whole = cs.trace(net, picture, training=True, keep="all")
    torch.manual_seed(3)
    scarce(0.5)
    some = cs.trace(net, picture, training=True)
    assert isinstance(some._source, Recomputing)
    torch.rand(5)
    for mine, other in zip(some.all_steps, whole.all_steps, strict=True):
        assert mine.op == "empty_like" or same(mine.output, other.output)


def test_the_model_is_left_as_found_beyond_the_budget_too(picture: Tensor, scarce: Any) -> None:
    net = nn.Sequential(*[nn.BatchNorm2d(1) for _ in range(10)])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    scarce(0.5)
    trace = cs.trace(net, picture, training=True)
    assert isinstance(trace._source, Recomputing)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert trace.changed() == ()


GROUPS = """4:memory:/job/inner
1:cpu:/
0::/slice/job
"""


@pytest.fixture
def system(tmp_path: Path) -> tuple[Path, Path]:
    """A machine of 8 GB with 4 GB available, as Linux would describe it."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 1000000 kB\nMemAvailable:    4000000 kB\n")
    (proc / "self" / "cgroup").write_text(GROUPS)
    (proc / "self" / "statm").write_text("100 50 0 0 0 0 0\n")
    groups.mkdir()
    return proc, groups


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_free_memory_is_what_the_machine_says(system: tuple[Path, Path]) -> None:
    assert available(*system) == 4_000_000 * 1024


def test_free_memory_is_what_the_narrowest_control_group_leaves(system: tuple[Path, Path]) -> None:
    proc, groups = system
    stat = "anon 5\ninactive_file 100\n"
    group(groups / "slice", {"memory.max": "3000000\n", "memory.current": "1000000\n", "memory.stat": stat})
    assert available(proc, groups) == 3_000_000 - 1_000_000 + 100
    group(groups / "slice" / "job", {"memory.max": "max\n", "memory.current": "9\n", "memory.stat": stat})
    assert available(proc, groups) == 3_000_000 - 1_000_000 + 100
    old = {"memory.limit_in_bytes": "500000", "memory.usage_in_bytes": "400000", "memory.stat": "total_inactive_file 7"}
    group(groups / "memory" / "job", old)
    assert available(proc, groups) == 500_000 - 400_000 + 7
    group(groups / "memory" / "job", {"memory.usage_in_bytes": "600000"})
    assert available(proc, groups) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_free_memory_is_what_a_limit_of_addresses_leaves() -> None:
    code = (
        "import resource, convscope.memory as m; used = int(open('/proc/self/statm').read().split()[0]) * 4096; "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2); print(m.available())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 50_000_000
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_the_numbers_of_every_type_are_told_apart_by_their_bits() -> None:
    from convscope.capture.recompute import sum_of_bits

    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.complex64,
    ):
        tensor = torch.arange(1, 7).reshape(2, 3).to(dtype)
        other = tensor.clone()
        other[1, 1] = 9
        assert sum_of_bits(tensor) == sum_of_bits(tensor.t()) != sum_of_bits(other)
    assert sum_of_bits(torch.tensor([True, False])) != sum_of_bits(torch.tensor([True, True]))
    assert sum_of_bits(torch.tensor([np.nan])) == sum_of_bits(torch.tensor([np.nan]))


def test_memory_that_is_filled_in_parts_is_recomputed_without_complaint(picture: Tensor, scarce: Any) -> None:
    """Circular padding copies cells of new memory before it has written them all."""
    net = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular") for _ in range(8)])
    whole = cs.trace(net, picture, keep="all")
    scarce(0.5)
    some = cs.trace(net, picture)
    for mine, other in zip(some.steps, whole.steps, strict=True):
        assert same(mine.output, other.output)
