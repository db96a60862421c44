"""A trace larger than the memory it may have: what it keeps, what verifying it takes: `python bench/budget.py`.

The process gets a limit of addresses (`ulimit -v`), so that a byte too many fails instead of being swapped.
"""

import argparse
import math
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import convscope as cs
from measure import header

MEGABYTE = 1_000_000


class Block(nn.Module):
    """Convolution, batch norm, ReLU and the way around them: 4 results of one size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, H, W) to the same."""
        return torch.relu(self.bn(self.conv(x))) + x


def network(blocks: int, channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), *[Block(channels) for _ in range(blocks)]).eval()


def pages(place: int) -> int:
    """Bytes of this process: of addresses (0), in memory (1)."""
    return int(Path("/proc/self/statm").read_text().split()[place]) * resource.getpagesize()


class Peak:
    """The most memory that the process had while this ran."""

    def __enter__(self) -> "Peak":
        self.most, self._done = pages(1), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, pages(1))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()


def measure(size: int, blocks: int, channels: int, megabytes: int, cells: int) -> None:
    model, image = network(blocks, channels), torch.rand(3, size, size)
    cs.verify(cs.trace(network(1, channels), torch.rand(3, 8, 8)))  # what is loaded once
    resource.setrlimit(resource.RLIMIT_AS, (pages(0) + megabytes * MEGABYTE,) * 2)
    start = pages(1)
    with Peak() as tracing:
        began = time.perf_counter()
        trace = cs.trace(model, image)
        traced = time.perf_counter() - began
    largest = max(sum(math.prod(r.shape) * 4 for r in step.results) for step in trace.all_steps)
    held = pages(1) - start
    print(f"- {megabytes:,} MB may be had; {trace}")
    print(
        f"- traced in {traced:.0f} s; {(tracing.most - start) / MEGABYTE:,.0f} MB at its peak, "
        f"{held / MEGABYTE:,.0f} MB after"
    )
    with Peak() as verifying:
        began = time.perf_counter()
        report = cs.verify(trace, cells=cells)
        taken = time.perf_counter() - began
    allowed = megabytes / 2 * MEGABYTE + 256 * MEGABYTE + 3 * largest
    print(
        f"- verified in {taken:.0f} s: {report.summary()}\n- {(verifying.most - start) / MEGABYTE:,.0f} MB at its "
        f"peak; half of what may be had, 256 MB and three times the largest step are {allowed / MEGABYTE:,.0f} MB",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=1024)
    options.add_argument("--blocks", type=int, default=24)
    options.add_argument("--channels", type=int, default=8)
    options.add_argument("--megabytes", type=int, default=2000)
    options.add_argument("--cells", type=int, default=20)
    options.add_argument("--inside", action="store_true", help="measure this process")
    given = options.parse_args()
    if given.inside:
        measure(given.size, given.blocks, given.channels, given.megabytes, given.cells)
        return
    header(f"A network of {given.blocks} blocks at {given.size}x{given.size}, in {given.megabytes:,} MB")
    subprocess.run([sys.executable, __file__, "--inside", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
