"""Training steps on the command line: the labels, loss and optimizer of a batch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

import convscope as cs
from convscope.cli.options import Inputs, Loading, is_run

OF_A_STEP = re.compile(r".*\.(grad|updated)(#\w+)?|loss(\..+)?")
"""Names that only a training step has."""
Target = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL,..", help="Class number of each image, for gradients; by default the labels of the data set."
    ),
]
LossName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Loss of a training step: cross-entropy, mse or nll; default: the run's."),
]
OptimizerName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Optimizer of a training step: adam, adamw, sgd, ...; default: the run's."),
]
Rate = Annotated[float | None, typer.Option(help="Learning rate of a training step; default: the run's.")]
AtStep = Annotated[
    int | None,
    typer.Option(metavar="K", help="Repeat step K of a run (from 1) on its original batch; leave out IMAGE."),
]


@dataclass(frozen=True, slots=True)
class StepOptions:
    """The options for a training step."""

    HEADING: ClassVar = "Training step"

    target: Target = None
    loss: LossName = None
    optimizer: OptimizerName = None
    lr: Rate = None
    at_step: AtStep = None

    def wanted(self, image: str | None, at: str = "") -> bool:
        """Whether the command is about a training step: by an option, by a batch, or by the name of a gradient."""
        has_option = any(
            option is not None for option in (self.target, self.loss, self.optimizer, self.lr, self.at_step)
        )
        return has_option or is_batch(image) or OF_A_STEP.fullmatch(at.rpartition(":")[0] or at) is not None

    def trace(
        self, model: str, image: str | None, loading: Loading, data_dir: Path | None, inputs: Inputs
    ) -> "cs.Trace":
        """The trace of a training step.

        Raises:
            UsageError: no label is known for an image.
        """
        if self.at_step is not None:
            return self._repeated(model, image, loading)
        loaded = loading.load(model)
        if image is not None and is_batch(image):
            prepared = cs.prepare_batch(image, loaded, data_dir=data_dir)
            import numpy as np  # noqa: PLC0415  # not for the help of all commands

            images: cs.ModelInput = np.stack([image_input.array for image_input in prepared])
            labels = [image_input.label for image_input in prepared]
        else:
            model_input = inputs.take(loaded, image, data_dir)
            images, labels = model_input.value, [None if model_input.prepared is None else model_input.prepared.label]
        classes = labels if self.target is None else parse_labels(self.target)
        target = [label for label in classes if label is not None]
        if len(target) < len(classes):
            raise cs.UsageError(
                "a gradient needs the class number of each image: --target 3, or 0,1,1 for several; images of a data "
                "set, such as mnist:train/0-63, have labels."
            )
        subject = cs.load_run(model).holding(loaded) if is_run(model) else loaded
        return cs.trace(subject, images, target=target, loss=self.loss, optimizer=self.optimizer, lr=self.lr)

    def _repeated(self, model: str, image: str | None, loading: Loading) -> "cs.Trace":
        """The trace of a step of a run's own history."""
        if not is_run(model):
            raise cs.UsageError(f"--at-step repeats a step of a run, and {model} is not a run folder.")
        if image is not None or loading.given:
            raise cs.UsageError("--at-step repeats a step as it was; leave out the image and the model's options.")
        return cs.trace(
            cs.load_run(model), None, at_step=self.at_step, target=self.target, loss=self.loss,
            optimizer=self.optimizer, lr=self.lr,
        )  # fmt: skip


def is_batch(image: str | None) -> bool:
    """Whether an IMAGE is several images of a data set.

    >>> is_batch("shapes:train/0-63"), is_batch("shapes:train/0")
    (True, False)
    """
    return image is not None and not Path(image).exists() and re.search(r":\w+/\d+-\d+$", image) is not None


def parse_labels(text: str) -> list[int]:
    """Class numbers as typed.

    >>> parse_labels("0,1,1")
    [0, 1, 1]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise cs.UsageError(f"labels are integers with commas, such as 0,1,1, not {text!r}.") from None
