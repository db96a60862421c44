"""The layouts in which functions take images, kernels and biases.

Knows NumPy and the record of a form.
"""

from collections.abc import Callable
from typing import Any

from convscope.checking.operation import LAST, Form, Limits, Values, names
from convscope.typing import Array

Give = Callable[[Array], Any]
Take = Callable[[Array, Values], Array]

MAPS, KERNELS, OFFSETS = ("x", "dout", "out", "dx"), ("weight", "dw"), ("bias", "db")


def _form(
    name: str, maps: tuple[Give, Give], kernels: tuple[Give, Give], offsets: tuple[Give, Give], **rest: Any
) -> Form:
    """A layout from pairs of conversions (to it, back) for maps, kernels and biases."""
    pairs = {**dict.fromkeys(MAPS, maps), **dict.fromkeys(KERNELS, kernels), **dict.fromkeys(OFFSETS, offsets)}

    def back(of: Give) -> Take:
        return lambda array, _values: of(array)

    return Form(
        name, {n: forward for n, (forward, _) in pairs.items()}, {n: back(b) for n, (_, b) in pairs.items()}, **rest
    )


def _same(array: Array) -> Array:
    return array


def _rank(rank: int, change: Give) -> Give:
    """Convert arrays of one rank; others are left unchanged, so that their shape is reported as wrong."""
    return lambda array: change(array) if array.ndim == rank else array


_TO_LAST: tuple[Give, Give] = (_rank(4, lambda a: a.transpose(0, 2, 3, 1)), _rank(4, lambda a: a.transpose(0, 3, 1, 2)))
_KERNEL_LAST: tuple[Give, Give] = (
    _rank(4, lambda a: a.transpose(2, 3, 1, 0)),
    _rank(4, lambda a: a.transpose(3, 2, 0, 1)),
)
_IMAGE: tuple[Give, Give] = (lambda a: a[0], lambda a: a[None])
_PLANE: tuple[Give, Give] = (lambda a: a[0, 0], lambda a: a[None, None])
_FLAT: tuple[Give, Give] = (lambda a: a.reshape(1, 1, 1, -1), lambda a: a.reshape(-1))
_NUMBER: tuple[Give, Give] = (lambda a: float(a[0]), lambda a: a.reshape(-1))
_KEEP: tuple[Give, Give] = (_same, _same)
_IMAGE_LAST: tuple[Give, Give] = (
    lambda a: a[0].transpose(1, 2, 0),
    lambda a: a.transpose(2, 0, 1)[None] if a.ndim == 3 else a,
)

BATCH = _form("(N, C, H, W)", _KEEP, _KEEP, _KEEP, layout="nchw", never_named=LAST)
IMAGE = _form("(C, H, W)", _IMAGE, _KEEP, _KEEP, layout="nchw", limits=Limits(images=1), never_named=LAST)
PLANE = _form("(H, W)", _PLANE, _PLANE, _NUMBER, layout="nchw", limits=Limits(1, 1, 1), never_named=LAST)
ONE_KERNEL = _form(
    "(C, H, W), one kernel", (lambda a: a[0], lambda a: a[None, None] if a.ndim == 2 else a[None]), _IMAGE, _NUMBER,
    layout="nchw", limits=Limits(images=1, kernels=1), never_named=LAST,
)  # fmt: skip
COURSE = _form(
    "(N, H, W, C)", _TO_LAST, _KERNEL_LAST, _FLAT, only_named=LAST, layout="nhwc", limits=Limits(square=True)
)
BATCH_LAST = _form(
    "(N, H, W, C)", _TO_LAST, _KERNEL_LAST, (_same, _rank(4, lambda a: a.reshape(-1))), layout="nhwc", never_named=LAST
)
IMAGE_LAST = _form("(H, W, C)", _IMAGE_LAST, _KERNEL_LAST, _KEEP, layout="nhwc", limits=Limits(images=1))
PLANES = (BATCH, COURSE, IMAGE, PLANE, BATCH_LAST, IMAGE_LAST)
"""For poolings and ReLU, which have no kernels."""
CONVOLUTIONS = (BATCH, COURSE, IMAGE, ONE_KERNEL, PLANE, BATCH_LAST, IMAGE_LAST)

INPUT = names("x input inputs image images img im a a_prev input_data data array matrix arr xs values z feature_map")
GRADIENT = names("dout grad grad_output grad_out upstream dy da dz delta g grad_y dl_dy output_gradient d_out")
WEIGHT = names("w weight weights kernel kernels filter filters filt k")
BIAS = names("b bias biases")
STRIDE = names("stride strides s step")
PADDING = names("pad padding p pads")
DILATION = names("dilation dilate d")
SIZE = names("kernel_size pool_size size k f window ksize kernel window_size pool filter_size field")
