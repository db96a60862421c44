"""Card: what travels with a model besides its weights: its name, its Preprocess, its class names.

Knows no torch: a model is any object here, asked by attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

from convscope.images import Preprocess

ATTRIBUTE = "convscope_card"
Form = Literal["picture", "signal", "volume", "tokens", "any"]
AXES: Mapping[str, int] = {"picture": 3, "signal": 2, "volume": 4, "tokens": 0, "any": 0}
"""Axes of one input of each form, without its batch axis; 0: an input is given to the model as it is."""
SHAPES: Mapping[str, str] = {"picture": "(C, H, W)", "signal": "(C, L)", "volume": "(C, D, H, W)"}
_BESIDE: "WeakKeyDictionary[Any, Card]" = WeakKeyDictionary()
"""The cards of models that refuse attributes."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a model expects and what its outputs mean.

    >>> Card("net", classes=("square", "circle")).classes[1]
    'circle'
    """

    name: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: tuple[str, ...] = ()
    """Class names of the outputs, in order; empty if unknown."""
    source: str = ""
    """How to load it again: a name, `file.py:Class`, a run folder."""
    notes: tuple[str, ...] = ()
    """What loading had to do or to guess, said to the user once."""
    fixed_size: bool = False
    """Whether the model is known to take no other size and channels than `preprocess` has."""
    size_found: bool = False
    """Whether the size was determined by trial runs, so that a picture of another accepted size keeps its own."""
    form: Form = "picture"
    """What one input is: a picture (C, H, W), a signal (C, L), a volume (C, D, H, W), whole numbers, or any array."""
    inputs: tuple[str, ...] = ()
    """The names of the inputs, where forward wants several."""

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file; `from_json` reads them back. Notes are not kept."""
        return {
            "name": self.name,
            "preprocess": self.preprocess.to_json(),
            "classes": list(self.classes),
            "source": self.source,
            "fixed_size": self.fixed_size,
            "size_found": self.size_found,
            "form": self.form,
            "inputs": list(self.inputs),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls(
            name=values["name"],
            preprocess=Preprocess.from_json(values["preprocess"]),
            classes=tuple(values["classes"]),
            source=values.get("source", ""),
            fixed_size=values.get("fixed_size", False),
            size_found=values.get("size_found", False),
            form=values.get("form", "picture"),
            inputs=tuple(values.get("inputs", ())),
        )


def attach(model: Any, card: Card) -> None:
    """Let `card` travel with `model`: as a plain attribute that a copy keeps, or beside it where it refuses one."""
    try:
        object.__setattr__(model, ATTRIBUTE, card)
    except (AttributeError, TypeError):
        _BESIDE[model] = card


def attached(model: Any) -> Card | None:
    """The card that `attach` gave a model, or None."""
    card = getattr(model, ATTRIBUTE, None)
    if isinstance(card, Card):
        return card
    try:
        return _BESIDE.get(model)
    except TypeError:  # what cannot be hashed or weakly referenced was given none
        return None
