"""What an update does to the loss of its batch: the reference agrees with PyTorch's own second forward pass."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convscope as cs
from convscope.errors import UsageError
from convscope.proof.step_effect import image_losses, step_effect, update_direction, updated


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4)
    )


X = torch.rand(7, 2, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.3),
    "adadelta": lambda p, lr: torch.optim.Adadelta(p, lr=lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
}


def after(kind: Any, rate: float) -> float:
    """The loss of the same batch after a step of PyTorch's own."""
    model = network().train()
    optimizer = kind(model.parameters(), rate)
    F.cross_entropy(model(X), Y).backward()  # type: ignore[no-untyped-call]  # in torch
    optimizer.step()
    return F.cross_entropy(model(X), Y).item()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("times", [1.0, 0.1, 30.0])
def test_the_loss_after_a_step_is_that_of_pytorch(name: str, times: float) -> None:
    kind, model = OPTIMIZERS[name], network()
    trace = cs.trace(model, X, target=Y, optimizer=kind(model.parameters(), 0.02))
    effect = step_effect(trace, times)
    assert effect.before == trace["loss"].output
    assert effect.after == pytest.approx(after(kind, 0.02 * times), rel=1e-4)
    assert effect.helped == (effect.after < effect.before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_minus_rate_times_direction_is_after(name: str) -> None:
    model = network()
    trace = cs.trace(model, X, target=Y, optimizer=OPTIMIZERS[name](model.parameters(), 0.02))
    for parameter in ("0.weight", "5.bias"):
        along, rate = update_direction(trace, parameter)
        assert rate == pytest.approx(0.02)
        np.testing.assert_allclose(
            trace.parameters[parameter] - rate * along, updated(trace, parameter), rtol=1e-5, atol=1e-7
        )
        if name == "sgd":
            recorded = trace[f"{parameter}.grad"].output.reshape(along.shape)
            np.testing.assert_allclose(along, recorded, rtol=1e-5)


def test_dropout_keeps_its_recorded_mask() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 30), nn.Dropout(0.5), nn.Linear(30, 4))
    trace = cs.trace(model, X, target=Y, optimizer="sgd", lr=1e-6)
    assert step_effect(trace).after == pytest.approx(trace["loss"].output, rel=1e-4)  # another mask changes much more


def test_each_image_has_its_loss() -> None:
    model = network()
    trace = cs.trace(model, X, target=Y)
    wanted = F.cross_entropy(model.eval()(X), Y, reduction="none").detach()
    losses = image_losses(trace)
    assert losses is not None
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    squares = image_losses(cs.trace(model, X, target=Y, loss="mse"))
    assert squares is not None
    target = F.one_hot(Y, 4).float()
    np.testing.assert_allclose(squares, ((model(X) - target) ** 2).mean(1).detach(), rtol=1e-5)


def test_a_loss_that_is_no_mean_over_images_has_none() -> None:
    summed = cs.trace(
        network(), X, target=Y, loss=lambda output, target: F.cross_entropy(output, target, reduction="sum")
    )
    assert image_losses(summed) is None
    other = cs.trace(network(), X, target=Y, loss=lambda output, _: output.square().mean())
    assert image_losses(other) is None


def test_bad_requests_get_a_sentence() -> None:
    with pytest.raises(UsageError, match="has no update"):
        step_effect(cs.trace(network(), X, target=Y))
    with pytest.raises(UsageError, match="has no loss"):
        image_losses(cs.trace(network(), X))
    step = cs.trace(network(), X, target=Y, optimizer="sgd", lr=0.1)
    with pytest.raises(UsageError, match=r"no update of '0\.wight'; updated parameters: 0\.weight"):
        update_direction(step, "0.wight")
    with pytest.raises(UsageError, match="a multiple of the learning rate, not nan"):
        step_effect(step, float("nan"))
