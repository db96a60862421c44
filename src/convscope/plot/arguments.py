"""Arguments: figures take what the commands take, such as "shapes:test/3" or a run folder.

An object that is already of the right kind is returned unchanged, without importing anything; names load models and
data, and with them torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convscope.errors import ShapeError, UsageError
from convscope.traces.trace import Trace
from convscope.type_checks import check_kind
from convscope.typing import Array


def dataset_of(data: object) -> Any:
    """A data set, or the one with a name such as "shapes"."""
    if not isinstance(data, str):
        return data
    from convscope.data.catalog import load_dataset  # noqa: PLC0415

    return load_dataset(data)


def picture_of_name(picture: object) -> tuple[Array, str]:
    """An image's pixels, and its name if it was named by a file or as "mnist:test/7"."""
    if not isinstance(picture, str | Path):
        return np.asarray(picture), ""
    from convscope.inputs.pictures import prepare  # noqa: PLC0415

    prepared = prepare(picture)
    return prepared.picture, prepared.name


def picture_to_draw(picture: object, figure: str) -> Array:
    """A picture passed for display, shape (C, H, W) or (H, W).

    Raises:
        ShapeError: it has another number of axes, no pixels, or no real numbers.
    """
    check_kind(figure, "picture", picture, "array")
    array = np.asarray(picture)
    if array.ndim not in {2, 3} or not array.size or array.dtype.kind not in "biuf":
        raise ShapeError(
            f"{figure} takes a picture of real numbers, shape (C, H, W) or (H, W), not {array.dtype} of shape "
            f"{array.shape}."
        )
    return array


def model_of(model: object) -> Any:
    """A model, a run's model, or the model with a name: a built-in network, a run folder, `net.py:Net`."""
    if isinstance(model, str | Path):
        from convscope.models.loading import load_model  # noqa: PLC0415

        return load_model(model)
    return getattr(model, "model", model) if hasattr(model, "history") else model


def run_of(run: object) -> Any:
    """A run, or the run in a folder."""
    if not isinstance(run, str | Path):
        return run
    from convscope.training.runs import load_run  # noqa: PLC0415

    return load_run(run)


def trace_of(trace: object, image: object, figure: str) -> tuple[Trace, Array | None]:
    """A trace, or the trace of a model and an image, with the image for display.

    Raises:
        UsageError: it is neither, or a model without an image.
    """
    if isinstance(trace, Trace) or not hasattr(model := model_of(trace), "named_modules"):
        check_kind(figure, "trace", trace, "Trace")
        assert isinstance(trace, Trace)
        return trace, None
    if image is None:
        raise UsageError(f'{figure} of a model needs an image: cs.plot.{figure}(model, "shapes:test/3").')
    from convscope.capture.tracing import trace as run  # noqa: PLC0415
    from convscope.inputs.pictures import prepare  # noqa: PLC0415

    prepared = prepare(image, like=model)
    return run(model, prepared.array), prepared.picture


def confusion_of(matrix: Any, classes: Sequence[str] | None) -> tuple[Array, Sequence[str], str]:
    """Counts and classes, or those of an evaluation or of a run on its own test data, with a title."""
    if isinstance(matrix, str | Path) or hasattr(matrix, "history"):
        from convscope.training.evaluation import evaluate  # noqa: PLC0415

        matrix = evaluate(matrix)
    if hasattr(matrix, "confusion"):
        return matrix.confusion, matrix.classes if classes is None else classes, f"confusion on {matrix.dataset}"
    if classes is None:
        raise UsageError("confusion needs the names of the classes: cs.plot.confusion(matrix, classes).")
    check_kind("confusion", "matrix", matrix, "array")
    return np.asarray(matrix), classes, "confusion"
