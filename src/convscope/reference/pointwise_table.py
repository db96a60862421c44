"""POINTWISE: the operations that work cell by cell, rows of the table of all operations."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from convscope.reference import activations as act
from convscope.reference import pointwise as point
from convscope.reference import special_functions as special
from convscope.reference.operation import Operation, first, moved, ulps, wide
from convscope.reference.precision import FUNCTION


def _smooth(function: np.ufunc) -> Operation:
    return Operation(point.unary(lambda x: function(point.floating(x))), wide(ulps(FUNCTION)))


_CLAMP = Operation(point.clamp, point.clamp_error)

POINTWISE: Mapping[str, Operation] = {
    # activations
    "relu": moved(act.relu),
    "relu6": moved(partial(act.hardtanh, low=0, high=6)),
    "leaky_relu": Operation(act.leaky_relu, act.leaky_relu_error),
    "_prelu_kernel": Operation(act.prelu, act.prelu_error),
    "elu": Operation(act.elu, wide(act.elu_error)),
    "celu": Operation(act.celu, wide(act.celu_error)),
    "hardtanh": Operation(act.hardtanh, act.hardtanh_error),
    "hardsigmoid": Operation(act.hardsigmoid, wide(act.hardsigmoid_error)),
    "hardswish": Operation(act.hardswish, wide(act.hardswish_error)),
    "sigmoid": Operation(act.sigmoid, wide(act.sigmoid_error)),
    "log_sigmoid_forward": Operation(act.log_sigmoid, wide(act.log_sigmoid_error)),
    "silu": Operation(act.silu, wide(act.silu_error)),
    "mish": Operation(act.mish, wide(act.mish_error)),
    "softplus": Operation(act.softplus, wide(act.softplus_error)),
    "gelu": Operation(act.gelu, wide(act.gelu_error)),
    "glu": Operation(act.glu, wide(act.glu_error)),
    "hardshrink": Operation(act.hardshrink, act.shrink_error),
    "softshrink": Operation(act.softshrink, act.shrink_error),
    "threshold": Operation(act.threshold, act.threshold_error),
    "native_dropout": Operation(point.dropped, point.dropped_error),
    "dropout": Operation(first(point.dropped), point.dropout_error),
    # functions
    "exp": _smooth(np.exp),
    "exp2": _smooth(np.exp2),
    "expm1": _smooth(np.expm1),
    "log": _smooth(np.log),
    "log2": _smooth(np.log2),
    "log10": _smooth(np.log10),
    "log1p": _smooth(np.log1p),
    "sqrt": Operation(point.unary(np.sqrt), ulps(2)),
    "rsqrt": Operation(point.unary(lambda x: 1 / np.sqrt(x)), ulps(4)),
    "reciprocal": Operation(point.unary(lambda x: 1 / point.floating(x)), ulps(2)),
    "square": Operation(point.unary(np.square), ulps(1)),
    "pow": Operation(point.power, point.power_error),
    "sin": _smooth(np.sin),
    "cos": _smooth(np.cos),
    "tan": _smooth(np.tan),
    "asin": _smooth(np.arcsin),
    "acos": _smooth(np.arccos),
    "atan": _smooth(np.arctan),
    "atan2": Operation(point.binary(np.arctan2), ulps(FUNCTION)),
    "sinh": _smooth(np.sinh),
    "cosh": _smooth(np.cosh),
    "tanh": _smooth(np.tanh),
    "erf": Operation(point.unary(special.erf), point.erf_error),
    "erfc": Operation(point.unary(special.erfc), ulps(FUNCTION)),
    "neg": moved(point.unary(np.negative)),
    "abs": moved(point.unary(np.abs)),
    "sign": moved(point.sign),
    "sgn": moved(point.sign),
    "floor": moved(point.unary(np.floor)),
    "ceil": moved(point.unary(np.ceil)),
    "trunc": moved(point.unary(np.trunc)),
    "frac": moved(point.unary(lambda x: x - np.trunc(x))),
    "round": Operation(point.rounded, point.rounded_error),
    "clamp": _CLAMP,
    "clamp_min": _CLAMP,
    "clamp_max": _CLAMP,
    # functions of one or two numbers beyond the usual ones
    "acosh": _smooth(np.arccosh),
    "asinh": _smooth(np.arcsinh),
    "atanh": _smooth(np.arctanh),
    "deg2rad": Operation(point.unary(lambda x: np.deg2rad(point.floating(x))), ulps(3)),
    "rad2deg": Operation(point.unary(lambda x: np.rad2deg(point.floating(x))), ulps(3)),
    "sinc": Operation(special.sinc, special.sinc_error),
    "logit": Operation(special.logit, special.logit_error),
    "nan_to_num": moved(special.without_nan),
    "angle": Operation(special.angle, ulps(1)),
    "signbit": moved(point.unary(lambda x: np.asarray(x) < 0 if x.dtype.kind in "iub" else np.signbit(x))),
    "isposinf": moved(point.unary(np.isposinf)),
    "isneginf": moved(point.unary(np.isneginf)),
    "frexp": moved(special.parts_of_number),
    "copysign": Operation(special.copysign, special.copysign_error),
    "hypot": Operation(point.binary(np.hypot), ulps(FUNCTION)),
    "fmax": Operation(point.binary(np.fmax), point.either_error),
    "fmin": Operation(point.binary(np.fmin), point.either_error),
    "logaddexp": Operation(special.log_add, wide(special.log_add_error)),
    "logaddexp2": Operation(special.log_add_2, wide(special.log_add_2_error)),
    "xlogy": Operation(special.times_log, special.times_log_error),
    "special_xlog1py": Operation(special.times_log_of_sum, special.times_log_of_sum_error),
    "ldexp": Operation(special.scaled_by_power, special.scaled_by_power_error),
    "heaviside": Operation(special.step_function, special.step_error),
    # arithmetic
    "add": Operation(point.add, point.add_error),
    "sub": Operation(point.subtract, point.add_error),
    "rsub": Operation(point.subtract_from, point.subtract_from_error),
    "mul": Operation(point.multiply, point.multiply_error),
    "div": Operation(point.divide, point.divide_error),
    "floor_divide": Operation(point.floor_divide, point.floor_divide_error),
    "remainder": Operation(point.remainder, point.remainder_error),
    "fmod": Operation(point.fmod, point.remainder_error),
    "addcmul": Operation(point.add_product, point.add_product_error),
    "addcdiv": Operation(point.add_quotient, point.add_quotient_error),
    "lerp": Operation(point.interpolate, point.interpolate_error),
}
