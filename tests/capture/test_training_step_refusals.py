"""What of a training step cannot be explained is refused in one sentence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import convscope as cs
from convscope.errors import ConvscopeError, UnknownName


def small() -> nn.Module:
    """A convolution, a ReLU in place, a linear layer."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 4))


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(2))


def nan_loss(output: Tensor, _target: Tensor) -> Tensor:
    return output.sum() * float("nan")


def constant_loss(output: Tensor, _target: Tensor) -> Tensor:
    return output.detach().sum()


def step(**settings: Any) -> Callable[[], Any]:
    """A call with a small model, two images and two labels, but for these settings."""
    return lambda: cs.trace(**{"model": small(), "image": images(2), "target": [0, 1], **settings})


class Checkpointed(nn.Module):
    """A network whose steps are repeated in the backward pass, by a backward pass of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.small = small()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.small, x, use_reentrant=True)  # type: ignore[no-any-return]


class Narrow(nn.Module):
    """Half precision in the middle of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.small = small()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.small(x).float()  # type: ignore[no-any-return]


class Unused(nn.Module):
    """A model whose result does not depend on its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * 2


def penalized(output: Tensor, target: Tensor) -> Tensor:
    """A loss with a penalty on its own gradient."""
    loss = F.cross_entropy(output, target)
    (gradient,) = torch.autograd.grad(loss, output, create_graph=True)
    return loss + gradient.pow(2).sum()


def backward_in_loss(output: Tensor, target: Tensor) -> Tensor:
    loss = F.cross_entropy(output, target)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def clipped() -> Any:
    """A step by an optimizer whose step was replaced by one that clips the gradients first."""
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    own = optimizer.step

    def stepped(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        own()

    optimizer.step = stepped  # type: ignore[method-assign,assignment]
    return cs.trace(model, images(2), target=[0, 1], optimizer=optimizer)


def hooked_module() -> Any:
    model = small()
    model[0].register_full_backward_hook(lambda _module, gave, _received: tuple(2 * each for each in gave))  # type: ignore[index]
    return cs.trace(model, images(2), target=[0, 1])


def hooked(optimizer: bool) -> Callable[[], Any]:
    """A step of a model whose gradients, or whose optimizer's steps, are changed by a hook."""

    def traced() -> Any:
        model = small()
        made = torch.optim.SGD(model.parameters(), 0.1)
        if optimizer:
            made.register_step_post_hook(lambda *_: None)
        else:
            next(model.parameters()).register_hook(lambda gradient: gradient * 5)  # type: ignore[no-untyped-call]
        return cs.trace(model, images(2), target=[0, 1], optimizer=made)

    return traced


def compiled() -> Any:
    """A step of a compiled model, which is compiled only here: the compiler takes seconds to import."""
    return step(model=torch.compile(small(), backend="eager"))()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "labels outside the classes": (lambda: cs.trace(small(), images(2), target=[0, 4]), "label 4 is not one of"),
    "another number of labels": (lambda: cs.trace(small(), images(2), target=[0]), "2 images need 2 labels"),
    "labels that are fractions": (lambda: cs.trace(small(), images(2), target=[0.5, 1.0]), "one class number for each"),
    "labels that are words": (step(target=["cat", "dog"]), r"class numbers of the images.* not \['cat', 'dog'\]"),
    "labels of different lengths": (step(target=[[0], [1, 2]]), "class numbers of the images"),
    "a label beyond 64 bits": (step(target=[0, 10**30]), "class numbers of the images"),
    "complex labels": (step(target=[1j, 0]), "one class number for each"),
    "a rate that is a word": (step(optimizer="sgd", lr="fast"), "trace takes a number as its lr, not 'fast'"),
    "some numbers kept": (step(keep=["0"]), "keeps every number"),
    "a step's result overridden": (step(overrides={"0": [1.0]}), "no parameter to override in a training step"),
    "a hook on a parameter": (hooked(optimizer=False), "parameters with hooks is not explained"),
    "a hook on the optimizer": (hooked(optimizer=True), "SGD with hooks on its steps is not explained"),
    "a loss of many numbers": (
        lambda: cs.trace(small(), images(2), target=[0, 1], loss=lambda y, t: y - t[:, None]),
        r"a loss is one number, and this one has shape \(2, 4\)",
    ),
    "a loss of nothing": (
        lambda: cs.trace(small(), images(2), target=[0, 1], loss=constant_loss),
        "the loss does not depend on any parameter",
    ),
    "a loss that is nan": (step(loss=nan_loss), "loss of this batch is nan"),
    "an unknown loss": (lambda: cs.trace(small(), images(2), target=[0, 1], loss="hinge"), "no loss is called 'hinge'"),
    "no parameters": (lambda: cs.trace(nn.ReLU(), images(2), target=[0, 1]), "no trainable parameters"),
    "frozen parameters": (
        lambda: cs.trace(small().requires_grad_(False), images(2), target=[0, 1]), "no trainable parameters",
    ),
    "batch norm with one number per channel": (
        lambda: cs.trace(nn.Sequential(small(), nn.BatchNorm1d(4)), images(1), target=[0], optimizer="sgd"),
        r"1 .BatchNorm1d. takes mean and variance from the numbers of a channel when it trains, and gets one number "
        r"of each in .1, 4.; pass more or larger images, or training=False",
    ),
    "reentrant checkpointing": (step(model=Checkpointed()), "reentrant checkpointing is not explained"),
    "half precision inside": (step(model=Narrow()), "in bfloat16 is not explained, and the model calculates in it"),
    "a second backward": (step(loss=penalized), "a second backward pass is not explained"),
    "a backward pass in the loss": (step(loss=backward_in_loss), "a second backward pass is not explained"),
    "clipping in the optimizer's step": (clipped, "SGD is not explained: its step was replaced"),
    "a hook on a module": (hooked_module, "modules with backward hooks is not explained .0 has one"),
    "half precision": (lambda: cs.trace(small().half(), images(2), target=[0, 1]), "a training step in float16"),
    "a compiled model": (compiled, "compiled model"),
    "LBFGS": (
        lambda: cs.trace(small(), images(2), target=[0, 1], optimizer=torch.optim.LBFGS([torch.zeros(1)])),
        "LBFGS is not explained: it calls the model several times",
    ),
    "amsgrad": (
        lambda: cs.trace(
            small(), images(2), target=[0, 1], optimizer=torch.optim.Adam([torch.zeros(1)], amsgrad=True)
        ),
        "amsgrad=True is not explained",
    ),
    "another model's optimizer": (
        lambda: cs.trace(small(), images(2), target=[0, 1], optimizer=torch.optim.SGD(small().parameters(), 0.1)),
        "holds none of the model's parameters",
    ),
    "a loss that depends on the image alone": (
        step(model=Unused(), optimizer="sgd"), "the loss does not depend on any parameter of the optimizer",
    ),
    "a rate without an optimizer": (step(lr=0.1), "belongs to an optimizer"),
    "one score and cross-entropy": (
        step(model=nn.Sequential(nn.Flatten(), nn.Linear(36, 1)), target=[0, 0]), "use loss='mse' for one score",
    ),
    "an optimizer without labels": (lambda: cs.trace(small(), images(2), optimizer="adam"), "pass the labels"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_explained_is_refused_in_a_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConvscopeError, match=message) as caught:
        call()
    assert str(caught.value).endswith(".")


def frozen() -> nn.Module:
    model = small()
    next(model.parameters()).requires_grad_(False)
    return model


MISSING: dict[str, tuple[Callable[[], cs.Trace], str, str]] = {
    "a gradient of a forward pass": (
        lambda: cs.trace(small(), images(2)),
        "0.weight.grad",
        "belong to a training step: pass the labels of these images, target=labels.",
    ),
    "a new weight of a forward pass": (
        lambda: cs.trace(small(), images(2)),
        "0.weight.updated",
        "target=labels and optimizer='sgd'.",
    ),
    "a new weight without an optimizer": (step(), "0.weight.updated", "New weights are made by an optimizer"),
    "a gradient of a frozen weight": (step(model=frozen()), "0.weight.grad", "0.weight is frozen or a buffer"),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_name_that_the_trace_cannot_have_gets_its_reason(case: str) -> None:
    traced, name, reason = MISSING[case]
    with pytest.raises(UnknownName) as caught:
        cs.explain(traced(), name, (0, 0, 0, 0))
    assert reason in str(caught.value)


def test_a_loss_has_one_cell() -> None:
    with pytest.raises(cs.UsageError) as caught:
        cs.explain(step()(), "loss", (0,))
    assert str(caught.value) == "loss is a single number, whose only cell is (), not (0,)."
