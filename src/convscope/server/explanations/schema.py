"""Schema of explanations: one number, its calculation on paper, its expression, its proof, and its contributions."""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # that of Python 3.11 has too little for pydantic

import convscope as cs
from convscope.server.http.message import Id, Message, Number

Kind = Literal["input", "step", "parameter", "constant", "number", "computed"]
"""The source of a number."""
EXACT = ConfigDict(extra="forbid")
"""A key that is not declared is a mistake, not left out."""


@with_config(EXACT)
class RestJson(TypedDict):
    """The terms that were left out of a sum."""

    terms: int
    total: Number
    """The sum of the products of these terms."""


@with_config(EXACT)
class LeafJson(TypedDict):
    """One number."""

    type: Literal["leaf"]
    name: str
    kind: Kind
    output: NotRequired[int]
    cell: list[int]
    value: Number


@with_config(EXACT)
class CellsJson(TypedDict):
    """Many numbers of one tensor."""

    type: Literal["cells"]
    name: str
    kind: Kind
    output: NotRequired[int]
    grid: list[int]
    """Their shape in row-major order: (channels, rows, columns) for a window."""
    cells: list[list[int]]
    values: list[Number]
    padding: list[int]
    """Which of them are padding, counted from 0."""


@with_config(EXACT)
class DotJson(TypedDict):
    """A sum of products: Σ left · right × scale ÷ divisor + bias."""

    type: Literal["dot"]
    left: CellsJson
    right: CellsJson | None
    """None where the numbers of `left` are just added."""
    bias: "ExprJson | None"
    scale: float
    divisor: float
    note: str
    value: Number
    rest: NotRequired[RestJson]


@with_config(EXACT)
class ApplyJson(TypedDict):
    """A function of expressions or of cells."""

    type: Literal["apply"]
    function: str
    formula: str
    arguments: "dict[str, ArgumentJson]"
    note: str
    value: Number
    rest: NotRequired[RestJson]


ExprJson = Annotated[LeafJson | DotJson | ApplyJson, Field(discriminator="type")]
ArgumentJson = Annotated[LeafJson | CellsJson | DotJson | ApplyJson, Field(discriminator="type")]


@with_config(EXACT)
class StepJson(TypedDict):
    """The step whose number is explained."""

    id: int
    name: str
    module: str
    op: str


@with_config(EXACT)
class ExplanationJson(TypedDict):
    """As `Explanation.to_json()` gives it, its long sums cut to the largest terms; docs/explanation.md has the keys."""

    format: str
    step: StepJson
    shape: list[int]
    dtype: str
    output: int
    cell: list[int]
    name: str
    value: Number
    recorded: Number
    difference: Number
    bound: Number
    status: NotRequired[cs.Status]
    proved: NotRequired[bool]
    notes: list[str]
    expr: ExprJson | None


class Address(Message):
    """Which number an answer is about. A page shows a value and its badge only under this address."""

    trace: Id
    """The pass: a digest of the model's weights, the image, its changes and the edits."""
    step: int | None
    """None: the softmax over the model's output."""
    cell: list[int]
    """The full index, with the batch axis."""


class Proof(Message):
    """The proof status of one number; see docs/explanation.md for the statuses."""

    of: Address
    status: cs.Status
    word: str
    """The text of the badge."""
    sentence: str
    """The meaning of the badge."""
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
    """A description of the number."""
    result: str
    """The number, rounded as the calculation shows it."""
    lines: list[Line]
    """All but the grids: terms or channel sums (the largest first, then the others), sum, rounding, bias, rule,
    calculated, in full, recorded, difference."""
    products: list[str] = Field(default=[])
    """Each product as it is shown, aligned with `left` of the expression; empty where there is none."""
    sums: list[str] = Field(default=[])
    """The sum of the products as shown, added one after the other; each channel of a window separately."""


class Explained(Message):
    """Why a number is what it is."""

    of: Address
    explanation: ExplanationJson
    sentence: str
    """One sentence for a screen reader."""
    rest: RestJson | None
    """The rest of the outermost sum that was cut."""
    proof: Proof | None
    """None: ask `/proof`, the step is being recomputed."""
    paper: Paper | None = None
    """The calculation in lines; None where there is no rule."""
    formula: str | None = None
    code: str | None = None
    """PyTorch code that gives the number from a trace; None where the operation has no short call."""


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


class PathInfo(Message):
    """What the image adds to a number by way of one channel of each of some convolutions."""

    steps: list[int]
    """The convolutions' ids, from the image on."""
    channels: list[int]
    value: Number
    cell: list[int]
    """The cell of the last channel through which the most goes, as a full index."""


class PathsInfo(Message):
    """The number as paths through the network: with the rest and the constant they add up to the total."""

    of: Address
    minus: int | None
    """The class that was subtracted, where the paths are those of a difference."""
    paths: list[PathInfo]
    """The largest first."""
    others: int
    """How many paths there are besides."""
    rest: Number
    """What these add, and what reaches the number past the convolutions."""
    constant: Number
    total: Number
    bent: list[str]


class NoPaths(Message):
    """Why a number has no paths: no convolution comes before it, say. An answer like any other, not an error."""

    of: Address
    message: str
