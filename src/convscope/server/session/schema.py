"""Schema of the session: open models, data sources, kernels, inputs, and the server's limits."""

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
    """An image that was uploaded or passed on the command line."""

    kind: Literal["stored"] = "stored"
    id: Id


class PixelsRef(Message):
    """A painted image: its pixels as float32 in 0..1, little-endian, (C, H, W), base64url."""

    kind: Literal["pixels"] = "pixels"
    shape: tuple[int, int, int]
    data: str = Field(max_length=PAINTED * 16 // 3)


InputRef = Annotated[SampleRef | StoredRef | PixelsRef, Field(discriminator="kind")]


class Change(Message):
    """Changes applied to an input before the model sees it, in this order: rotation, shift, added noise."""

    rotate: float = Field(default=0, ge=-180, le=180)
    """Degrees, counter-clockwise."""
    down: int = Field(default=0, ge=-512, le=512)
    right: int = Field(default=0, ge=-512, le=512)
    noise: float = Field(default=0, ge=0, le=2)
    """Standard deviation of the noise; pixels range from 0 to 1."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class InputPart(Message):
    """One of several inputs, and its position among the planes of all."""

    name: str
    shape: list[int]
    """Shape without the batch axis."""
    first: int
    """Index of its first plane."""


class InputInfo(Message):
    """An input as the model receives it."""

    name: str
    shape: list[int]
    """(C, H, W) for a picture; an array's shape without the batch axis; (planes, H, W) for several inputs."""
    form: Literal["picture", "array", "several"]
    """Kind of input; only a picture can be painted, moved and replaced on the page."""
    parts: list[InputPart]
    """The parts of several inputs; empty for a single one."""
    label: int | None
    notes: list[str]
    """Preprocessing that was applied: resized, converted to grey, inverted."""
    low: Number
    high: Number
    picture: str
    """Pixels for display, uint8, (C, H, W) with C 1 or 3, base64url; at most 256 pixels a side."""
    picture_shape: tuple[int, int, int]
    """Shape of `picture`; if a side of `shape` is longer than 256, both sides are reduced by the same factor."""


class Stored(Message):
    """An uploaded image."""

    id: Id
    name: str
    height: int
    width: int
    channels: int
    notes: list[str]


class Expected(Message):
    """The input that a model expects."""

    channels: int | None
    height: int | None
    width: int | None
    fixed: bool
    """Whether the model accepts only this size."""


class ModelInfo(Message):
    """A model that is open in the explorer."""

    id: Id
    name: str
    parameters: int
    classes: list[str]
    expects: Expected
    source: Id | None
    """The data source whose samples suit the model."""
    run: bool
    """Whether the model belongs to a run folder."""
    history: list[int]
    """The training steps whose weights were kept, in order; may be empty."""
    start: InputRef | None
    """The input to show first."""
    notes: list[str]


class SourceInfo(Message):
    """A data set that can be shown and, if `trainable`, trained on."""

    id: Id
    name: str
    splits: dict[str, int]
    """Split -> number of images."""
    classes: list[str]
    channels: int
    height: int
    width: int
    trainable: bool


class KernelInfo(Message):
    """A named kernel, such as sobel-x."""

    name: str
    what: str
    values: list[list[float]]


class Limits(Message):
    """The server's limits."""

    upload_bytes: int
    upload_pixels: int
    terms: int
    """Maximum number of terms of a sum in one response."""
    painted: int = PAINTED
    """Maximum size of a painted image: channels times rows times columns."""


class Session(Message):
    """The open models, data sources and kernels."""

    version: str
    models: list[ModelInfo]
    sources: list[SourceInfo]
    kernels: list[KernelInfo]
    limits: Limits
    can_train: bool
