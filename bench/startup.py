"""Starting: the list of commands beside its libraries alone, and `explain` beside `import torch`, in turn.

Counts the processor time of whole processes, and the time on the clock. `python bench/startup.py --before PATH` adds
the sources of another state.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

EXPLAIN = ("-m", "convscope", "explain", "shapes-cnn", "shapes:test/0", "--at", "conv1:0,1,1")
PROGRAMS = {"import typer, rich": ("-c", "import typer, rich"), "import torch": ("-c", "import torch")}
COMMANDS = {"convscope --help": ("-m", "convscope", "--help"), "convscope explain": EXPLAIN}


def measured(program: Sequence[str], source: Path) -> tuple[float, float]:
    """Milliseconds of the processor and on the clock that a process takes."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, *program], check=True, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True
    )
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return 1e3 * spent, 1e3 * (time.perf_counter() - started)


def shown(times: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(times):,.0f} ({min(times):,.0f} to {max(times):,.0f})"


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9, help="times that each program runs")
    options.add_argument("--before", type=Path, help="the sources of another state, which runs in turn")
    given = options.parse_args()
    states = {"": Path(__file__).parents[1] / "src", " before": given.before}
    programs: dict[str, tuple[Sequence[str], Path]] = {n: (program, states[""]) for n, program in PROGRAMS.items()}
    programs |= {
        name + state: (program, path) for name, program in COMMANDS.items() for state, path in states.items() if path
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for turn in range(given.rounds + 1):  # the first compiles
        for name, (program, source) in programs.items():
            result = measured(program, source)
            times[name] += [result] if turn else []
    for name, results in times.items():
        processor, clock = zip(*results, strict=True)
        base = times["import typer, rich" if "--help" in name or "typer" in name else "import torch"]
        ratios = [mine[0] / other[0] for mine, other in zip(results, base, strict=True)]
        print(
            f"{name}: {shown(processor)} ms of the processor, {shown(clock)} ms, {statistics.median(ratios):.2f} times"
        )


if __name__ == "__main__":
    main()
