"""XlsxWriter: what the workbooks use of it, the formats that their sheets share, and files that are written whole.

It is an optional dependency without types of its own: it is loaded when a workbook is asked for.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from convscope.errors import ConvscopeError, UsageError
from convscope.escaping import spelled
from convscope.files import check_destination, write_whole

MISSING = "workbooks need XlsxWriter; install it with `pip install 'convscope[workbook]'` or `pip install XlsxWriter`."
INK, GIVEN, FAINT = "#1C1C1A", "#0B3FA8", "#8A8780"
LONGEST_TEXT = 200
Format = object
"""How a cell looks; only passed back to XlsxWriter."""


class XlsxSheet(Protocol):
    """A sheet; rows and columns count from 0."""

    def activate(self) -> None:
        """Show this sheet first."""

    def conditional_format(self, row: int, column: int, last_row: int, last_column: int, options: object) -> object:
        """Colour cells by their values."""

    def fit_to_pages(self, width: int, height: int) -> None:
        """The number of pages to print on, across and down; 0 for as many as needed."""

    def freeze_panes(self, row: int, column: int) -> None:
        """Keep the rows above and the columns left of a cell in view."""

    def hide_gridlines(self, option: int) -> None:
        """Hide the lines between cells; 2 on screen too."""

    def set_column(self, first: int, last: int, width: float) -> object:
        """The width of columns."""

    def set_row(self, row: int, height: float) -> object:
        """The height of a row."""

    def set_tab_color(self, color: str) -> None:
        """The colour of the sheet's tab."""

    def set_default_row(self, height: float) -> None:
        """The height of all rows."""

    def write_formula(self, row: int, column: int, formula: str, form: Format, value: float | str) -> object:
        """A formula and its stored result."""

    def write_number(self, row: int, column: int, number: float, form: Format = None) -> object:
        """A number."""

    def write_string(self, row: int, column: int, text: str, form: Format = None) -> object:
        """A text, never parsed."""

    def write_url(self, row: int, column: int, url: str, *, string: str) -> object:
        """A link."""


class Book(Protocol):
    """A workbook that is being written."""

    def add_format(self, properties: dict[str, object]) -> Format:
        """A format for cells."""

    def add_worksheet(self, name: str) -> XlsxSheet:
        """A sheet."""

    def set_properties(self, properties: dict[str, object]) -> None:
        """Title and dates."""

    def close(self) -> object:
        """Write the file."""


def xlsxwriter() -> Any:
    """The module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module("xlsxwriter")
    except ImportError:
        raise UsageError(MISSING) from None


def check_workbook_path(path: str | Path) -> Path:
    """Check the path of a workbook before any work is done."""
    if not isinstance(path, str | Path):
        raise UsageError(f"a workbook is written to a path, not to {path!r}; give one such as 'network.xlsx'.")
    result = Path(path)
    if result.suffix.lower() != ".xlsx":
        raise UsageError(f"a workbook is a file .xlsx, not {result.name!r}; choose a name such as {result.stem}.xlsx.")
    check_destination(result)
    return result


def save(path: str | Path, content: bytes) -> None:
    """Write a workbook atomically: on failure, an existing file is kept.

    Raises:
        ConvscopeError: it cannot be written.
    """
    try:
        write_whole(check_workbook_path(path), content)
    except OSError as error:
        raise ConvscopeError(f"{path} cannot be written: {error.strerror or error}.") from None


def plain(text: str) -> str:
    """External text as one short line, without characters that XML lacks."""
    line = spelled(text)
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


NEGATIVE, ZERO, POSITIVE = "#67A9CF", "#FFFFFF", "#EF8A62"
"""The ends of the colour scale, light enough for dark digits, and distinct for colour-blind eyes (ColorBrewer RdBu)."""


class Formats:
    """The formats that the sheets of one workbook share."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.title = book.add_format({"bold": True, "font_size": 13})
        self.head = book.add_format({"bold": True, "bottom": 1, "bottom_color": FAINT})
        self.right = book.add_format({"bold": True, "bottom": 1, "bottom_color": FAINT, "align": "right"})
        self.align = book.add_format({"align": "right"})
        self.indent = book.add_format({"indent": 1})
        self.faint = book.add_format({"font_color": FAINT})
        self.index = book.add_format({"font_color": FAINT, "font_size": 7, "align": "center"})
        self.count = book.add_format({"num_format": "#,##0"})
        self.full = book.add_format({"num_format": "0.0000000"})
        self.small = book.add_format({"num_format": "0.0E+00"})
        self.given = book.add_format({"font_color": GIVEN})
        self.given_full = book.add_format({"font_color": GIVEN, "num_format": "0.0000000"})
