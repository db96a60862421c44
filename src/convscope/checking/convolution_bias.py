"""Common mistakes with the bias of a convolution.

Where it is added, how often, and which of them. A convolution is linear in its image and in its kernel, so a bias that
is added to one of them adds to the result the bias times a convolution of ones.
"""

from collections.abc import Callable, Sequence

import numpy as np

from convscope.checking.mistakes import (
    ALL_BIASES,
    BIAS_FACTOR,
    bias_times,
    changed,
    first_image_alone,
)
from convscope.checking.operation import Mistake, Results, Values
from convscope.reference import conv2d


def _inside(values: Values) -> Values:
    """Ones for the image, zeros for its padding."""
    return values | {"x": np.ones_like(values["x"])}


def _with_padding(values: Values) -> Values:
    """Ones for the image and for its padding."""
    p = values["padding"]
    n, c, h, w = values["x"].shape
    return values | {"x": np.ones((n, c, h + 2 * p, w + 2 * p)), "padding": 0}


def _kernel(values: Values) -> Values:
    """Ones for the kernel."""
    return values | {"weight": np.ones_like(values["weight"])}


def _added_to(ones: Callable[[Values], Values]) -> Callable[[Results, Values], Results]:
    """Bias k added to an operand of kernel k, instead of to the sum."""

    def after(results: Results, values: Values) -> Results:
        if values.get("bias") is None:
            return results
        v = ones(values)
        settings = {name: v[name] for name in ("stride", "padding", "dilation", "groups")}
        sums = conv2d(v["x"], v["weight"], None, **settings)  # (N, K, P, Q), of ones with the other operand
        return {"out": results["out"] + (sums - 1) * values["bias"].reshape(1, -1, 1, 1)}

    return after


_TO_THE_INPUT = (
    "bias added to the input",
    "The bias is added to the image before the products, so each sum has it times the kernel's cells: "
    "add bias[k] once to each sum.",
)

BIAS_MISTAKES: Sequence[Mistake] = (
    Mistake("bias forgotten", "The bias is never added: add bias[k] once to each sum.", changed("bias", np.zeros_like)),
    Mistake(
        "bias added once per channel",
        "The bias is added in the loop over the channels: add it once, after the sum over all channels.",
        lambda v: changed("bias", lambda b: b * v["weight"].shape[1])(v),
    ),
    Mistake(
        "bias added once per window cell",
        "The bias is added in the loop over the window: add it once, after the sum.",
        lambda v: changed("bias", lambda b: b * v["weight"][0, 0].size)(v),
    ),
    Mistake(
        "bias added once per product",
        "The bias is added to every product: add it once, after the sum.",
        lambda v: changed("bias", lambda b: b * v["weight"][0].size)(v),
    ),
    Mistake(
        "bias added to the first image only",
        "The other images get no bias: add it to all.",
        after=first_image_alone("bias"),
    ),
    Mistake("bias subtracted", "The bias is subtracted: add it.", changed("bias", np.negative)),
    Mistake(*BIAS_FACTOR, after=bias_times),
    Mistake(*ALL_BIASES, changed("bias", lambda b: np.full_like(b, b.sum()))),
    Mistake("bias added twice", "The bias is added twice: add it once.", changed("bias", lambda b: 2 * b)),
    Mistake(
        "first bias for all",
        "Every kernel gets the bias of the first; kernel k has bias[k].",
        changed("bias", lambda b: np.full_like(b, b[0])),
    ),
    Mistake(*_TO_THE_INPUT, after=_added_to(_with_padding)),
    Mistake(*_TO_THE_INPUT, after=_added_to(_inside)),
    Mistake(
        "bias added to the kernel",
        "The bias is added to the kernel before the products, so each sum has it times the window's cells: "
        "add bias[k] once to each sum.",
        after=_added_to(_kernel),
    ),
)
