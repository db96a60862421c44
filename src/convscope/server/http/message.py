"""Building blocks of the schema: ids, names, numbers that may be NaN or infinite, and the base of every message."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | Literal["nan", "inf", "-inf"]
"""A float as JSON can carry it."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
"""The id of a model, a data source, a training, an input or a trace."""
PAINTED = 375_000
"""Maximum size of a painted image that the page sends: channels times rows times columns."""
Name = Annotated[str, Field(min_length=1, max_length=200)]
"""The name of a step or parameter of a model."""


Fit = Literal["resize", "pad"]
"""How an image is fitted to the model's input size."""


class Message(BaseModel):
    """Base class of all messages: unknown keys are rejected, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Message):
    """Any error: one sentence that names what was requested, what exists and what to do."""

    message: str
    fit: list[Fit] = []
    """Allowed values of the request's `fit`, if the error is an image of the wrong size."""
