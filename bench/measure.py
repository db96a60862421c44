"""Side by side: run things in turn, several times, and print medians with their spread and the conditions."""

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import convscope as cs


def header(title: str) -> None:
    """Say what is measured, and where."""
    print(f"\n## {title}\n")
    print(
        f"{processor()}, {torch.get_num_threads()} threads, {platform.system()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, NumPy {np.__version__}, convscope {cs.__version__}; {time.strftime('%Y-%m-%d')}\n"
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def in_turn(jobs: Mapping[str, Callable[[], float | None]], repeats: int) -> dict[str, list[float]]:
    """Run all jobs in turn, `repeats` times; a job returns its own seconds, or None to be timed whole."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name, job in jobs.items():
            print(f"\r{name}, {turn + 1} of {repeats}".ljust(70), end="", file=sys.stderr, flush=True)
            start = time.perf_counter()
            own = job()
            seconds[name].append(time.perf_counter() - start if own is None else own)
    print("\r" + " " * 70 + "\r", end="", file=sys.stderr)
    return seconds


def spread(values: list[float], digits: int = 2, unit: str = "s") -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} {unit} ({low:,.{digits}f} to {high:,.{digits}f}, n = {len(values)})"


def ratio(slow: list[float], fast: list[float]) -> str:
    """How many times `fast` is faster: the median of the pairs' ratios, and their range."""
    pairs = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"
