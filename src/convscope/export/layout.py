"""Layout: where each number of a chain is written: a sheet for each step, its kernels and biases beside its maps.

A tensor is written as *planes*, rectangles with a heading: a channel of a map, a kernel's slice for one input channel.
If only part of a tensor is needed, a plane shows the smallest box of rows and columns that contains it.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from convscope.errors import UsageError
from convscope.escaping import spelled
from convscope.export.chain import Chain
from convscope.export.chain_numbers import UPDATE, Key, Numbers
from convscope.export.placement import TOP, PlacedTensor, Plane, place, place_beside, place_weights, plane_size
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.expr.primitives import PRIMITIVES
from convscope.typing import Array

ROWS, COLUMNS = 1_048_576, 16_384
"""The size limits of a sheet in Excel and in LibreOffice."""
FIRST, RECORDED, DIFFERENCES = "network", "recorded", "differences"
"""The sheets that are about the whole network."""
OPTIMIZER = "optimizer"
"""The sheet of the optimizer's settings."""
SETTINGS = 4
"""The column of their values."""
INPUTS = "the network's inputs"


@dataclass(eq=False)
class StepSheet:
    """One sheet: a step with its parameters, or an input."""

    name: str
    title: str
    blocks: list[PlacedTensor] = field(default_factory=list)
    labels: list[tuple[int, int, str]] = field(default_factory=list)
    """Texts beside numbers: row, column, text."""
    row_names: list[tuple[int, str]] = field(default_factory=list)
    """Names of rows, in the first column: row, name."""


class Layout:
    """The sheets of a chain, and the position of every number.

    Attributes:
        sheets: In the order of the pass.
        names: All names of sheets, those about the whole network too.
        blocks: The position of each tensor.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.sheets: list[StepSheet] = []
        self.names: list[str] = [FIRST, RECORDED, DIFFERENCES]
        self.blocks: dict[Key, tuple[int, PlacedTensor]] = {}
        parameters = _owners(chain)
        step = chain.trace.training_step
        for numbers in chain.tensors.values():
            if numbers.key.kind == "input":
                description = "what the loss compares the output with" if step and numbers.key.name == "target" else ""
                self._alone(numbers, f"{numbers.key.name}: {description or INPUTS}")
        updates: dict[str, list[Numbers]] = {}
        for numbers in chain.tensors.values():
            if numbers.updated:
                updates.setdefault(numbers.updated, []).append(numbers)
            elif numbers.key.kind == "step":
                self._step(numbers, parameters.get(numbers.key, []))
        self._settings([*chain.settings.values()])
        self._results = {id(result): results for results in updates.values() for result in results}
        for results in updates.values():
            self._update(results, [p for result in results for p in parameters.get(result.key, [])])
        for numbers in chain.tensors.values():
            if numbers.key not in self.blocks:
                self._alone(numbers, f"{numbers.key.name}: the model's constants")
        self._check()

    def positions(self, numbers: Numbers, part: Leaf | Cells | Apply, index: int = 0) -> Array | None:
        """The position of each number of a part of an expression: (T, 3) sheet, row, column; padding is at -1.

        None for a number that is part of the formula, and for a part that has no cell of its own.
        """
        if isinstance(part, Apply):
            result_numbers = self._result_of(numbers, part)
            return None if result_numbers is None else self._position(result_numbers, index)
        if isinstance(part, Leaf) and part.source.kind == "number":
            setting = self.chain.setting(numbers, part)
            return None if setting is None else self._position(setting, 0)
        located = self.chain.locate(numbers, part)
        sheet, block = self.blocks[located.numbers.key]
        result = np.empty((len(located.places), 3), np.int64)
        result[:, 0] = sheet
        result[:, 1], result[:, 2] = block.rows[located.places], block.columns[located.places]
        result[located.places < 0] = -1
        return result

    def _position(self, numbers: Numbers, index: int) -> Array:
        sheet, block = self.blocks[numbers.key]
        return np.array([[sheet, block.rows[index], block.columns[index]]])

    def _result_of(self, numbers: Numbers, part: Apply) -> Numbers | None:
        """The result of the same update that a part of its expression is: Adam's running means."""
        for result in self._results.get(id(numbers), []):
            if result is not numbers and len(result) == len(numbers):
                expr = self.chain.expression(result, 0)
                if isinstance(expr, Apply) and (expr.function, expr.note) == (part.function, part.note):
                    return result
        return None

    def _sheet(self, name: str, title: str) -> tuple[int, StepSheet]:
        sheet = StepSheet(sheet_name(name, self.names), title)
        self.sheets.append(sheet)
        self.names.append(sheet.name)
        return len(self.names) - 1, sheet

    def _add(self, index: int, sheet: StepSheet, numbers: Numbers) -> PlacedTensor:
        block = PlacedTensor(numbers, rows=np.zeros(len(numbers), np.int64), columns=np.zeros(len(numbers), np.int64))
        sheet.blocks.append(block)
        self.blocks[numbers.key] = index, block
        return block

    def _alone(self, numbers: Numbers, title: str) -> None:
        index, sheet = self._sheet(numbers.key.name, title)
        place(self._add(index, sheet, numbers), TOP, 1)

    def _step(self, numbers: Numbers, parameters: list[Numbers]) -> None:
        step = numbers.step
        assert step is not None
        result = f", result {numbers.key.output}" if numbers.key.output else ""
        index, sheet = self._sheet(step.name, f"{step.name}: {step.says}{result}")
        block = self._add(index, sheet, numbers)
        own_blocks = [(self._add(index, sheet, p), p) for p in parameters if p.key not in self.blocks]
        if len(numbers.shape) > 2 and (max(numbers.shape[2:]) > 1 or any(len(p.shape) > 2 for _, p in own_blocks)):
            self._banded(block, [b for b, _ in own_blocks])
        else:
            self._listed(block, [b for b, _ in own_blocks])
        self._name_classes(sheet, block)

    def _name_classes(self, sheet: StepSheet, block: PlacedTensor) -> None:
        """Name the rows of the model's scores by their classes; those of several images are columns, named above."""
        numbers, names = block.numbers, self.chain.trace.card.classes
        returned = {Key("step", ref.name, ref.output) for ref in self.chain.trace.returned or ()}
        if not names or numbers.key not in returned or numbers.shape[1:] != (len(names),):
            return
        if numbers.shape[0] == 1:
            units = numbers.cells[:, 1].tolist()
            rows = block.rows.tolist()
            sheet.row_names += [(row, f"{unit} {names[unit]}") for row, unit in zip(rows, units, strict=True)]
        else:
            sheet.labels.append((1, 0, ", ".join(f"{unit} is {name}" for unit, name in enumerate(names))))

    def _settings(self, settings: list[Numbers]) -> None:
        """Write the optimizer's settings below each other, each beside its name."""
        if not settings:
            return
        index, sheet = self._sheet(OPTIMIZER, f"{OPTIMIZER}: its settings")
        for row, numbers in enumerate(settings, TOP):
            block = self._add(index, sheet, numbers)
            block.rows[:], block.columns[:] = row, SETTINGS
            block.planes.append(Plane("", row, SETTINGS, 1, 1))
            sheet.labels.append((row, 1, numbers.key.name))

    def _update(self, results: list[Numbers], parameters: list[Numbers]) -> None:
        """Write the update of one parameter: the optimizer's old state, its new state, the new parameter."""
        step = results[0].step
        assert step is not None
        name = results[0].key.name
        index, sheet = self._sheet(name, f"{name}: update by {step.op.removeprefix(UPDATE)}")
        results = [*results[1:], results[0]]
        for row, result in enumerate(results, 1):
            sheet.labels.append((row, 0, f"{_title(result)} = {self._words(result, self.chain.expression(result, 0))}"))
        top, column = TOP + len(results) - 1, 1
        for numbers in [*(p for p in parameters if p.key not in self.blocks), *results]:
            title = _title(numbers)
            block = self._add(index, sheet, numbers)
            place(block, top, column, title=title)
            column += max(plane_size(numbers)[1] + 2, (len(title) + 7) // 5)

    def _words(self, numbers: Numbers, expr: Expr) -> str:
        """The formula of an update with names instead of cells."""
        if isinstance(expr, Leaf):
            return expr.source.name.removeprefix(f"{numbers.updated}.")
        assert isinstance(expr, Apply)
        parts = {}
        for name, part in expr.arguments.items():
            assert not isinstance(part, Cells)
            result_numbers = self._result_of(numbers, part) if isinstance(part, Apply) else None
            inner = self._words(numbers, part) if result_numbers is None else _title(result_numbers)
            parts[name] = f"({inner})" if isinstance(part, Apply) and result_numbers is None else inner
        return PRIMITIVES[expr.function].formula.format(**parts)

    def _banded(self, block: PlacedTensor, parameters: list[PlacedTensor]) -> None:
        """Write maps below each other, each beside its kernel and bias (to the left if these are small)."""
        numbers = block.numbers
        fits = [b for b in parameters if b.numbers.shape[:1] == (numbers.shape[1],)]
        single = [b for b in fits if len(b.numbers.shape) == 1]
        kernels = [b for b in fits if len(b.numbers.shape) > 1]
        height, width = plane_size(numbers, 1)
        left = [b for b in kernels if b.numbers.shape[1] * (plane_size(b.numbers, 0)[0] + 2) <= max(height, 12)]
        side_width = max([1 * bool(single), *(plane_size(b.numbers, 0)[1] for b in left)])
        offset = side_width + 3 if side_width else 1
        row = TOP
        for channel in np.unique(numbers.cells[:, 1]).tolist():
            under = row
            for b in [*single, *left]:
                under = place(b, under, 1, lead=channel)[0]
            bottom = place(block, row, offset, lead=channel, axis=1)[0]
            across = offset + width + 1
            for b in kernels:
                if b not in left:
                    below, across = place(b, row, across, lead=channel, across=True)
                    bottom = max(bottom, below)
            row = max(under, bottom) + bool(parameters)
        self._place_remaining([b for b in parameters if b not in fits], offset + width + 2)

    def _listed(self, block: PlacedTensor, parameters: list[PlacedTensor]) -> None:
        """Write units below each other, with their biases beside them and the weights of each unit to the right."""
        place(block, TOP, 1)
        width = plane_size(block.numbers)[1]
        column, unplaced = 1 + width + 1, []
        for b in sorted(parameters, key=lambda b: len(b.numbers.shape)):
            if len(b.numbers.shape) == 1 and width == 1:
                column = place_beside(b, block, column)
            elif len(b.numbers.shape) == 2 and (like := self._like(block.numbers, b.numbers)) is not None:
                column = place_weights(b, like, column)
            else:
                unplaced.append(b)
        self._place_remaining(unplaced, column + 1)

    def _place_remaining(self, blocks: list[PlacedTensor], column: int) -> None:
        row = TOP
        for block in blocks:
            row = place(block, row, column)[0]

    def _like(self, numbers: Numbers, weight: Numbers) -> Array | None:
        """The arrangement of a linear layer's input, for the weights of each unit: (T, 2), if it is on one sheet."""
        expr = self.chain.expression(numbers, 0)
        if not isinstance(expr, Dot) or expr.right is None:
            return None
        across = self.chain.locate(numbers, expr.right)
        positions = self.positions(numbers, expr.left)
        assert positions is not None
        if across.numbers is not weight or len({*positions[:, 0]}) != 1 or len(positions) != weight.shape[1]:
            return None
        units, places = np.divmod(weight.flat[across.places], weight.shape[1])
        if len({*units}) != 1:
            return None
        like = np.empty((weight.shape[1], 2), np.int64)
        like[places] = positions[:, 1:] - positions[:, 1:].min(axis=0)
        return like

    def _check(self) -> None:
        for sheet in self.sheets:
            for block in sheet.blocks:
                if block.rows.max(initial=0) >= ROWS or block.columns.max(initial=0) >= COLUMNS:
                    raise UsageError(
                        f"{block.numbers.key.name} does not fit on a sheet of {ROWS:,} rows and {COLUMNS:,} columns; "
                        "choose a number of an earlier step."
                    )


def sheet_name(name: str, used_names: list[str]) -> str:
    """A name that a sheet may have: at most 31 characters, none that formulas reserve, and not one of `used_names`.

    >>> sheet_name("layer1.0/relu", []), sheet_name("Conv1", ["conv1"]), sheet_name("'", [])
    ('layer1.0_relu', 'Conv1~2', '_')
    """
    name = re.sub(r"[^\w .#~=+@%$-]", "_", spelled(name)).strip("'").strip() or "_"
    name = f"{name}_" if name.lower() == "history" else name  # a name that Excel keeps for itself
    used = {used_name.lower() for used_name in used_names}
    result, number = name[:31], 2
    while result.lower() in used:
        result = f"{name[: 30 - len(str(number))]}~{number}"
        number += 1
    return result


def _title(numbers: Numbers) -> str:
    """The heading of a tensor of an update: `square_avg before`, `new square_avg`, `new conv1.weight`."""
    name = numbers.key.name.removesuffix(".updated")
    if not numbers.calculated:
        return f"{name.rpartition('.')[2]} before"
    return f"new {name.removeprefix(f'{numbers.updated}.')}"


def _owners(chain: Chain) -> dict[Key, list[Numbers]]:
    """The parameters that each step reads first."""
    assigned: set[str] = set()
    result: dict[Key, list[Numbers]] = {}
    for numbers in chain.calculated:
        assert numbers.step is not None
        for _, _, ref in numbers.step.refs():
            for key in chain.sources(numbers, ref):
                if key.kind == "parameter" and key.name not in assigned:
                    assigned.add(key.name)
                    result.setdefault(numbers.key, []).append(chain.tensors[key])
    return result
