"""What trace, verify, explain, to_input and a training step cost as images, networks and batches grow.

`python bench/sizes.py --docs` measures, draws docs/images/costs.svg and writes the table of docs/explanation/costs.md;
without `--docs` it prints the table alone. Processor time on one thread; every size in turn, medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.training.engines import make_engine
from convscope.training.recipes import ANY
from convscope.training.runtime import make_runtime
from measure import header

DOCS = Path(__file__).parents[1] / "docs"
START, END = "<!-- measured: bench/sizes.py -->", "<!-- end -->"
CHANNELS = 16
LARGEST = 3
"""The exponent is the slope through this many of the largest sizes: at small ones, what is the same for all counts."""


@dataclass(frozen=True, slots=True)
class Size:
    """A network and its input."""

    edge: int = 56
    depth: int = 8
    batch: int = 1

    def network(self) -> nn.Module:
        """Convolutions of 16 channels, each followed by a ReLU, and a classifier of ten classes."""
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(1, CHANNELS, 3, padding=1), nn.ReLU()]
        for _ in range(self.depth - 1):
            layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10)).eval()

    def images(self) -> Tensor:
        """The same noise each time."""
        return torch.rand(self.batch, 1, self.edge, self.edge, generator=torch.Generator().manual_seed(0))


AXES: dict[str, tuple[list[Size], Callable[[Size], int]]] = {
    "pixels of an image": ([Size(edge=edge) for edge in (28, 56, 112, 224)], lambda size: size.edge**2),
    "convolutions": ([Size(depth=depth) for depth in (4, 8, 16, 32)], lambda size: size.depth),
    "images in a batch": ([Size(edge=28, batch=batch) for batch in (1, 4, 16, 64)], lambda size: size.batch),
}


def jobs(size: Size) -> dict[str, Callable[[], object]]:
    """Everything that is measured at one size; each call does it once."""
    model, images = size.network(), size.images()
    trace = cs.trace(model, images)
    middle = f"{2 * (size.depth // 2)}"
    place = (*([0] * (size.batch > 1)), CHANNELS // 2, size.edge // 2, size.edge // 2)
    logit = (*([0] * (size.batch > 1)), 3)
    trained = size.network().train()
    engine, _ = make_engine("torch", trained, ANY, F.cross_entropy, make_runtime("cpu"))
    labels = torch.arange(size.batch) % 10

    def bare() -> object:
        with torch.no_grad():
            return model(images)

    return {
        "forward pass": bare,
        "trace": lambda: cs.trace(model, images),
        "verify": lambda: cs.verify(trace),
        "explain": lambda: cs.explain(trace, middle, place),
        "to_input": lambda: cs.explain(trace, trace.steps[-1].name, logit).to_input(),
        "training step": lambda: engine.step(images, labels, 1.0),
    }


def seconds(job: Callable[[], object]) -> float:
    """Processor time of a job, which runs until a fiftieth of a second has passed."""
    count, start = 0, time.process_time()
    while not count or time.process_time() - start < 0.02:
        job()
        count += 1
    return (time.process_time() - start) / count


def measured(repeats: int) -> dict[str, dict[str, list[float]]]:
    """Axis -> job -> seconds at each of its sizes."""
    results: dict[str, dict[str, list[float]]] = {}
    for axis, (sizes, _) in AXES.items():
        at_sizes = [jobs(size) for size in sizes]
        times: list[dict[str, list[float]]] = [{name: [] for name in at_size} for at_size in at_sizes]
        for turn in range(repeats + 1):
            for at_size, kept in zip(at_sizes, times, strict=True):
                for name, job in at_size.items():
                    print(f"\r{axis}, {turn} of {repeats}, {name}".ljust(60), end="", file=sys.stderr, flush=True)
                    value = seconds(job)
                    if turn:  # the first turn warms up
                        kept[name].append(value)
        results[axis] = {name: [statistics.median(kept[name]) for kept in times] for name in at_sizes[0]}
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return results


def exponent(sizes: list[int], values: list[float]) -> str:
    """The slope of the logarithms at the largest sizes."""
    x, y = np.log(sizes[-LARGEST:]), np.log(values[-LARGEST:])
    return f"{max(float(np.polyfit(x, y, 1)[0]), 0.0):.1f}"


def milliseconds(value: float) -> str:
    return f"{value * 1e3:,.3g}" if value < 1 else f"{value * 1e3:,.0f}"


def table(results: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """For each axis the time at its smallest and largest size, and the exponent."""
    names = next(iter(results.values()))
    heads = [f"{axis}: {sizes_of(axis)[0]:,} to {sizes_of(axis)[-1]:,}" for axis in results]
    yield f"| | {' | '.join(f'{head} | exponent' for head in heads)} |"
    yield "|---|" + "---|" * (2 * len(results))
    for name in names:
        cells = []
        for axis, times in results.items():
            first, *_, last = times[name]
            slope = exponent(sizes_of(axis), times[name])
            cells += [f"{milliseconds(first)} to {milliseconds(last)} ms", slope]
        yield f"| {name} | {' | '.join(cells)} |"


def sizes_of(axis: str) -> list[int]:
    sizes, number = AXES[axis]
    return [number(size) for size in sizes]


COLORS = {
    "forward pass": "#8a8a8a", "trace": "#0b66c3", "verify": "#1a7f37", "explain": "#9a6700", "to_input": "#8250df",
    "training step": "#cf222e",
}  # fmt: skip
"""Darkness enough for 3:1 against white and against the dark page."""


def draw(results: dict[str, dict[str, list[float]]]) -> Figure:
    """A panel for each axis, both scales logarithmic: a slope is an exponent."""
    plain: dict[Any, Any] = {
        "font.size": 9,
        "svg.hashsalt": "costs",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(plain):
        page = Figure((11, 3.9), layout="constrained", facecolor="white")
        panels: Any = page.subplots(1, len(results), sharey=True)
        for panel, (axis, times) in zip(panels, results.items(), strict=True):
            for name, values in times.items():
                label = f"{name} {exponent(sizes_of(axis), values)}"
                panel.loglog(sizes_of(axis), values, marker="o", markersize=3, color=COLORS[name], label=label)
            panel.set_xlabel(axis)
            panel.set_xticks(sizes_of(axis), [f"{size:,}" for size in sizes_of(axis)])
            panel.minorticks_off()
            panel.grid(color="#e5e5e5", linewidth=0.6)
            panel.legend(title="exponent", fontsize=7, title_fontsize=7, frameon=False, loc="upper left")
        panels[0].set_yticks([1e-4, 1e-3, 1e-2, 1e-1, 1, 10], ["0.1 ms", "1 ms", "10 ms", "0.1 s", "1 s", "10 s"])
        panels[0].set_ylabel("processor time")
        panels[0].set_ylim(5e-5, 60)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--docs", action="store_true", help="draw the picture and write the table of the documentation")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    header("Costs over size")
    results = measured(settings.repeats)
    lines = [*table(results)]
    print("\n".join(lines))
    if settings.docs:
        draw(results).savefig(DOCS / "images/costs.svg", metadata={"Date": None})
        page = DOCS / "explanation/costs.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(START)
        page.write_text("\n".join([before + START, "", *lines, "", END]) + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
