"""Comparing results with the reference, and finding the mistake that reproduces them.

Knows the records of this package and NumPy. A cause is never guessed from the code: each known mistake is run as a
variant of the reference on the same cases, and named only if it reproduces all of the function's results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from convscope.checking.calling import Outcome
from convscope.checking.operation import Case, Mistake, Operation, Results, Values
from convscope.typing import Array

SMALL = 64
"""Roundings that an operation other than a sum may make, as a multiple of its numbers' size."""

TELLING = 3
"""Wrong results that are needed to name two mistakes at once: few results can be explained by many pairs."""
SINGLE = 2.0**-24
"""The unit roundoff of float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One case, the result of the reference and that of the function."""

    case: Case
    values: Values
    """The arguments of the call, without the arrays that the function has no parameter for."""
    dtype: str
    expected: Results
    outcome: Outcome
    wrong: tuple[str, ...]
    """The results that differ; all of them if the call failed."""

    @property
    def right(self) -> bool:
        """Whether nothing differs."""
        return not self.wrong


def trial(operation: Operation, case: Case, values: Values, dtype: str, outcome: Outcome) -> Trial:
    """Compare one outcome."""
    rounded = {n: v.astype(dtype).astype(np.float64) if _real(v) else v for n, v in values.items()}
    expected = operation.reference(rounded)
    if outcome.results is None:
        return Trial(case, rounded, dtype, expected, outcome, tuple(expected))
    wrong = tuple(
        name
        for name, array in outcome.results.items()
        if not agrees(array, expected[name], bound(operation, name, rounded, expected[name], _unit(array, dtype)))
    )
    return Trial(case, rounded, dtype, expected, outcome, wrong)


def bound(operation: Operation, name: str, values: Values, expected: Array, unit: float) -> Array:
    """How far a sound function may be from the reference: roundings times the size of what it adds."""
    if name in operation.sums:
        sizes = {n: np.abs(v) if _real(v) else v for n, v in values.items()}
        if operation.picks or (name == "dx" and "weight" not in values and "kernel_size" in values):
            sizes["x"] = values.get("x")  # who wins a window depends on signs
        terms = max(v.size for v in values.values() if isinstance(v, np.ndarray))
        return np.asarray(2 * (terms + 4) * unit * np.abs(operation.reference(sizes)[name]))
    scale = max([1.0, *(float(np.abs(v).max()) for v in values.values() if _real(v) and v.size)])
    return np.asarray(SMALL * unit * np.maximum(scale, np.abs(expected)))


def agrees(array: Array, expected: Array, allowed: Array) -> bool:
    """Whether two arrays have the same shape and differ only by rounding; nan agrees with nan."""
    if array.shape != expected.shape:
        return False
    return not cells(array, expected, allowed).any()


def cells(array: Array, expected: Array, allowed: Array) -> Array:
    """A mask of the cells in which two arrays of the same shape differ."""
    with np.errstate(invalid="ignore"):
        far = ~(np.abs(array.astype(np.float64) - expected) <= allowed)
    same = (array == expected) | (np.isnan(expected) & np.isnan(np.asarray(array, np.float64)))
    return np.asarray(far & ~same)


def diagnose(operation: Operation, trials: Sequence[Trial]) -> tuple[list[Mistake], int]:
    """Find the mistakes that explain the wrong results, and how many trials they reproduce.

    A backward function may go wrong in several results, each in its own way: the mistakes together explain all of
    them. If no single mistake does, pairs are tried. A function that mostly fails is not diagnosed.
    """
    answered = [t for t in trials if t.outcome.results is not None]
    failed = len(trials) - len(answered)
    telling = sum(any(t.outcome.results[name].size for name in t.wrong) for t in answered if t.outcome.results)
    if telling < failed:
        return [], 0
    names = [name for name in operation.results if any(name in t.wrong for t in answered)]
    if not names:
        return [], 0
    chosen: list[Mistake] = []
    while names:
        best = next(_explaining(operation, answered, names, pairs=not failed and telling >= TELLING), None)
        if best is None:
            return [], 0
        mistake, explained = best
        chosen.append(mistake)
        names = [name for name in names if name not in explained]
    return chosen, len(answered)


def _explaining(
    operation: Operation, trials: Sequence[Trial], names: Sequence[str], *, pairs: bool
) -> Iterator[tuple[Mistake, list[str]]]:
    """Mistakes with the results they explain, the best first; pairs of mistakes last.

    A mistake that also leaves the right results as they are is better than one that would spoil them.
    """
    others = [name for name in operation.results if name not in names]
    ranked = []
    for mistake in operation.mistakes:
        explained = [name for name in names if reproduces(operation, mistake, trials, name)]
        if explained:
            kept = all(reproduces(operation, mistake, trials, name) for name in others)
            ranked.append((mistake, explained, kept))
    for mistake, explained, _ in sorted(ranked, key=lambda item: (-len(item[1]), not item[2])):
        yield mistake, explained
    for first, second in combinations(operation.mistakes, 2) if pairs else ():
        both = first.and_then(second) if first.cause != second.cause else None
        if both is not None:
            explained = [name for name in names if reproduces(operation, both, trials, name)]
            if explained:
                yield both, explained


def reproduces(operation: Operation, mistake: Mistake, trials: Sequence[Trial], name: str) -> bool:
    """Whether a mistake gives the function's result on every trial, the right ones included."""
    for t in sorted(trials, key=lambda t: name not in t.wrong):
        array = (t.outcome.results or {}).get(name)
        if array is None:
            continue
        try:
            with np.errstate(all="ignore"):
                variant = mistake.run(operation.reference, t.values)[name]
        except Exception:  # a variant that cannot be run on a case does not explain it
            return False
        unit = _unit(array, t.dtype)
        finite = np.abs(variant[np.isfinite(variant)])
        allowed = np.asarray(8 * SMALL * unit * max(1.0, float(finite.max(initial=0))))
        if not agrees(array, variant, allowed) and (array.size or variant.size):  # nothing is nothing in any shape
            return False
    return True


def _real(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _unit(array: Array, dtype: str) -> float:
    """The unit roundoff of the less precise of the two types."""
    coarse = [np.dtype(dtype), *([array.dtype] if array.dtype.kind == "f" else [])]
    return float(max(np.finfo(kind).eps for kind in coarse)) / 2
