"""Expressions as JSON: the dictionaries of `Explanation.to_json()`, typed; the page's types are generated from them.

Knows no expressions and cuts nothing. A key that may be left out is `NotRequired`, as in the JSON that users save.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # that of Python 3.11 has too little for pydantic

import convscope as cs
from convscope.server.http.message import Number

Kind = Literal["input", "step", "parameter", "constant", "number", "computed"]
"""What a number comes from."""
EXACT = ConfigDict(extra="forbid")
"""A key that is not declared is a mistake, not left out."""


@with_config(EXACT)
class RestJson(TypedDict):
    """What was left out of a sum."""

    terms: int
    total: Number
    """What the products of these terms add up to."""


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
    """How they are laid out, the last axis fastest: (channels, rows, columns) for a window."""
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
