"""Formats: how the numbers and texts of a workbook look."""

from convscope.export.xlsx import FAINT, GIVEN, Book

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
