"""Rule: one number decides the class, by the interval that contains it. Fitted exactly; knows NumPy alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]

DISTINCT = 256  # up to this number of distinct values are kept; more are put into as many equally full bins
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval of the feature and the class that it stands for."""

    low: float
    """The smallest value seen in it."""
    high: float
    """The largest value seen in it."""
    label: int


@dataclass(frozen=True, slots=True)
class Rule:
    """At most a few intervals of one number, each with a class.

    >>> area = np.array([25.0, 81, 100, 113, 121] * 20)
    >>> labels = np.array([0, 1, 0, 1, 0] * 20)
    >>> print(fit_rule(area, labels, 2).words("area", ("square", "circle")))
    circle where area is 81 or 113, else square
    """

    pieces: tuple[Piece, ...]

    def __call__(self, values: Numbers) -> Labels:
        """The class of each value, shape (n,); between two intervals the nearer one decides."""
        ends = np.array([(a.high + b.low) / 2 for a, b in zip(self.pieces, self.pieces[1:], strict=False)])
        labels = np.array([piece.label for piece in self.pieces], np.int64)
        found: Labels = labels[np.searchsorted(ends, values, side="left")]
        return found

    def words(self, name: str, classes: Sequence[str], most: int = 3) -> str:
        """The rule as a sentence, with at most `most` classes and `most` intervals of each listed."""
        labels = [piece.label for piece in self.pieces]
        rest = max(sorted(set(labels)), key=labels.count)
        if len(set(labels)) == 1:
            return f"always {classes[rest]}"
        others = [label for label in dict.fromkeys(labels) if label != rest]
        said = []
        for label in others[:most]:
            spans = [self._span(i) for i, piece in enumerate(self.pieces) if piece.label == label]
            more = f" or {_more(len(spans) - most, 'interval')}" if len(spans) > most else ""
            said.append(f"{classes[label]} where {name} is {' or '.join(spans[:most])}{more}")
        left = len(others) - most
        return "; ".join(said) + (f"; {_more(left, 'class')}" if left > 0 else "") + f", else {classes[rest]}"

    def _span(self, index: int) -> str:
        piece = self.pieces[index]
        if f"{piece.low:.4g}" == f"{piece.high:.4g}":
            return f"{piece.low:.4g}"
        if index == 0:
            return f"up to {piece.high:.4g}"
        if index == len(self.pieces) - 1:
            return f"{piece.low:.4g} or more"
        return f"{piece.low:.4g} to {piece.high:.4g}"


def _more(count: int, what: str) -> str:
    """How many more there are, in words.

    >>> _more(1, "class"), _more(2, "class"), _more(3, "interval")
    ('1 more class', '2 more classes', '3 more intervals')
    """
    plural = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count} more {what}{plural}"


def fit_rule(values: Numbers, labels: Labels, classes: int, *, seed: int = 0) -> Rule:
    """The intervals that get the most images right, as few as cross-validation finds no worse.

    For each number of intervals the best ones are found exactly (dynamic programming). Their number is the smallest
    whose accuracy, over five folds, is within one standard error of the best (Breiman et al., Classification and
    Regression Trees, 1984).

    Args:
        values: The feature, shape (n,).
        labels: The classes, shape (n,).
        classes: How many classes there are.
        seed: Of the folds.
    """
    bins = _bins(values)
    most = min(2 * classes + 4, len(bins))
    fold = np.random.default_rng(seed).permutation(len(values)) % FOLDS
    right = np.zeros((FOLDS, most))
    for k in range(FOLDS):
        held = fold == k
        if not held.any() or held.all():
            continue
        for m, rule in enumerate(_best_rules(values[~held], labels[~held], classes, bins, most)):
            right[k, m] = np.mean(rule(values[held]) == labels[held])
    mean, error = right.mean(axis=0), right.std(axis=0, ddof=1) / np.sqrt(FOLDS)
    best = int(mean.argmax())
    chosen = int(np.flatnonzero(mean >= mean[best] - error[best])[0])
    return _best_rules(values, labels, classes, bins, most)[chosen]


def _bins(values: Numbers) -> Numbers:
    """The upper end of each bin, ascending: all different values, or quantiles of them."""
    distinct = np.unique(values)
    if len(distinct) > DISTINCT:
        distinct = np.unique(np.quantile(values, np.linspace(0, 1, DISTINCT + 1)[1:], method="higher"))
    return distinct


def _best_rules(values: Numbers, labels: Labels, classes: int, bins: Numbers, most: int) -> list[Rule]:
    """The rule of at most 1, 2, ..., `most` intervals that gets the most right."""
    place = np.minimum(np.searchsorted(bins, values), len(bins) - 1)
    counts = np.zeros((len(bins), classes))
    np.add.at(counts, (place, labels), 1)
    low, high = np.full(len(bins), np.inf), np.full(len(bins), -np.inf)
    np.minimum.at(low, place, values)
    np.maximum.at(high, place, values)
    seen = np.flatnonzero(counts.any(axis=1))
    counts, low, high = counts[seen], low[seen], high[seen]
    reached = np.full((most, classes), -np.inf)
    reached[0] = 0
    came = np.zeros((len(seen), most, classes), np.int64)  # the class of the bin before
    for v in range(len(seen)):
        before = np.full((most, 1), -np.inf)
        before[1:] = reached[:-1].max(axis=1, keepdims=True)
        switch = (before > reached) if v else np.zeros_like(reached, bool)
        switched = np.roll(reached.argmax(axis=1), 1)[:, None]
        came[v] = np.where(switch, switched, np.arange(classes))
        reached = np.where(switch, before, reached) + counts[v]
    return [_walk_back(m, reached, came, low, high) for m in range(most)]


def _walk_back(m: int, reached: Numbers, came: NDArray[np.int64], low: Numbers, high: Numbers) -> Rule:
    """The intervals of the best path with at most m + 1 of them."""
    m = int(reached[: m + 1].max(axis=1).argmax())
    label = int(reached[m].argmax())
    path = []
    for v in range(len(came) - 1, -1, -1):
        path.append(label)
        earlier = int(came[v, m, label])
        if earlier != label:
            m, label = m - 1, earlier
    path.reverse()
    starts = [0, *(v for v in range(1, len(path)) if path[v] != path[v - 1])]
    ends = [*(start - 1 for start in starts[1:]), len(path) - 1]
    return Rule(tuple(Piece(float(low[a]), float(high[b]), path[a]) for a, b in zip(starts, ends, strict=True)))
