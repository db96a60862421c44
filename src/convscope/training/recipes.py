"""Recipes: every setting of a training, as published by the tutorials or tuned for speed. Uses no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import Any, Literal, Self, get_args, get_type_hints

from convscope.errors import UnknownName, UsageError

Schedule = Literal["constant", "one-cycle"]
MOST = 10**9
"""Largest number of epochs, draws and images in a batch: beyond practical use, and within PyTorch's integer types."""
LIMITS: Mapping[str, tuple[float, float]] = {
    "weight_decay": (0, inf),
    "label_smoothing": (0, 1),
    "least_steps": (0, MOST),
    "shift": (0, MOST),
}
"""The smallest and largest values of settings that PyTorch would reject later, or not at all."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training besides data, model and seed.

    >>> Recipe(epochs=3).with_changes(lr=0.01).lr
    0.01
    """

    epochs: int = 5
    least_steps: int = 0
    """Minimum number of steps: a small data set gets more epochs to reach it."""
    batch_size: int = 64
    optimizer: str = "adam"
    lr: float = 1e-3
    loss: str = "cross-entropy"
    schedule: Schedule = "constant"
    """Learning rate schedule: constant, or one-cycle, which rises for a fifth of the steps and then falls to zero."""
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    shift: int = 0
    """Each batch is rolled by up to this many pixels: for data with an empty border."""
    draws: int | None = None
    """An epoch is this many random draws with replacement; None: every image once, shuffled."""
    sampling: str = "split"
    """Sampling of generated data: "split" (train and test share no image) or "published"."""
    softmax: bool = False
    """Whether the network ends in the softmax that the tutorial published before its cross-entropy."""
    log_every: int | None = None
    """Batches between two lines of the metrics; None: about fifty lines in all."""
    seed: int = 0
    """The default seed."""
    join_last: bool = False
    """Whether an incomplete last batch of an epoch joins the batch before it."""

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            if not limit[0] <= value <= limit[1]:  # also true for NaN
                shown = f"{name.replace('_', '-')} must be a number from {limit[0]:g} to {limit[1]:g}, not {value}."
                raise UsageError(shown)
        for name in ("epochs", "batch_size", "draws", "log_every"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value > 0):
                raise UsageError(f"{name.replace('_', '-')} must be an integer greater than 0, not {value}.")
            if value is not None and value > MOST:
                raise UsageError(f"{name.replace('_', '-')} must be at most {MOST:,}, not {value}.")
        if not 0 < self.lr < inf:
            raise UsageError(f"lr must be a number greater than 0, not {self.lr}.")
        if self.schedule not in {"constant", "one-cycle"}:
            raise UnknownName("schedule", self.schedule, ["constant", "one-cycle"])

    def with_changes(self, **changes: Any) -> Self:
        """The same recipe with changed settings; None keeps a setting, and an explicit number of epochs is exact."""
        settings = {name: value for name, value in changes.items() if value is not None}
        if "epochs" in settings:
            settings["least_steps"] = 0
        return replace(self, **settings)

    def for_images(self, count: int) -> Self:
        """The recipe for a data set of `count` images, with as many epochs as `least_steps` needs.

        >>> ANY.for_images(200).epochs
        150
        """
        epochs = ceil(self.least_steps / ceil((self.draws or count) / self.batch_size))
        return replace(self, epochs=max(self.epochs, epochs), least_steps=0)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the values of `to_json`, from a file that may be damaged.

        >>> Recipe.from_json({"epochs": "5"})
        Traceback (most recent call last):
        convscope.errors.UsageError: the recipe's epochs cannot be '5'.

        Raises:
            UsageError: an unknown setting, or one of the wrong type.
        """
        types = get_type_hints(cls)
        for name, value in values.items():
            if name not in types:
                raise UnknownName("setting of a recipe", name, types)
            kinds = get_args(types[name]) or (types[name],)
            kinds = (str,) if types[name] is Schedule else kinds
            is_integer = float in kinds and type(value) is int and abs(value) < MOST
            if type(value) not in kinds and not is_integer:
                raise UsageError(f"the recipe's {name} cannot be {repr(value)[:60]}.")
        return cls(**values)

    def lr_at(self, progress: float) -> float:
        """The learning rate when `progress` (0 to 1) of all steps are done.

        >>> Recipe(lr=1.0, schedule="one-cycle").lr_at(0.2), Recipe(lr=1.0, schedule="one-cycle").lr_at(0.6)
        (1.0, 0.5)

        Source: Smith and Topin, Super-Convergence, 2018 (with straight lines).
        """
        if self.schedule == "constant":
            return self.lr
        return self.lr * max(min(progress / 0.2, (1 - progress) / 0.8), 1e-3)


_SHAPES = Recipe(epochs=30, batch_size=10, lr=1e-3, sampling="published", softmax=True)

TUTORIAL: Mapping[str, Recipe] = {
    "crosses": Recipe(epochs=1, draws=5000, batch_size=1, optimizer="adadelta", lr=1.0, loss="mse", log_every=1),
    "mnist-convnet": Recipe(epochs=5, batch_size=10, lr=1e-4, log_every=500, seed=42),
    "simple-cnn": Recipe(epochs=1, batch_size=64, lr=1e-3),
    "shapes-mlp": _SHAPES,
    "shapes-cnn-1": _SHAPES,
    "shapes-cnn": replace(_SHAPES, epochs=10),
    "color-cnn": replace(_SHAPES, epochs=20),
}
"""The settings published by the tutorials, by model; see the list of tutorials in docs/lessons/tutorials.md."""

FAST: Mapping[str, Recipe] = {
    "crosses": Recipe(epochs=400, batch_size=2, lr=0.2, loss="mse", schedule="one-cycle"),
    "shapes-mlp": Recipe(epochs=30, batch_size=50, lr=1e-2, schedule="one-cycle", optimizer="adamw"),
    "shapes-cnn-1": Recipe(epochs=60, batch_size=20, lr=0.02, schedule="one-cycle"),
    "shapes-cnn": Recipe(epochs=10, batch_size=20, lr=0.01, schedule="one-cycle"),
    "color-cnn": Recipe(epochs=30, batch_size=20, lr=0.02, schedule="one-cycle"),
    "mlp-512": Recipe(epochs=4, batch_size=128, lr=2e-3, schedule="one-cycle"),
    "mnist-convnet": Recipe(epochs=1, batch_size=64, lr=6e-3, schedule="one-cycle"),
    "simple-cnn": Recipe(epochs=1, batch_size=64, lr=1e-2, schedule="one-cycle"),
    "mnist-small": Recipe(
        epochs=2,
        batch_size=96,
        lr=0.012,
        schedule="one-cycle",
        optimizer="adamw",
        weight_decay=0.05,
        label_smoothing=0.1,
        shift=1,
    ),
}
"""The settings that reached the tutorials' accuracy in the shortest measured time (bench/training.py)."""

ANY = Recipe(epochs=5, least_steps=600, batch_size=64, lr=2e-3, schedule="one-cycle")
"""The fast recipe for models and data that convscope does not know."""


def recipe_for(model: str, name: str) -> Recipe:
    """The recipe called `name` ("fast" or "tutorial") for a model.

    >>> recipe_for("mnist-convnet", "tutorial").batch_size
    10

    Raises:
        UnknownName: unknown recipe.
        UsageError: there is no tutorial for this model.
    """
    if name == "fast":
        return FAST.get(model, ANY)
    if name != "tutorial":
        raise UnknownName("recipe", name, ["fast", "tutorial"])
    if model not in TUTORIAL:
        raise UsageError(
            f"no tutorial recipe exists for {model!r}; one exists for {', '.join(TUTORIAL)}. Use --recipe fast."
        )
    return TUTORIAL[model]
