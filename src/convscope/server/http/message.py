"""Said: what all of the schema is made of: names, ids, numbers that may be none, and the base of every message."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | Literal["nan", "inf", "-inf"]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
"""An id of a model, a data source, a training, an input or a trace."""
PAINTED = 375_000
"""Numbers of an image that a page may send itself."""
Name = Annotated[str, Field(min_length=1, max_length=200)]
"""A name that something in a model has: a step, a parameter."""


Fit = Literal["resize", "pad"]
"""How an image of another size is made to fit."""


class Message(BaseModel):
    """Base of all: unknown keys are refused, and what was said stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Message):
    """Any error: one sentence that says what was asked, what there is and what to do."""

    message: str
    fit: list[Fit] = []
    """Where an image has another size than the model takes: what the request's `fit` may say."""
