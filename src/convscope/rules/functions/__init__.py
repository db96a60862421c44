"""Functions: everything an expression can apply to numbers, found in FUNCTIONS by name."""

from collections.abc import Mapping

from convscope.rules.functions.activations import ACTIVATIONS
from convscope.rules.functions.arithmetic import ARITHMETIC
from convscope.rules.functions.function import Function as Function
from convscope.rules.functions.moments import MOMENTS
from convscope.rules.functions.rows import ROWS

FUNCTIONS: Mapping[str, Function] = {**ACTIVATIONS, **ARITHMETIC, **ROWS, **MOMENTS}
