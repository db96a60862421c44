"""Plugin results: whether what a function of an installed package returns is what its field of an `Op` asks for.

Each check takes the result and the arguments of the call, and gives what is wrong, or "". Uses expressions and VJPs.
"""

from collections.abc import Mapping

import numpy as np

from convscope.expr.call import Call, Cell
from convscope.expr.expr import Expr
from convscope.expr.precision import EXACT
from convscope.ops.vjp import VJP
from convscope.plugins import Checks
from convscope.type_checks import kind_of


def _rule(result: object, _call: Call, cell: Cell, *_: object) -> str:
    """An expression that can be calculated, or None where a cell has none."""
    if result is None:
        return ""
    if not isinstance(result, Expr):
        return f"{kind_of(result)}, not an expression"
    try:
        with np.errstate(all="ignore"):
            value = result.result(EXACT).value
    except Exception as error:  # whatever is wrong with its parts
        return f"an expression that cannot be calculated ({type(error).__name__})"
    one = not any(map(np.ndim, cell))
    return "an expression of several numbers for one cell" if one and np.ndim(value) else ""


def _vjp(result: object, call: Call, *_: object) -> str:
    """Weights for operands, in their shapes, and a constant."""
    if not isinstance(result, VJP):
        return f"{kind_of(result)}, not a VJP"
    constant: object = result.constant
    if not isinstance(constant, int | float | np.floating | np.integer):
        return f"a VJP whose constant is {kind_of(constant)}, not a number"
    return _of_operands("a VJP with gradients", result.gradients, call)


def _dependencies(result: object, call: Call, *_: object) -> str:
    """Masks for operands, in their shapes."""
    return _of_operands("masks", result, call)


def _of_operands(what: str, arrays: object, call: Call) -> str:
    """Arrays of numbers by operand."""
    if not isinstance(arrays, Mapping):
        return f"{what} as {kind_of(arrays)}, not as a mapping from operands to arrays"
    operands = call.operands()
    for name, array in arrays.items():
        if name not in operands:
            shown = name if isinstance(name, str) else kind_of(name)
            return f"{what} for {shown}, which is not one of {', '.join(operands)}"
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            return f"{what} of which that of {name} is {_kind(array)}, not an array of real numbers"
        if array.shape != operands[name].shape:
            return f"{what} of which that of {name} has the shape {array.shape}, not {operands[name].shape}"
    return ""


def _kind(value: object) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else kind_of(value)


def _title(result: object, *_: object) -> str:
    return "" if isinstance(result, str) else f"{kind_of(result)}, not a text"


CHECKS: Checks = {"rule": _rule, "vjp": _vjp, "dependencies": _dependencies, "title": _title}
"""For the functions of an `Op`."""
