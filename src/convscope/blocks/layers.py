"""Layers: what each kind of block makes of its input, or why it cannot take that input, and what would fix it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from convscope.blocks.kinds import SettingValue
from convscope.blocks.reading import Block
from convscope.layer_arithmetic import (
    NOTHING,
    AxisSums,
    Shape,
    Sum,
    convolution_cost,
    parameter_sum,
    product_cost,
    reshape_sums,
    window_size,
)


@dataclass(frozen=True, slots=True)
class Repair:
    """A change that would fix a problem: some blocks of the list are replaced by others."""

    title: str
    at: int
    removed: int
    added: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"title": self.title, "at": self.at, "removed": self.removed, "added": [dict(b) for b in self.added]}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a block cannot be built, and, where it is known, what would fix it."""

    sentence: str
    repair: Repair | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"sentence": self.sentence, "repair": None if self.repair is None else self.repair.to_json()}


@dataclass(frozen=True, slots=True)
class BlockLayer:
    """What a block makes of its input."""

    shape: Shape
    """The shape of its result, without the batch axis."""
    size: AxisSums = ()
    parameters: Sum = NOTHING
    multiply_adds: Sum = NOTHING
    weight: Shape | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A block in its place."""

    block: Block
    shape: Shape
    """The shape of its input, without the batch axis."""
    classes: int
    at: int
    """Its position in the list."""

    def __getitem__(self, setting: str) -> Any:
        return self.block[setting]

    @property
    def units(self) -> int:
        """The units of a linear layer."""
        return int(self["units"] or self.classes)

    def repair(self, title: str, **settings: SettingValue) -> Repair:
        """Other settings in its place, without numbers by hand."""
        return Repair(title, self.at, 1, (self.block.changed(**settings),))


Rule = Callable[[Placed], BlockLayer | Problem]


def described(shape: Shape) -> str:
    """A shape as text.

    >>> described((8, 28, 28)), described((144,))
    ('8x28x28', '144')
    """
    return "x".join(map(str, shape))


def _convolution(placed: Placed) -> BlockLayer | Problem:
    shape = placed.shape
    if len(shape) != 3:
        return _no_maps("a convolution", shape)
    window = _window(placed, stride=placed["stride"])
    if isinstance(window, Problem):
        return window
    kernels = placed["kernels"]
    weight = (kernels, shape[0], placed["size"], placed["size"])
    result = (kernels, *(total.value for _, total in window))
    return _unfitting(placed, weight) or BlockLayer(
        result, window, _parameters(placed, weight), convolution_cost((1, *result), weight), weight
    )


def _pooling(placed: Placed) -> BlockLayer | Problem:
    shape = placed.shape
    if len(shape) != 3:
        return _no_maps("pooling", shape)
    size, padding = placed["size"], placed["padding"]
    if padding > size // 2:
        return Problem(
            f"the padding of pooling is at most half of its window, {size} // 2 = {size // 2}, not {padding}.",
            placed.repair(f"padding {size // 2}", padding=size // 2),
        )
    window = _window(placed, stride=placed["stride"] or size)
    if isinstance(window, Problem):
        return window
    return BlockLayer((shape[0], *(total.value for _, total in window)), window)


def _same(placed: Placed) -> BlockLayer | Problem:
    return BlockLayer(placed.shape)


def _batch_norm(placed: Placed) -> BlockLayer | Problem:
    shape = placed.shape
    return BlockLayer(shape, parameters=parameter_sum([(shape[0],), (shape[0],)]))


def _flatten(placed: Placed) -> BlockLayer | Problem:
    shape = placed.shape
    if len(shape) != 3:
        return Problem(
            f"there are no maps to flatten: its input is already a list of {shape[0]:,} numbers; remove it.",
            Repair("remove it", placed.at, 1),
        )
    count = shape[0] * shape[1] * shape[2]
    return BlockLayer((count,), reshape_sums((1, *shape), (1, count)))


def _linear(placed: Placed) -> BlockLayer | Problem:
    shape = placed.shape
    if len(shape) != 1:
        return Problem(
            f"a linear layer takes a list of numbers, but gets {described(shape)} maps; put flatten before it.",
            Repair("insert flatten", placed.at, 0, ({"block": "flatten"},)),
        )
    weight = (placed.units, shape[0])
    return _unfitting(placed, weight) or BlockLayer(
        (placed.units,), (), _parameters(placed, weight), product_cost((1, placed.units), shape), weight
    )


RULES: Mapping[str, Rule] = {
    "conv": _convolution,
    "max-pool": _pooling,
    "avg-pool": _pooling,
    **dict.fromkeys(("relu", "leaky-relu", "tanh", "sigmoid", "dropout"), _same),
    "batch-norm": _batch_norm,
    "flatten": _flatten,
    "linear": _linear,
}
"""Kind of block -> what it makes."""


def _window(placed: Placed, *, stride: int) -> AxisSums | Problem:
    """How many positions a window has along rows and columns."""
    shape, size, padding = placed.shape, placed["size"], placed["padding"]
    padded_size = min(shape[1:]) + 2 * padding
    if size > padded_size:
        sum_ = f"{min(shape[1:])} + 2·{padding} = {padded_size}"
        return Problem(
            f"a window of {size}x{size} is larger than the {described(shape[1:])} maps with their padding ({sum_}); "
            "make it smaller, or pad more.",
            placed.repair(f"size {padded_size}", size=padded_size),
        )
    return tuple((axis, window_size(n, size, stride, padding, 1)) for axis, n in enumerate(shape[1:], 2))


def _no_maps(layer: str, shape: Shape) -> Problem:
    return Problem(f"{layer} needs maps, but gets a list of {shape[0]:,} numbers; move it up, before flatten.")


def _parameters(placed: Placed, weight: Shape) -> Sum:
    return parameter_sum([weight, weight[:1]] if placed["bias"] else [weight])


def _unfitting(placed: Placed, weight: Shape) -> Problem | None:
    """Why the typed-in numbers of a block do not fit."""
    for name, shape in (("weight", weight), ("bias", weight[:1])):
        values = placed.block.values.get(name)
        if values is not None and not values.fits(shape):
            return Problem(
                f"its {name} was given by hand with {described(values.shape)} numbers, but the layer needs "
                f"{described(shape)}; give as many, or leave them out.",
                placed.repair("leave them out"),
            )
    return None
