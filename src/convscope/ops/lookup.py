"""Questions to the table of operations: how a cell is explained, what an operation is called, which cells it reads."""

from collections.abc import Mapping

from convscope.errors import PluginError, UnknownName
from convscope.expr.call import Call, Cell, full_cell
from convscope.expr.expr import Expr
from convscope.ops import activations, convolution, movement, normalization, pointwise, pooling, resampling
from convscope.ops.dependencies import MovedCells, everything
from convscope.ops.op import Op, Role
from convscope.ops.table import OPS, OTHER_ROLES, OTHER_TITLES
from convscope.ops.titles import TitledStep, plain_title
from convscope.type_checks import kind_of
from convscope.typing import Array

WINDOWED = frozenset(
    {
        convolution.convolution_dependencies,
        pooling.pool_dependencies,
        resampling.resampling_dependencies,
        pointwise.pointwise_dependencies,
        activations.glu_dependencies,
        movement.moved_dependencies,
    }
)
"""Dependencies that never reach along a whole axis."""


def explain_cell(call: Call, cell: Cell, ops: Mapping[str, Op] = OPS) -> Expr:
    """The expression of one cell of an operation's result.

    >>> from convscope.expr.call import Operand
    >>> import numpy as np
    >>> x = Operand.of(np.array([[-1.0, 2.0]]), "fc")
    >>> explain_cell(Call("relu", {"self": x}, (1, 2)), (1,)).value()
    2.0

    Args:
        cell: An index of the result; the image index and axes of size 1 may be left out.
        ops: Another table, such as `OPS | {"my_op": Op(my_rule, my_dependencies)}`.

    Raises:
        UnknownName: the table has no record of this operation.
        UsageError: the result has no such cell.
    """
    if call.op not in ops:
        raise UnknownName("operation with a rule", call.op, ops)
    return ops[call.op].rule(call, full_cell(cell, call.shape))


def title_of(step: TitledStep) -> str:
    """An operation in words: `convolution 3x3, padding 1`."""
    op = OPS.get(step.op)
    return str((OTHER_TITLES.get(step.op, plain_title) if op is None else op.title)(step))


def role_of(name: str) -> Role:
    """What an operation does with numbers; arithmetic where nothing else is known."""
    op = OPS.get(name)
    return OTHER_ROLES.get(name, "arithmetic") if op is None else op.role


def is_known(call: Call) -> bool:
    """Whether the cells that this call reads are known; those of a view of the bits as another type are not."""
    return call.op in OPS and OPS[call.op].dependencies is not everything and not _reinterprets_bits(call)


def _reinterprets_bits(call: Call) -> bool:
    return call.op == "view" and "dtype" in call.arguments


def spreads(call: Call) -> bool:
    """Whether a cell of this call's result may depend on whole axes of its operands."""
    if not is_known(call):
        return True
    dependencies = OPS[call.op].dependencies
    if dependencies is normalization.batch_norm_dependencies:
        return normalization.own_statistics(call)
    return dependencies not in WINDOWED and not isinstance(dependencies, MovedCells)


def selects(call: Call, varies: frozenset[str]) -> bool:
    """Whether the image decides which cells this call reads."""
    selected_by = OPS[call.op].selected_by if call.op in OPS else ()
    return any(name.partition(".")[0] in selected_by for name in varies)


def dependencies_of(call: Call, mask: Array, varies: frozenset[str]) -> Mapping[str, Array]:
    """A mask on a call's result as masks on those of its operands that vary.

    >>> import numpy as np
    >>> from convscope.expr.call import Operand
    >>> x = Operand.of(np.zeros((1, 1, 5)), "x")
    >>> call = Call("mean", {"self": x, "dim": [-1], "keepdim": False}, (1, 1))
    >>> dependencies_of(call, np.ones((1, 1)), frozenset({"self"}))["self"].tolist()
    [[[1.0, 1.0, 1.0, 1.0, 1.0]]]

    Args:
        mask: Not 0 at the cells in question, in the shape of the result.
        varies: The operands to follow, as `Call.operands` names them.
    """
    if not is_known(call):
        return everything(call, mask, varies)
    op = OPS[call.op]
    # An index that depends on the image can point anywhere. Sorting is selected by its own numbers, and its
    # dependencies are the whole axis already.
    if "self" not in op.selected_by and selects(call, varies):
        return everything(call, mask, varies)
    cells = op.dependencies(call, mask, varies)
    if not isinstance(cells, Mapping):
        raise PluginError(
            f"the dependencies of {call.op!r} are {kind_of(cells)}, not a mapping from operands to masks."
        )
    return cells
