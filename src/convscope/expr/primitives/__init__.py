"""Primitives: everything an expression can apply to numbers, found in PRIMITIVES by name."""

from collections.abc import Mapping

from convscope.expr.primitives.activations import ACTIVATIONS
from convscope.expr.primitives.arithmetic import ARITHMETIC
from convscope.expr.primitives.primitive import Primitive as Primitive
from convscope.expr.primitives.reductions import MOMENTS, REDUCTIONS

PRIMITIVES: Mapping[str, Primitive] = {**ACTIVATIONS, **ARITHMETIC, **MOMENTS, **REDUCTIONS}
