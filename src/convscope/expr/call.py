"""Call: one operation as a rule sees it: its name, its arguments, the shape of its result; and places, sets of cells.

Uses NumPy only: a rule can be called with arrays made by hand, without a trace and without torch.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Any, Literal

import numpy as np

from convscope.errors import UsageError
from convscope.expr.precision import BITS, Precision, Rounding
from convscope.typing import Array

Cell = tuple[int, ...]
Kind = Literal["input", "step", "parameter", "constant", "number", "computed"]


@dataclass(frozen=True, slots=True)
class Source:
    """Which tensor a number was read from.

    >>> Source("conv1", "step", (1, 8, 28, 28)).label((0, 3, 10, 12))
    'conv1 (3, 10, 12)'
    >>> Source("bn1", "step", (8,), output=1, result="batch mean").label((3,))
    'bn1, batch mean (3)'
    """

    name: str
    """A step, a parameter, or what a plain number means."""
    kind: Kind
    """"number" is written in the call itself, "computed" is an intermediate result inside a fused operation."""
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    output: int = 0
    """Which result, of a step that has several."""
    argument: str = ""
    """The argument through which it was read: `input`, `tensors.0`."""
    result: str = ""
    """What this result is called, of a step that has several: `batch mean`."""

    def label(self, cell: Cell) -> str:
        """The cell as a person reads it; the batch axis is left out where the batch is one image."""
        called = f", {self.result}" if self.result else ""
        if not cell:
            return f"{self.name}{called}"
        if self.kind in {"parameter", "constant"}:
            return f"{self.name}[{', '.join(map(str, cell))}]"
        return f"{step_label(self.name)}{called} {cell_label(cell, self.shape)}"


def step_label(name: str) -> str:
    """A step's name in a sentence: layers of `nn.Sequential` have numbers for names.

    >>> step_label("conv1"), step_label("3"), step_label("3#2"), step_label("features.3")
    ('conv1', 'layer 3', 'layer 3#2', 'features.3')
    """
    return f"layer {name}" if name.partition("#")[0].isdigit() else name


def cell_label(cell: Cell, shape: tuple[int, ...]) -> str:
    """A cell in brackets, without the batch axis of a single image.

    >>> cell_label((0, 3, 10, 12), (1, 8, 28, 28)), cell_label((1, 3), (2, 10))
    ('(3, 10, 12)', '(1, 3)')
    """
    shown = cell[1:] if len(cell) > 1 and shape[:1] == (1,) else cell
    return f"({', '.join(map(str, shown))})"


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """A tensor argument: its numbers as they were when the operation ran, and where they come from."""

    array: Array
    """Any shape; bfloat16 and half widened to float32. Read, never copied whole."""
    source: Source

    @classmethod
    def of(cls, array: Array, name: str, kind: Kind = "step", dtype: str = "", output: int = 0) -> "Operand":
        """An operand from an array and a name.

        >>> Operand.of(np.zeros((1, 2)), "fc").source.shape
        (1, 2)
        """
        return cls(array, Source(name, kind, array.shape, dtype or str(array.dtype), output))

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.array.shape


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operation with everything it was given.

    >>> x = Operand.of(np.array([-1.0, 2.0], np.float32), "conv1")
    >>> call = Call("relu", {"self": x}, (2,))
    >>> call["self"].source.label((1,))
    'conv1 (1)'
    """

    op: str
    """The ATen name without overload, in-place mark or out: "convolution", "addmm", "relu"."""
    arguments: Mapping[str, Any]
    """By the names of ATen's schema, defaults filled in; tensors are `Operand`, lists of tensors tuples of them."""
    shape: tuple[int, ...]
    """The result's shape."""
    dtype: str = "float32"
    """The result's type, as PyTorch names it."""
    output: int = 0
    """Which result, of an operation that has several."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What only the trace can know: the numbers that were drawn at random, whether padding was multiplied."""
    rounding: Rounding = "wide"
    """Where the kernel rounds bfloat16 and half, as the operation's record in `OPS` has it."""

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: object = None) -> Any:
        """An argument that not every overload has."""
        return self.arguments.get(name, default)

    @property
    def precision(self) -> Precision:
        """How finely its kernel rounds."""
        return Precision.of(self.dtype, "stores between" if self.arguments.get("transposed") else self.rounding)

    @property
    def kind(self) -> str:
        """The type of the result where it is an integer or truth value, in which sums and products wrap; else empty."""
        return self.dtype if self.dtype in BITS or self.dtype == "bool" else ""

    def operands(self) -> dict[str, Operand]:
        """The tensor arguments by name; those in lists as `tensors.0`, `tensors.1`."""
        return dict(_operands(self.arguments))


def _operands(arguments: Mapping[str, object]) -> Iterator[tuple[str, Operand]]:
    for name, value in arguments.items():
        if isinstance(value, Operand):
            yield name, value
        elif isinstance(value, list | tuple):
            yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, Operand))


def full_cell(cell: Cell | int, shape: tuple[int, ...], name: str = "the result") -> Cell:
    """A cell as a full index of `shape`, checked to be inside; the batch axis and axes of size 1 may be left out.

    >>> full_cell((3, 10, 12), (1, 8, 28, 28))
    (0, 3, 10, 12)

    Raises:
        UsageError: too many or too few indices, an index out of range, or one that is not an integer.
    """
    try:
        cells = tuple(map(index, cell if isinstance(cell, Iterable) else (cell,)))
    except TypeError:
        raise UsageError(f"a cell is a tuple of integers such as (3, 10, 12), not {cell!r}.") from None
    full_index = (0,) * (len(shape) - len(cells)) + cells
    fits = len(full_index) == len(shape) and all(0 <= i < n for i, n in zip(full_index, shape, strict=True))
    if not fits:
        shown = shape[1:] if shape[:1] == (1,) and len(cells) < len(shape) > 1 else shape
        ranges = " x ".join(f"0 to {n - 1}" if n else "none" for n in shown)
        if not shape:
            raise UsageError(f"{name} is a single number, whose only cell is (), not {cells}.")
        raise UsageError(f"{name} has no cell {cells}; its shape is {tuple(shown)}, its cells are {ranges}.")
    axes = shape[1:] if len(cells) < len(shape) > 1 else shape
    if any(n > 1 for n in axes[: len(axes) - len(cells)]):
        ranges = ", ".join(f"0 to {n - 1}" for n in axes)
        needed = f"{len(axes)} {'index' if len(axes) == 1 else 'indices'}"
        raise UsageError(f"a cell of {name} has {needed} ({ranges}), so {cells} is incomplete.")
    return full_index


def broadcast_cell(cell: Cell, shape: tuple[int, ...]) -> Cell:
    """The cell of a smaller tensor that broadcasting puts at `cell`.

    >>> broadcast_cell((0, 3, 10, 12), (8, 1, 1))
    (3, 0, 0)
    """
    return tuple(0 if n == 1 else i for i, n in zip(cell[len(cell) - len(shape) :], shape, strict=True))


def stacked(cell: Cell) -> Array:
    """A cell as an array of shape (axes,); n cells, whose indices are arrays of shape (n,), as (n, axes).

    >>> stacked((2, 3)).tolist(), stacked((np.array([2, 5]), np.array([3, 4]))).tolist()
    ([2, 3], [[2, 3], [5, 4]])
    """
    return np.stack([np.asarray(i, np.int64) for i in cell], -1) if cell else np.zeros(0, np.int64)


def indices(cells: Array) -> tuple[Array, ...]:
    """Cells, shape (T, axes), as an index for NumPy."""
    return tuple(np.moveaxis(cells, -1, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The cells at all combinations of positions on each axis, computed on access.

    >>> Places((np.array([0]), np.array([2, 3]))).cells().tolist()
    [[0, 2], [0, 3]]
    """

    positions: tuple[Array, ...]
    """On each axis, int64, shape (L,); of n cells, (n, L) where they differ from cell to cell."""

    def cells(self) -> Array:
        """int64, shape (T, axes); of n cells (n, T, axes)."""
        lead = next((position.shape[:1] for position in self.positions if position.ndim > 1), ())
        lengths = [position.shape[-1] for position in self.positions]
        cells = np.empty((*lead, *lengths, len(lengths)), np.int64)
        for axis, position in enumerate(self.positions):
            cells[..., axis] = along(position, axis, len(lengths))
        return cells.reshape(*lead, math.prod(lengths), len(lengths))


def along(positions: Array, axis: int, axes: int) -> Array:
    """Positions (L,) or (n, L) with L moved to `axis` of `axes` axes, the others of length 1; n stays first.

    >>> along(np.zeros((7, 3)), 1, 3).shape
    (7, 1, 3, 1)
    """
    return positions.reshape(*positions.shape[:-1], *(-1 if a == axis else 1 for a in range(axes)))
