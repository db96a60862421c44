"""Adjoints of products of matrices: linear in each factor, and in both together only by their tangent."""

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, fitted, wide
from convscope.rules.call import Array, Call


def mm(call: Call, weights: Array, varies: Varies) -> Pulled:
    """mm, bmm, mv, dot."""
    second = {"mv": "vec", "dot": "tensor"}.get(call.op, "mat2")
    return _product(call, "self", second, weights, varies)


def addmm(call: Call, weights: Array, varies: Varies) -> Pulled:
    """addmm, addmv, baddbmm: what is added is a constant, or passes its own weights on."""
    names = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2")}
    beta = float(call["beta"])
    found = _product(call, *names[call.op], weights * float(call["alpha"]), varies - {"self"})
    if "self" in varies:
        return Pulled(
            {**found.gradients, "self": fitted(weights, call["self"].shape) * beta}, found.constant, found.linear
        )
    added = float(np.sum(weights * beta * wide(call["self"]))) if beta else 0.0
    return Pulled(found.gradients, found.constant + added, found.linear)


def _product(call: Call, first: str, second: str, weights: Array, varies: Varies) -> Pulled:
    left, right = wide(call[first]), wide(call[second])
    one = left[None] if left.ndim == 1 else left
    two = right[:, None] if right.ndim == 1 else right
    full = weights[..., None, :] if left.ndim == 1 and right.ndim > 1 else weights
    full = full[..., None] if right.ndim == 1 else full
    full = full.reshape(1, 1) if left.ndim == right.ndim == 1 else full
    gradients = {}
    if first in varies:
        gradients[first] = fitted(full @ np.swapaxes(two, -1, -2), one.shape).reshape(left.shape)
    if second in varies:
        gradients[second] = fitted(np.swapaxes(one, -1, -2) @ full, two.shape).reshape(right.shape)
    if len(gradients) == 1:
        return Pulled(gradients)
    product = float(np.sum(full * (one @ two)))
    return Pulled(gradients, -product, linear=False) if gradients else Pulled({}, product)
