"""What the checker knows about one operation: its arguments, cases, reference, common mistakes and array layouts.

Uses NumPy and no operation in particular. A mistake is the reference with its arguments changed (`before`), its
results changed (`after`), or another calculation in its place (`instead`): running it returns the numbers of a function
with this mistake.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convscope.typing import Array

Values = dict[str, Any]
"""Arguments by their names in this package: arrays (x, weight, bias, dout, labels) and settings (stride, padding)."""
Results = dict[str, Array]
"""Results by name: out; dx, dw, db; loss."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One set of arguments on which a function is compared."""

    values: Values
    optional: bool = False
    """Whether a function may refuse it or get it wrong and still be right: kernels that are not square."""


@dataclass(frozen=True, slots=True)
class CaseLimits:
    """How large the axes of the cases may be: a function of planes sees one image, one channel and one kernel."""

    images: int = 3
    channels: int = 3
    kernels: int = 3
    square: bool = False


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake, as a variant of the reference.

    >>> doubled = Mistake("doubled", "You add everything twice.", after=lambda r, v: {"out": 2 * r["out"]})
    >>> doubled.run(lambda v: {"out": np.array(v["x"])}, {"x": 3.0})["out"]
    np.float64(6.0)
    """

    cause: str
    """A name of a few words."""
    sentence: str
    """What the function does and what it should do."""
    before: Callable[[Values], Values] | None = None
    after: Callable[[Results, Values], Results] | None = None
    instead: Callable[[Values], Results] | None = None
    workings: Callable[[Values, tuple[int, ...]], list[str]] | None = None
    """The lines of its arithmetic for one cell, where that is not a sum of products."""
    fails: Callable[[Values], bool] | None = None
    """The cases on which a function with this mistake raises an error; on the others it is right."""
    harmless: bool = False
    """Whether it is not a mistake but another valid choice, such as the slope of ReLU at 0."""
    except_on: str = ""
    """The inputs on which it differs, of a definition that courses teach: it is accepted unless `strict`."""
    count: int = 1
    """How many mistakes it is: two for a pair."""

    def run(self, reference: Callable[[Values], Results], values: Values) -> Results:
        """Return the results of a function with this mistake."""
        if self.fails and self.fails(values):
            raise ValueError(self.cause)
        changed = self.before({**values}) if self.before else values
        results = (self.instead or reference)(changed)
        return {**results, **self.after(results, values)} if self.after else results

    def and_then(self, other: "Mistake") -> "Mistake | None":
        """Combine two mistakes; None if they exclude each other."""
        if (self.instead and other.instead) or self.fails or other.fails:
            return None
        first, second = self, other

        def before(values: Values) -> Values:
            for mistake in (first, second):
                values = mistake.before(values) if mistake.before else values
            return values

        def after(results: Results, values: Values) -> Results:
            for mistake in (first, second):
                results = {**results, **mistake.after(results, values)} if mistake.after else results
            return results

        return Mistake(
            f"{first.cause}, and {second.cause}",
            f"{first.sentence} {second.sentence}",
            before,
            after,
            first.instead or second.instead,
            count=first.count + second.count,
        )


@dataclass(frozen=True, slots=True)
class Form:
    """The layout of a function's arrays and results: (N, C, H, W), one plane, channels last."""

    name: str
    give: Mapping[str, Callable[[Array], Array | float]] = field(default_factory=dict)
    """Argument -> its array in this form."""
    take: Mapping[str, Callable[[Array, Values], Array]] = field(default_factory=dict)
    """Result -> its array in the checker's form."""
    limits: CaseLimits = CaseLimits()
    layout: str = ""
    """The value of `layout` that asks for it."""
    only_named: frozenset[str] = frozenset()
    """Parameter names (lower case) of which one must occur, if any are listed."""
    never_named: frozenset[str] = frozenset()
    """Parameter names with which it is not tried unless `layout` asks for it."""


@dataclass(frozen=True, slots=True)
class CheckedOperation:
    """All that the checker knows about one operation."""

    name: str
    arrays: Mapping[str, frozenset[str]]
    """Array argument -> lower-case names that functions give it, in the usual order of arguments."""
    settings: Mapping[str, frozenset[str]]
    """Setting -> names, in the usual order."""
    defaults: Callable[[Values], Values]
    """The settings of a function that has no parameter for them."""
    optional: frozenset[str]
    """Arrays that are optional, such as the bias."""
    results: tuple[str, ...]
    cases: Callable[[CaseLimits], Sequence[Case]]
    reference: Callable[[Values], Results]
    mistakes: tuple[Mistake, ...]
    forms: tuple[Form, ...]
    cache: tuple[str, ...] = ()
    """The contents of a backward function's `cache`, in order; "settings" is the dictionary."""
    bundled: frozenset[str] = frozenset()
    """Settings that the dictionary of a course (conv_param, hparameters) carries."""
    constants: Mapping[str, object] = field(default_factory=dict)
    """Parameters with one meaningful value: mode, training."""
    sums: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Result -> the products that it sums: (("x", "weight"), ("bias",)) is x times weight, plus bias."""
    workings: Callable[[Values, tuple[int, ...]], list[str]] | None = None
    """The lines of the arithmetic for one cell, where it is not a sum of products."""
    picks: bool = False
    """Whether a result is the largest cell of a window."""


def names(text: str) -> frozenset[str]:
    """Names in one string.

    >>> sorted(names("x input"))
    ['input', 'x']
    """
    return frozenset(text.split())


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a setting.

    >>> pair(2), pair((1, 3))
    ((2, 2), (1, 3))
    """
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def small_integers(rng: np.random.Generator, *shape: int, low: int = -4, high: int = 5) -> Array:
    """Small integers, easy to add on paper."""
    return rng.integers(low, high, shape).astype(np.float64)


LAST = frozenset({"a_prev", "hparameters", "hparams", "dz"})
"""Parameter names of deeplearning.ai's course, whose arrays have their channels last."""


# The layouts in which functions take images, kernels and biases.


Give = Callable[[Array], Array | float]
Back = Callable[[Array], Array]
Take = Callable[[Array, Values], Array]

MAPS, KERNELS, OFFSETS = ("x", "dout", "out", "dx"), ("weight", "dw"), ("bias", "db")


def _form(
    name: str, maps: tuple[Give, Back], kernels: tuple[Give, Back], offsets: tuple[Give, Back], **options: Any
) -> Form:
    """A layout from pairs of conversions (to it, back) for maps, kernels and biases."""
    pairs = {**dict.fromkeys(MAPS, maps), **dict.fromkeys(KERNELS, kernels), **dict.fromkeys(OFFSETS, offsets)}

    def back(convert: Back) -> Take:
        return lambda array, _values: convert(array)

    return Form(
        name, {n: forward for n, (forward, _) in pairs.items()}, {n: back(b) for n, (_, b) in pairs.items()}, **options
    )


def _same(array: Array) -> Array:
    return array


def _rank(rank: int, change: Back) -> Back:
    """Convert arrays of one rank; others are left unchanged, so that their shape is reported as wrong."""
    return lambda array: change(array) if array.ndim == rank else array


_TO_LAST: tuple[Give, Back] = (_rank(4, lambda a: a.transpose(0, 2, 3, 1)), _rank(4, lambda a: a.transpose(0, 3, 1, 2)))
_KERNEL_LAST: tuple[Give, Back] = (
    _rank(4, lambda a: a.transpose(2, 3, 1, 0)),
    _rank(4, lambda a: a.transpose(3, 2, 0, 1)),
)
_IMAGE: tuple[Give, Back] = (lambda a: a[0], lambda a: a[None])
_PLANE: tuple[Give, Back] = (lambda a: a[0, 0], lambda a: a[None, None])
_FLAT: tuple[Give, Back] = (lambda a: a.reshape(1, 1, 1, -1), lambda a: a.reshape(-1))
_NUMBER: tuple[Give, Back] = (lambda a: float(a[0]), lambda a: a.reshape(-1))
_KEEP: tuple[Give, Back] = (_same, _same)
_IMAGE_LAST: tuple[Give, Back] = (
    lambda a: a[0].transpose(1, 2, 0),
    lambda a: a.transpose(2, 0, 1)[None] if a.ndim == 3 else a,
)

BATCH = _form("(N, C, H, W)", _KEEP, _KEEP, _KEEP, layout="nchw", never_named=LAST)
IMAGE = _form("(C, H, W)", _IMAGE, _KEEP, _KEEP, layout="nchw", limits=CaseLimits(images=1), never_named=LAST)
PLANE = _form("(H, W)", _PLANE, _PLANE, _NUMBER, layout="nchw", limits=CaseLimits(1, 1, 1), never_named=LAST)
ONE_KERNEL = _form(
    "(C, H, W), one kernel", (lambda a: a[0], lambda a: a[None, None] if a.ndim == 2 else a[None]), _IMAGE, _NUMBER,
    layout="nchw", limits=CaseLimits(images=1, kernels=1), never_named=LAST,
)  # fmt: skip
COURSE = _form(
    "(N, H, W, C)", _TO_LAST, _KERNEL_LAST, _FLAT, only_named=LAST, layout="nhwc", limits=CaseLimits(square=True)
)
BATCH_LAST = _form(
    "(N, H, W, C)", _TO_LAST, _KERNEL_LAST, (_same, _rank(4, lambda a: a.reshape(-1))), layout="nhwc", never_named=LAST
)
IMAGE_LAST = _form("(H, W, C)", _IMAGE_LAST, _KERNEL_LAST, _KEEP, layout="nhwc", limits=CaseLimits(images=1))
PLANES = (BATCH, COURSE, IMAGE, PLANE, BATCH_LAST, IMAGE_LAST)
"""For poolings and ReLU, which have no kernels."""
CONVOLUTIONS = (BATCH, COURSE, IMAGE, ONE_KERNEL, PLANE, BATCH_LAST, IMAGE_LAST)
