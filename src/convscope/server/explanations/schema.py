"""Explained: one number, its calculation on paper, its proof, and what each pixel adds to it."""

from typing import Literal

from pydantic import Field

import convscope as cs
from convscope.server.explanations.expression import ExplanationJson, RestJson
from convscope.server.http.message import Id, Message, Number


class Address(Message):
    """Which number an answer is about. A page shows a value and its badge only under this address."""

    trace: Id
    """The pass: a digest of the model's weights, the image, its changes and the edits."""
    step: int | None
    """None: the softmax over the model's output."""
    cell: list[int]
    """The full index, with the batch axis."""


class Proof(Message):
    """What is known about one number; see docs/explanation.md for the statuses."""

    of: Address
    status: cs.Status
    word: str
    """What the badge says."""
    sentence: str
    """What that means."""
    tone: cs.Tone
    """The badge's colour."""
    proved: bool


class Line(Message):
    """One line of a calculation on paper: what is added, its number as it is shown, and a remark."""

    kind: Literal["row", "rule", "blank", "text"] = "row"
    label: str = ""
    number: str = ""
    after: str = ""
    channel: int | None = None
    """Whose sum it is, where the line is the sum of one input channel of a window."""
    term: int | None = None
    """Which term of `left`, or which of the cells of a function, the line shows; counted from 0."""


class Paper(Message):
    """The calculation as `Explanation.to_text()` writes it, for a page: windows and kernels are drawn from the JSON."""

    headline: str
    """What the number is, in words."""
    result: str
    """The number, rounded as the calculation shows it."""
    lines: list[Line]
    """All but the grids: terms or channel sums (the largest first, then the others), sum, rounding, bias, rule,
    calculated, in full, recorded, difference."""
    products: list[str] = Field(default=[])
    """Each product as it is shown, aligned with `left` of the expression; empty where there is none."""
    sums: list[str] = Field(default=[])
    """What the products as they are shown add up to, one after the other; each channel of a window by itself."""


class Explained(Message):
    """Why a number is what it is."""

    of: Address
    explanation: ExplanationJson
    sentence: str
    """One sentence for a screen reader."""
    rest: RestJson | None
    """Of the outermost sum that was cut."""
    proof: Proof | None
    """None: ask `/proof`, the step is being recomputed."""
    paper: Paper | None = None
    """The calculation in lines; None where there is no rule."""


class ContributionsInfo(Message):
    """The same number as contributions of the input's pixels plus a constant; the pixels are raw, beside it."""

    of: Address
    value: Number
    constant: Number
    total: Number
    residual: Number
    bound: Number
    linear: bool
    bent: list[str]
    broken: list[str]
    checks: bool
    shape: list[int]
