"""Do the borders of red objects vanish in tutorial 5's colour network? Trained many times, each training is asked.

python examples/borders.py [runs/borders] [--trainings 20] [--recipe tutorial] [--epochs N] [--json] [--out borders.png]

How to ask a question of trainings rather than of one of them: `trainings` makes the sample, a plain function answers
for one run, and the share of the sample is printed with its interval. docs/how-to/many-trainings.md describes what
is measured.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

import convscope as cs
from convscope.data.generated import RED, YELLOW, ShapePart, paint

COLORS: Mapping[str, tuple[int, ...]] = {"red": RED, "yellow": YELLOW}
PLACE = (11, 8, 8)  # side, top and left of the square that is shown: nothing of it is near a border
VISIBLE = 0.1
"""An outline is drawn where a map goes beyond both the plain ground and the plain inside by this share of its range."""
OUTCOMES = ("vanish", "stay", "nowhere")
POINTS = {"vanish": "#b2182b", "stay": "#2166ac", "nowhere": "#777777"}
LABELS = {"vanish": "red borders vanish", "stay": "red borders stay", "nowhere": "no borders at all"}
HEAD = ("run", "accuracy", "no red", "red outline", "yellow outline", "red weights", "red borders")


def trainings(
    dataset: str, model: str | None = None, *, count: int, folder: str | Path, **settings: Any
) -> list[cs.Run]:
    """Train a network several times, from seed 0 on; what the folder already has is not trained again.

    Args:
        dataset: The data set's name, as `cs.train` takes it.
        model: The network's name; None for the data set's own.
        count: How many trainings.
        folder: Where the runs are, `seed-0`, `seed-1` and so on.
        settings: More arguments of `cs.train`: recipe, epochs.
    """
    if count < 1:
        raise cs.UsageError(f"a question needs at least one training to be asked of, not {count}.")
    runs = []
    for seed in range(count):
        path = Path(folder) / f"seed-{seed}"
        if (path / "config.json").exists():
            run = cs.load_run(path)
            runs.append(run if run.finished else cs.train(out=path, resume=True))
        else:
            runs.append(cs.train(dataset, model, seed=seed, out=path, **settings))
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

    def share(self, outcome: str) -> cs.probe.Proportion:
        """In how many trainings this is what happens."""
        return cs.probe.Proportion(sum(run.outcome == outcome for run in self.runs), len(self.runs))

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> cs.probe.ProbeReport:
        """What it says, as sentences and tables."""
        rows = []
        for run in self.runs:
            red, yellow = (", ".join(f"{100 * v:.1f}" for v in run.excess[color]) + " %" for color in ("red", "yellow"))
            first = "" if run.red_share_at_first is None else f" (at first {run.red_share_at_first:.2f})"
            shares = (f"{100 * run.accuracy:.1f} %", f"{100 * run.accuracy_without_red:.1f} %")
            rows.append((run.run, *shares, red, yellow, f"{run.red_share:.2f}{first}", run.outcome))
        first, *more = self._said()
        return cs.probe.ProbeReport.of(first, cs.probe.Table(HEAD, rows, right=(1, 2)), more)

    def _said(self) -> list[str]:
        vanish, stay, nowhere = (self.share(outcome) for outcome in OUTCOMES)
        lines = [
            f"The borders of red squares vanish in {vanish} of the trainings, stay in {stay}, "
            f"and are drawn for neither colour in {nowhere} (Wilson 95 %)."
        ]
        for visible in (VISIBLE / 2, 2 * VISIBLE):
            count = sum(run.most("red") < visible <= run.most("yellow") for run in self.runs)
            lines.append(f"With a threshold of {100 * visible:.0f} %, they vanish in {count} of {len(self.runs)}.")
        lines.append(f"Where yellow squares have borders, those of red ones are fainter in {self.fainter}.")
        lines.append(f"Training lowered the share of the weights for red in {self.lowered}.")
        lost = [100 * (run.accuracy - run.accuracy_without_red) for run in self.runs]
        lines.append(
            f"With the red channel black, accuracy falls by {float(np.median(lost)):.1f} points "
            f"(median; {min(lost):.1f} to {max(lost):.1f}): most networks use red."
        )
        return lines

    @property
    def fainter(self) -> cs.probe.Proportion:
        """Of the trainings that draw the borders of yellow squares, those that draw red ones' less strongly."""
        drawn = [run for run in self.runs if run.drawn["yellow"]]
        return cs.probe.Proportion(sum(run.most("red") < run.most("yellow") for run in drawn), len(drawn))

    @property
    def lowered(self) -> cs.probe.Proportion:
        """Of the trainings that kept their first weights, those whose weights for red have lost in share."""
        pairs = [(run.red_share_at_first, run.red_share) for run in self.runs]
        known = [(first, last) for first, last in pairs if first is not None]
        return cs.probe.Proportion(sum(last < first for first, last in known), len(known))

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "visible": self.visible,
            **{outcome: self.share(outcome).to_json() for outcome in OUTCOMES},
            "fainter": self.fainter.to_json(),
            "red_share_lowered": self.lowered.to_json(),
        }


def borders(runs: Sequence[cs.Run | str | Path]) -> Borders:
    """Ask each training whether its first layer draws the borders of red squares.

    Args:
        runs: Trainings on color-shapes, or their folders; `trainings` makes some.
    """
    if not runs:
        raise cs.UsageError("there is no training to ask; make some: trainings('color-shapes', count=20, folder=...).")
    return Borders(tuple(outline(run if isinstance(run, cs.Run) else cs.load_run(run)) for run in runs))


def outline(run: cs.Run) -> Outline:
    """What one training does."""
    conv = first_convolution(run.model, run.path)
    data = run.config["dataset"]
    if data["source"] is None:
        raise cs.UsageError(f"{run.path} was trained on data passed as arrays; its test images are not known.")
    options = data["options"].copy()
    options.pop("size", None)
    test = cs.load_dataset(data["source"], split="test", seed=data["seed"], **options)
    images = test.images.copy()
    images[:, 0] = 0
    without = cs.Dataset(test.name, images, test.labels, test.classes, test.preprocess, test.split)
    name = next(name for name, module in run.model.named_modules() if module is conv)
    first = run.weights_at(0)[f"{name}.weight"] if 0 in run.steps else None
    return Outline(
        run.path.name,
        cs.evaluate(run, test).accuracy,
        cs.evaluate(run, without).accuracy,
        excess_of(conv),
        red_share(conv.weight.detach().cpu().numpy()),
        None if first is None else red_share(first),
    )


def first_convolution(model: nn.Module, path: Path) -> nn.Conv2d:
    """A network's first convolution, which must take three channels."""
    found = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if found is None or found.in_channels != 3:
        raise cs.ConvscopeError(
            f"{path} has no first convolution of three channels; this question is for colour networks."
        )
    return found


def excess_of(conv: nn.Conv2d) -> dict[str, NDArray[np.float64]]:
    """How far each map goes beyond both the ground and the inside of a square, over the layer's range."""
    maps = {}
    for name, color in COLORS.items():
        square = paint(ShapePart("square", color), np.array([PLACE])) / np.float32(255)  # (1, 3, 28, 28)
        with torch.no_grad():
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


def red_share(weight: NDArray[Any]) -> float:
    """Length of the weights for red, as a share of those for red and green together."""
    red, green = (float(np.linalg.norm(weight[:, channel])) for channel in (0, 1))
    return red / float(np.hypot(red, green))


def figure_of(result: Borders) -> Figure:
    """Each training as a point: how strongly it draws the outline of a yellow and of a red square."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for outcome, color in POINTS.items():
        runs = [run for run in result.runs if run.outcome == outcome]
        points = ([100 * min(1.0, run.most(name)) for run in runs] for name in ("yellow", "red"))
        axes.scatter(*points, color=color, label=f"{LABELS[outcome]}: {result.share(outcome)}")
    axes.axline((0, 0), slope=1, color="black", linewidth=0.5)
    axes.axhline(100 * result.visible, color="gray", linewidth=0.5)
    axes.axvline(100 * result.visible, color="gray", linewidth=0.5)
    axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axes.set(xlabel="yellow outline, % of the layer's range", ylabel="red outline, % of the layer's range")
    axes.set_title(f"Borders of squares in the first maps of {len(result.runs)} trainings", fontsize=9)
    figure.legend(loc="outside lower center", fontsize=7)
    return figure


def main() -> None:
    """Train what is missing, ask all, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", default="runs/borders", help="where the trainings are, or shall be")
    parser.add_argument("--trainings", type=int, default=20, metavar="COUNT", help="how many (default 20)")
    parser.add_argument("--recipe", default="tutorial", help="tutorial, for the published settings, or fast")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", help="also draw it into this file: .png, .svg or .pdf")
    wanted = parser.parse_args()
    runs = trainings(
        "color-shapes", count=wanted.trainings, folder=wanted.folder, recipe=wanted.recipe, epochs=wanted.epochs
    )
    result = borders(runs)
    print(json.dumps(result.to_json(), indent=2) if wanted.json else result)
    if wanted.out is not None:
        figure_of(result).savefig(wanted.out)


if __name__ == "__main__":
    main()
