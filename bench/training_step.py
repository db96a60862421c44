"""A recorded training step against the bare one; explaining a gradient; verifying: `python bench/training_step.py`.

Processor time, so that other jobs on the machine count little: set OMP_NUM_THREADS=1.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from trace import resnet50  # bench/trace.py, not Python's own
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from measure import header, ratio, spread

CELLS = 200


def simple_cnn() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return cs.load_model("simple-cnn"), torch.rand(64, 1, 28, 28, generator=generator), torch.arange(64) % 10


def photos() -> tuple[nn.Module, Tensor, Tensor]:
    model, _ = resnet50()
    return model, torch.randn(2, 3, 224, 224), torch.tensor([0, 1])


def scores_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def loss(output: Any, target: Tensor) -> Tensor:
    return F.cross_entropy(scores_of(output), target)


def bare(model: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss(model(images), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def recorded(model: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> cs.Trace:
    return cs.trace(model, images, target=labels, loss=loss, optimizer=optimizer)


def compare(title: str, made: tuple[nn.Module, Tensor, Tensor], pairs: int, times: int) -> cs.Trace:
    model, images, labels = made
    optimizer = torch.optim.Adam(model.train().parameters(), 1e-4)
    header(title)
    step = partial(bare, model, images, labels, optimizer)
    step()
    done = recorded(model, images, labels, optimizer)
    record = partial(recorded, model, images, labels, optimizer)
    turns = [
        (median(timed(record) for _ in range(times)), median(timed(step) for _ in range(times))) for _ in range(pairs)
    ]
    ours, plain = map(list, zip(*turns, strict=True))
    print(f"bare step {milliseconds(plain)}, recorded {milliseconds(ours)}: {ratio(ours, plain)} times")
    return done


def explain(trace: cs.Trace, names: list[str]) -> None:
    """Milliseconds for a cell of a gradient; the first of each step pays for what its neighbours share."""
    random = np.random.default_rng(0)
    for name in names:
        cells = [tuple(map(int, random.integers(trace[name].shape))) for _ in range(CELLS)]
        seconds = [timed(partial(cs.explain, trace, name, cell)) for cell in cells]
        print(f"{name}: first {1e3 * seconds[0]:.1f} ms, then {milliseconds(seconds[1:])}")


def milliseconds(seconds: list[float]) -> str:
    return spread([1e3 * each for each in seconds], 2, "ms")


def timed(work: Callable[[], object]) -> float:
    """One run; what it made is freed inside."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--small", action="store_true", help="simple-cnn alone")
    options = parser.parse_args()
    small = compare("simple-cnn, 64 images", simple_cnn(), options.pairs, 5)
    explain(small, ["conv1.weight.grad", "fc1.weight.grad", "conv1.grad", "fc1.weight.updated"])
    print(f"verify: {spread([timed(partial(cs.verify, small)) for _ in range(5)])}")
    if not options.small:
        large = compare("ResNet-50, 2 images at 224x224", photos(), max(3, options.pairs // 3), 1)
        weights = [name for name in large.training_step.gradients if name.endswith("weight")]  # type: ignore[union-attr]
        explain(large, [f"{name}.grad" for name in (weights[0], weights[len(weights) // 2], weights[-1])])


if __name__ == "__main__":
    main()
