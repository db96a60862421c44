"""Values of a lesson's code: evaluated, filled into text, and shown. This executes the lesson's code."""

import ast
import base64
import io
import numbers
import re
from dataclasses import dataclass
from typing import Any

from convscope.errors import LessonError
from convscope.escaping import brief
from convscope.notebook import picture_of, text_of
from convscope.proof.explanation import Explanation
from convscope.render.numbers import short, signed

HOLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
FORMAT = re.compile(r"[-+ ]?#?0?\d{0,3}[,_]?(\.\d{1,3})?[bcdeEfFgGnosxX%]?")

Namespace = dict[str, Any]


def evaluate(expression: str, namespace: Namespace, location: str) -> object:
    """The value of an expression.

    >>> evaluate("a + 1", {"a": 2}, "lesson, line 3")
    3

    Raises:
        LessonError: it fails; a name that does not exist yet is named.
    """
    try:
        return eval(expression.strip(), namespace)  # a lesson is code that the user chose to run
    except NameError as error:
        name = error.name or str(error)
        raise LessonError(
            f"{location} needs {name!r}, which an earlier cell of the lesson makes: run the cells above first."
        ) from error
    except Exception as error:
        raise LessonError(f"{location}: {expression.strip()[:120]!r} fails: {described(error)}.") from error


def described(error: BaseException) -> str:
    """An error of the lesson's code in one line."""
    return brief(f"{type(error).__name__}: {error}".rstrip(": ."))


def fill(text: str, namespace: Namespace, location: str) -> str:
    """Markdown in which each `{{expression}}` or `{{expression:format}}` is replaced by its value.

    >>> fill("{{2 * a}} of {{a:.2f}} and {{-a}}", {"a": 1.5}, "lesson, line 3")
    '3 of 1.50 and −1.5'

    Raises:
        LessonError: an expression fails, or is not one.
    """
    return HOLE.sub(lambda hole: _filled(hole[1], namespace, location), text)


def blanked(text: str) -> str:
    """Markdown whose values are not calculated.

    >>> blanked("a is {{a}}")
    'a is …'
    """
    return HOLE.sub("…", text)


def holes(text: str) -> list[str]:
    """The expressions in a text.

    >>> holes("{{a[1:2]}} and {{b:.2f}}")
    ['a[1:2]', 'b']
    """
    return [_split(hole)[0] for hole in HOLE.findall(text)]


def _filled(hole: str, namespace: Namespace, location: str) -> str:
    expression, form = _split(hole)
    value = evaluate(expression, namespace, location)
    if not form:
        return in_words(value)
    try:
        return signed_number(format(_plain(value), form))
    except (TypeError, ValueError) as error:
        raise LessonError(f"{location}: {{{{{hole}}}}} cannot be formatted: {error}.") from None


def _split(hole: str) -> tuple[str, str]:
    """An expression and its format; a colon that belongs to the expression, as in a slice, does not start a format."""
    left, colon, right = hole.rpartition(":")
    if colon and not _is_expression(hole) and FORMAT.fullmatch(right.strip()):
        return left.strip(), right.strip()
    return hole.strip(), ""


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def in_words(value: object) -> str:
    """A value inside a sentence: numbers with five significant digits at most, and a true minus sign.

    >>> in_words(0.307431), in_words(15742), in_words((5, 24, 24)), in_words(True), in_words("left")
    ('0.30743', '15,742', '(5, 24, 24)', 'yes', 'left')
    """
    value = _plain(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return signed(f"{int(value):,}")
    if isinstance(value, numbers.Real):
        return short(float(value))
    if isinstance(value, tuple):
        return f"({', '.join(map(in_words, value))})"
    if isinstance(value, list):
        return f"[{', '.join(map(in_words, value))}]"
    return str(value)


def signed_number(text: str) -> str:
    """A formatted number with a true minus sign; other text is returned unchanged."""
    return signed(text) if re.fullmatch(r"\s*-?[\d.,_]+(e[-+]?\d+)?%?\s*", text) else text


def _plain(value: Any) -> Any:
    """Arrays and tensors as Python numbers and lists; an array of one number as that number."""
    if hasattr(value, "detach"):
        value = value.detach()
    if not callable(getattr(value, "tolist", None)):
        return value
    values = value.tolist()
    while isinstance(values, list) and len(values) == 1:
        values = values[0]
    return values


# Outputs: text, Markdown or a picture


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What a block shows; any part may be missing.

    >>> Output(text="1 + 1 = 2").markdown()
    '```text\\n1 + 1 = 2\\n```'
    """

    printed: str = ""
    """What it printed."""
    text: str = ""
    """The last value as text of fixed width."""
    prose: str = ""
    """The last value as Markdown."""
    figure: Any = None
    """The last value as a matplotlib figure."""

    def markdown(self, picture: str = "") -> str:
        """As Markdown; `picture` is the address of the picture, by default the picture itself."""
        parts = [fenced(self.printed)] if self.printed.strip() else []
        parts += [self.prose] if self.prose else []
        if self.figure is not None:
            parts.append(f"![output]({picture or self.data_address()})")
        elif self.text:
            parts.append(fenced(self.text))
        return "\n\n".join(parts)

    def plain(self) -> str:
        """As text: a picture is replaced by the text of its object, if it has any."""
        return "\n".join(part for part in (self.printed.rstrip("\n"), self.prose, self.text) if part)

    def svg(self) -> bytes:
        """The picture as SVG, the same bytes each time."""
        file = io.BytesIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()

    def data_address(self) -> str:
        """The picture as an address that contains it."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg()).decode()}"


def output_of(value: object, printed: str = "") -> Output:
    """The output of a value: what a notebook shows for it.

    >>> output_of(None, "hello").plain()
    'hello'
    """
    if value is None:
        return Output(printed)
    if hasattr(value, "savefig"):
        return Output(printed, figure=value)
    figure = picture_of(value)
    return Output(printed, text=text_of(value) if figure is None else str(value), figure=figure)


def explanation_of(value: object) -> Output:
    """The output of an expression under `because`: text is Markdown, a figure a picture, anything else fixed width."""
    if isinstance(value, str):
        return Output(prose=value)
    if hasattr(value, "savefig"):
        return Output(figure=value)
    return Output(text=value.to_text(short=True) if isinstance(value, Explanation) else text_of(value))


def fenced(text: str, kind: str = "text") -> str:
    """Text as a code block whose fence is longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{kind}\n{text.strip(chr(10))}\n{fence}"
