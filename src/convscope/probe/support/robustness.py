"""Robustness: the results of models on changed pictures, as numbers and as text. Uses no torch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convscope.probe.support.report import ProbeReport, Proportion, Table, noted, sample_size
from convscope.probe.support.transforms import CHANGES, Level, Motion
from convscope.rich_display import RichDisplay


@dataclass(frozen=True, slots=True, eq=False)
class Steadiness:
    """How one model answers the changed pictures."""

    model: str
    parameters: int
    right: NDArray[np.int64] = field(repr=False)
    """Images answered correctly at each level, shape (L,)."""
    kept: NDArray[np.int64] = field(repr=False)
    """Images given the same class as unmoved, shape (L,)."""
    right_whole: NDArray[np.int64] = field(repr=False)
    """Images answered correctly of those that are still whole, shape (L,)."""
    kept_whole: NDArray[np.int64] = field(repr=False)
    """Images given the same class, of those that are still whole, shape (L,)."""
    change: NDArray[np.float64] = field(repr=False)
    """Mean change of an output at each level, as a share of the outputs' spread over images and classes, shape (L,)."""
    motion: tuple[Motion, ...]
    """Whether each layer's maps move along; empty for layers without maps."""
    shared: bool
    """Whether the first layers were run once for all translations."""


@dataclass(frozen=True, slots=True, eq=False)
class Shift(RichDisplay):
    """How models answer pictures that are changed, level by level."""

    dataset: str
    kind: str
    levels: tuple[Level, ...]
    unmoved: int
    """The place in `levels` of the one that changes nothing."""
    images: int
    """The number of images."""
    skipped: int
    """The number of images that could not be read."""
    whole: NDArray[np.int64] = field(repr=False)
    """Images of which nothing that is not background has left the picture, at each level, shape (L,)."""
    models: tuple[Steadiness, ...]
    notes: tuple[str, ...] = ()
    """What to know before relying on the numbers."""

    @property
    def unit(self) -> str:
        """What a level is, in words."""
        return CHANGES[self.kind].unit

    def accuracy(self, model: int = 0) -> NDArray[np.float64]:
        """Share of the images answered correctly at each level, shape (L,)."""
        return self.models[model].right / self.images

    def intervals(self, model: int = 0) -> NDArray[np.float64]:
        """Wilson's 95 % interval of the accuracy at each level, shape (L, 2)."""
        return np.array([Proportion(int(right), self.images).interval for right in self.models[model].right])

    def mean(self, counts: NDArray[np.int64]) -> Proportion:
        """The mean over all levels; its interval counts each image once, for its levels are not independent."""
        return Proportion(round(float(counts.mean())), self.images)

    def while_whole(self, counts: NDArray[np.int64]) -> float:
        """The mean over all levels at which an image is still whole, the unmoved ones left out; nan of none."""
        moved = np.arange(len(self.levels)) != self.unmoved
        total = int(self.whole[moved].sum())
        return float(counts[moved].sum() / total) if total else float("nan")

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        sample = sample_size(self.images, self.skipped)
        head = f"{self.dataset}: {sample}, {self.kind} at {len(self.levels)} levels ({self.unit})"
        table = self._grid() if self.kind in {"translation", "erase"} else self._table()
        return ProbeReport.of(head, noted(self.notes), table, self._borders(), *self._motion())

    def _grid(self) -> Table:
        """A row per model: unmoved, on average, at worst."""
        moves = self.kind == "translation"
        columns = ["model", "parameters", "unmoved", "mean of all", "worst"]
        columns += ["while whole", "same class", "outputs change"]
        rows = []
        for result in self.models:
            worst = int(result.right.argmin())
            moved = np.arange(len(self.levels)) != self.unmoved
            rows.append(
                [
                    result.model,
                    f"{result.parameters:,}",
                    str(Proportion(int(result.right[self.unmoved]), self.images)),
                    f"{100 * self.mean(result.right).share:.1f} %",
                    f"{100 * result.right[worst] / self.images:.1f} % at {_level(self.levels[worst])}",
                    _percent(self.while_whole(result.right_whole)),
                    _percent(self.while_whole(result.kept_whole)),
                    f"{100 * float(result.change[moved].mean()):.0f} %",
                ]
            )
        head, *body = [columns, *rows] if moves else [[*row[:5], *row[6:]] for row in (columns, *rows)]
        return Table(tuple(head), body)

    def _table(self) -> Table:
        """A row per level."""
        head = ("level", *(f"{result.model}: {fact}" for fact in ("right", "same class") for result in self.models))
        rows = []
        for k, level in enumerate(self.levels):
            right = [str(Proportion(int(result.right[k]), self.images)) for result in self.models]
            unchanged = [f"{100 * result.kept[k] / self.images:.1f} %" for result in self.models]
            rows.append([_level(level), *right, *unchanged])
        return Table(head, rows)

    def _borders(self) -> str:
        moved = np.arange(len(self.levels)) != self.unmoved
        if self.kind != "translation" or not moved.any():
            return ""
        cut = 1 - float(self.whole[moved].sum()) / (self.images * int(moved.sum()))
        none = ", and there are none: without a black background, look at the mean of all" if cut == 1 else ""
        return (
            f"In {100 * cut:.0f} % of the moved pictures something other than background has left the picture: a "
            f"border effect that no network can undo. 'While whole' and 'same class' count only the others{none}."
        )

    def _motion(self) -> list[list[str]]:
        parts = []
        for result in self.models:
            if result.motion:
                lines = [f"{result.model}: maps (equivariance)", *(f"  {motion}" for motion in result.motion)]
                lines.append(f"  the answer (invariance) stays for {self._stays(result)}")
                parts.append(lines)
            elif self.kind == "translation":
                parts.append([f"{result.model}: has no maps that could shift with the image"])
        return parts

    def _stays(self, steadiness: Steadiness) -> str:
        last, moved = self.while_whole(steadiness.kept_whole), np.arange(len(self.levels)) != self.unmoved
        if np.isfinite(last):
            return f"{_percent(last)} of the whole moved pictures"
        return (
            f"{_percent(float(steadiness.kept[moved].mean()) / self.images)} of the moved pictures, none of them whole"
        )

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "unit": self.unit,
            "levels": [list(level) for level in self.levels],
            "unmoved": self.unmoved,
            "images": self.images,
            "skipped": self.skipped,
            "notes": list(self.notes),
            "whole": self.whole.tolist(),
            "models": [
                {
                    "model": result.model,
                    "parameters": result.parameters,
                    "right": result.right.tolist(),
                    "kept": result.kept.tolist(),
                    "right_whole": result.right_whole.tolist(),
                    "kept_whole": result.kept_whole.tolist(),
                    "change": result.change.tolist(),
                    "accuracy_unmoved": Proportion(int(result.right[self.unmoved]), self.images).to_json(),
                    "accuracy_mean": self.mean(result.right).to_json(),
                    "motion": [motion.to_json() for motion in result.motion],
                    "shared": result.shared,
                }
                for result in self.models
            ],
        }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if np.isfinite(share) else "–"


def _level(level: Level) -> str:
    return ", ".join(f"{part:g}" for part in level).replace("-", "−")
