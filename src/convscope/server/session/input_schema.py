"""Inputs: an image that a model is to see, where it comes from and what is done to it first."""

from typing import Annotated, Literal

from pydantic import Field

from convscope.server.http.message import PAINTED, Id, Message, Number


class SampleRef(Message):
    """An image of a data source."""

    kind: Literal["sample"] = "sample"
    source: Id
    split: Literal["train", "test", "all"]
    index: int = Field(ge=0)


class StoredRef(Message):
    """An image that was uploaded or given on the command line."""

    kind: Literal["stored"] = "stored"
    id: Id


class PixelsRef(Message):
    """An image that was painted: its pixels themselves, as float32 in 0..1, little-endian, (C, H, W), base64url."""

    kind: Literal["pixels"] = "pixels"
    shape: tuple[int, int, int]
    data: str = Field(max_length=PAINTED * 16 // 3)


InputRef = Annotated[SampleRef | StoredRef | PixelsRef, Field(discriminator="kind")]


class Change(Message):
    """What is done to an input before the model gets it, in this order: rotated, shifted, noise added."""

    rotate: float = Field(default=0, ge=-180, le=180)
    """Degrees, counter-clockwise."""
    down: int = Field(default=0, ge=-512, le=512)
    right: int = Field(default=0, ge=-512, le=512)
    noise: float = Field(default=0, ge=0, le=2)
    """Standard deviation, in units of the full range 0..1."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class InputPart(Message):
    """One of several inputs, as it is among the planes of the whole."""

    name: str
    shape: list[int]
    """Without a batch axis."""
    first: int
    """Which plane is its first."""


class InputInfo(Message):
    """An input as the model gets it."""

    name: str
    shape: list[int]
    """(C, H, W) of a picture; another array's own, without a batch axis; (planes, H, W) of several inputs."""
    form: Literal["picture", "array", "several"]
    """Only a picture can be painted, moved and exchanged here."""
    parts: list[InputPart]
    """Of several inputs; of one, nothing."""
    label: int | None
    notes: list[str]
    """What was done to it: resized, grey, inverted."""
    low: Number
    high: Number
    picture: str
    """Its pixels as they are shown, uint8, (C, H, W) with C 1 or 3, base64url; a larger one is shrunk to 256 pixels."""
    picture_shape: tuple[int, int, int]
    """That of `picture`: where a side of `shape` is longer than 256, both are shrunk by the same factor."""


class Stored(Message):
    """An uploaded image."""

    id: Id
    name: str
    height: int
    width: int
    channels: int
    notes: list[str]
