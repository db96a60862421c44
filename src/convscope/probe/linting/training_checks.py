"""Checks of a training step: its loss, its shapes, what learns and what does not. Uses evidence; runs nothing."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from convscope.cards.unregistered import unregistered
from convscope.escaping import first_few
from convscope.probe.linting.evidence import Evidence, LossCall
from convscope.probe.linting.findings import Finding

PAIRWISE = ("mse", "l1", "smooth l1", "huber", "binary cross-entropy")


def floor_of(classes: int) -> float:
    """The least cross-entropy of probabilities that are taken for logits: ln(1 + (K - 1)/e).

    >>> round(floor_of(2), 4), round(floor_of(10), 4)
    (0.3133, 1.4612)
    """
    return math.log1p((classes - 1) / math.e)


def softmax_before_cross_entropy(evidence: Evidence) -> Iterator[Finding]:
    """Cross-entropy was given rows that are probabilities."""
    for call in evidence.stepped.observed.losses[:1]:
        if call.name == "cross-entropy" and _probabilities(call.output):
            classes = call.output.shape[1]
            floor = floor_of(classes)
            observation = (
                f"all {len(call.output)} rows given to the loss have values between 0 and 1 and sum to 1: "
                f"with {classes} classes the loss cannot fall below {floor:.4f}; at best the right class gets "
                f"{math.exp(-floor):.1%} after the second softmax"
            )
            yield Finding("softmax-before-cross-entropy", "", observation, {"floor": floor, "classes": classes})


def nll_without_log(evidence: Evidence) -> Iterator[Finding]:
    """The negative log-likelihood was given numbers whose exponentials do not add up to 1."""
    for call in evidence.stepped.observed.losses[:1]:
        if call.name == "nll" and call.output.ndim > 1:
            total = call.output.double().exp().sum(1)
            if float((total - 1).abs().max()) > 1e-3:
                smallest, largest = float(total.min()), float(total.max())
                observation = f"the exponentials of a row add up to {smallest:.3g} to {largest:.3g}, not to 1"
                yield Finding("nll-without-log", "", observation, {"least": smallest, "most": largest})


def loss_and_target_shapes(evidence: Evidence) -> Iterator[Finding]:
    """A loss of pairs was given outputs and targets that had to be stretched."""
    for call in evidence.stepped.observed.losses[:1]:
        if call.name in PAIRWISE and call.output.shape != call.target.shape:
            yield Finding("loss-and-target-shapes", "", _stretched(call), {"output": list(call.output.shape)})


def outputs_and_classes(evidence: Evidence) -> Iterator[Finding]:
    """The loss was given another number of outputs than the data have classes."""
    classes = len(evidence.data.classes)
    for call in evidence.stepped.observed.losses[:1]:
        if call.name in {"cross-entropy", "nll"} and call.output.ndim == 2 and call.output.shape[1] != classes:
            observation = f"{call.output.shape[1]} outputs for the {classes} classes of {evidence.data.name}"
            yield Finding("outputs-and-classes", "", observation, {"outputs": call.output.shape[1], "classes": classes})


def step_fails(evidence: Evidence) -> Iterator[Finding]:
    """The training step raised, for no reason that another check names."""
    explained = any(
        next(check(evidence), None) for check in (loss_and_target_shapes, outputs_and_classes) if evidence.stepped.error
    )
    if evidence.stepped.error and not explained:
        loss_shapes = "".join(
            f"; {c.name} met outputs {_size(c.output)} and targets {_size(c.target)}, {str(c.target.dtype)[6:]}"
            for c in evidence.stepped.observed.losses[:1]
        )
        yield Finding(
            "step-fails", "", f"{evidence.stepped.error}{loss_shapes}", {"images": list(evidence.images.shape)}
        )


def missing_train(evidence: Evidence) -> Iterator[Finding]:
    """The user's own step ran dropout and batch norm, and none of them in training mode."""
    modes = evidence.stepped.observed.modes
    if evidence.stepped.own_step and modes and not any(mode for _, mode in modes):
        observation = (
            f"{' and '.join(sorted({kind for kind, _ in modes}))} ran in evaluation mode within the training step"
        )
        yield Finding("missing-train", "", observation)


def unused_parameters(evidence: Evidence) -> Iterator[Finding]:
    """Trainable parameters that got no gradient at all."""
    unused = [name for name, largest in evidence.stepped.gradients.items() if largest is None]
    if unused and len(unused) < len(evidence.stepped.gradients):
        numbers = sum(value.numel() for name, value in evidence.model.named_parameters() if name in unused)
        observation = (
            f"{len(unused)} of {len(evidence.stepped.gradients)} parameters, {numbers:,} numbers, got no gradient"
        )
        yield Finding("unused-parameters", first_few(unused), observation, {"parameters": unused, "numbers": numbers})


def unregistered_layers(evidence: Evidence) -> Iterator[Finding]:
    """Layers in a plain list or dict, whose parameters the optimizer does not get."""
    names = list(unregistered(evidence.model))
    if names:
        observation = f"model.parameters() leaves out parameters of the layers in {first_few(names)}"
        yield Finding("unregistered-layers", first_few(names), observation, {"attributes": names})


def nothing_changes(evidence: Evidence) -> Iterator[Finding]:
    """Parameters with a gradient that the user's own step left as they were."""
    if not evidence.stepped.own_step:
        return
    still = [name for name in evidence.stepped.unchanged if evidence.stepped.gradients.get(name)]
    if still:
        observation = (
            f"{len(still)} of {len(evidence.stepped.gradients)} parameters have a gradient and are "
            f"the same after the step"
        )
        yield Finding("nothing-changes", first_few(still), observation, {"parameters": still})


def missing_zero_grad(evidence: Evidence) -> Iterator[Finding]:
    """The user's own step adds its gradient to the one that has moved the parameters before."""
    added = list(evidence.stepped.added_to)
    if added:
        observation = (
            f"{len(added)} of {len(evidence.stepped.gradients)} parameters still had the gradient that had "
            f"moved them when "
            "that of the next step was added to it"
        )
        yield Finding("missing-zero-grad", first_few(added), observation, {"parameters": added})


def dead_layer(evidence: Evidence) -> Iterator[Finding]:
    """The first layer that gives the same for every image although it is given different ones."""
    for layer in evidence.layers:
        if layer.constant and not layer.fed_constant:
            zero = [n for n, largest in evidence.stepped.gradients.items() if largest == 0]
            blocked = f"; the gradient of {first_few(zero)} is exactly 0" if zero else ""
            observation = (
                f"{layer.name} ({layer.kind}) gives the same numbers for all {len(evidence.images)} images{blocked}"
            )
            yield Finding("dead-layer", layer.name, observation, {"layer": layer.name, "without_gradient": zero})
            return


def saturated_layer(evidence: Evidence) -> Iterator[Finding]:
    """A tanh or sigmoid nearly all of whose outputs are saturated."""
    for layer in evidence.layers:
        if layer.flat > 0.98:
            observation = (
                f"{layer.flat:.1%} of the outputs of {layer.name} ({layer.kind}) are within 0.001 of its limits"
            )
            yield Finding("saturated-layer", layer.name, observation, {"share": layer.flat})


def _probabilities(output: Tensor) -> bool:
    """Whether every row is a probability distribution."""
    if output.ndim < 2 or output.shape[1] < 2:
        return False
    values = output.double()
    return bool((values >= 0).all() and torch.allclose(values.sum(1), torch.ones_like(values.sum(1)), atol=1e-3))


def _stretched(call: LossCall) -> str:
    output, target = tuple(call.output.shape), tuple(call.target.shape)
    try:
        common_shape = np.broadcast_shapes(output, target)
    except ValueError:
        return f"outputs {_size(call.output)} and targets {_size(call.target)} do not fit together"
    return (
        f"outputs {_size(call.output)} and targets {_size(call.target)} were stretched to "
        f"{'x'.join(map(str, common_shape))}: {math.prod(common_shape):,} differences instead of "
        f"{call.target.numel():,}"
    )


def _size(values: Tensor) -> str:
    return "x".join(map(str, values.shape)) or "a single number"
