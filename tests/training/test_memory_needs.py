"""Memory: what a training needs is counted before it is taken, because a system that runs out ends the process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.cards.trial_copy import TrialCopies
from convscope.errors import DataError
from convscope.training.memory_needs import ResultBytes, check_step_memory


def network(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 1, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1, 2),
    )


def data(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, 1, size, size), np.uint8), np.arange(count) % 2


def test_a_batch_that_does_not_fit_is_refused_before_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of 8 images of 512x512: the images and two maps are 8 MB each, the 16 channels and their ReLU 134 MB each."""
    monkeypatch.setattr("convscope.data.options.available", lambda: 500_000_000)
    sentence = (
        r"the numbers of a training step on a batch of 8 images of 1x512x512 need about 1 GB of memory, and 0 GB are "
        r"free here\. Use a smaller --batch-size or --size\."
    )
    with pytest.raises(DataError, match=sentence):
        cs.train(data(512, 8), network(16), epochs=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("convscope.data.options.available", lambda: 700_000_000)
    check_step_memory(network(16), (1, 512, 512), 8)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured where /proc says it")
def test_the_count_is_near_what_a_step_takes() -> None:
    """A step of 16 channels on 8 images of 512x512 counts 553 MB; the process may take a quarter more or less."""
    measured = """
import torch
from pathlib import Path
from torch import nn
network = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Linear(1, 2),
)
def step(size):
    network(torch.ones(8, 1, size, size)).sum().backward()
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
small, large = step(16), step(512)
print((large - small) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True)
    assert 0.75 < 553e6 / int(done.stdout) < 1.25


@pytest.mark.parametrize(
    ("model", "args"), [("mlp-512", {"size": 100_000}), ("mnist-small", {"size": 50_000, "classes": 1000})]
)
def test_weights_that_do_not_fit_are_refused_before_they_are_allocated(model: str, args: dict[str, int]) -> None:
    sentence = (
        rf"the weights of {model} with these arguments need about [\d,]+ GB of memory, and \d+ GB are free here\."
    )
    with pytest.raises(DataError, match=sentence):
        cs.load_model(model, args=args)


def test_a_model_without_weights_is_counted_without_its_numbers() -> None:
    """An input of 6.4 GB, of which a copy would take as much."""

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    run = TrialCopies(Doubled()).run_under(ResultBytes, [torch.empty(()).expand(1, 1, 40_000, 40_000)], {})
    assert isinstance(run[1], torch.Tensor)
    assert run[1].device.type == "meta"


def test_a_model_that_reads_its_numbers_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reads(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(x.mean())

    monkeypatch.setattr("convscope.data.options.available", lambda: 0)
    check_step_memory(Reads(), (1, 40_000, 40_000), 1)
