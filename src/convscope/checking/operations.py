"""The operations that can be checked, and how a function's name selects one."""

import re
from collections.abc import Mapping

from convscope.checking.activations import RELU, RELU_BACKWARD, SOFTMAX
from convscope.checking.batch_norm import BATCH_NORM
from convscope.checking.convolution import CONV2D
from convscope.checking.convolution_backward import CONV2D_BACKWARD
from convscope.checking.cross_entropy import CROSS_ENTROPY
from convscope.checking.im2col import IM2COL
from convscope.checking.linear import LINEAR
from convscope.checking.operation import CheckedOperation
from convscope.checking.pooling import AVG_POOL2D, MAX_POOL2D
from convscope.checking.pooling_backward import AVG_POOL2D_BACKWARD, MAX_POOL2D_BACKWARD
from convscope.checking.squared_error import MSE
from convscope.errors import UnknownName, UsageError

OPERATIONS: Mapping[str, CheckedOperation] = {
    operation.name: operation
    for operation in (
        CONV2D, CONV2D_BACKWARD, MAX_POOL2D, MAX_POOL2D_BACKWARD, AVG_POOL2D, AVG_POOL2D_BACKWARD, RELU, RELU_BACKWARD,
        LINEAR, SOFTMAX, CROSS_ENTROPY, BATCH_NORM, IM2COL, MSE,
    )
}  # fmt: skip

PATTERNS: tuple[tuple[str, str], ...] = (
    (r"softmax_loss|cross_?entropy|xent|nll|compute_cost", "cross_entropy"),
    (r"mse|mean_?squared|squared_?error", "mse"),
    (r"batch_?norm|bn_|_bn", "batch_norm"),
    (r"(avg|average|mean)_?pool", "avg_pool2d"),
    (r"pool", "max_pool2d"),
    (r"conv|corr|filter2d", "conv2d"),
    (r"relu", "relu"),
    (r"softmax", "softmax"),
    (r"linear|affine|dense|fully|fc", "linear"),
    (r"im2col|unfold", "im2col"),  # last: conv_forward_im2col is a convolution
)
"""Part of a function's name -> its operation; the first that occurs counts."""


def operation_of(as_: str | None, function: str) -> CheckedOperation:
    """The operation with this name, or the one that the function's name suggests.

    >>> operation_of(None, "conv_backward_naive").name
    'conv2d_backward'

    Raises:
        UsageError: no such operation, or a function's name that suggests none.
    """
    if as_ is not None:
        if as_ not in OPERATIONS:
            raise UnknownName("operation to check", str(as_), OPERATIONS)
        return OPERATIONS[as_]
    word = function.lower()
    name = next((name for pattern, name in PATTERNS if re.search(pattern, word)), None)
    if name is not None and re.search(r"back|grad|bwd", word):
        name += "_backward"
    if name is None or name not in OPERATIONS:
        raise UsageError(
            f"the name {function!r} does not say which operation this is; choose one with --as NAME "
            f"(in Python as_=NAME): {', '.join(OPERATIONS)}."
        )
    return OPERATIONS[name]
