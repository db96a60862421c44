"""Templates: the built-in networks as lists of blocks, to start from."""

from collections.abc import Mapping
from typing import Any

from convscope.errors import UnknownName
from convscope.type_checks import takes

Plain = Mapping[str, Any]
RISING = [-1.0, -1.0, 1.0, 1.0]
FALLING = [1.0, 1.0, -1.0, -1.0]
STRIPES = [
    [[RISING] * 4],
    [[FALLING] * 4],
    [[[number] * 4 for number in RISING]],
    [[[number] * 4 for number in FALLING]],
]
"""The four filters of the stripes network, shape (4, 1, 4, 4)."""
CROSS = [[-1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]]
"""A detector of plus signs: 5 where all five pixels are white and the corners black; with bias -4, else at most 0."""

_CROSSES: tuple[Plain, ...] = (
    {"block": "conv", "kernels": 1, "padding": 1},
    {"block": "avg-pool", "size": 3},
    {"block": "flatten"},
)


def _shapes(first: int, second: int) -> tuple[Plain, ...]:
    """Twice convolution, tanh and pooling, then a linear layer."""
    pooled: tuple[Plain, ...] = ({"block": "tanh"}, {"block": "max-pool", "size": 3})
    convolutions: list[Plain] = [{"block": "conv", "kernels": kernels, "padding": 1} for kernels in (first, second)]
    return convolutions[0], *pooled, convolutions[1], *pooled, {"block": "flatten"}, {"block": "linear"}


def _strided(kernels: int, size: int, padding: int) -> tuple[Plain, ...]:
    conv = {"block": "conv", "kernels": kernels, "size": size, "stride": 2, "padding": padding, "bias": False}
    return conv, {"block": "batch-norm"}, {"block": "relu"}


def _hidden(units: int) -> tuple[Plain, ...]:
    return {"block": "linear", "units": units}, {"block": "relu"}


TEMPLATES: Mapping[str, tuple[Plain, ...]] = {
    "detector": (
        {"block": "conv", "kernels": 1, "values": {"weight": [[CROSS]], "bias": [-4.0]}},
        {"block": "relu"},
    ),
    "crosses": _CROSSES,
    "stripes": (
        {"block": "conv", "kernels": 4, "size": 4, "bias": False, "values": {"weight": STRIPES}},
        {"block": "relu"},
        {"block": "max-pool"},
    ),
    "mlp-512": (
        {"block": "flatten"},
        *(*_hidden(512), {"block": "dropout", "p": 0.2}),
        *(*_hidden(512), {"block": "dropout", "p": 0.2}),
        {"block": "linear"},
    ),
    "mnist-convnet": (
        *({"block": "conv", "kernels": 10}, {"block": "relu"}),
        *({"block": "conv", "kernels": 5}, {"block": "relu"}),
        {"block": "flatten"},
        *_hidden(64),
        *_hidden(32),
        {"block": "linear"},
    ),
    "simple-cnn": (
        {"block": "conv"},
        {"block": "relu"},
        {"block": "max-pool"},
        {"block": "flatten"},
        {"block": "linear"},
    ),
    "shapes-mlp": (
        {"block": "flatten"},
        {"block": "linear", "units": 20},
        {"block": "tanh"},
        {"block": "linear"},
    ),
    "shapes-cnn-1": _shapes(1, 1),
    "shapes-cnn": _shapes(8, 16),
    "color-cnn": _shapes(2, 2),
    "mnist-small": (
        *_strided(16, 5, 0),
        *_strided(48, 3, 1),
        *_strided(64, 3, 1),
        {"block": "flatten"},
        {"block": "linear"},
    ),
}
"""Name -> its blocks: the built-in networks, and a detector whose numbers are written by hand."""


@takes()
def template(name: str) -> list[dict[str, Any]]:
    """A built-in network as a list of blocks, to change and to train.

    >>> template("shapes-mlp")
    [{'block': 'flatten'}, {'block': 'linear', 'units': 20}, {'block': 'tanh'}, {'block': 'linear'}]

    Args:
        name: A built-in network, or "detector": one kernel written by hand that finds crosses.

    Returns:
        Plain values of its own, which may be changed. A linear layer without units has one unit for each class.

    Raises:
        UnknownName: there is no such template.
    """
    if name not in TEMPLATES:
        raise UnknownName("template", name, TEMPLATES, "A file of blocks is named by its path: net.json.")
    return [_copy(block) for block in TEMPLATES[name]]


def _copy(value: Any) -> Any:
    """A deep copy as plain lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list | tuple) else value
