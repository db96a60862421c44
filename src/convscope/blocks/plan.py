"""Plan: what a list of blocks would make of an image, as arithmetic, without building it; or why it cannot be built."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from convscope.blocks.layers import RULES, BlockLayer, Placed, Problem, Repair, described
from convscope.blocks.reading import Block, listed, read_block, shown
from convscope.errors import UsageError
from convscope.layer_arithmetic import NOTHING, AxisSums, Shape, Sum, sum_texts

__all__ = ["Plan", "PlannedBlock", "Problem", "Repair", "plan", "plan_of"]

EDGE = 65_536
"""Largest number of channels, rows, columns and classes."""
PARAMETERS = 10_000_000
"""Largest number of parameters: weights, gradients and two means of Adam take 160 MB."""
CELLS = 4_000_000
"""Largest number of cells of all results for one image: with gradients, 64 images take 2 GB in training."""
MULTIPLY_ADDS = 10**9
"""Largest number of multiply-adds for one image: about a second on one processor."""


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """A block and what it would make."""

    name: str
    """The name of its layer: conv1; empty if it cannot be read."""
    block: Block | None
    """None if it cannot be read."""
    shape: Shape | None
    """Shape of its result, without the batch axis; None after the first problem."""
    size: AxisSums = ()
    parameters: Sum = NOTHING
    multiply_adds: Sum = NOTHING
    weight: Shape | None = None
    """Shape of its weight, if it has one that can be given by hand."""
    problem: Problem | None = None

    def sums(self) -> Iterator[tuple[str, str]]:
        """Its sums as text, as `cs.summary` writes them: the name and the calculation."""
        if self.shape is not None:
            yield from sum_texts((1, *self.shape), self.size, self.parameters, self.multiply_adds)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "shape": None if self.shape is None else list(self.shape),
            "sums": [{"name": name, "text": text} for name, text in self.sums()],
            "parameters": self.parameters.value,
            "weight": None if self.weight is None else list(self.weight),
            "problem": None if self.problem is None else self.problem.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """A list of blocks with their sizes, or with the first problem.

    >>> result = plan([{"block": "conv", "kernels": 16, "padding": 1}], shape=(8, 28, 28))
    >>> print(result)
    image           8x28x28
    conv1           16x28x28
        size           (28 + 2·1 - 3) / 1 + 1 = 28
        parameters     (3·3·8 + 1)·16 = 1,168
        multiply-adds  28·28·16 · 3·3·8 = 903,168
    it ends in 16x28x28 maps, and 10 classes need one number each: add flatten and linear.
    """

    shape: Shape
    """(C, H, W) of the image."""
    classes: int
    blocks: tuple[PlannedBlock, ...]
    ending: Problem | None
    """Why its result does not fit the classes, if each block is fine; such a network can be looked at."""

    @property
    def problem(self) -> str:
        """The first block's problem, as a sentence; empty if the network can be built."""
        if not self.blocks:
            return "the network has no blocks yet; add one."
        for number, planned in enumerate(self.blocks, 1):
            if planned.problem is not None:
                return f"block {number}{f' ({planned.name})' if planned.name else ''}: {planned.problem.sentence}"
        return ""

    @property
    def parameters(self) -> int:
        """Number of parameters of the blocks that are fine."""
        return sum(planned.parameters.value for planned in self.blocks)

    @property
    def layers(self) -> tuple[tuple[str, Placed], ...]:
        """Name and block of each layer, with the shape of its input.

        Raises:
            UsageError: a block has a problem.
        """
        if self.problem:
            raise UsageError(self.problem)
        inputs = (self.shape, *(planned.shape for planned in self.blocks))
        return tuple(
            (planned.name, Placed(planned.block, shape, self.classes, position))
            for position, (planned, shape) in enumerate(zip(self.blocks, inputs, strict=False))
            if planned.block is not None and shape is not None
        )

    def __str__(self) -> str:
        lines = [f"{'image':<15} {described(self.shape)}"]
        for number, planned in enumerate(self.blocks, 1):
            size = "" if planned.shape is None else described(planned.shape)
            lines.append(f"{planned.name or f'block {number}':<15} {size}".rstrip())
            lines += [f"    {name:<14} {text}" for name, text in planned.sums()]
            lines += [f"    ✗ {planned.problem.sentence}"] if planned.problem is not None else []
        if not self.blocks:
            lines.append(self.problem)
        return "\n".join([*lines, *([] if self.ending is None else [self.ending.sentence])])

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "shape": list(self.shape),
            "classes": self.classes,
            "blocks": [planned.to_json() for planned in self.blocks],
            "ending": None if self.ending is None else self.ending.to_json(),
            "problem": self.problem,
            "parameters": self.parameters,
        }


def plan(blocks: object, shape: object = (1, 28, 28), classes: object = 10) -> Plan:
    """Sizes and counts of a network made of blocks, as arithmetic; nothing is built.

    >>> import convscope as cs
    >>> result = cs.blocks.plan(cs.blocks.template("shapes-cnn"), classes=2)
    >>> result.parameters, result.problem, dict(result.blocks[0].sums())["size"]
    (1538, '', '(28 + 2·1 - 3) / 1 + 1 = 28')

    Args:
        blocks: Plain values as `template` returns them; they may be untrusted.
        shape: (C, H, W) of the image.
        classes: How many classes there are: the units of a linear layer without a number.

    Returns:
        Each block with its result; the first one that cannot be built has a problem, and those after it no shape.

    Raises:
        UsageError: not a list, too long a list, or an impossible shape.

    Source: PyTorch documentation of each layer for the sizes.
    """
    return plan_of(_read(listed(blocks)), _shape(shape), _count("classes", classes))


Read = list[Block | Problem]


def plan_of(parsed: Read, shape: Shape, classes: int) -> Plan:
    """The plan of blocks that were read, each a block or the reason why it is not one."""
    planned: list[PlannedBlock] = []
    counts: Counter[str] = Counter()
    current: Shape | None = shape
    for position, item in enumerate(parsed):
        if isinstance(item, Problem):
            planned.append(PlannedBlock("", None, None, problem=item if current is not None else None))
            current = None
            continue
        layer = item.kind.layer
        counts[layer] += 1
        name = layer if layer == "flatten" and counts[layer] == 1 else f"{layer}{counts[layer]}"
        if current is None:
            planned.append(PlannedBlock(name, item, None))
            continue
        result = RULES[item.kind.name](Placed(item, current, classes, position))
        if isinstance(result, BlockLayer):
            planned.append(
                PlannedBlock(
                    name, item, result.shape, result.size, result.parameters, result.multiply_adds, result.weight
                )
            )
            result = _beyond(planned) or result
        if isinstance(result, Problem):
            planned = [*planned[:position], PlannedBlock(name, item, None, problem=result)]
            current = None
        else:
            current = result.shape
    ending = None if current is None or not planned else _ending(planned, current, classes)
    return Plan(shape, classes, tuple(planned), ending)


def _read(values: Sequence[object]) -> Read:
    """Each value as a block, or the reason why it is not one."""
    parsed: Read = []
    for value in values:
        try:
            parsed.append(read_block(value))
        except UsageError as error:
            parsed.append(Problem(str(error)))
    return parsed


def _beyond(planned: list[PlannedBlock]) -> Problem | None:
    """Why the network has become too large with its last block."""
    totals = (
        ("parameters", PARAMETERS, sum(block.parameters.value for block in planned)),
        ("cells in its results for one image", CELLS, sum(_cells(block.shape) for block in planned)),
        ("multiply-adds for one image", MULTIPLY_ADDS, sum(block.multiply_adds.value for block in planned)),
    )
    for noun, limit, count in totals:
        if count > limit:
            return Problem(
                f"with this block the network has {count:,} {noun}, but at most {limit:,} are allowed; "
                "use fewer kernels or units, or a larger stride."
            )
    return None


def _cells(shape: Shape | None) -> int:
    count = 1
    for length in shape or (0,):
        count *= length
    return count


def _ending(planned: list[PlannedBlock], shape: Shape, classes: int) -> Problem | None:
    """Why a network cannot be trained on these classes: its result is not one number for each, nor a single one."""
    if shape in {(classes,), (1,)}:
        return None
    needed = f"{classes:,} class{'es' * (classes != 1)} need{'s' * (classes == 1)} one number each"
    end = len(planned)
    if len(shape) == 3:
        added = ({"block": "flatten"}, {"block": "linear"})
        return Problem(
            f"it ends in {described(shape)} maps, and {needed}: add flatten and linear.",
            Repair("add flatten and linear", end, 0, added),
        )
    last = planned[-1].block
    if last is not None and last.kind.name == "linear":
        fix = Repair(f"{classes:,} units", end - 1, 1, (last.changed(units=None),))
        return Problem(f"it ends in {shape[0]:,} numbers, and {needed}: give the last layer {classes:,} units.", fix)
    return Problem(
        f"it ends in {shape[0]:,} numbers, and {needed}: add linear.",
        Repair("add linear", end, 0, ({"block": "linear"},)),
    )


def _shape(shape: object) -> Shape:
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise UsageError(f"shape is (C, H, W) of the image, such as (1, 28, 28), not {shown(shape)}.")
    lengths = tuple(_count("each number of shape", length) for length in shape)
    cells = _cells(lengths)
    if cells > CELLS:
        raise UsageError(f"an image of {described(lengths)} has {cells:,} cells; at most {CELLS:,} are allowed.")
    return lengths


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= EDGE:
        raise UsageError(f"{name} is an integer from 1 to {EDGE:,}, not {shown(value)}.")
    return value
