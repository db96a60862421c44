"""Spreadsheets read and calculated: as much of Excel's language of formulas as the workbooks use.

An interpreter of its own, so that a formula that spreadsheets would refuse or misread does not pass unseen in a fast
test; the study in test_workbook_office.py asks LibreOffice itself.
"""

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:E[+-]?\d+)?)|(?P<name>'(?:[^']|'')+'!)?(?P<cell>[A-Z]{1,3}\d+)(?::(?P<last>[A-Z]{1,3}\d+))?"
    r"(?![A-Za-z(])|(?P<bare>[A-Za-z]+)!(?P<bare_cell>[A-Z]{1,3}\d+)|(?P<call>[A-Z]+)\(|(?P<sign><>|<=|>=|[-+*/^=<>(),]))"
)
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ABS": np.abs,
    "ATAN": math.atan,
    "COS": math.cos,
    "COUNT": lambda *cells: sum(np.size(part) for part in cells),
    "DEVSQ": lambda *cells: (
        float(np.var(np.concatenate([np.ravel(part) for part in cells]))) * sum(map(np.size, cells))
    ),
    "EXP": np.exp,
    "IF": lambda condition, yes, no: yes if condition else no,
    "INDEX": lambda cells, place: np.ravel(cells)[int(place) - 1],
    "ISNUMBER": np.isreal,
    "LN": math.log,
    "MATCH": lambda wanted, cells, _: [*np.ravel(cells)].index(wanted) + 1,
    "MAX": lambda *cells: max(float(np.max(part)) for part in cells),
    "MIN": lambda *cells: min(float(np.min(part)) for part in cells),
    "PI": lambda: math.pi,
    "POWER": math.pow,
    "PRODUCT": lambda *cells: math.prod(float(np.prod(part)) for part in cells),
    "SIGN": np.sign,
    "SIN": math.sin,
    "SQRT": math.sqrt,
    "SUM": lambda *cells: sum(float(np.sum(part)) for part in cells),
    "SUMPRODUCT": lambda first, *rest: float(np.sum(math.prod(rest, start=np.asarray(first, float)))),
    "TANH": math.tanh,
}
"""Functions that Excel 2016 and LibreOffice have."""


class Spreadsheet:
    """An .xlsx file: numbers, texts and formulas; numbers can be set, and formulas are calculated."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        strings = ET.fromstring(self.members["xl/sharedStrings.xml"])
        self.strings = ["".join(t.text or "" for t in item.iter(f"{MAIN}t")) for item in strings.iter(f"{MAIN}si")]
        relations = ET.fromstring(self.members["xl/_rels/workbook.xml.rels"])
        files = {relation.get("Id"): relation.get("Target") for relation in relations}
        self.names: list[str] = []
        self.formulas: dict[tuple[str, str], str] = {}
        self.stored: dict[tuple[str, str], float | str] = {}
        """The number or text of each cell; of a formula the result that the file carries."""
        for sheet in ET.fromstring(self.members["xl/workbook.xml"]).iter(f"{MAIN}sheet"):
            self.names.append(str(sheet.get("name")))
            self._read(self.names[-1], self.members[f"xl/{files[sheet.get(RELATION)]}"])
        self._results: dict[tuple[str, str], Any] = {}

    def _read(self, sheet: str, content: bytes) -> None:
        for cell in ET.fromstring(content).iter(f"{MAIN}c"):
            at = sheet, str(cell.get("r"))
            formula, value = cell.find(f"{MAIN}f"), cell.find(f"{MAIN}v")
            if formula is not None:
                self.formulas[at] = formula.text or ""
            if value is not None and value.text is not None:
                kind = cell.get("t")
                text = self.strings[int(value.text)] if kind == "s" else value.text
                self.stored[at] = text if kind in {"s", "str"} else float(text)

    def set(self, sheet: str, cell: str, value: float) -> None:
        """Change a number, which must not be a formula."""
        assert (sheet, cell) not in self.formulas
        assert isinstance(self.stored[sheet, cell], float)
        self.stored[sheet, cell] = value
        self._results.clear()

    def get(self, sheet: str, cell: str) -> Any:
        """The value of a cell, calculated from the numbers that are no formulas."""
        at = sheet, cell
        if at not in self._results:
            self._results[at] = (
                _Parser(self, sheet, self.formulas[at]).whole() if at in self.formulas else self.stored.get(at, 0.0)
            )
        return self._results[at]

    def range(self, sheet: str, first: str, last: str) -> Any:
        """The values of a rectangle of cells."""
        (top, left), (bottom, right) = position(first), position(last)
        return np.array(
            [[self.get(sheet, name(r, c)) for c in range(left, right + 1)] for r in range(top, bottom + 1)], object
        ).astype(object if any(isinstance(v, str) for v in [self.get(sheet, first)]) else float)


class _Parser:
    """Calculates one formula while it reads it."""

    def __init__(self, book: Spreadsheet, sheet: str, text: str) -> None:
        self.book, self.sheet, self.text, self.at = book, sheet, text, 0
        self.token: re.Match[str] | None = None
        self.next()

    def next(self) -> None:
        self.token = TOKEN.match(self.text, self.at) if self.at < len(self.text) else None
        assert self.token is not None or self.at >= len(self.text.rstrip()), f"{self.text!r} at {self.at}"
        self.at = self.token.end() if self.token else self.at

    def sign(self) -> str:
        return self.token["sign"] or "" if self.token else ""

    def whole(self) -> Any:
        value = self.comparison()
        assert self.token is None, self.text
        return value

    def comparison(self) -> Any:
        left = self.sum()
        while self.sign() in {"=", "<>", "<", "<=", ">", ">="}:
            sign = self.sign()
            self.next()
            right = self.sum()
            compare = {"=": "__eq__", "<>": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
            left = getattr(np.asarray(left, float), compare[sign])(np.asarray(right, float))
        return left

    def sum(self) -> Any:
        left = self.product()
        while self.sign() in {"+", "-"}:
            sign = self.sign()
            self.next()
            right = self.product()
            left = left + right if sign == "+" else left - right
        return left

    def product(self) -> Any:
        left = self.power()
        while self.sign() in {"*", "/"}:
            sign = self.sign()
            self.next()
            right = self.power()
            left = left * right if sign == "*" else left / right
        return left

    def power(self) -> Any:
        left = self.unary()
        while self.sign() == "^":
            self.next()
            left = left ** self.unary()
        return left

    def unary(self) -> Any:
        if self.sign() == "-":  # before a power, as in spreadsheets: -2^2 is 4
            self.next()
            return -self.unary()
        return self.atom()

    def atom(self) -> Any:
        token = self.token
        assert token is not None, self.text
        self.next()
        if token["number"]:
            return float(token["number"])
        if token["bare"]:
            return self.book.get(token["bare"], token["bare_cell"])
        if token["cell"]:
            sheet = token["name"][1:-2].replace("''", "'") if token["name"] else self.sheet
            assert sheet in self.book.names, sheet
            if token["last"]:
                return self.book.range(sheet, token["cell"], token["last"])
            return self.book.get(sheet, token["cell"])
        if token["call"]:
            arguments = []
            while self.sign() != ")":
                arguments.append(self.comparison())
                if self.sign() == ",":
                    self.next()
            self.next()
            return FUNCTIONS[token["call"]](*arguments)
        assert token["sign"] == "(", self.text
        value = self.comparison()
        assert self.sign() == ")", self.text
        self.next()
        return value


def position(cell: str) -> tuple[int, int]:
    """Row and column of a cell, from 0."""
    letters, digits = re.fullmatch(r"([A-Z]+)(\d+)", cell).groups()  # type: ignore[union-attr]
    column = 0
    for letter in letters:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(digits) - 1, column - 1


def name(row: int, column: int) -> str:
    """A cell by its name."""
    letters = ""
    while column >= 0:
        letters, column = chr(ord("A") + column % 26) + letters, column // 26 - 1
    return f"{letters}{row + 1}"
