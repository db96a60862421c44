"""Trivial features: numbers computed without recognizing anything, and the best rule that decides by one of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convscope.data.dataset import Dataset
from convscope.errors import DataError
from convscope.progress import Progress, silent

Pictures = NDArray[np.float32]
"""Shape (n, C, H, W), from 0 to 1."""
Numbers = NDArray[np.float64]
"""One per image, shape (n,)."""

BATCH = 1000


def _lit(pictures: Pictures) -> NDArray[np.bool_]:
    """Pixels brighter than half in any channel: (n, H, W)."""
    lit: NDArray[np.bool_] = pictures.max(axis=1) > 0.5
    return lit


def _area(pictures: Pictures) -> Numbers:
    return np.asarray(_lit(pictures).sum(axis=(1, 2)), np.float64)


def _mean(pictures: Pictures) -> Numbers:
    return np.asarray(pictures.mean(axis=(1, 2, 3)), np.float64)


def _contrast(pictures: Pictures) -> Numbers:
    return np.asarray(pictures.std(axis=(1, 2, 3)), np.float64)


def _position(pictures: Pictures, axis: int) -> Numbers:
    """Centre of the light along rows (axis 1) or columns (axis 2); the middle of a black picture."""
    light = pictures.sum(axis=1, dtype=np.float64).sum(axis=3 - axis)  # (n, H) or (n, W)
    places = np.arange(light.shape[1])
    total = light.sum(axis=1)
    return np.asarray(np.where(total > 0, light @ places / np.where(total > 0, total, 1), places.mean()), np.float64)


def _extent(pictures: Pictures, axis: int) -> Numbers:
    """From the first to the last row (axis 1) or column (axis 2) with a lit pixel, in pixels; 0 where there is none."""
    any_lit: NDArray[np.bool_] = np.asarray(_lit(pictures).any(axis=3 - axis))  # (n, H) or (n, W)
    first, last = any_lit.argmax(axis=1), any_lit.shape[1] - any_lit[:, ::-1].argmax(axis=1)
    return np.where(any_lit.any(axis=1), last - first, 0).astype(np.float64)


def _border(pictures: Pictures) -> Numbers:
    ring = np.ones(pictures.shape[2:], bool)
    ring[1:-1, 1:-1] = False
    return np.asarray(pictures[:, :, ring].mean(axis=(1, 2)), np.float64)


def _colors(pictures: Pictures) -> Numbers:
    """How many different colours, in steps of 1/255."""
    levels = np.rint(pictures * 255).astype(np.int64)  # (n, C, H, W)
    packed = np.zeros((levels.shape[0], levels.shape[2] * levels.shape[3]), np.int64)
    for channel in range(levels.shape[1]):
        packed = packed * 256 + levels[:, channel].reshape(packed.shape)
    packed.sort(axis=1)
    return np.asarray(1.0 + (np.diff(packed, axis=1) != 0).sum(axis=1), np.float64)


FEATURES: Mapping[str, Callable[[Pictures], Numbers]] = {
    "area": _area,
    "mean": _mean,
    "contrast": _contrast,
    "row": lambda pictures: _position(pictures, 1),
    "column": lambda pictures: _position(pictures, 2),
    "height": lambda pictures: _extent(pictures, 1),
    "width": lambda pictures: _extent(pictures, 2),
    "border": _border,
    "colours": _colors,
}
"""Features of every picture; those of three channels have `red`, `green` and `blue` too, the mean of each."""

MEANS: Mapping[str, str] = {
    "area": "pixels brighter than half, in any channel",
    "mean": "mean brightness, 0 to 1",
    "contrast": "standard deviation of the brightness",
    "row": "row of the centre of the light",
    "column": "column of the centre of the light",
    "height": "rows from the first to the last lit pixel",
    "width": "columns from the first to the last lit pixel",
    "border": "mean brightness of the outermost ring of pixels",
    "colours": "how many different colours",
    "red": "mean of the red channel",
    "green": "mean of the green channel",
    "blue": "mean of the blue channel",
}


def features_of(data: Dataset, *, progress: Progress = silent) -> tuple[dict[str, Numbers], NDArray[np.intp]]:
    """Every feature of every image, a thousand images at a time.

    >>> data = Dataset("one", np.full((1, 1, 4, 4), 255, np.uint8), np.array([0]), ("white",))
    >>> numbers, read = features_of(data)
    >>> {name: float(numbers[name][0]) for name in ("area", "row", "colours")}, read
    ({'area': 16.0, 'row': 1.5, 'colours': 1.0}, array([0]))

    Args:
        data: The images; how they are normalized for a model plays no part.
        progress: Receives how many images are done.

    Returns:
        Name -> numbers, shape (n,), and the indices of the images that they are of: those that can be read.

    Raises:
        DataError: no image can be read.
    """
    result: dict[str, list[Numbers]] = {}
    read_indices: list[NDArray[np.intp]] = []
    for start in range(0, len(data), BATCH):
        progress("features", start, len(data))
        raw, indices = data.readable(slice(start, start + BATCH))
        if not len(raw):
            continue
        read_indices.append(indices)
        pictures = np.asarray(raw / np.float32(data.preprocess.scale), np.float32)
        for name, feature in FEATURES.items():
            result.setdefault(name, []).append(feature(pictures))
        if pictures.shape[1] == 3:
            for channel, name in enumerate(("red", "green", "blue")):
                result.setdefault(name, []).append(_mean(pictures[:, channel : channel + 1]))
    progress("features", len(data), len(data))
    if not read_indices:
        raise DataError(f"no image of {data.name}:{data.split} can be read.")
    return {name: np.concatenate(parts) for name, parts in result.items()}, np.concatenate(read_indices)


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
        result: Labels = labels[np.searchsorted(ends, values, side="left")]
        return result

    def words(self, name: str, classes: Sequence[str], limit: int = 3) -> str:
        """The rule as a sentence, with at most `limit` classes and `limit` intervals of each listed."""
        labels = [piece.label for piece in self.pieces]
        default_label = max(sorted(set(labels)), key=labels.count)
        if len(set(labels)) == 1:
            return f"always {classes[default_label]}"
        listed_labels = [label for label in dict.fromkeys(labels) if label != default_label]
        parts = []
        for label in listed_labels[:limit]:
            spans = [self._span(i) for i, piece in enumerate(self.pieces) if piece.label == label]
            more = f" or {_more(len(spans) - limit, 'interval')}" if len(spans) > limit else ""
            parts.append(f"{classes[label]} where {name} is {' or '.join(spans[:limit])}{more}")
        left = len(listed_labels) - limit
        return "; ".join(parts) + (f"; {_more(left, 'class')}" if left > 0 else "") + f", else {classes[default_label]}"

    def _span(self, index: int) -> str:
        piece = self.pieces[index]
        if f"{piece.low:.4g}" == f"{piece.high:.4g}":
            return f"{piece.low:.4g}"
        if index == 0:
            return f"up to {piece.high:.4g}"
        if index == len(self.pieces) - 1:
            return f"{piece.low:.4g} or more"
        return f"{piece.low:.4g} to {piece.high:.4g}"


def _more(count: int, noun: str) -> str:
    """How many more there are, in words.

    >>> _more(1, "class"), _more(2, "class"), _more(3, "interval")
    ('1 more class', '2 more classes', '3 more intervals')
    """
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} more {noun}{plural}"


def fit_rule(values: Numbers, labels: Labels, classes: int, *, seed: int = 0) -> Rule:
    """The intervals that get the most images right, as few as cross-validation finds no worse.

    For each number of intervals the best ones are found exactly (dynamic programming). Their number is the smallest
    whose accuracy, over five folds, is within one standard error of the best (Breiman et al., Classification and
    Regression Trees, 1984).

    Args:
        values: The feature, shape (n,).
        labels: The classes, shape (n,).
        classes: How many classes there are.
        seed: The seed of the folds.
    """
    bins = _bins(values)
    max_intervals = min(2 * classes + 4, len(bins))
    fold = np.random.default_rng(seed).permutation(len(values)) % FOLDS
    right = np.zeros((FOLDS, max_intervals))
    for k in range(FOLDS):
        held_out = fold == k
        if not held_out.any() or held_out.all():
            continue
        for m, rule in enumerate(_best_rules(values[~held_out], labels[~held_out], classes, bins, max_intervals)):
            right[k, m] = np.mean(rule(values[held_out]) == labels[held_out])
    mean, error = right.mean(axis=0), right.std(axis=0, ddof=1) / np.sqrt(FOLDS)
    best = int(mean.argmax())
    chosen = int(np.flatnonzero(mean >= mean[best] - error[best])[0])
    return _best_rules(values, labels, classes, bins, max_intervals)[chosen]


def _bins(values: Numbers) -> Numbers:
    """The upper end of each bin, ascending: all different values, or quantiles of them."""
    distinct = np.unique(values)
    if len(distinct) > DISTINCT:
        distinct = np.unique(np.quantile(values, np.linspace(0, 1, DISTINCT + 1)[1:], method="higher"))
    return distinct


def _best_rules(values: Numbers, labels: Labels, classes: int, bins: Numbers, max_intervals: int) -> list[Rule]:
    """The rule of at most 1, 2, ..., `max_intervals` intervals that gets the most right."""
    bin_index = np.minimum(np.searchsorted(bins, values), len(bins) - 1)
    counts = np.zeros((len(bins), classes))
    np.add.at(counts, (bin_index, labels), 1)
    low, high = np.full(len(bins), np.inf), np.full(len(bins), -np.inf)
    np.minimum.at(low, bin_index, values)
    np.maximum.at(high, bin_index, values)
    occupied = np.flatnonzero(counts.any(axis=1))
    counts, low, high = counts[occupied], low[occupied], high[occupied]
    reached = np.full((max_intervals, classes), -np.inf)
    reached[0] = 0
    came = np.zeros((len(occupied), max_intervals, classes), np.int64)  # the class of the bin before
    for v in range(len(occupied)):
        before = np.full((max_intervals, 1), -np.inf)
        before[1:] = reached[:-1].max(axis=1, keepdims=True)
        switch = (before > reached) if v else np.zeros_like(reached, bool)
        switched = np.roll(reached.argmax(axis=1), 1)[:, None]
        came[v] = np.where(switch, switched, np.arange(classes))
        reached = np.where(switch, before, reached) + counts[v]
    return [_walk_back(m, reached, came, low, high) for m in range(max_intervals)]


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
