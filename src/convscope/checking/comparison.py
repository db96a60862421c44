"""Comparing results with the reference, finding the mistake that reproduces them, and measuring what a function sums.

Uses the records of this package and NumPy. A cause is never guessed from the code: each known mistake is run as a
variant of the reference on the same cases, and named only if it reproduces all of the function's results.

Nor is the code inspected for the terms of a sum. A convolution is linear in its image and in its kernel, and so is a
user's version of it. With a one in one cell of the image, a one in one cell of the kernel and zeros elsewhere, the
result shows how often the function adds that product. The terms are shown only if they add up to the number it
returned.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from itertools import product as iterate

import numpy as np

from convscope.checking.calling import Outcome
from convscope.checking.factors import factor
from convscope.checking.operation import Case, CheckedOperation, Mistake, Results, Values
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


def trial(operation: CheckedOperation, case: Case, values: Values, dtype: str, outcome: Outcome) -> Trial:
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


def bound(operation: CheckedOperation, name: str, values: Values, expected: Array, unit: float) -> Array:
    """How far a sound function may be from the reference: roundings times the size of what it adds."""
    if name in operation.sums:
        sizes = {n: np.abs(v) if _real(v) else v for n, v in values.items()}
        if operation.picks or (name == "dx" and "weight" not in values and "kernel_size" in values):
            sizes["x"] = values.get("x")  # who wins a window depends on signs
        terms = max(v.size for v in values.values() if isinstance(v, np.ndarray))
        magnitudes = np.abs(operation.reference(sizes)[name])
        largest = magnitudes.max(initial=0.0)  # sums by FFT, Winograd or running totals round as the largest cell does
        return np.asarray(unit * np.maximum(2 * (terms + 4) * magnitudes, SMALL * largest))
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
        differs = ~(np.abs(array.astype(np.float64) - expected) <= allowed)
    same = (array == expected) | (np.isnan(expected) & np.isnan(np.asarray(array, np.float64)))
    return np.asarray(differs & ~same)


def diagnose(operation: CheckedOperation, trials: Sequence[Trial]) -> tuple[list[Mistake], int]:
    """Find the mistakes that explain the wrong results, and how many trials they reproduce.

    A backward function may go wrong in several results, each in its own way: the mistakes together explain all of
    them. If no single mistake does, pairs are tried. A function that mostly fails is not diagnosed.
    """
    answered = [t for t in trials if t.outcome.results is not None]
    failed = len(trials) - len(answered)
    telling = sum(any(t.outcome.results[name].size for name in t.wrong) for t in answered if t.outcome.results)
    if failed and all(t.right for t in answered):
        return _failing(operation, trials), len(answered)
    if telling < failed:
        return [], 0
    names = [name for name in operation.results if any(name in t.wrong for t in answered)]
    if not names:
        return [], 0
    chosen: list[Mistake] = []
    while names:
        best = next(_explaining(operation, answered, names, pairs=not failed and telling >= TELLING), None)
        if best is None:
            best = _scaled(operation, answered, names)
        if best is None:
            return [], 0
        mistake, explained = best
        chosen.append(mistake)
        names = [name for name in names if name not in explained]
    return chosen, len(answered)


def _scaled(
    operation: CheckedOperation, trials: Sequence[Trial], names: Sequence[str]
) -> tuple[Mistake, list[str]] | None:
    """A result that is the correct one times a size of the call, with its name."""
    for name in names:
        results = [(t, t.outcome.results[name]) for t in trials if t.outcome.results and name in t.outcome.results]
        mistake = factor(name, [(t.values, yours, t.expected[name]) for t, yours in results])
        if mistake is not None and reproduces(operation, mistake, trials, name):
            return mistake, [name]
    return None


def _failing(operation: CheckedOperation, trials: Sequence[Trial]) -> list[Mistake]:
    """The mistake that makes a function fail on exactly the cases on which it failed, if it is right on all others."""
    return [m for m in operation.mistakes if m.fails and all(m.fails(t.values) != t.right for t in trials)][:1]


def only_where(trials: Sequence[Trial]) -> str:
    """What the calls that differ, and no others, have in common; empty if nothing does.

    >>> only_where([])
    ''
    """
    wrong = [t for t in trials if not t.right]
    if not wrong or len(wrong) == len(trials):
        return ""
    verb = "fail" if all(t.outcome.results is None for t in wrong) else "differ"
    for text, has in TRAITS.items():
        if all(bool(has(t.values)) != t.right for t in trials):
            return f"Exactly the calls with {text} {verb}; all others are right."
    return ""


def _shape(name: str, axis: int) -> Callable[[Values], bool]:
    return lambda values: isinstance(values.get(name), np.ndarray) and values[name].shape[axis] > 1


def _above(name: str, usual: float) -> Callable[[Values], bool]:
    return lambda values: values.get(name, usual) > usual


TRAITS: Mapping[str, Callable[[Values], bool]] = {
    "a stride above 1": _above("stride", 1),
    "padding above 0": _above("padding", 0),
    "padding 0": lambda values: values.get("padding") == 0,
    "a dilation above 1": _above("dilation", 1),
    "several groups": _above("groups", 1),
    "several images": _shape("x", 0),
    "several channels": _shape("x", 1),
    "several kernels": _shape("weight", 0),
    "windows that overlap": lambda values: values.get("stride", 1) < values.get("kernel_size", 0),
    "negative numbers": lambda values: bool((np.asarray(values.get("x", 0)) < 0).any()),
}
"""What cases may have in common."""


def _explaining(
    operation: CheckedOperation, trials: Sequence[Trial], names: Sequence[str], *, pairs: bool
) -> Iterator[tuple[Mistake, list[str]]]:
    """Mistakes with the results they explain, the best first; pairs of mistakes last.

    A mistake that also leaves the right results as they are is better than one that would spoil them.
    """
    right_names = [name for name in operation.results if name not in names]
    ranked = []
    for mistake in operation.mistakes:
        explained = [name for name in names if reproduces(operation, mistake, trials, name)]
        if explained:
            is_harmless = all(reproduces(operation, mistake, trials, name) for name in right_names)
            ranked.append((mistake, explained, is_harmless))
    for mistake, explained, _ in sorted(ranked, key=lambda item: (-len(item[1]), not item[2])):
        yield mistake, explained
    for first, second in combinations(operation.mistakes, 2) if pairs else ():
        pair = first.and_then(second) if first.cause != second.cause else None
        if pair is not None:
            explained = [name for name in names if reproduces(operation, pair, trials, name)]
            if explained:
                yield pair, explained


def reproduces(operation: CheckedOperation, mistake: Mistake, trials: Sequence[Trial], name: str) -> bool:
    """Whether a mistake gives the function's result on every trial, the right ones included."""
    for t in sorted(trials, key=lambda t: name not in t.wrong):
        array = (t.outcome.results or {}).get(name)
        if array is None:
            continue
        try:
            with np.errstate(all="ignore"):
                variant = mistake.run(operation.reference, t.values)[name]
        except Exception:  # a variant without a result on a case explains only an empty result
            if array.size:
                return False
            continue
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


# The terms of a sum, measured by calling the function.


Run = Callable[[Values], Array | None]
"""Arguments -> one result of the function; None where it fails."""
CALLS = 1500
"""Maximum number of calls of a function."""


@dataclass(frozen=True, slots=True)
class Term:
    """One product of a sum, or one cell of it."""

    factors: tuple[tuple[str, tuple[int, ...]], ...]
    """Array and cell of each factor."""
    numbers: tuple[float, ...]
    times: float
    """How often it is added: 1, or a share such as 1/4."""

    @property
    def value(self) -> float:
        """Its contribution to the sum."""
        return float(np.prod(self.numbers)) * self.times


def terms(run: Run, values: Values, cell: tuple[int, ...], products: tuple[tuple[str, ...], ...]) -> list[Term] | None:
    """The terms that a function adds up for a cell; None if it is not such a sum.

    Args:
        products: The arrays multiplied with each other in each kind of term.
    """
    arrays = {name for product in products for name in product}
    if any(values.get(name) is None for product in products[:1] for name in product):
        return None
    size = np.prod([values[name].size for name in products[0]])
    if size > CALLS:
        return None
    zeros = {name: np.zeros_like(values[name]) for name in arrays if values.get(name) is not None}
    out: list[Term] = []
    for product in products:
        if all(name in zeros for name in product):
            part = _terms(run, values, zeros, cell, product)
            if part is None:
                return None
            out += part
    return out


def _terms(
    run: Run, values: Values, zeros: Values, cell: tuple[int, ...], product: tuple[str, ...]
) -> list[Term] | None:
    """The terms of one product: each combination of relevant cells, measured one by one."""
    spread = {name: np.linspace(1.0, 1.9, values[name].size).reshape(values[name].shape) for name in product}
    cells = []
    for name in product:
        matter = []
        for cell_index in np.ndindex(*values[name].shape):
            answer = _ask(run, values | zeros | spread | {name: unit_array(values[name], cell_index)}, cell)
            if answer is None:
                return None
            if answer:
                matter.append(cell_index)
        cells.append(matter)
    result_terms = []
    for combination in iterate(*cells):
        unit_arrays = {
            name: unit_array(values[name], cell_index) for name, cell_index in zip(product, combination, strict=True)
        }
        times = _ask(run, values | zeros | unit_arrays, cell)
        if times is None:
            return None
        if times:
            factors = tuple(zip(product, combination, strict=True))
            result_terms.append(
                Term(factors, tuple(float(values[name][cell_index]) for name, cell_index in factors), times)
            )
    return result_terms


def window(run: Run, values: Values, cell: tuple[int, ...], name: str = "x") -> list[Term] | None:
    """The cells that a maximum is chosen from: those that change it when they are raised far above all others."""
    before = _ask(run, values, cell)
    if before is None:
        return None
    high = 2 * float(np.abs(values[name]).max()) + 10
    out = []
    for index in np.ndindex(*values[name].shape):
        raised = values[name].copy()
        raised[index] = high
        after = _ask(run, values | {name: raised}, cell)
        if after is None:
            return None
        if after != before:
            out.append(Term(((name, index),), (float(values[name][index]),), 1.0))
    return out


def unit_array(array: Array, cell: tuple[int, ...]) -> Array:
    """Zeros, with a one in one cell."""
    out = np.zeros_like(array)
    out[cell] = 1
    return out


def _ask(run: Run, values: Values, cell: tuple[int, ...]) -> float | None:
    result = run(values)
    if result is None or len(cell) != result.ndim or any(i >= n for i, n in zip(cell, result.shape, strict=True)):
        return None
    return float(result[cell])
