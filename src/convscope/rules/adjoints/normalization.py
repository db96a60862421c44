"""Adjoints of normalization: linear by recorded statistics; by its own only the tangent."""

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, first_result, only, tangent, wide
from convscope.rules.call import Array, Call, Operand


def batch_norm(call: Call, weights: Array, varies: Varies) -> Pulled:
    """In evaluation a scale for each channel; the constant is bias - mean * scale."""
    first_result(call)
    only(call, varies, "input")
    image = wide(call["input"])
    line = [1, -1] + [1] * (image.ndim - 2)
    scale, bias = (_line(call[name], line, empty) for name, empty in (("weight", 1.0), ("bias", 0.0)))
    training = bool(call.get("training", call.op.endswith("batch_norm_legit")))
    if training or call.get("running_mean") is None:
        axes = tuple(a for a in range(image.ndim) if a != 1)
        return _own_statistics(call, weights, axes, scale, bias)
    factor = scale / np.sqrt(wide(call["running_var"]).reshape(line) + call["eps"])
    shift = bias - wide(call["running_mean"]).reshape(line) * factor
    return Pulled({"input": weights * factor}, float(np.sum(weights * shift)))


def layer_norm(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Over the last axes."""
    first_result(call)
    only(call, varies, "input")
    image = wide(call["input"])
    axes = tuple(range(image.ndim - len(call["normalized_shape"]), image.ndim))
    scale = 1.0 if call["weight"] is None else wide(call["weight"])
    bias = 0.0 if call["bias"] is None else wide(call["bias"])
    return _own_statistics(call, weights, axes, np.asarray(scale), np.asarray(bias))


def group_norm(call: Call, weights: Array, varies: Varies) -> Pulled:
    """Over groups of channels."""
    first_result(call)
    only(call, varies, "input")
    image = wide(call["input"])
    grouped = (image.shape[0], call["group"], -1)
    line = [1, -1] + [1] * (image.ndim - 2)
    scale, bias = (_line(call[name], line, empty) for name, empty in (("weight", 1.0), ("bias", 0.0)))
    pulled = (weights * scale).reshape(grouped)
    far, root = _centred(image.reshape(grouped), (2,), call["eps"])
    gradient = _through(pulled, far, root, (2,)).reshape(image.shape)
    found = (far / root).reshape(image.shape) * scale + bias
    return tangent({"input": gradient}, call, float(np.sum(weights * found)))


def _own_statistics(call: Call, weights: Array, axes: tuple[int, ...], scale: Array, bias: Array) -> Pulled:
    image = wide(call["input"])
    far, root = _centred(image, axes, call["eps"])
    gradient = _through(weights * scale, far, root, axes)
    return tangent({"input": gradient}, call, float(np.sum(weights * (far / root * scale + bias))))


def _centred(image: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    far = image - image.mean(axis=axes, keepdims=True)
    return far, np.sqrt((far**2).mean(axis=axes, keepdims=True) + eps)


def _through(pulled: Array, far: Array, root: Array, axes: tuple[int, ...]) -> Array:
    """The weights through x -> (x - mean) / root, whose mean and root depend on x."""
    straight = pulled - pulled.mean(axis=axes, keepdims=True)
    bent = far / root**2 * (pulled * far).mean(axis=axes, keepdims=True)
    return np.asarray((straight - bent) / root)


def _line(operand: Operand | None, line: list[int], empty: float) -> Array:
    return np.asarray(empty) if operand is None else wide(operand).reshape(line)
