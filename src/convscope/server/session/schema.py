"""Opened: the models, data and kernels that a server has, and what it takes."""

from convscope.server.http.message import PAINTED, Id, Message
from convscope.server.session.input_schema import InputRef


class Expected(Message):
    """What a model takes."""

    channels: int | None
    height: int | None
    width: int | None
    fixed: bool
    """Whether it takes no other size."""


class ModelInfo(Message):
    """A model that is open in the explorer."""

    id: Id
    name: str
    parameters: int
    classes: list[str]
    expects: Expected
    source: Id | None
    """The data source whose samples suit it."""
    run: bool
    """Whether it comes from a run folder."""
    history: list[int]
    """The training steps whose weights were kept, in order; empty where there are none."""
    start: InputRef | None
    """The input to show first."""
    notes: list[str]


class SourceInfo(Message):
    """A data set whose images can be shown, and trained on."""

    id: Id
    name: str
    splits: dict[str, int]
    """Split -> how many images."""
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
    """What the server takes."""

    upload_bytes: int
    upload_pixels: int
    terms: int
    """Terms of a sum in one answer."""
    painted: int = PAINTED
    """Numbers of an image that was painted: channels times rows times columns."""


class Session(Message):
    """Everything that is open."""

    version: str
    models: list[ModelInfo]
    sources: list[SourceInfo]
    kernels: list[KernelInfo]
    limits: Limits
    can_train: bool
