"""Borders: do the outlines of red objects vanish in a colour network's first maps? Asked of many trainings.

A worked example of a question about trainings rather than about one of them: `trainings` makes the sample, a plain
function answers for one run, and the share of the sample is said with its interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convscope.data.shapes import RED, YELLOW, ShapePart, paint
from convscope.errors import ShapeError, UsageError
from convscope.probe.support.proportion import Proportion
from convscope.probe.support.report import Report, Table
from convscope.progress import Progress, silent
from convscope.training.evaluation import data_of, evaluate
from convscope.training.inference import in_eval_mode
from convscope.training.runs import Run, load_run
from convscope.training.start import train
from convscope.type_checks import takes

COLORS: Mapping[str, tuple[int, ...]] = {"red": RED, "yellow": YELLOW}
PLACE = (11, 8, 8)  # side, top and left of the square that is shown: nothing of it is near a border
VISIBLE = 0.1
"""An outline is drawn where a map goes beyond both the plain ground and the plain inside by this share of its range."""
OUTCOMES = ("vanish", "stay", "nowhere")
HEAD = ("run", "accuracy", "no red", "red outline", "yellow outline", "red weights", "red borders")


def trainings(
    dataset: str,
    model: str | None = None,
    *,
    count: int,
    folder: str | Path,
    progress: Progress = silent,
    **settings: Any,
) -> list[Run]:
    """Train a network several times, from seed 0 on; what the folder already has is not trained again.

    >>> from tempfile import mkdtemp
    >>> runs = trainings("shapes", "shapes-cnn-1", count=2, folder=mkdtemp(), epochs=1)
    >>> [run.config["seed"] for run in runs]
    [0, 1]

    Args:
        dataset: As of `cs.train`.
        model: As of `cs.train`.
        count: How many.
        folder: Where the runs are, `seed-0`, `seed-1` and so on.
        progress: Told how many are there.
        settings: More arguments of `cs.train`: recipe, epochs.

    Raises:
        UsageError: a count below 1.
        RunError: a folder that another training holds, or that is none.
    """
    if count < 1:
        raise UsageError(f"a question needs at least one training to be asked of, not {count}.")
    runs = []
    for seed in range(count):
        progress("trainings", seed, count)
        path = Path(folder) / f"seed-{seed}"
        if (path / "config.json").exists():
            run = load_run(path)
            runs.append(run if run.finished else train(out=path, resume=True))
        else:
            runs.append(train(dataset, model, seed=seed, out=path, **settings))
    progress("trainings", count, count)
    return runs


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What one training's first layer makes of the borders of a red and of a yellow square."""

    run: str
    accuracy: float
    """On the test images."""
    accuracy_without_red: float
    """On the test images with the red channel black."""
    excess: Mapping[str, NDArray[np.float64]] = field(repr=False)
    """Colour -> how far each kernel's map goes beyond both ground and inside, as a share of the layer's range, (K,)."""
    red_share: float
    """Length of the kernels' weights for red, as a share of red and green together: 0.71 if they are equally long."""
    red_share_at_first: float | None
    """The same before training, where the run has kept it."""

    @property
    def drawn(self) -> Mapping[str, int]:
        """How many kernels draw the outline, by colour."""
        return {color: int((values >= VISIBLE).sum()) for color, values in self.excess.items()}

    def most(self, color: str) -> float:
        """How strongly the kernel that draws this colour's outline most does so."""
        return float(self.excess[color].max())

    @property
    def outcome(self) -> str:
        """`vanish`: drawn for yellow and for red by no kernel; `stay`: drawn for red; `nowhere`: for neither."""
        if self.drawn["red"]:
            return "stay"
        return "vanish" if self.drawn["yellow"] else "nowhere"

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {
            "run": self.run,
            "outcome": self.outcome,
            "accuracy": self.accuracy,
            "accuracy_without_red": self.accuracy_without_red,
            "excess": {color: values.tolist() for color, values in self.excess.items()},
            "red_share": self.red_share,
            "red_share_at_first": self.red_share_at_first,
        }


@dataclass(frozen=True, slots=True)
class Borders:
    """The answers of many trainings."""

    runs: tuple[Outline, ...]
    visible: float = VISIBLE
    """From which share of a layer's range on an outline counts as drawn."""

    def share(self, outcome: str) -> Proportion:
        """In how many trainings this is what happens."""
        return Proportion(sum(run.outcome == outcome for run in self.runs), len(self.runs))

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> Report:
        """What it says, as sentences and tables."""
        rows = []
        for run in self.runs:
            red, yellow = (", ".join(f"{100 * v:.1f}" for v in run.excess[color]) + " %" for color in ("red", "yellow"))
            first = "" if run.red_share_at_first is None else f" (at first {run.red_share_at_first:.2f})"
            shares = (f"{100 * run.accuracy:.1f} %", f"{100 * run.accuracy_without_red:.1f} %")
            rows.append((run.run, *shares, red, yellow, f"{run.red_share:.2f}{first}", run.outcome))
        first, *more = self._said()
        return Report.of(first, Table(HEAD, rows, right=(1, 2)), more)

    def _said(self) -> list[str]:
        vanish, stay, nowhere = (self.share(outcome) for outcome in OUTCOMES)
        lines = [
            f"The borders of red squares vanish in {vanish} of the trainings, stay in {stay}, "
            f"and are drawn for neither colour in {nowhere} (Wilson 95 %)."
        ]
        for visible in (VISIBLE / 2, 2 * VISIBLE):
            count = sum(run.most("red") < visible <= run.most("yellow") for run in self.runs)
            lines.append(
                f"Were an outline visible from {100 * visible:.0f} % on, it would be {count} of {len(self.runs)}."
            )
        lines.append(f"Where yellow squares have borders, those of red ones are fainter in {self.fainter}.")
        lines.append(f"Training lowered the share of the weights for red in {self.lowered}.")
        lost = [100 * (run.accuracy - run.accuracy_without_red) for run in self.runs]
        lines.append(
            f"With the red channel black, accuracy falls by {float(np.median(lost)):.1f} points "
            f"(median; {min(lost):.1f} to {max(lost):.1f}): most networks use red."
        )
        return lines

    @property
    def fainter(self) -> Proportion:
        """Of the trainings that draw the borders of yellow squares, those that draw red ones' less strongly."""
        drawn = [run for run in self.runs if run.drawn["yellow"]]
        return Proportion(sum(run.most("red") < run.most("yellow") for run in drawn), len(drawn))

    @property
    def lowered(self) -> Proportion:
        """Of the trainings that kept their first weights, those whose weights for red have lost in share."""
        pairs = [(run.red_share_at_first, run.red_share) for run in self.runs]
        known = [(first, last) for first, last in pairs if first is not None]
        return Proportion(sum(last < first for first, last in known), len(known))

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "visible": self.visible,
            **{outcome: self.share(outcome).to_json() for outcome in OUTCOMES},
            "fainter": self.fainter.to_json(),
            "red_share_lowered": self.lowered.to_json(),
        }


@takes(runs="list | tuple | Sequence")
def borders(runs: Sequence[Run | str | Path], *, progress: Progress = silent) -> Borders:
    """Ask each training whether its first layer draws the borders of red squares.

    >>> from tempfile import mkdtemp
    >>> found = borders(trainings("color-shapes", count=1, folder=mkdtemp(), epochs=1))
    >>> len(found.runs), found.runs[0].outcome in OUTCOMES
    (1, True)

    Args:
        runs: Trainings on color-shapes, or their folders; `trainings` makes some.
        progress: Told how many are asked.

    Raises:
        UsageError: no run.
        ShapeError: a network whose first convolution does not take three channels.
    """
    if not runs:
        raise UsageError("there is no training to ask; make some: trainings('color-shapes', count=20, folder=...).")
    found = list[Outline]()
    progress("trainings asked", 0, len(runs))
    for run in runs:
        found.append(_outline(run if isinstance(run, Run) else load_run(run)))
        progress("trainings asked", len(found), len(runs))
    return Borders(tuple(found))


def _outline(run: Run) -> Outline:
    conv = _first(run.model, run.path)
    test = data_of(run, None, "test", None)
    images = test.images.copy()
    images[:, 0] = 0
    without = type(test)(test.name, images, test.labels, test.classes, test.preprocess, test.split)
    name = next(name for name, module in run.model.named_modules() if module is conv)
    first = run.weights_at(0)[f"{name}.weight"] if 0 in run.steps else None
    return Outline(
        run.path.name,
        evaluate(run, test).accuracy,
        evaluate(run, without).accuracy,
        _excess(conv),
        _red_share(conv.weight.detach().cpu().numpy()),
        None if first is None else _red_share(first),
    )


def _first(model: nn.Module, path: Path) -> nn.Conv2d:
    found = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if found is None or found.in_channels != 3:
        raise ShapeError(f"{path} has no first convolution of three channels; this question is for colour networks.")
    return found


def _excess(conv: nn.Conv2d) -> dict[str, NDArray[np.float64]]:
    """How far each map goes beyond both the ground and the inside of a square, over the layer's range."""
    maps = {}
    for name, color in COLORS.items():
        square = paint(ShapePart("square", color), np.array([PLACE])) / np.float32(255)  # (1, 3, 28, 28)
        with torch.no_grad(), in_eval_mode(conv):
            given = torch.from_numpy(square.astype(np.float32)).to(conv.weight)
            maps[name] = conv(given)[0].cpu().double().numpy()  # (K, P, Q)
    side, top, left = PLACE
    middle = (slice(None), top + side // 2, left + side // 2)
    ground = {name: found[:, 2, 2] for name, found in maps.items()}
    span = max(float(np.abs(found - ground[name][:, None, None]).max()) for name, found in maps.items()) or 1.0
    excess = {}
    for name, found in maps.items():
        low, high = np.minimum(ground[name], found[middle]), np.maximum(ground[name], found[middle])
        inner = found[:, 2:-2, 2:-2]  # without the border of the picture, which padding makes
        beyond = np.maximum(inner.max((1, 2)) - high, low - inner.min((1, 2)))
        excess[name] = np.maximum(beyond, 0.0) / span
    return excess


def _red_share(weight: NDArray[Any]) -> float:
    red, green = (float(np.linalg.norm(weight[:, channel])) for channel in (0, 1))
    return red / float(np.hypot(red, green))
