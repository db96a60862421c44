"""Front sheet: how to read the other sheets of a workbook, the answer, the training step, a list of the sheets."""

from typing import Literal

import numpy as np

from convscope.export.chain_numbers import Key, Numbers
from convscope.export.formulas import address, quoted
from convscope.export.layout import Layout, StepSheet
from convscope.export.xlsx import FAINT, NEGATIVE, POSITIVE, ZERO, Format, Formats, XlsxSheet, plain
from convscope.traces.step import TrainingStep
from convscope.typing import Array

UNNAMED = "The model does not name its classes. A training run does, and so does load_model(..., classes=[...])."
"""Said below the scores of a model without class names."""
ANSWERS = 100
"""Numbers of an answer, or of a parameter, that are listed."""
GUIDE = (
    "Black numbers are formulas, from the pixels to the answer.",
    "Trace a number to its inputs: Formulas > Trace Precedents in Excel, Tools > Detective in LibreOffice.",
    "Numbers are shown rounded; a selected cell shows its formula. Padding adds 0 and is left out of the sums.",
    "It shows the recorded numbers until it recalculates: Ctrl+Alt+F9 in Excel, Ctrl+Shift+F9 in LibreOffice.",
)
Phase = Literal["forward", "loss", "backward", "update"]
TABS: dict[Phase, str] = {"forward": "#6B6A65", "loss": "#B5540E", "backward": "#0B3FA8", "update": "#2F7A3D"}
"""The colour of the tabs of a training step's sheets."""


def draw_front(page: XlsxSheet, formats: Formats, title: str, layout: Layout, roots: list[tuple[Key, Array]]) -> None:
    """How to read the workbook, the answer as formulas, and a list of the sheets.

    Args:
        roots: The tensors whose numbers are listed.
    """
    _Front(page, formats, layout).draw(title, roots)


def phase_of(sheet: StepSheet, step: TrainingStep) -> Phase:
    """The part of a training step that a sheet is about."""
    numbers = sheet.blocks[0].numbers
    if numbers.key.kind == "number" or any(block.numbers.updated for block in sheet.blocks):
        return "update"
    if numbers.key == Key("input", "target"):
        return "loss"
    if numbers.step is not None and step.loss.id is not None and numbers.step.id > step.loss.id:
        return "backward"
    of_loss = numbers.step is not None and f"{numbers.step.name}.".startswith(f"{step.loss.name}.")
    return "loss" if of_loss else "forward"


class _Front:
    """The first sheet while it is written."""

    def __init__(self, page: XlsxSheet, formats: Formats, layout: Layout) -> None:
        self.page, self.formats, self.layout, self.chain = page, formats, layout, layout.chain
        self.step = self.chain.trace.training_step

    def draw(self, title: str, roots: list[tuple[Key, Array]]) -> None:
        page = self.page
        page.set_column(0, 0, 26)
        page.set_column(1, 3, 13)
        page.write_string(0, 0, plain(title), self.formats.title)
        row = 1
        if self.step is not None:
            page.write_string(row, 0, plain(self.step.says))
            row += 1
        also = ", labels, the learning rate, the optimizer's state" if self.chain.settings else ""
        changed = f"Blue numbers can be changed: pixels, kernels, biases{also}."
        page.write_string(row, 0, changed, self.formats.given)
        for line in GUIDE:
            row += 1
            page.write_string(row, 0, line)
        row = self._scale(row + 2)
        row = self._answer(row + 1, roots)
        self._contents(row + 1)
        page.activate()

    def _scale(self, row: int) -> int:
        self.page.write_string(row, 0, "colours, by sheet and kernel")
        ends = [("most negative", NEGATIVE), ("0", ZERO), ("most positive", POSITIVE)]
        for offset, (words, color) in enumerate(ends, 1):
            form = {"bg_color": color, "align": "center", "border": 1, "border_color": FAINT}
            self.page.write_string(row, offset, words, self.formats.book.add_format(form))
        return row + 1

    def _answer(self, row: int, roots: list[tuple[Key, Array]]) -> int:
        """The outputs; of a training step also the loss, and what it does to the parameters. Returns the row below."""
        parameters = {} if self.step is None else self._parameters(self.step)
        for key, flat in roots:
            if len(flat) <= ANSWERS and key not in parameters:
                row = self._numbers_of(row, self.chain.tensors[key]) + 1
        shown = {key: flat for key, flat in roots if key in parameters and len(flat) <= ANSWERS}
        if shown:
            self._heads(row, ["parameter", "before", "gradient", "after"][: 4 if self.chain.settings else 3])
            row += 1
        for key in shown:
            row = self._moved(row, self.chain.tensors[key], parameters[key])
        return row + bool(shown)

    def _parameters(self, step: TrainingStep) -> dict[Key, str]:
        """The new parameters, or the gradients without an optimizer: tensor -> parameter."""
        ends, inputs = step.updated or step.gradients, self.chain.trace.inputs
        return {Key("step", ref.name, ref.output): name for name, ref in ends.items() if name not in inputs}

    def _moved(self, top: int, numbers: Numbers, name: str) -> int:
        """A parameter before the step, its gradient, and after the step."""
        assert self.step is not None
        before = self.chain.tensors.get(Key("parameter", name))
        gradient, places = self.chain.made(self.step.gradients[name])
        for index, row in enumerate(range(top, top + len(numbers))):
            label = numbers.label(index).removeprefix(numbers.key.name)
            self.page.write_string(row, 0, plain(f"{name}{label}"))
            if before is not None:
                self._live(row, 1, before, index, self.formats.full)
            self._live(row, 2, gradient, int(places[index]), self.formats.full)
            if numbers is not gradient:
                self._live(row, 3, numbers, index, self.formats.full)
        return top + len(numbers)

    def _numbers_of(self, top: int, numbers: Numbers) -> int:
        """A tensor's numbers: those of an answer by image, with the names of the classes. Returns the row below."""
        known = self.chain.trace.card.classes
        images = len(numbers) // len(known) if known else 0
        if images and numbers.shape == (images, len(known)):  # a part of an answer is listed by its indices
            for image in range(images):
                top = self._classes(top, numbers, image) + (image < images - 1)
            return top
        self._heads(top, [plain(numbers.key.name), "number"])
        for index in range(len(numbers)):
            self.page.write_string(top + 1 + index, 0, plain(numbers.label(index)))
            self._live(top + 1 + index, 1, numbers, index, self.formats.full)
        if not known and len(numbers.shape) == 2 and len(numbers) > 1 and self._returned(numbers):
            self.page.write_string(top + 1 + len(numbers), 0, UNNAMED, self.formats.faint)
            top += 1
        return top + 2 + len(numbers)

    def _returned(self, numbers: Numbers) -> bool:
        """Whether the model returns these numbers."""
        key = numbers.key
        return any((ref.name, ref.output) == (key.name, key.output) for ref in self.chain.trace.returned or ())

    def _classes(self, top: int, numbers: Numbers, image: int) -> int:
        """The answer to one image: a line for each class, the one with the largest number, and the label's."""
        known, head = self.chain.trace.card.classes, plain(numbers.key.name)
        several = len(numbers) > len(known)
        self._heads(top, [f"{head}, image {image}" if several else head, "number"])
        for index, name in enumerate(known):
            self.page.write_string(top + 1 + index, 0, plain(name))
            self._live(top + 1 + index, 1, numbers, image * len(known) + index, self.formats.full)
        row = top + 1 + len(known)
        names, values = (f"{column}{top + 2}:{column}{row}" for column in "AB")
        if len(known) > 1:
            largest = int(np.argmax(numbers.recorded[image * len(known) :][: len(known)]))
            self._chosen(row, "the largest", f"INDEX({names},MATCH(MAX({values}),{values},0))", known[largest])
        target = self.chain.tensors.get(Key("input", "target"))
        if target is not None and self.step is not None and self.step.loss_name == "cross-entropy":
            label = int(target.recorded[image])
            self._chosen(row + 1, "the label", f"INDEX({names},{self._place(target, image)}+1)", known[label])
            row += 1
        return row + 1

    def _chosen(self, row: int, title: str, formula: str, name: str) -> None:
        """The name of a class, chosen by a formula."""
        self.page.write_string(row, 0, title, self.formats.faint)
        self.page.write_formula(row, 1, f"={formula}", self.formats.align, plain(name))

    def _live(self, row: int, column: int, numbers: Numbers, index: int, form: Format) -> None:
        """A number of another sheet."""
        text = f"={self._place(numbers, index)}"
        self.page.write_formula(row, column, text, form, float(numbers.recorded[index]))

    def _place(self, numbers: Numbers, index: int) -> str:
        """The cell of another sheet that holds a number."""
        sheet, block = self.layout.blocks[numbers.key]
        return f"{quoted(self.layout.names[sheet])}!{address(int(block.rows[index]), int(block.columns[index]))}"

    def _heads(self, row: int, heads: list[str]) -> None:
        for column, head in enumerate(heads):
            self.page.write_string(row, column, head, self.formats.right if column else self.formats.head)

    def _contents(self, top: int) -> None:
        """The list of sheets and their contents."""
        self._heads(top, ["sheet", "numbers", "formulas"])
        self.page.write_string(top, 3, " what it holds", self.formats.head)
        row, last = top + 1, ""
        for sheet in self._in_order():
            phase = "" if self.step is None else phase_of(sheet, self.step)
            if phase != last:
                self.page.write_string(row, 0, f"{phase}", self.formats.faint)
                row, last = row + 1, phase
            self.page.write_url(row, 0, f"internal:{quoted(sheet.name)}!A1", string=sheet.name)
            self.page.write_number(row, 1, sum(len(block.numbers) for block in sheet.blocks), self.formats.count)
            formulas = sum(len(block.numbers) for block in sheet.blocks if block.numbers.calculated)
            self.page.write_number(row, 2, formulas, self.formats.count)
            self.page.write_string(row, 3, plain(sheet.title.removeprefix(f"{sheet.name}: ")), self.formats.indent)
            row += 1

    def _in_order(self) -> list[StepSheet]:
        """The sheets, those of a training step by phase."""
        step = self.step
        if step is None:
            return self.layout.sheets
        return sorted(self.layout.sheets, key=lambda sheet: [*TABS].index(phase_of(sheet, step)))
