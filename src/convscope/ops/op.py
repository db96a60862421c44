"""The record of one operation, and the types of the functions in it. Uses calls and expressions; no operation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from convscope.errors import UsageError
from convscope.expr.call import Call, Cell
from convscope.expr.expr import Expr
from convscope.expr.precision import Rounding
from convscope.ops.titles import Title, plain_title
from convscope.ops.vjp import VJP, Varies
from convscope.type_checks import kind_of
from convscope.typing import Array

Rule = Callable[[Call, Cell], Expr]
"""One cell of the result as an expression of the numbers that it was made from."""
Alike = Callable[[Call, Cell], Array | None]
"""For n cells, whose indices are arrays of shape (n,): numbers (n, k), equal rows for cells whose expressions have the
same form; None where each cell has to be explained by itself."""
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


def together(_call: Call, cell: Cell) -> Array | None:
    """`Alike` of rules whose expressions all have the same form."""
    return np.zeros((np.size(cell[0]), 0))


def fractions_together(call: Call, cell: Cell) -> Array | None:
    """`together`, but results that are integers are counted one cell at a time."""
    return None if call.kind else together(call, cell)


@dataclass(frozen=True, slots=True)
class Vectorized:
    """A rule that explains many cells at once as it explains one: an index of its cell may be an array of n indices.

    Then the expression stands for n cells, its numbers have a leading axis, and the sentences beside them are left out.

    >>> from convscope.expr.cells import leaf
    >>> from convscope.expr.call import Operand
    >>> rule = Vectorized(lambda call, cell: leaf(call["self"], cell))
    >>> call = Call("clone", {"self": Operand.of(np.eye(2), "x")}, (2, 2))
    >>> rule(call, (0, 0)).value(), rule(call, (np.array([0, 1]), np.array([0, 0]))).number.tolist()
    (1.0, [1.0, 0.0])
    """

    rule: Rule
    alike: Alike = fractions_together
    """Which cells are explained together."""

    def __call__(self, call: Call, cell: Cell) -> Expr:
        """The expression of a cell, or of n cells."""
        return self.rule(call, cell)


@dataclass(frozen=True, slots=True)
class Op:
    """Everything convscope knows about one ATen operation, except its definition.

    To teach convscope an operation of your own, pass one more record: `explain(trace, step, cell, ops=OPS |
    {"mylib::swirl": Op(my_rule, my_dependencies)})`. docs/how-to/own-operation.md has the whole recipe.
    """

    rule: Rule
    """How one cell of the result is explained; many at once where it is `Vectorized`."""
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

    def __post_init__(self) -> None:
        """Refuse words that mean nothing here.

        Raises:
            UsageError: another role, another rounding, or arguments that are not named.
        """
        for name, word, words in (("role", self.role, get_args(Role)), ("rounding", self.rounding, get_args(Rounding))):
            if not isinstance(word, str) or word not in words:
                shown = repr(word) if isinstance(word, str) else kind_of(word)
                raise UsageError(f"the {name} of an Op is {shown}; it is one of {', '.join(words)}.")
        if not isinstance(self.selected_by, tuple) or not all(isinstance(name, str) for name in self.selected_by):
            raise UsageError(
                f"selected_by of an Op is {kind_of(self.selected_by)}; it is a tuple of names of arguments."
            )
