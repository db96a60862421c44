"""Sum sheet: one explained number as a spreadsheet, its terms under each other, each a cell that can be changed."""

from io import BytesIO
from pathlib import Path

import numpy as np

from convscope.errors import UsageError
from convscope.export.chain_numbers import parts_read
from convscope.export.formulas import formula, literal
from convscope.export.xlsx import FAINT, GIVEN, INK, Book, Format, plain, save, xlsxwriter
from convscope.expr.expr import Apply, Cells, Dot, Leaf
from convscope.proof.explanation import Explanation
from convscope.render.drawing import headline
from convscope.typing import Array

SHEET = "sum"
TOP = 4
"""The first row of terms."""
LONGEST = 100_000
"""Terms that a sum sheet may have."""


def save_sum(explanation: Explanation, path: str | Path) -> None:
    """Write the calculation of one number: its terms, their products, the sum, and the comparison with PyTorch's.

    Args:
        explanation: The explanation.
        path: Where to write it: a file .xlsx.

    Raises:
        UsageError: no rule explains the number, it is calculated with numbers that a spreadsheet lacks, or XlsxWriter
            is not installed.
        ConvscopeError: the file cannot be written.
    """
    expr = explanation.expr
    if expr is None:
        raise UsageError(f"{explanation.name} has no calculation to write: no rule explains {explanation.step.op!r}.")
    content = BytesIO()
    book: Book = xlsxwriter().Workbook(content, {"in_memory": True, "default_format_properties": {"font_color": INK}})
    try:
        _Sheet(book, explanation).draw()
    except UsageError as error:
        raise UsageError(
            f"{explanation.name} ({explanation.step.op}) cannot be written as a formula: {error}"
        ) from None
    book.close()
    save(path, content.getvalue())


class _Sheet:
    """The one sheet."""

    def __init__(self, book: Book, explanation: Explanation) -> None:
        self.explanation, self.page = explanation, book.add_worksheet(SHEET)
        self.title = book.add_format({"bold": True, "font_size": 13})
        self.head = book.add_format({"bold": True, "bottom": 1})
        self.faint = book.add_format({"font_color": FAINT})
        self.input_format = book.add_format({"font_color": GIVEN, "num_format": "0.0000000"})
        self.formula_format = book.add_format({"num_format": "0.0000000"})
        self.small = book.add_format({"num_format": "0.0E+00"})
        self.row = TOP
        self.cells: dict[int, Array] = {}  # (T, 3) sheet, row, column, by the identity of a part of the expression

    def draw(self) -> None:
        expr, explanation = self.explanation.expr, self.explanation
        assert expr is not None
        if not np.isfinite([explanation.value, explanation.recorded]).all():
            raise UsageError("it is nan or infinite, which a spreadsheet cannot hold.")
        count = sum(len(part) if isinstance(part, Cells) else 1 for part in parts_read(expr))
        if count > LONGEST:
            raise UsageError(f"it depends on {count:,} numbers; a sum sheet holds at most {LONGEST:,}.")
        self.page.hide_gridlines(2)
        self.page.set_column(0, 0, 26)
        self.page.set_column(1, 1, 14)
        self.page.set_column(2, 2, 26)
        self.page.set_column(3, 4, 14)
        self.page.write_string(0, 0, plain(explanation.name), self.title)
        self.page.write_string(1, 0, plain(headline(expr)))
        self.page.write_string(2, 0, "Blue numbers can be changed.", self.input_format)
        text = self._dot(expr) if isinstance(expr, Dot) else self._terms(expr)
        self.row += 1
        calculated = self._line("calculated", f"={text}", explanation.value, self.formula_format)
        recorded = self._line("recorded by PyTorch", None, explanation.recorded, self.formula_format)
        self._line("difference", f"={recorded}-{calculated}", explanation.difference, self.small)
        self._line("allowed", None, explanation.bound, self.small)
        self.page.write_string(self.row + 1, 0, plain(explanation.says), self.faint)

    def _dot(self, dot: Dot) -> str:
        """A line for each product; the sum, the scale, the bias."""
        if dot.kind or dot.left.derive is not None:
            return self._terms(dot)
        for position, head in enumerate(
            ["number", "", "weight", "", "product"] if dot.right is not None else ["number"]
        ):
            self.page.write_string(self.row, position, head, self.head)
        self.row += 1
        first = self.row
        column = "B" if dot.right is None else "E"
        for index in range(len(dot.left)):
            around = f"padding around {dot.left.source.name}"
            self._number(
                0, around if dot.left.is_padding(index) else dot.left.leaf(index).label, dot.left.values[index]
            )
            if dot.right is not None:
                self._number(2, dot.right.leaf(index).label, dot.right.values[index])
                product = f"=B{self.row + 1}*D{self.row + 1}"
                self.page.write_formula(self.row, 4, product, self.formula_format, float(dot.products[index]))
            self.row += 1
        text = f"SUM({column}{first + 1}:{column}{self.row})" if len(dot.left) else "0"
        text = self._line(
            "sum of the products" if dot.right is not None else "sum", f"={text}", dot.total(), self.formula_format
        )
        text += f"*{literal(dot.scale)}" if dot.scale != 1 else ""
        text += f"/{literal(dot.divisor)}" if dot.divisor != 1 else ""
        if isinstance(dot.bias, Leaf):
            self._number(0, dot.bias.label, dot.bias.scalar)
            self.row += 1
            return f"{text}+B{self.row}"
        return text if dot.bias is None else f"{text}+({self._terms(dot.bias)})"

    def _terms(self, expr: Leaf | Dot | Apply) -> str:
        """A line for each input; the formula of all of them."""
        self.page.write_string(self.row, 0, "number", self.head)
        self.page.write_string(self.row, 1, "", self.head)
        self.row += 1
        for part in parts_read(expr):
            leaves = [part] if isinstance(part, Leaf) else [part.leaf(index) for index in range(len(part))]
            if id(part) in self.cells:
                continue
            self.cells[id(part)] = np.array([[0, self.row + index, 1] for index in range(len(leaves))])
            for leaf in leaves:
                self._number(0, leaf.label, leaf.scalar)
                self.row += 1
        return formula(expr, 0, [SHEET], lambda part: self.cells.get(id(part)))

    def _number(self, column: int, label: str, value: float) -> None:
        self.page.write_string(self.row, column, plain(label))
        self.page.write_number(self.row, column + 1, float(value), self.input_format)

    def _line(self, label: str, text: str | None, value: float, form: Format) -> str:
        """Write a summary line; returns the address of its number."""
        self.page.write_string(self.row, 0, label)
        if text is None and not np.isfinite(value):
            self.page.write_string(self.row, 1, "no bound")
        elif text is None:
            self.page.write_number(self.row, 1, value, form)
        else:
            self.page.write_formula(self.row, 1, text, form, value)
        self.row += 1
        return f"B{self.row}"
