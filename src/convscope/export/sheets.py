"""Sheets: a layout drawn with XlsxWriter: numbers, formulas, colours, and the sheets about the whole network.

Text is written as text, never parsed: a name that begins with `=`, `+`, `-` or `@` is a name.
"""

import datetime as dt
import math
from typing import BinaryIO

import numpy as np

from convscope.errors import UsageError
from convscope.export.chain_numbers import Key, Numbers
from convscope.export.formulas import address, formula, quoted
from convscope.export.front_sheet import TABS, draw_front, phase_of
from convscope.export.layout import DIFFERENCES, FIRST, RECORDED, Layout, StepSheet
from convscope.export.placement import TOP, PlacedTensor, Plane
from convscope.export.xlsx import (
    GIVEN,
    INK,
    NEGATIVE,
    POSITIVE,
    ZERO,
    Book,
    Format,
    Formats,
    XlsxSheet,
    plain,
    xlsxwriter,
)
from convscope.expr.call import cell_label
from convscope.expr.expr import Expr
from convscope.typing import Array

MOST_TEXT = 40_000_000
"""Characters of all formulas together that a workbook may have."""
NAME = 30
"""The width of a column of names, in characters."""
HEAD = 6
"""The first row of the lists of recorded numbers and differences."""


def draw(file: BinaryIO, title: str, layout: Layout, roots: list[tuple[Key, Array]]) -> None:
    """Write a workbook; every number is calculated on the way (`Chain.calculate`)."""
    options = {"in_memory": True, "default_format_properties": {"font_size": 9, "font_color": INK}}
    book: Book = xlsxwriter().Workbook(file, options)
    book.set_properties({"title": plain(title), "created": dt.datetime(2000, 1, 1)})
    drawing = _Drawing(book, layout)
    drawing.steps()
    drawing.recorded()
    drawing.differences()
    draw_front(drawing.pages[FIRST], drawing.formats, title, layout, roots)
    book.close()


class _Drawing:
    """The sheets of one workbook, and their formats."""

    def __init__(self, book: Book, layout: Layout) -> None:
        self.book, self.layout, self.chain = book, layout, layout.chain
        self.pages: dict[str, XlsxSheet] = {}
        for name in (FIRST, *(sheet.name for sheet in layout.sheets), RECORDED, DIFFERENCES):
            page = self.pages[name] = book.add_worksheet(name)
            page.hide_gridlines(2)
            page.fit_to_pages(1, 0)
            page.set_default_row(13)
            page.set_row(0, 20)
        self.formats = Formats(book)

    def steps(self) -> None:
        """The inputs, the steps with their parameters, the constants."""
        formats, step = {}, self.chain.trace.training_step
        for sheet in self.layout.sheets:
            page = self.pages[sheet.name]
            page.set_column(0, _last_column(sheet) + 1, 5.3)
            page.freeze_panes(TOP - 1, 0)
            page.write_string(0, 0, plain(sheet.title), self.formats.title)
            if step is not None:
                page.set_tab_color(TABS[phase_of(sheet, step)])
            for row, column, text in sheet.labels:
                page.write_string(row, column, plain(text))
            for block in sheet.blocks:
                formats[block.numbers.key] = self._block(page, block)
            for row, name in sheet.row_names:  # they replace the numbers of these rows
                page.write_string(row, 0, plain(name), self.formats.index)
            if sheet.row_names:
                page.set_column(0, 0, min(NAME, max(len(name) for _, name in sheet.row_names)))
        self._formulas(formats)

    def _block(self, page: XlsxSheet, block: PlacedTensor) -> Format:
        """Headings, colours and given numbers of a tensor; returns the format of its numbers."""
        numbers = block.numbers
        if numbers.key.kind == "number":
            form = self.book.add_format({"font_color": GIVEN, "align": "right"})
            page.write_number(int(block.rows[0]), int(block.columns[0]), float(numbers.recorded[0]), form)
            return form
        largest = float(np.abs(numbers.recorded).max(initial=0.0))
        color = INK if numbers.calculated else GIVEN
        form = self.book.add_format({"num_format": _digits(largest), "font_color": color})
        for plane in block.planes:
            self._frame(page, plane)
        page.conditional_format(
            block.planes[0].row, block.planes[0].column, block.planes[0].row, block.planes[0].column,
            {
                "type": "3_color_scale", "multi_range": " ".join(map(_range, block.planes)),
                "min_type": "num", "mid_type": "num", "max_type": "num",
                "min_value": -(largest or 1.0), "mid_value": 0, "max_value": largest or 1.0,
                "min_color": NEGATIVE, "mid_color": ZERO, "max_color": POSITIVE,
            },
        )  # fmt: skip
        if not numbers.calculated:
            for row, column, value in zip(block.rows.tolist(), block.columns.tolist(), numbers.recorded, strict=True):
                page.write_number(row, column, value, form)
        return form

    def _frame(self, page: XlsxSheet, plane: Plane) -> None:
        """The heading of a plane, and the numbers of its rows and columns."""
        for position, label in enumerate(plane.columns):
            page.write_number(plane.row - 1, plane.column + position, label, self.formats.index)
        for position, label in enumerate(plane.rows):
            page.write_number(plane.row + position, plane.column - 1, label, self.formats.index)
        if plane.heading:
            row = plane.row - 1 - bool(plane.columns)
            page.write_string(row, plane.column, plain(plane.heading), self.formats.faint)

    def _formulas(self, formats: dict[Key, Format]) -> None:
        """Every calculated number, with the recorded one as its stored result."""
        characters = 0

        def write(numbers: Numbers, index: int, expr: Expr) -> None:
            nonlocal characters
            sheet, block = self.layout.blocks[numbers.key]
            text = formula(expr, sheet, self.layout.names, lambda part: self.layout.positions(numbers, part, index))
            characters += len(text)
            if characters > MOST_TEXT:
                raise UsageError(f"its formulas have more than {MOST_TEXT:,} characters; choose an earlier step.")
            page = self.pages[self.layout.names[sheet]]
            page.write_formula(
                int(block.rows[index]),
                int(block.columns[index]),
                f"={text}",
                formats[numbers.key],
                float(numbers.recorded[index]),
            )

        self.chain.calculate(write)

    def recorded(self) -> None:
        """The numbers that PyTorch calculated."""
        page = self.pages[RECORDED]
        page.write_string(0, 0, "recorded: the numbers that PyTorch calculated", self.formats.title)
        self._columns(page, ["step", "cell", "recorded"])
        row = HEAD
        for numbers in self.chain.calculated:
            for index, value in enumerate(numbers.recorded.tolist()):
                self._names(page, row, numbers, index)
                page.write_number(row, 2, value, self.formats.full)
                row += 1

    def differences(self) -> None:
        """The difference of each formula from the recorded number, and the allowed difference."""
        page = self.pages[DIFFERENCES]
        count = sum(map(len, self.chain.calculated))
        last = HEAD + count
        page.write_string(0, 0, "differences: the formulas' numbers minus the recorded ones", self.formats.title)
        page.write_string(1, 0, ALLOWED, self.formats.faint)
        page.write_string(3, 0, "within")
        within = sum(
            int((np.isfinite(n.bound) & (np.abs(n.live - n.recorded) <= n.bound)).sum()) for n in self.chain.calculated
        )
        first, bounds = f"C{HEAD + 1}:C{last}", f"D{HEAD + 1}:D{last}"
        counted = f"=SUMPRODUCT(ISNUMBER({bounds})*(ABS({first})<={bounds}))"
        page.write_formula(3, 1, counted, self.formats.count, within)
        page.write_string(3, 2, f"of {count:,}")
        self._columns(page, ["step", "cell", "difference", "allowed"])
        red = self.book.add_format({"bg_color": "#F7C6B4"})
        page.conditional_format(
            HEAD, 2, last - 1, 2, {"type": "formula", "criteria": f"=ABS($C{HEAD + 1})>$D{HEAD + 1}", "format": red}
        )
        row = HEAD
        for numbers in self.chain.calculated:
            sheet, block = self.layout.blocks[numbers.key]
            name = quoted(self.layout.names[sheet])
            addresses = [address(r, c) for r, c in zip(block.rows.tolist(), block.columns.tolist(), strict=True)]
            differences = (numbers.live - numbers.recorded).tolist()
            for index, bound in enumerate(numbers.bound.tolist()):
                self._names(page, row, numbers, index)
                live = f"={name}!{addresses[index]}-{RECORDED}!C{row + 1}"
                page.write_formula(row, 2, live, self.formats.small, differences[index])
                if math.isfinite(bound):
                    page.write_number(row, 3, bound, self.formats.small)
                else:
                    page.write_string(row, 3, "no bound")
                row += 1
        self._ties(page)

    def _ties(self, page: XlsxSheet) -> None:
        """The choices that may be made differently."""
        page.set_column(5, 5, 32)
        heads = ["near-ties of a maximum or ReLU", "apart", "allowed"]
        for column, head in enumerate(heads):
            page.write_string(HEAD - 1, 5 + column, head, self.formats.right if column else self.formats.head)
        for row, tie in enumerate(self.chain.ties, HEAD):
            page.write_string(row, 5, plain(tie.name))
            page.write_number(row, 6, tie.apart, self.formats.small)
            page.write_number(row, 7, tie.allowed, self.formats.small)
        if not self.chain.ties:
            page.write_string(HEAD, 5, "none", self.formats.faint)

    def _columns(self, page: XlsxSheet, heads: list[str]) -> None:
        longest = max((len(numbers.key.name) for numbers in self.chain.calculated), default=0)
        page.set_column(0, 0, min(max(14, longest), 40))
        page.set_column(1, 1, 14)
        page.set_column(2, 3, 12)
        page.freeze_panes(HEAD, 0)
        for column, head in enumerate(heads):
            page.write_string(HEAD - 1, column, head, self.formats.right if column > 1 else self.formats.head)

    def _names(self, page: XlsxSheet, row: int, numbers: Numbers, index: int) -> None:
        cell = tuple(map(int, numbers.cells[index]))
        page.write_string(row, 0, plain(numbers.key.name))
        page.write_string(row, 1, cell_label(cell, numbers.shape))


ALLOWED = (
    "The allowed difference bounds PyTorch's accumulated rounding errors, from the pixels to this number. If you "
    "change a pixel or a weight, the effect appears as a larger difference."
)


def _range(plane: Plane) -> str:
    last = address(plane.row + plane.height - 1, plane.column + plane.width - 1)
    return f"{address(plane.row, plane.column)}:{last}"


def _last_column(sheet: StepSheet) -> int:
    return max(int(block.columns.max(initial=0)) for block in sheet.blocks)


def _digits(largest: float) -> str:
    """The format of numbers up to this: five characters or so.

    >>> _digits(255.0), _digits(2.5), _digits(0.03), _digits(1e-9)
    ('0', '0.00', '0.000', '0E+00')
    """
    if not 1e-2 < largest < 1e5:
        return "0.00" if not largest else "0E+00"
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 3)
    return "0" if decimals == 0 else f"0.{'0' * decimals}"
