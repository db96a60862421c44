"""Shortcut: how far a single trivial number solves a data set, before any network looks at it.

Uses data, features and rules; no models. A rule that scores high says that a network *can* score so without seeing
more than this number, not that it does so.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset, check_trainable
from convscope.data.generated import published_chances
from convscope.data.options import split_indices
from convscope.errors import DataError
from convscope.probe.support.report import ProbeReport, Proportion, Table
from convscope.probe.support.trivial_features import MEANS, Rule, features_of, fit_rule
from convscope.progress import Progress, silent
from convscope.rich_display import RichDisplay
from convscope.type_checks import takes
from convscope.typing import Array

Numbers = NDArray[np.float64]
HISTOGRAM = 60  # bins of the picture
HEAD = ("feature", "right", "interval", "its rule")
BINS, RIDGE = 16, 1.0  # of the rule that adds all features up


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRule:
    """The accuracy of one feature alone."""

    name: str
    means: str
    """A description of the feature."""
    rule: str
    """Its rule in words, fitted on the training images."""
    test: Proportion
    """Test images that the rule gets right."""
    train: float
    """Share of the training images that it gets right."""
    exact: float | None
    """Share of all possible images, each as likely as the tutorial draws it; None where they are not known."""
    edges: Numbers = field(repr=False)
    """Bin edges of the histogram of the training images, shape (B + 1,)."""
    counts: NDArray[np.int64] = field(repr=False)
    """Training images of each class in each bin, shape (K, B)."""

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        exact = {} if self.exact is None else {"of_all_possible_images": self.exact}
        return {
            "name": self.name,
            "means": self.means,
            "rule": self.rule,
            "test": self.test.to_json(),
            "train": self.train,
            **exact,
        }


@dataclass(frozen=True, slots=True)
class Shortcut(RichDisplay):
    """How far trivial features alone solve a data set, the best on the training images first."""

    dataset: str
    classes: tuple[str, ...]
    trained_on: int
    """The number of images that the rules were fitted on."""
    features: tuple[FeatureRule, ...]
    together: Proportion
    """Test images that all features together get right, each with a curve of its own, added up."""
    guess: Proportion
    """Test images that are right when each is given the most frequent class."""
    possible: int | None
    """The number of different images that the data set can have, if known."""
    skipped: int = 0
    """The number of images that could not be read."""

    def __str__(self) -> str:
        return str(self.report())

    def report(self) -> ProbeReport:
        """The result as sentences and tables."""
        best = self.features[0]
        rows = [(f.name, f"{100 * f.test.share:.1f} %", _span(f.test), f.rule) for f in self.features]
        rows.append(("all, added up", f"{100 * self.together.share:.1f} %", _span(self.together), ""))
        rows.append(("none", f"{100 * self.guess.share:.1f} %", _span(self.guess), "always the most frequent class"))
        head = (
            f"{self.dataset}: rules fitted on {self.trained_on:,} training images, scored on {self.guess.n:,} test"
            f" images (Wilson 95 % interval)" + (f"; {self.skipped:,} more cannot be read" if self.skipped else "")
        )
        return ProbeReport.of(head, Table(HEAD, rows, right=(1, 2)), self._verdict(best))

    def _verdict(self, best: FeatureRule) -> str:
        if best.test.interval[0] <= self.guess.share:
            return "No single one of these features does measurably better than guessing."
        message = f"{best.name.capitalize()} alone ({best.means}) gets {best.test} right: {best.rule}."
        if best.exact is not None and self.possible is not None:
            message += (
                f" Of all {self.possible:,} possible images, each as likely as the tutorial draws it, that is "
                f"{100 * best.exact:.1f} %."
            )
        return f"{message} A network that scores no more need not have seen more."

    def to_json(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset,
            "classes": list(self.classes),
            "trained_on": self.trained_on,
            "features": [feature.to_json() for feature in self.features],
            "together": self.together.to_json(),
            "guess": self.guess.to_json(),
            "possible_images": self.possible,
            "skipped": self.skipped,
        }


@takes(data="Dataset | str", test="Dataset")
def shortcut(
    data: str | Dataset,
    test: Dataset | None = None,
    *,
    seed: int = 0,
    data_dir: str | Path | None = None,
    progress: Progress = silent,
) -> Shortcut:
    """Fit a simple rule to each trivial feature of the training images, and score it on the test images.

    >>> result = shortcut("shapes")
    >>> result.features[0].name, result.features[0].rule
    ('area', 'circle where area is 81 or 113, else square')
    >>> round(result.features[0].exact, 4)
    0.9444

    Args:
        data: A data set's name, or training images.
        test: Test images; by default the data set's own, or a fifth of each class of `data`.
        seed: The seed of generated data, of the fifth that is held out, and of the folds of cross-validation.
        data_dir: The folder of the MNIST family's files.
        progress: Receives how many images are done.

    Raises:
        UnknownName: no such data set.
        DataError: all images are of one class, or the test images are of other classes.
    """
    train, held_out = _parts(data, test, seed, data_dir)
    listed = train.listed + held_out.listed
    (numbers, train), (unseen, held_out) = (_measured(part, progress) for part in (train, held_out))
    check_trainable(train)
    classes = len(train.classes)
    rules = {name: fit_rule(values, train.labels, classes, seed=seed) for name, values in numbers.items()}
    exact, possible = _exactly(train, rules, seed)
    feature_rules = [
        FeatureRule(
            name,
            MEANS[name],
            rule.words(name, train.classes),
            _score(rule(unseen[name]), held_out),
            float(np.mean(rule(numbers[name]) == train.labels)),
            exact.get(name),
            *_histogram(numbers[name], train),
        )
        for name, rule in rules.items()
    ]
    frequent = np.bincount(train.labels).argmax()
    return Shortcut(
        dataset=train.name,
        classes=train.classes,
        trained_on=len(train),
        features=tuple(sorted(feature_rules, key=lambda f: -f.train)),
        together=_score(_added_up(numbers, train.labels, classes, unseen), held_out),
        guess=_score(np.full(len(held_out), frequent), held_out),
        possible=possible,
        skipped=listed - len(train) - len(held_out),
    )


def _measured(data: Dataset, progress: Progress) -> tuple[dict[str, Numbers], Dataset]:
    """The features, and the images that they are of."""
    numbers, read_indices = features_of(data, progress=progress)
    return numbers, data if len(read_indices) == len(data) else data.part(read_indices)


def _parts(
    data: str | Dataset, test: Dataset | None, seed: int, data_dir: str | Path | None
) -> tuple[Dataset, Dataset]:
    """The images to fit on, and those to score on."""
    if isinstance(data, str):
        train = load_dataset(data, split="train", seed=seed, data_dir=data_dir)
        return train, test or load_dataset(data, split="test", seed=seed, data_dir=data_dir)
    if test is not None:
        if test.classes != data.classes:
            raise DataError(
                f"the training images are of the classes {', '.join(data.classes)}, the test images of "
                f"{', '.join(test.classes)}; a rule is scored on the classes that it was fitted on, in the same order."
            )
        return data, test
    check_trainable(data)
    fit, held_out = (split_indices(data.labels, split, seed) for split in ("train", "test"))
    if not len(held_out):
        raise DataError(f"{data.name} has too few images to hold some out; give test images.")
    return data.part(fit), data.part(held_out)


def _exactly(train: Dataset, rules: dict[str, Rule], seed: int) -> tuple[dict[str, float], int | None]:
    """Each rule's score over all images that the data set can have, and how many these are."""
    chances = published_chances(train)
    if chances is None:
        return {}, None
    everything = load_dataset(train.name, split="all", seed=seed)
    numbers, _ = features_of(everything)
    right = {name: rule(numbers[name]) == everything.labels for name, rule in rules.items()}
    return {name: float(chances[hits].sum()) for name, hits in right.items()}, len(everything)


def _score(answers: Array, data: Dataset) -> Proportion:
    return Proportion(int((answers == data.labels).sum()), len(data))


def _histogram(values: Numbers, data: Dataset) -> tuple[Numbers, NDArray[np.int64]]:
    """The number of images of each class in each bin."""
    low, high = float(values.min()), float(values.max())
    is_integer = bool((values == np.rint(values)).all()) and high - low < 4 * HISTOGRAM
    step = max(1, -int(-(high - low + 1) // HISTOGRAM))
    edges = np.arange(low, high + step + 1, step) - 0.5 if is_integer else np.linspace(low, high or 1, HISTOGRAM + 1)
    edges = edges if edges[-1] > edges[0] else np.array([low - 0.5, low + 0.5])
    counts = [np.histogram(values[data.labels == k], edges)[0] for k in range(len(data.classes))]
    return edges, np.stack(counts)


def _added_up(
    numbers: dict[str, Numbers], labels: NDArray[np.int64], classes: int, unseen: dict[str, Numbers]
) -> NDArray[np.intp]:
    """The class by all features: each has a step curve per class, the curves are added up (ridge regression)."""
    ends = {name: np.unique(np.quantile(v, np.linspace(0, 1, BINS + 1)[1:-1])) for name, v in numbers.items()}

    def coded(values: dict[str, Numbers]) -> Numbers:
        columns = [np.eye(len(cut) + 1)[np.searchsorted(cut, values[name])] for name, cut in ends.items()]
        return np.concatenate([*columns, np.ones((len(columns[0]), 1))], axis=1)

    features, targets = coded(numbers), np.eye(classes)[labels]
    curves = np.linalg.solve(features.T @ features + RIDGE * np.eye(features.shape[1]), features.T @ targets)
    listed: NDArray[np.intp] = (coded(unseen) @ curves).argmax(axis=1)
    return listed


def _span(proportion: Proportion) -> str:
    low, high = proportion.interval
    return f"({100 * low:.1f} to {100 * high:.1f})"
