"""Spreads: how much the measurements of the lessons vary from training to training.

The file spreads.json is the result of `bench/lesson_spreads.py`: for each measurement its condition, its seeds and the
values of each seed. Uses files and text; no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import UnknownName
from convscope.typing import Array

RESULT = Path(__file__).with_name("spreads.json")


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """One measured quantity: a value for each seed.

    >>> drawn = spread("overlap", "shapes")
    >>> drawn.n, drawn.condition["test_images"]
    (20, 200)
    """

    values: Array
    """One value for each seed, shape (n,); or a curve for each, shape (n, m). Numbers or words."""
    seeds: tuple[int, ...]
    condition: Mapping[str, Any] = field(repr=False)
    """The settings that all seeds share: data set, model, recipe, number of test images."""
    environment: Mapping[str, Any] = field(repr=False)
    """Versions, processor and date of the study."""

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.seeds)

    @property
    def median(self) -> Any:
        """The median over the seeds: a number, or a curve of shape (m,)."""
        return np.median(self.values, axis=0)

    @property
    def least(self) -> Any:
        """The least of all seeds, like `median`."""
        return self.values.min(axis=0)

    @property
    def most(self) -> Any:
        """The largest of all seeds, like `median`."""
        return self.values.max(axis=0)

    @property
    def percent(self) -> str:
        """The median with the least and the largest value, in percent.

        >>> Spread(np.array([0.5, 0.75, 1.0]), (0, 1, 2), {}, {}).percent
        '75.0 % (50.0 to 100.0 % in 3 repetitions)'
        """
        middle, low, high = (100 * float(value) for value in (self.median, self.least, self.most))
        return f"{middle:.1f} % ({low:.1f} to {high:.1f} % in {self.n} repetitions)"

    def count(self, value: Any) -> int:
        """For how many seeds the value is this one.

        >>> Spread(np.array(["stay", "vanish", "stay"]), (0, 1, 2), {}, {}).count("stay")
        2
        """
        return int((self.values == value).sum())

    def __str__(self) -> str:
        middle, low, high = (f"{float(value):.4g}" for value in (self.median, self.least, self.most))
        return f"{middle} ({low} to {high} in {self.n} repetitions)"

    @property
    def conditions(self) -> str:
        """How it was measured, in a sentence."""
        condition, recipe = self.condition, self.condition.get("recipe", {})
        parts = [f"{condition['model']} trained on {condition['dataset']}"] if "model" in condition else []
        if recipe:
            parts += [
                f"{recipe['optimizer']}, learning rate {recipe['lr']:g} ({recipe['schedule']})",
                f"batches of {recipe['batch_size']}, {recipe['epochs']} epoch{'s' * (recipe['epochs'] != 1)}",
            ]
        if "test_images" in condition:
            parts.append(f"{condition['test_images']:,} test images")
        parts.append(f"{self.n} seeds from {self.seeds[0]} on")
        environment = self.environment
        return "; ".join([*parts, f"{environment['processor']}, torch {environment['torch']}, {environment['date']}"])


def spread(measurement: str, quantity: str) -> Spread:
    """What the study measured.

    >>> spread("area", "of_all_possible_images").percent
    '94.4 % (94.4 to 94.4 % in 20 repetitions)'

    Args:
        measurement: A key of "measurements" in spreads.json, such as "shapes-cnn-1, published".
        quantity: One of its values, such as "test_accuracy".

    Raises:
        UnknownName: the study has no such measurement or quantity.
    """
    record = study()
    if measurement not in record["measurements"]:
        raise UnknownName("measurement", measurement, record["measurements"])
    entry = record["measurements"][measurement]
    if quantity not in entry["values"]:
        raise UnknownName(f"quantity of {measurement!r}", quantity, entry["values"])
    return Spread(np.array(entry["values"][quantity]), tuple(entry["seeds"]), entry["condition"], record["environment"])


@cache
def study() -> dict[str, Any]:
    """The whole file."""
    record: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return record
