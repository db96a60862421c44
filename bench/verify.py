"""Verifying every number against the bare forward pass, in turn, and the memory it takes: `python bench/verify.py`."""

import argparse
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import convscope as cs
from measure import header, in_turn, ratio, spread

MEGABYTE = 1_000_000


def resnet18() -> tuple[nn.Module, Tensor]:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    return ResNetForImageClassification(config).eval(), torch.rand(1, 3, 224, 224)


def bare(model: nn.Module, image: Tensor) -> float:
    with torch.no_grad():
        start = time.perf_counter()
        model(image)
        return time.perf_counter() - start


def speed(repeats: int) -> None:
    model, image = resnet18()
    trace = cs.trace(model, image)
    report = cs.verify(trace)
    bare(model, image)

    def verify(cells: int) -> None:
        cs.verify(trace, cells=cells)

    jobs: dict[str, Callable[[], float | None]] = {
        "bare forward": lambda: bare(model, image),
        "verify, 200 cells of each step explained": lambda: verify(200),
        "verify, corners and borders alone explained": lambda: verify(1),
    }
    seconds = in_turn(jobs, repeats)
    print(f"{report.summary()}\n")
    for name, taken in seconds.items():
        times = "" if name == "bare forward" else f", {ratio(taken, seconds['bare forward'])} times the bare forward"
        print(f"- {name}: {spread(taken, 3)}{times}")


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def memory() -> None:
    """What verify adds to the process, at its peak."""
    model, image = resnet18()
    trace = cs.trace(model, image)
    cs.verify(cs.trace(nn.Conv2d(1, 1, 3), torch.rand(1, 1, 5, 5)))  # what is loaded once
    largest = max(sum(math.prod(r.shape) * 4 for r in step.results) for step in trace.all_steps)
    before, seen, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cs.verify(trace)
    done.set()
    watcher.join()
    allowed = 256 * MEGABYTE + 3 * largest
    print(
        f"- memory: {(max(seen) - before) / MEGABYTE:.0f} MB on top of the trace at its peak; the largest step has "
        f"{largest / MEGABYTE:.1f} MB, so at most {allowed / MEGABYTE:.0f} MB are allowed"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=10)
    options.add_argument("--memory", action="store_true", help="only the memory, in this process")
    given = options.parse_args()
    if given.memory:
        memory()
        return
    header("Verify every number of a ResNet-18 at 224x224")
    speed(given.repeats)
    subprocess.run([sys.executable, __file__, "--memory"], check=True)


if __name__ == "__main__":
    main()
