"""Outputs of a lesson's code: text, Markdown or a picture."""

import base64
import io
from dataclasses import dataclass
from typing import Any

from convscope.notebook import picture_of, text_of
from convscope.proof.explanation import Explanation


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


def output_of(value: Any, printed: str = "") -> Output:
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


def explanation_of(value: Any) -> Output:
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
