"""Schema of the session: open models, data sources, kernels, and the server's limits."""

from convscope.server.http.message import PAINTED, Id, Message
from convscope.server.session.input_schema import InputRef


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
