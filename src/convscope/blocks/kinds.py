"""Kinds: every block that a network can be built from, with its settings, their bounds and defaults.

The page's form, the check of a list and the network itself follow this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

SettingValue = int | float | bool | None
WINDOW = 64
"""Largest window, stride and padding, in cells: the images of the lessons are not larger."""
KERNELS = 1_024
UNITS = 65_536


@dataclass(frozen=True, slots=True)
class KindSetting:
    """A setting of a block.

    >>> KINDS["conv"].settings[1].name, KINDS["conv"].settings[1].default
    ('size', 3)
    """

    name: str
    kind: Literal["whole", "number", "flag"]
    default: SettingValue
    low: float = 0
    high: float = 1
    unset: str = ""
    """What None means, for a setting that may be None."""

    @property
    def wanted(self) -> str:
        """The values it takes, in words."""
        if self.kind == "flag":
            return "true or false"
        noun = "an integer" if self.kind == "whole" else "a number"
        return f"{noun} from {self.low:g} to {self.high:,g}"

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the page's form."""
        names = ("name", "kind", "default", "low", "high", "unset")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of block.

    >>> KINDS["max-pool"].layer, [setting.name for setting in KINDS["max-pool"].settings]
    ('pool', ['size', 'stride', 'padding'])
    """

    name: str
    layer: str
    """What its layers are called, with a number: conv1, pool2."""
    summary: str
    settings: tuple[KindSetting, ...] = ()
    written: bool = False
    """Whether its weight and bias can be given by hand."""

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the page."""
        settings = [setting.to_json() for setting in self.settings]
        return {"name": self.name, "summary": self.summary, "settings": settings, "written": self.written}


_POOLING = (
    KindSetting("size", "whole", 2, 1, WINDOW),
    KindSetting("stride", "whole", None, 1, WINDOW, unset="size"),
    KindSetting("padding", "whole", 0, 0, WINDOW // 2),
)
_BIAS = KindSetting("bias", "flag", True)

KINDS: Mapping[str, Kind] = {
    "conv": Kind(
        "conv",
        "conv",
        "each kernel slides over all maps and makes a new map",
        (
            KindSetting("kernels", "whole", 8, 1, KERNELS),
            KindSetting("size", "whole", 3, 1, WINDOW),
            KindSetting("stride", "whole", 1, 1, WINDOW),
            KindSetting("padding", "whole", 0, 0, WINDOW),
            _BIAS,
        ),
        written=True,
    ),
    "max-pool": Kind("max-pool", "pool", "the largest number of each window", _POOLING),
    "avg-pool": Kind("avg-pool", "pool", "the mean of each window", _POOLING),
    "relu": Kind("relu", "relu", "negative numbers become 0"),
    "leaky-relu": Kind(
        "leaky-relu",
        "lrelu",
        "negative numbers are multiplied by a small slope",
        (KindSetting("slope", "number", 0.01),),
    ),
    "tanh": Kind("tanh", "tanh", "squashes every number into the range -1 to 1"),
    "sigmoid": Kind("sigmoid", "sigmoid", "squashes every number into the range 0 to 1"),
    "batch-norm": Kind("batch-norm", "bn", "shifts and scales each channel to mean 0 and variance 1 over the batch"),
    "dropout": Kind(
        "dropout",
        "dropout",
        "in training, sets a random share of the numbers to 0; in evaluation, does nothing",
        (KindSetting("p", "number", 0.5, 0, 0.99),),
    ),
    "flatten": Kind("flatten", "flatten", "all maps become one list of numbers"),
    "linear": Kind(
        "linear",
        "fc",
        "each unit is a weighted sum of all numbers",
        (KindSetting("units", "whole", None, 1, UNITS, unset="classes"), _BIAS),
        written=True,
    ),
}
"""Name of a block -> its kind."""
