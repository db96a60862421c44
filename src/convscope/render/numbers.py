"""Numbers as text: aligned, rounded to a stated number of decimals, with a true minus sign. No other module does this.

Uses NumPy only. A column of numbers has one `Scale`; what it shows are whole multiples of its last decimal, so that
shown numbers can be added up exactly.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from convscope.typing import Array

MINUS = "−"


@dataclass(frozen=True, slots=True)
class NumberScale:
    """The format of a column of numbers: its decimals, and a power of ten for very large and small ones.

    >>> NumberScale.of([2.44, -0.1234567]).show(-0.1234567)
    '−0.1235'
    >>> NumberScale.of([3e-9]).show(3e-9)
    '3.0000e−9'
    """

    decimals: int
    power: int = 0

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "NumberScale":
        """Five digits for the largest; fewer where no number needs them, a power of ten where they are extreme."""
        finite = [abs(n) for n in numbers if math.isfinite(n)]
        top = max(finite, default=0.0)
        if top < 1e6 and all(n == int(n) for n in finite):
            return cls(0)
        exponent = math.floor(math.log10(top))
        power = exponent if exponent < -6 or exponent > 7 else 0
        exponent -= power
        decimals = max(4 - max(exponent, 0), 0) + max(-exponent - 1, 0)
        idle = (d for d in range(1, min(decimals, 3)) if not power and all(round(n, d) == n for n in finite))
        return cls(next(idle, decimals), power)

    @classmethod
    def fine(cls, number: float, digits: int = 5) -> "NumberScale":
        """`digits` significant digits of one number, as `short` shows them.

        >>> NumberScale.fine(0.307431).show(0.307431)
        '0.30743'
        """
        if not math.isfinite(number) or number == 0:
            return cls(0)
        exponent = math.floor(math.log10(abs(number)))
        power = 0 if -6 <= exponent < 7 else exponent
        return cls(max(digits - 1 - exponent + power, 0), power)

    def units(self, number: float) -> int:
        """The number in whole units of the last decimal.

        >>> NumberScale(4, -324).units(5e-324)
        49407
        """
        scaled = number / 10.0**self.power * 10**self.decimals if self.power > -300 else math.inf
        return round(scaled if math.isfinite(scaled) else Fraction(number) * self._units_in_one())

    def number(self, units: int) -> float:
        """Whole units of the last decimal as a number.

        >>> NumberScale(4, -324).number(49407)
        5e-324
        """
        if self.power > -300:
            return float(units / 10**self.decimals * 10.0**self.power)
        return float(units / self._units_in_one())

    def _units_in_one(self) -> Fraction:
        return Fraction(10) ** (self.decimals - self.power)

    def text(self, units: int) -> str:
        """Whole units of the last decimal as text."""
        sign = MINUS if units < 0 else ""
        integer, decimals = divmod(abs(units), 10**self.decimals)
        power = signed(f"e{self.power}") if self.power else ""
        return f"{sign}{integer}.{decimals:0{self.decimals}d}{power}" if self.decimals else f"{sign}{integer}{power}"

    def show(self, number: float) -> str:
        """The number as text; nan and infinities by their names."""
        return self.text(self.units(number)) if math.isfinite(number) else signed(str(number))


def signed(text: str) -> str:
    """Text of a number with a true minus sign in front and in its exponent.

    >>> signed("-1e-05")
    '−1e−05'
    """
    return text.replace("-", MINUS)


def compact(value: float, digits: int = 4, *, plus: bool = False) -> str:
    """A number in at most `digits` significant digits, without idle zeros.

    >>> compact(-1.12449), compact(0), compact(2.0, plus=True), compact(0.0000123), compact(1e9)
    ('−1.124', '0', '+2', '1.23e−5', '1e9')

    web/src/lib/format.ts has the same function; tests/support/number_cases.json holds both to the same results.
    """
    if not math.isfinite(value):
        return signed(str(float(value)))
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"
    return ("+" if plus and value > 0 else "") + signed(text)


def short(number: float, digits: int = 5) -> str:
    """A number inside a formula: five significant digits, without idle zeros.

    >>> short(0.5), short(-1234.5678), short(1e-5), short(768.0)
    ('0.5', '−1234.6', '1e−5', '768')
    """
    return compact(number, digits)


def digits_for(number: float, change: float) -> int:
    """Significant digits of a number that show a change of it with three digits: at least five, at most 17.

    >>> digits_for(0.5, 0.01), digits_for(-0.099146, -2.05e-8), digits_for(1.0, 0.0)
    (5, 9, 5)

    web/src/lib/format.ts has the same function; tests/support/number_cases.json holds both to the same results.
    """
    if not (math.isfinite(number) and math.isfinite(change)) or number == 0 or change == 0:
        return 5
    magnitudes = math.floor(math.log10(abs(number))) - math.floor(math.log10(abs(change)))
    return min(max(5, magnitudes + 3), 17)


def aligned(values: Array) -> NDArray[np.str_]:
    """Numbers as text of the same shape, all with the same decimals; seven characters are enough unless all are tiny.

    >>> aligned(np.array([[-1.5447, 0.25], [3, 0]])).tolist()
    [['−1.5447', '0.2500'], ['3.0000', '0.0000']]
    >>> aligned(np.array([-1.0, 8.0])).tolist()
    ['−1', '8']
    """
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    largest = float(np.abs(finite).max(initial=0))
    if largest < 1e5 and (finite == np.rint(finite)).all():
        form = "{:.0f}"
    elif 1e-3 <= largest < 1e5:
        form = "{:." + str(4 - max(0, math.floor(math.log10(largest)))) + "f}"
    else:
        form = "{:.1e}"
    texts = [_without_minus_zero(form.format(v)) for v in array.ravel()]
    return np.array(texts, np.str_).reshape(array.shape)


def grid_lines(values: Array) -> list[str]:
    """A matrix as lines of aligned numbers; a vector is one line.

    >>> grid_lines(np.array([[1, -0.5], [10, 0]]))
    [' 1.000  −0.500', '10.000   0.000']
    """
    texts = aligned(np.atleast_2d(values))
    wide = max(map(len, texts.ravel().tolist()), default=0)
    return ["  ".join(text.rjust(wide) for text in row) for row in texts.tolist()]


def _without_minus_zero(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    mantissa = mantissa.lstrip("-") if not mantissa.strip("-0.") else mantissa
    return signed(mantissa + (e + str(int(exponent)) if e else ""))


def decimal(value: float, digits: int = 4) -> str:
    """A number with a fixed number of decimals, for columns of losses; huge ones by their power of ten.

    >>> decimal(0.6931), decimal(7543923665889678288470126100480.0), decimal(-2, 6)
    ('0.6931', '7.544e30', '−2.000000')
    """
    return signed(f"{value:.{digits}f}") if abs(value) < 1e6 else compact(value)


def fixed(value: float) -> str:
    """A loss with six decimals; one that they would round to a digit or two, by its power of ten.

    >>> fixed(0.693147), fixed(0.00000875), fixed(0.0)
    ('0.693147', '8.7500e−6', '0.000000')
    """
    if not 0 < abs(value) < 1e-4:
        return decimal(value, 6)
    mantissa, _, power = f"{value:.4e}".partition("e")
    return signed(f"{mantissa}e{int(power)}")


def percent(share: float | None) -> str:
    """A share as per cent, never 100 % for less; a dash for None.

    >>> percent(0.9951), percent(1.0), percent(0.99999), percent(None)
    ('99.51 %', '100.00 %', '> 99.99 %', '–')
    """
    if share is None:
        return "–"
    if not math.isfinite(share):
        return signed(str(share))
    text = f"{share * 100:.2f}"
    if text == "100.00" and share < 1:
        return "> 99.99 %"
    if text == "0.00" and share > 0:
        return "< 0.01 %"
    return f"{text} %"


def number_of(text: str) -> float:
    """Parse a number as it is displayed.

    >>> number_of("−0.25")
    -0.25
    """
    return float(text.replace(MINUS, "-"))


def small(number: float) -> str:
    """An error or a bound, written out to two digits.

    >>> small(5.96e-8), small(0.0)
    ('0.000000060', '0')
    """
    if number == 0 or not math.isfinite(number):
        return "0" if number == 0 else signed(str(number))
    exponent = math.floor(math.log10(abs(number)))
    return signed(f"{number:.{max(1 - exponent, 0)}f}" if -12 <= exponent < 6 else f"{number:.1e}")


def right(texts: Sequence[str]) -> list[str]:
    """Texts padded on the left to one width.

    >>> right(["1", "10"])
    [' 1', '10']
    """
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


def table(rows: Sequence[Sequence[str]], alignment: str, gap: str = "  ") -> list[str]:
    """Rows of texts as lines with aligned columns.

    >>> table([("a", "1"), ("bcd", "10")], "<>")
    ['a     1', 'bcd  10']

    Args:
        alignment: One of < and > for each column.
    """
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(alignment))]
    lines = []
    for row in rows:
        cells = [t.ljust(w) if a == "<" else t.rjust(w) for t, w, a in zip(row, widths, alignment, strict=True)]
        lines.append(gap.join(cells).rstrip())
    return lines


def beside(blocks: Sequence[Sequence[str]], gaps: Sequence[str]) -> list[str]:
    """Blocks of lines next to each other, with a sign between them at middle height.

    >>> beside([["a", "b"], ["c", "d"]], [" × "])
    ['a × c', 'b   d']
    """
    height = max(map(len, blocks))
    middle = (height - 1) // 2
    lines = []
    for row in range(height):
        line = ""
        for index, block in enumerate(blocks):
            text = block[row] if row < len(block) else ""
            line += text.ljust(max(map(len, block)))
            if index < len(gaps):
                line += gaps[index] if row == middle else " " * len(gaps[index])
        lines.append(line.rstrip())
    return lines
