"""History: loss and accuracy over the epochs of a training."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from convscope.errors import RunError, UsageError
from convscope.plot.arguments import run_of
from convscope.plot.canvas.sheet import LABEL, SMALL, TITLE
from convscope.plot.canvas.style import ACCENT, INK, LINE, MUTED, PAGE, StyledFigure, font, printable, styled
from convscope.render.numbers import compact
from convscope.type_checks import kind_of, takes

Events = Sequence[Mapping[str, Any]]
Curve = NDArray[np.float64]
BATCHES = "#b9b5ac"  # the noisy curve behind the others
DENSE = 400  # more batches than this are averaged in groups of neighbours
WIDE_RANGE = 20.0  # a loss that falls further than this is drawn on a logarithmic axis


class RunHistory(Protocol):
    """A training, by what it reported."""

    @property
    @takes()
    def history(self) -> Any:
        """Its events in order, as `metrics.jsonl` has them."""


@takes(run="Any")
@styled()
def history(run: RunHistory | Events | str | Path, *, name: str = "") -> Figure:
    """Loss and accuracy of a training: while it ran, over each epoch, and on the test data.

    >>> epochs = [{"event": "epoch", "epoch": e, "loss": 1 / e, "test_loss": 2 / e} for e in (1, 2, 3)]
    >>> len(history(epochs).axes)
    1

    Args:
        run: A Run or its folder, or its events: `train` ones with step, epoch, loss and accuracy, `epoch` ones with
            test_loss and test_accuracy too. What is missing or None is left out.
        name: What the figure is titled.

    Raises:
        RunError: there are no events to draw.
    """
    reported: Any = run_of(run)
    result: Any = reported if isinstance(reported, Sequence) else getattr(reported, "history", None)
    if not isinstance(result, Sequence) or not all(isinstance(event, Mapping) for event in result):
        raise UsageError(f"a history is drawn of a Run, its folder or its events, not of {kind_of(run)}.")
    events: Events = list(result)
    epochs = [e for e in events if e.get("event") == "epoch"]
    batches = [e for e in events if e.get("event") == "train"]
    shown = [key for key in ("loss", "accuracy") if any(_is_number(e.get(key)) for e in events)]
    if not shown:
        raise RunError("the run has reported no loss yet, so there is no history to draw; train it first.")
    wide = 4.6
    across, high = 0.15 + wide * len(shown), 3.9
    with styled():
        page = StyledFigure(across, high)
        title, facts = printable(name or "history"), _facts(events, epochs, batches)
        for text, y, points, color in ((title, 0.42, TITLE, INK), (facts, 0.61, SMALL, MUTED)):
            style = font(text, points, bold=text is title)
            page.text(0.3 / across, 1 - y / high, text, fontproperties=style, color=color, parse_math=False)
        for column, key in enumerate(shown):
            left = (0.8 + wide * column) / across
            axes = page.add_axes((left, 0.55 / high, (wide - 1.5) / across, 2.2 / high), facecolor=PAGE)
            _curves(axes, key, batches, epochs)
    return page


def _facts(events: Events, epochs: Events, batches: Events) -> str:
    caption = [f"{len(epochs)} epoch{'s' if len(epochs) != 1 else ''}"] if epochs else []
    steps = [e["step"] for e in events if _is_number(e.get("step"))]
    caption += [f"{max(steps):,} steps"] if steps else []
    seconds = [e["seconds"] for e in events if _is_number(e.get("seconds"))]
    caption += [f"{compact(max(seconds), 3)} s"] if seconds else []
    together = -(-len(batches) // DENSE)
    caption += [f"grey: {'batches' if together == 1 else f'means of {together} batches'}"] if batches and epochs else []
    return " · ".join(caption)


def _curves(axes: Axes, key: str, batches: Events, epochs: Events) -> None:
    """One panel: a grey line while training, ink for each epoch, green on the test data, each named at its end."""
    percent = 100.0 if key == "accuracy" else 1.0
    curves = [
        ("batches", BATCHES, 0.8, *_thinned(*_points(batches, key, epochs))),
        ("training", INK, 1.3, *_points(epochs, key, ())),
        ("test", ACCENT, 1.3, *_points(epochs, f"test_{key}", ())),
    ]
    curves = [(name, color, weight, x, y * percent) for name, color, weight, x, y in curves if len(x)]
    for name, color, weight, x, y in curves:
        marker = "o" if name != "batches" and len(x) <= 30 else ""
        axes.plot(x, y, color=color, linewidth=weight, marker=marker, markersize=2.6, label=name)
    _frame(axes, key, [y for *_, y in curves])
    labelled = [curve for curve in curves if curve[0] != "batches"] or curves
    _name_ends(axes, [(name, color, float(x[-1]), float(y[-1])) for name, color, _, x, y in labelled], key)
    unit = " in %" if key == "accuracy" else ""
    axes.set_title(f"{key}{unit}", loc="left", fontsize=LABEL, fontweight="bold", color=INK, pad=9)
    best = [y.max() if key == "accuracy" else y.min() for name, _, _, _, y in curves if name == "test"]
    if best:
        caption = f"best on test data {_value(float(best[0]), key)}"
        axes.set_title(caption, loc="right", fontsize=SMALL, color=MUTED, pad=9)


def _points(events: Events, key: str, epochs: Events) -> tuple[Curve, Curve]:
    """Epochs and values of one curve; batches stand between the epochs by their step."""
    last_epoch = max((e["epoch"] for e in epochs if _is_number(e.get("epoch"))), default=0)
    last_step = max((e["step"] for e in epochs if _is_number(e.get("step"))), default=0)
    per_step = last_epoch / last_step if last_epoch and last_step else 0
    results = [e for e in events if _is_number(e.get(key)) and np.isfinite(e[key])]
    positions = [
        e["step"] * per_step if per_step and _is_number(e.get("step")) else e.get("epoch") or e.get("step") or i
        for i, e in enumerate(results)
    ]
    return np.array(positions, np.float64), np.array([e[key] for e in results], np.float64)


def _thinned(x: Curve, y: Curve) -> tuple[Curve, Curve]:
    """A curve of many points as the means of those that are close together."""
    starts = np.arange(0, len(x), -(-len(x) // DENSE) or 1)
    if len(starts) == len(x):
        return x, y
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def _frame(axes: Axes, key: str, curves: Sequence[Curve]) -> None:
    """Axes without a box: thin lines across, numbers in the figure's own minus and typeface."""
    every = np.concatenate(curves)
    if key == "loss" and every.min() > 0 and every.max() / every.min() > WIDE_RANGE:
        axes.set_yscale("log")
        decades = every.max() / every.min() > 300
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if decades else (1, 2, 5), numticks=9))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value, 3)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
    axes.set_xlabel("epoch", fontsize=SMALL, color=MUTED, loc="right")
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=SMALL, labelcolor=MUTED, labelfontfamily="monospace")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.margins(x=0.02, y=0.08)


def _name_ends(axes: Axes, ends: Sequence[tuple[str, str, float, float]], key: str) -> None:
    """Each curve's name and last value at its right end, moved apart where they would touch."""
    if not ends:
        return
    axes.autoscale_view()
    axes.get_ylim()  # settles the limits, so that data can be placed
    to_axes = axes.transAxes.inverted()
    heights = [float(to_axes.transform(axes.transData.transform((x, y)))[1]) for _, _, x, y in ends]
    order = np.argsort(heights)
    placed = np.array(heights, np.float64)
    for below, above in pairwise(order):
        if placed[above] - placed[below] < 0.17:
            middle = (placed[above] + placed[below]) / 2
            placed[below], placed[above] = middle - 0.085, middle + 0.085
    placed -= max(placed.max() - 0.93, 0)
    for (name, color, _, y), height in zip(ends, placed, strict=True):
        style: Any = {"transform": axes.transAxes, "color": color, "fontsize": SMALL}
        axes.text(1.02, height + 0.01, name, va="bottom", **style)
        axes.text(1.02, height - 0.01, _value(y, key), va="top", family="monospace", **style)


def _value(value: float, key: str) -> str:
    return f"{value:.2f} %" if key == "accuracy" else compact(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
