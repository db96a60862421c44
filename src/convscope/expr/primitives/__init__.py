"""Primitives: everything an expression can apply to numbers, found in PRIMITIVES by name."""

from collections.abc import Mapping

from convscope.expr.primitives.activations import ACTIVATIONS
from convscope.expr.primitives.arithmetic import ARITHMETIC
from convscope.expr.primitives.backward_activations import BACKWARD_ACTIVATIONS
from convscope.expr.primitives.backward_losses import BACKWARD_LOSSES
from convscope.expr.primitives.backward_normalization import BACKWARD_NORMALIZATION
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
    **BACKWARD_ACTIVATIONS,
    **BACKWARD_LOSSES,
    **BACKWARD_NORMALIZATION,
    **DISTANCES,
    **FAKE,
    **FUNCTIONS,
    **MOMENTS,
    **PAIRED,
    **RANKING,
    **REDUCTIONS,
    **UPDATES,
}
