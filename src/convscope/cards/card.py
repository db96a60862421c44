"""Card: what travels with a model besides its weights: its name, its Preprocess, its class names.

Knows no torch: a model is any object here, asked by attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from convscope.images import Preprocess

ATTRIBUTE = "convscope_card"


@dataclass(frozen=True, slots=True)
class Card:
    """What a model expects and what its outputs mean.

    >>> Card("net", classes=("square", "circle")).classes[1]
    'circle'
    """

    name: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    classes: tuple[str, ...] = ()
    """Names of the outputs, in order; empty where nobody said."""
    source: str = ""
    """How to load it again: a name, `file.py:Class`, a run folder."""
    notes: tuple[str, ...] = ()
    """What loading had to do or to guess, said to the user once."""
    fixed_size: bool = False
    """Whether the model is known to take no other size and channels than `preprocess` has."""

    def to_json(self) -> dict[str, Any]:
        """As plain values for a JSON file; `from_json` reads them back. Notes are not kept."""
        return {
            "name": self.name,
            "preprocess": self.preprocess.to_json(),
            "classes": list(self.classes),
            "source": self.source,
            "fixed_size": self.fixed_size,
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
        )


def attach(model: Any, card: Card) -> None:
    """Let `card` travel with `model` (as one plain attribute; a copy of the model keeps it)."""
    object.__setattr__(model, ATTRIBUTE, card)
