"""Formulas: an expression as a spreadsheet formula of plain cell references.

One writer for each primitive. Uses only functions that Excel 2016 and LibreOffice share, and no array formulas: a sum
of products is `SUMPRODUCT` over rectangles of cells, so *trace precedents* leads to every number.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from convscope.errors import UsageError
from convscope.export.chain_numbers import derived_from
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.typing import Array

LONGEST = 8192
"""Characters of a formula that Excel reads."""
Locate = Callable[[Leaf | Cells | Apply], Array | None]
"""The position of each number: (T, 3) sheet, row, column, from 0; a column of -1 where none is written.

None for a number of the call that has no cell, and for a part of an expression that is not written elsewhere.
"""


class Rectangle(NamedTuple):
    """Numbers that form a rectangle, in row-major order, in each of several tensors."""

    corners: Array
    """The first cell in each of the tensors, (tensors, 3): sheet, row, column."""
    height: int
    width: int


def formula(expr: Expr, sheet: int, names: list[str], locate: Locate) -> str:
    """An expression as a formula, without its equals sign.

    >>> from convscope.expr.call import Source
    >>> x = Leaf(-0.5, Source("conv1", "step", (1,)), (0,))
    >>> formula(Apply("relu", {"x": x}), 1, ["conv1", "relu1"], lambda _: np.array([[0, 2, 1]]))
    "MAX('conv1'!B3,0)"

    Args:
        sheet: The sheet on which it is written: its cells need no sheet's name.
        names: The names of all sheets.
        locate: Where numbers are written.

    Raises:
        UsageError: a primitive without a writer, or a formula longer than Excel reads.
    """
    text = _Writer(sheet, names, locate).text(expr)
    if len(text) > LONGEST - 1:
        raise UsageError(f"its formula has {len(text):,} characters; Excel reads {LONGEST:,}.")
    return text


class _Writer:
    """Writes the formulas of one sheet."""

    def __init__(self, sheet: int, names: list[str], locate: Locate) -> None:
        self.sheet, self.names, self.locate = sheet, names, locate

    def text(self, expr: Expr) -> str:
        match expr:
            case Leaf():
                return self._leaf(expr)
            case Dot():
                return self._dot(expr)
            case Apply():
                return self._apply(expr)

    def _leaf(self, leaf: Leaf) -> str:
        positions = self.locate(leaf)
        return literal(leaf.scalar) if positions is None else self._range(positions[0], 1, 1)

    def _dot(self, dot: Dot) -> str:
        if dot.kind:
            raise UsageError(f"it calculates in {dot.kind}, but a spreadsheet calculates in floating point.")
        if dot.left.derive is not None:
            return self._added(dot)
        rows = self._positions(dot.left)
        inside = np.ones(len(rows), bool) if dot.left.inside is None else dot.left.inside
        if dot.right is None:
            text = f"SUM({self._cells(rows[inside])})" if inside.any() else "0"
        else:
            position_pairs = np.stack([rows, self._positions(dot.right)], axis=1)[inside]  # (T, 2, 3)
            text = "+".join(self._products(part) for part in rectangles(position_pairs)) or "0"
        text = self._scaled(dot, text if dot.right is None else f"({text})", text)
        return text if dot.bias is None else f"{text}+{self._atom(dot.bias)}"

    def _added(self, dot: Dot) -> str:
        """A sum of intermediate numbers, each as its own formula: the losses of pairs."""
        if dot.right is not None or dot.bias is not None:
            raise UsageError("it depends on intermediate numbers that have no cell.")
        text = "+".join(self._atom(part) for part in derived_from(dot.left))
        return self._scaled(dot, f"({text})", text)

    @staticmethod
    def _scaled(dot: Dot, inner: str, unscaled: str) -> str:
        """A sum with its scale and divisor; `unscaled` where it has neither."""
        if dot.scale == 1 and dot.divisor == 1:
            return unscaled
        scale = f"*{literal(dot.scale)}" if dot.scale != 1 else ""
        return f"{inner}{scale}/{literal(dot.divisor)}" if dot.divisor != 1 else f"{inner}{scale}"

    def _products(self, part: Rectangle) -> str:
        left, right = (self._range(corner, part.height, part.width) for corner in part.corners)
        return f"{left}*{right}" if part.height == part.width == 1 else f"SUMPRODUCT({left},{right})"

    def _apply(self, apply: Apply) -> str:
        if apply.kind:
            raise UsageError(f"it calculates in {apply.kind}, but a spreadsheet calculates in floating point.")
        x = apply.arguments.get("x")
        if apply.function in WIDENED and isinstance(x, Leaf) and x.source.dtype.startswith(INTEGERS):
            return self._atom(x)
        if apply.function not in FORMULAS:
            raise UsageError(
                f"no formula is written for {apply.function!r}; formulas exist for {', '.join(sorted(FORMULAS))}."
            )
        template = FORMULAS[apply.function]
        parts = {
            name: self._cells(self._positions(a)) if isinstance(a, Cells) else self._atom(a)
            for name, a in apply.arguments.items()
        }
        return template.format(**parts) if isinstance(template, str) else template(parts)

    def _atom(self, expr: Expr) -> str:
        written = self.locate(expr) if isinstance(expr, Apply) else None
        if written is not None:
            return self._range(written[0], 1, 1)
        text = self.text(expr)
        return text if isinstance(expr, Leaf) else f"({text})"

    def _positions(self, cells: Cells) -> Array:
        if cells.derive is not None:
            raise UsageError("it depends on intermediate numbers that have no cell.")
        positions = self.locate(cells)
        assert positions is not None
        return positions

    def _cells(self, positions: Array) -> str:
        """A list of ranges."""
        parts = rectangles(positions[:, None])
        return ",".join(self._range(part.corners[0], part.height, part.width) for part in parts)

    def _range(self, corner: Array, height: int, width: int) -> str:
        sheet, row, column = map(int, corner)
        first, last = address(row, column), address(row + height - 1, column + width - 1)
        within = first if first == last else f"{first}:{last}"
        return within if sheet == self.sheet else f"{quoted(self.names[sheet])}!{within}"


def rectangles(positions: Array) -> Iterator[Rectangle]:
    """Positions in their order, as rectangles of equal size in all tensors.

    >>> positions = np.array([[[0, row, column]] for row in (4, 5) for column in (1, 2, 3)])
    >>> [(part.corners.tolist(), part.height, part.width) for part in rectangles(positions)]
    [([[0, 4, 1]], 2, 3)]

    Args:
        positions: (T, tensors, 3): sheet, row and column of each number in each tensor.
    """
    if len(positions) < 2:
        yield from (Rectangle(corners, 1, 1) for corners in positions)
        return
    is_adjacent = (np.diff(positions, axis=0) == [0, 0, 1]).all(axis=(1, 2))
    starts = np.concatenate([[0], np.flatnonzero(~is_adjacent) + 1])
    widths = np.diff([*starts, len(positions)])
    current = Rectangle(positions[0], 1, int(widths[0]))
    for start, width in zip(starts[1:], widths[1:], strict=True):
        if width == current.width and (positions[start] == current.corners + np.array([0, current.height, 0])).all():
            current = current._replace(height=current.height + 1)
        else:
            yield current
            current = Rectangle(positions[start], 1, int(width))
    yield current


def address(row: int, column: int) -> str:
    """The spreadsheet address of a cell.

    >>> address(2, 1), address(0, 26), address(9, 702)
    ('B3', 'AA1', 'AAA10')
    """
    letters = ""
    column += 1
    while column:
        column, letter = divmod(column - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{row + 1}"


def quoted(name: str) -> str:
    """The name of a sheet as formulas write it; always in quotes, because FC1 is also the name of a cell."""
    return "'" + name.replace("'", "''") + "'"


def literal(number: float) -> str:
    """A number in the notation of formulas.

    >>> literal(9.0), literal(-0.5), literal(1e-05)
    ('9', '(-0.5)', '1E-05')

    Raises:
        UsageError: it is infinite or nan, which spreadsheets lack.
    """
    if not np.isfinite(number):
        raise UsageError(f"it is calculated with {number}, which a spreadsheet cannot hold.")
    text = repr(float(number)).removesuffix(".0").upper()
    return f"({text})" if number < 0 else text


def _number_at(parts: Mapping[str, str]) -> str:
    """The number at an index of a row or column, counted from 0."""
    if "," in parts["cells"]:
        raise UsageError("it selects one number from several ranges, for which spreadsheets have no common function.")
    return f"INDEX({parts['cells']},{parts['index']}+1)"


def _exponentials(parts: Mapping[str, str]) -> str:
    """The sum of exp(cell - largest) over all ranges."""
    ranges = parts["cells"].split(",")  # sheets' names hold no comma
    return "+".join(f"SUMPRODUCT(EXP({cells}-MAX({parts['cells']})))" for cells in ranges)


WIDENED = frozenset({"to_float32", "to_float64"})
INTEGERS = ("int", "uint", "bool")  # types whose numbers, such as labels, another type holds as they are
_SMALL = "{x}+{x}^2/2+{x}^3/6"  # exp(x) - 1 near 0, where the difference would lose its digits
_EXPM1 = f"IF(ABS({{x}})<0.00001,{_SMALL},EXP({{x}})-1)"
_SIGMOID = "1/(1+EXP(MIN(-{x},700)))"
_VARIANCE = "DEVSQ({cells})/(COUNT({cells})-{correction})"
_NORMALIZED = "({x}-{mean})/SQRT({var}+{eps})"

FORMULAS: Mapping[str, str | Callable[[Mapping[str, str]], str]] = {
    "identity": "{x}",
    "to_float64": "{x}",
    "stored": "{x}",
    "add": "{x}+{y}",
    "add_scaled": "{x}+{alpha}*{y}",
    "sub": "{x}-{y}",
    "sub_scaled": "{x}-{alpha}*{y}",
    "mul": "{x}*{y}",
    "div": "{x}/{y}",
    "addcmul": "{x}+{scale}*{y}*{z}",
    "addcdiv": "{x}+{scale}*{y}/{z}",
    "lerp": "{x}+{weight}*({y}-{x})",
    "neg": "-{x}",
    "abs": "ABS({x})",
    "sign": "SIGN({x})",
    "square": "{x}*{x}",
    "pow": "POWER({x},{exponent})",
    "sqrt": "SQRT({x})",
    "rsqrt": "1/SQRT({x})",
    "reciprocal": "1/{x}",
    "exp": "EXP({x})",
    "expm1": _EXPM1,
    "log": "LN({x})",
    "sin": "SIN({x})",
    "cos": "COS({x})",
    "atan": "ATAN({x})",
    "maximum": "MAX({x},{y})",
    "minimum": "MIN({x},{y})",
    **dict.fromkeys(("clamp", "hardtanh"), "MIN(MAX({x},{low}),{high})"),
    "clamp_min": "MAX({x},{y})",
    "clamp_max": "MIN({x},{y})",
    "where": "IF({condition}<>0,{yes},{no})",
    "eq": "IF({x}={y},1,0)",
    "ne": "IF({x}<>{y},1,0)",
    "lt": "IF({x}<{y},1,0)",
    "le": "IF({x}<={y},1,0)",
    "gt": "IF({x}>{y},1,0)",
    "ge": "IF({x}>={y},1,0)",
    "relu": "MAX({x},0)",
    "leaky_relu": "IF({x}>0,{x},{slope}*{x})",
    "elu": f"IF({{x}}>0,{{scale}}*{{x}},{{scale}}*{{alpha}}*({_EXPM1.replace('{x}', '({input_scale}*{x})')}))",
    "threshold": "IF({x}>{threshold},{x},{value})",
    "hardshrink": "IF(ABS({x})>{lambd},{x},0)",
    "softshrink": "IF({x}>{lambd},{x}-{lambd},IF({x}<-{lambd},{x}+{lambd},0))",
    "hardsigmoid": "MIN(MAX({x}+3,0),6)/6",
    "hardswish": "{x}*MIN(MAX({x}+3,0),6)/6",
    "sigmoid": _SIGMOID,
    "silu": f"{{x}}*({_SIGMOID})",
    "glu": f"{{x}}*({_SIGMOID.replace('{x}', '{gate}')})",
    "tanh": "TANH({x})",
    "gelu_tanh": "{x}*0.5*(1+TANH(SQRT(2/PI())*({x}+0.044715*{x}^3)))",
    "number_at": _number_at,
    "max": "MAX({cells})",
    "min": "MIN({cells})",
    "product": "PRODUCT({cells})",
    "variance": _VARIANCE,
    "variance_in_passes": _VARIANCE,
    "variance_in_turn": _VARIANCE,
    "variance_at_once": _VARIANCE,
    "normalize": _NORMALIZED,
    "normalize_weight": f"{_NORMALIZED}*{{weight}}",
    "normalize_affine": f"{_NORMALIZED}*{{weight}}+{{bias}}",
    "inverse_std": "1/SQRT({var}+{eps})",
    "squared_error": "({x}-{y})^2",
    "mse_backward": "{grad}*2*({x}-{target})/{count}",
    "pass_above": "IF({x}>{threshold},{grad},0)",
    "pass_from": "IF({x}>={threshold},{grad},0)",
    "leaky_relu_backward": "IF({x}>0,{grad},{slope}*{grad})",
    "tanh_backward": "{grad}*(1-{y}*{y})",
    "sigmoid_backward": "{grad}*{y}*(1-{y})",
    "nll_backward_at": "IF({label}={index},-{grad}/{count},0)",
    "log_softmax_backward": "{grad}-EXP({log_p})*{total}",
    "descend": "{before}-{lr}*{direction}",
    "decay": "{before}*(1-{lr}*{weight_decay})",
    "with_decay": "{gradient}+{weight_decay}*{before}",
    "momentum": "{momentum}*{before}+(1-{dampening})*{gradient}",
    "look_ahead": "{gradient}+{momentum}*{velocity}",
    "running_mean": "{beta}*{before}+(1-{beta})*{gradient}",
    "running_square": "{beta}*{before}+(1-{beta})*{gradient}*{gradient}",
    "unbiased": "{mean}/(1-{beta}^{step})",
    "centred_square": "{square}-{mean}*{mean}",
    "scaled": "{gradient}/(SQRT({square})+{eps})",
    "ratio_of_roots": "SQRT({moved}+{eps})/SQRT({square}+{eps})*{gradient}",
    "softmax": lambda parts: f"EXP({parts['x']}-MAX({parts['cells']}))/({_exponentials(parts)})",
    "log_softmax": lambda parts: f"{parts['x']}-MAX({parts['cells']})-LN({_exponentials(parts)})",
    "logsumexp": lambda parts: f"MAX({parts['cells']})+LN({_exponentials(parts)})",
}
"""Primitive -> its formula: arguments in braces, each a cell, a literal or in brackets; `{cells}` is a list of ranges.

Others are refused by name, such as the rounding to a narrow type, for which spreadsheets have no function.
"""
