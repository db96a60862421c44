"""Primitives: everything an expression can apply to numbers, found in PRIMITIVES by name."""

from collections.abc import Mapping

from convscope.expr.primitives.activations import ACTIVATIONS
from convscope.expr.primitives.arithmetic import ARITHMETIC
from convscope.expr.primitives.backward import BACKWARD
from convscope.expr.primitives.losses import DISTANCES, PAIRED
from convscope.expr.primitives.moments import MOMENTS
from convscope.expr.primitives.primitive import Primitive as Primitive
from convscope.expr.primitives.quantization import FAKE
from convscope.expr.primitives.ranking import RANKING
from convscope.expr.primitives.reductions import REDUCTIONS
from convscope.expr.primitives.special_functions import FUNCTIONS
from convscope.expr.primitives.updates import UPDATES

PRIMITIVES: Mapping[str, Primitive] = {
    **ACTIVATIONS,
    **ARITHMETIC,
    **BACKWARD,
    **DISTANCES,
    **FAKE,
    **FUNCTIONS,
    **MOMENTS,
    **PAIRED,
    **RANKING,
    **REDUCTIONS,
    **UPDATES,
}
