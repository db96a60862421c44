"""Lint: gather the evidence once, make every check that it allows, and say which it does not."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.data.dataset import Dataset
from convscope.errors import UnknownName, UsageError
from convscope.probe.linting import data_checks, training_checks
from convscope.probe.linting.evidence import Evidence, Loss, Predict, Step, gather
from convscope.probe.linting.findings import LESSONS, Finding, Lint
from convscope.probe.support.batching import balanced
from convscope.progress import Progress, silent
from convscope.training.evaluation import data_of
from convscope.training.job import DataSource, as_dataset
from convscope.training.objectives import LOSSES, make_loss
from convscope.training.runs import Run, load_run
from convscope.type_checks import kind_of, takes

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: Mapping[str, Check] = {
    "softmax-before-cross-entropy": training_checks.softmax_before_cross_entropy,
    "nll-without-log": training_checks.nll_without_log,
    "loss-and-target-shapes": training_checks.loss_and_target_shapes,
    "outputs-and-classes": training_checks.outputs_and_classes,
    "step-fails": training_checks.step_fails,
    "missing-train": training_checks.missing_train,
    "missing-eval": data_checks.missing_eval,
    "batch-norm-in-training-mode": data_checks.batch_norm_in_training_mode,
    "missing-normalization": data_checks.missing_normalization,
    "channel-order": data_checks.channel_order,
    "channels-last": data_checks.channels_last,
    "dead-layer": training_checks.dead_layer,
    "saturated-layer": training_checks.saturated_layer,
    "unused-parameters": training_checks.unused_parameters,
    "unregistered-layers": training_checks.unregistered_layers,
    "nothing-changes": training_checks.nothing_changes,
    "missing-zero-grad": training_checks.missing_zero_grad,
    "test-in-training": data_checks.images_in_both,
    "class-titles": data_checks.class_titles,
    "class-order": data_checks.class_order,
}
"""The checks of a model and its data."""


@takes()
def lint(
    model: nn.Module | Run | str | Path | None = None,
    data: DataSource | None = None,
    *,
    test: DataSource | None = None,
    loss: str | Loss | None = None,
    step: Step | None = None,
    predict: Predict | None = None,
    kernels: Mapping[str, object] | None = None,
    figure: Any = None,
    images: int = 256,
    seed: int = 0,
    progress: Progress = silent,
) -> Lint:
    """Look for mistakes in a model and its training, by running it; everything is put back afterwards.

    >>> from torch import nn
    >>> import convscope as cs
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(784, 2), nn.Softmax(dim=1))
    >>> result = lint(net, cs.load_dataset("shapes"))
    >>> [finding.check for finding in result.findings]
    ['softmax-before-cross-entropy']
    >>> print(result.findings[0].evidence[:58])
    all 256 rows given to the loss have values between 0 and 1

    Args:
        model: A module, in the mode in which it is asked for predictions; or a run, which brings its data and its loss.
        data: Training images: a name, a Dataset, or arrays (images (N, C, H, W), labels (N,)) as the model gets them.
        test: Test images; they are only looked for in the training images, and scored.
        loss: The loss it is trained with: cross-entropy, mse, nll, or a function (outputs, labels) -> scalar; by
            default a run's own, else cross-entropy.
        step: Your own training step, called as step(model, images, labels): forward, loss, backward, optimizer step.
            It is called twice if it leaves gradients behind. By default forward in training mode, `loss` and backward.
        predict: How you ask the model, called as predict(model, images) -> outputs. By default model(images).
        kernels: Kernels by their titles, shape (R, S) each: is the direction that a title names the one they find?
        figure: A matplotlib figure: do its pictures share a scale?
        images: How many training images, drawn by `seed`, the model is run on.
        seed: Seed of that choice.
        progress: Called with the number of checks done, once the model has run.

    Returns:
        What was found, which checks were made, which could not be made and why.

    Raises:
        UsageError: there is nothing to look at.
        UnknownName: no loss or data set has this name.
        DataError: data that no model can be run on.
        ShapeError: the model answers with something other than one score per class, such as segmentation maps.
    """
    if model is None and kernels is None and figure is None:
        raise UsageError("there is nothing to look at; give a model and data, or kernels by title, or a figure.")
    if figure is not None and not hasattr(figure, "axes"):
        raise UsageError(f"lint takes a matplotlib figure as its figure, not {kind_of(figure)}.")
    findings: list[Finding] = []
    done_checks: list[str] = []
    skipped: dict[str, str] = {}
    given = (
        f"{len(kernels)} kernel{'s' * (len(kernels) != 1)}" if kernels is not None else "",
        "the figure" if figure else "",
    )
    subject, evidence = " and ".join(filter(None, given)), None
    if model is not None:
        choose_images = partial(balanced, count=images, seed=seed)
        progress("checks", 0, len(CHECKS))
        evidence = _evidence(model, data, test, loss=loss, step=step, predict=predict, choose_images=choose_images)
        subject = evidence.card.name
        skipped = {name: reason for name in CHECKS if (reason := _impossible(name, evidence))}
        done_checks = [name for name in CHECKS if name not in skipped]
        for number, name in enumerate(done_checks, 1):
            findings += CHECKS[name](evidence)
            progress("checks", len(skipped) + number, len(CHECKS))
    if kernels is not None:
        done_checks.append("kernel-title")
        findings += data_checks.kernel_titles(kernels)
    if figure is not None:
        done_checks.append("own-scales")
        findings += data_checks.own_scales(figure)
    assert set(done_checks) | set(skipped) <= set(LESSONS)
    return Lint(subject, tuple(findings), tuple(done_checks), skipped, 0 if evidence is None else len(evidence.images))


def _evidence(
    model: nn.Module | Run | str | Path,
    data: DataSource | None,
    test: DataSource | None,
    *,
    loss: str | Loss | None,
    step: Step | None,
    predict: Predict | None,
    choose_images: Callable[[Dataset], NDArray[np.int64]],
) -> Evidence:
    """Run the model on the images; a run says what is not given."""
    module: nn.Module
    if isinstance(model, nn.Module):
        module = model
    else:
        run = model if isinstance(model, Run) else load_run(model)
        module, loss = run.model, make_loss(run.recipe) if loss is None else loss
        if data is None:
            data, test = data_of(run, None, "train", None), test or data_of(run, None, "test", None)
    if data is None:
        raise UsageError("a model is run on data; give training images: lint(model, data).")
    # arrays with channels last are a mistake that is to be found here, not refused
    train = as_dataset(data, "train", any_layout=True)
    held_out = None if test is None else as_dataset(test, "test", train, any_layout=True)
    return gather(
        module,
        train,
        held_out,
        selection=choose_images(train),
        loss=_loss("cross-entropy" if loss is None else loss),
        step=step,
        predict=predict or _ask,
    )


def _loss(loss: str | Loss) -> Loss:
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        raise UnknownName("loss", loss, LOSSES)
    return LOSSES[loss]


def _ask(model: nn.Module, images: Tensor) -> object:
    return model(images)


def _impossible(check: str, evidence: Evidence) -> str:
    """Why a check cannot be made; empty where it can."""
    if check == "test-in-training" and evidence.test is None:
        return "no test images were given"
    if check in {"missing-train", "nothing-changes", "missing-zero-grad"} and not evidence.stepped.own_step:
        return "no training step of your own was given"
    if check == "channel-order" and evidence.images.shape[1] != 3:
        return "the images have no three channels"
    return ""
