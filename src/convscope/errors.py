"""Every exception of convscope. Uses no other room but spelling.

Each message is one sentence or two: what was asked, what exists, what to do. `exit_status` is what the
command line returns: 2 for bad usage, 1 for a job that failed.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from convscope.escaping import brief


class ConvscopeError(Exception):
    """Base of all of them: `except cs.ConvscopeError` catches whatever convscope refuses.

    >>> import convscope as cs
    >>> try:
    ...     cs.load_dataset("shape")
    ... except cs.ConvscopeError as error:
    ...     print(str(error).partition("?")[0])
    no data set is called 'shape'; did you mean 'shapes'
    """

    exit_status = 1
    shared = False
    """Whether every one of several processes raises it, so that the first need only be heard."""

    def __str__(self) -> str:
        """The message as one line: it may name files, classes and layers of other people."""
        return brief(super().__str__())


class PluginError(ConvscopeError, ImportError):
    """An installed package offers operations that cannot be used."""


class UsageError(ConvscopeError, ValueError):
    """An argument that cannot be meant: another value is needed before anything can start.

    >>> import convscope as cs
    >>> try:
    ...     cs.explain(cs.load_model("crosses"), "conv1", 0)
    ... except cs.UsageError as error:
    ...     print(error)
    explain takes a Trace as its trace, not a Crosses; cs.trace(model, image) makes one.
    """

    exit_status = 2


class UnknownName(UsageError, LookupError):
    """A name that does not exist, with the nearest ones that do.

    >>> print(UnknownName("kernel", "sobelx", ["sobel-x", "sobel-y", "blur"]))
    no kernel is called 'sobelx'; did you mean 'sobel-x' or 'sobel-y'? There are: sobel-x, sobel-y, blur.
    """

    def __init__(self, kind: str, asked: object, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.asked, self.known = kind, asked, tuple(known)
        folded = {name.lower(): name for name in self.known}
        near = [folded[name] for name in get_close_matches(str(asked).lower(), folded, n=2, cutoff=0.6)]
        guess = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        there = f" There are: {', '.join(self.known)}." if self.known else ""
        super().__init__(f"no {kind} is called {asked!r}{guess}{there}{' ' + hint if hint else ''}")


class ShapeError(UsageError):
    """An array whose shape, type or number of channels does not fit what it is for."""


class DataError(ConvscopeError, ValueError):
    """Data that was found but cannot be used: a corrupt file, labels outside the classes, mixed sizes."""


class ImageError(DataError):
    """A file that is not a readable image, or that is too large to read safely.

    >>> import io, convscope as cs
    >>> try:
    ...     cs.read_image(io.BytesIO(b"GIF8"), name="empty.gif")
    ... except cs.ImageError as error:
    ...     print("empty.gif" in str(error))
    True
    """


class LessonError(DataError):
    """A lesson that cannot be used: a mistake in its file, or code in it that fails."""


class DataWarning(UserWarning):
    """Data that is used although something about it is not as expected: a skipped file, a wrong checksum."""


class DownloadError(ConvscopeError, OSError):
    """A data set that is neither on this machine nor reachable; the message says where to put its files."""


class ModelError(ConvscopeError):
    """A model that cannot be built, or fails on its input."""


class WeightsError(ModelError):
    """Weights that cannot be read safely or do not fit the model."""


class RunError(ConvscopeError):
    """A run folder that is none, is damaged, or is in use by another training."""


class TrustError(RunError):
    """A run folder whose network is code that the user has not allowed to run: nothing of it was executed.

    ```python
    try:
        model = cs.load_model("runs/from-elsewhere")
    except cs.TrustError as error:
        print(error.source)  # net.py:Net
    ```

    `source` is the code that it names.
    """

    def __init__(self, message: str, source: str) -> None:
        self.source = source
        super().__init__(message)


class TrainingError(ConvscopeError):
    """A training that cannot go on: a loss that is not a number, a full disk."""


class TraceError(ModelError):
    """A model that failed while it was traced.

    >>> import torch, convscope as cs
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> try:
    ...     cs.trace(net, torch.zeros(1, 1, 3, 3))
    ... except cs.TraceError as error:
    ...     print(error.module)
    1

    `module` is the innermost module that the error came out of ("" is the model itself), `trace` what was recorded
    until then.
    """

    def __init__(self, message: str, module: str = "", trace: object = None) -> None:
        self.module, self.trace = module, trace
        super().__init__(message)


class InputError(TraceError, ShapeError):
    """An image that the model cannot take: another size, number of channels or number of axes than it expects."""

    exit_status = 2
