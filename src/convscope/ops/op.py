"""The record of one operation, and the types of the functions in it. Knows calls and expressions; no operation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from convscope.expr.call import Array, Call, Cell
from convscope.expr.expr import Expr
from convscope.expr.precision import Rounding
from convscope.ops.titles import Title, plain_title
from convscope.ops.vjp import VJP, Varies

Rule = Callable[[Call, Cell], Expr]
"""One cell of the result as an expression of the numbers that it was made from."""
VJPRule = Callable[[Call, Array, Varies], VJP]
"""A weighted sum of the result as a weighted sum of the operands that vary, plus a constant."""
Dependencies = Callable[[Call, Array, Varies], Mapping[str, Array]]
"""A mask on the result as masks on the operands that vary: the cells that the masked ones were made from."""
Role = Literal["arithmetic", "activation", "index", "view", "copy", "create", "random"]
"""What an operation does with numbers:

- arithmetic: calculates new ones; activation: does so cell by cell, as networks do between their layers;
- index: moves numbers to where indices point; view, copy: the same numbers in another shape, or in other memory;
- create: a result that depends on no number of its operands; random: drawn, so there is nothing to calculate.
"""


@dataclass(frozen=True, slots=True)
class Op:
    """Everything convscope knows about one ATen operation, except its definition.

    To teach convscope an operation of your own, pass one more record: `explain(trace, step, cell, ops=OPS |
    {"mylib::swirl": Op(my_rule, my_dependencies)})`. docs/how-to/own-operation.md has the whole recipe.
    """

    rule: Rule
    """How one cell of the result is explained."""
    dependencies: Dependencies
    """Which cells of the operands it reads; `everything` where no smaller set is known."""
    vjp: VJPRule | None = None
    """How it is followed back to the image; None where the result is an index, a truth value or a constant."""
    title: Title = plain_title
    """The operation and its settings in words: `convolution 3x3, padding 1`."""
    role: Role = "arithmetic"
    rounding: Rounding = "wide"
    """Where its CPU kernel rounds bfloat16 and half."""
    selected_by: tuple[str, ...] = ()
    """Arguments whose numbers select which cells are read."""
