"""A training step as a picture: losses, and kernels before and after with the digits that show the change."""

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.errors import UsageError
from convscope.render.numbers import aligned, number_of
from figures import assert_legible, named, texts


def step(optimizer: str = "adam", lr: float = 1e-5) -> cs.Trace:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    images = torch.rand(15, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return cs.trace(model, images, target=np.arange(15) % 4, optimizer=optimizer, lr=lr)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_picture_shows_losses_and_a_change_however_small(optimizer: str) -> None:
    trace = step(optimizer)
    figure = cs.plot.training_step(trace)
    assert_legible(figure)
    written = texts(figure)
    losses = cs.image_losses(trace)
    assert losses is not None
    assert {*aligned(losses)[np.argsort(losses)[-12:]]} <= set(written)  # all with the same decimals
    assert "3 more" in written
    assert "before" in written
    before, after = (trace.parameters["0.weight"][0, 0, 0, 0], trace["0.weight.updated"].output[0, 0, 0, 0])
    shown = {number_of(text) for text in written if text.replace("−", "").replace(".", "").isdigit()}
    for value in (before, after):
        assert any(abs(number - value) < 5e-7 for number in shown)
    assert (len(named(figure, "gradient")), len(named(figure, "after"))) == (3, 3)
    assert len(named(figure, "direction")) == 3  # SGD here has momentum


def test_a_matrix_is_drawn_as_rows_and_gradients_alone_have_no_after() -> None:
    figure = cs.plot.training_step(step(), "3.weight", most=2)
    assert_legible(figure)
    assert "2 of 4, those with the largest gradients" in texts(figure)
    alone = cs.trace(nn.Conv2d(1, 2, 3), torch.rand(2, 1, 3, 3), target=[0, 1], loss=lambda y, _: y.sum())
    figure = cs.plot.training_step(alone)
    assert_legible(figure)
    assert not named(figure, "after")


def test_bad_requests_get_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"no gradient of '0\.wight'; it has those of 0\.weight"):
        cs.plot.training_step(step(), "0.wight")
    with pytest.raises(UsageError, match="most must be 1 or more kernels, not 0"):
        cs.plot.training_step(step(), most=0)
    with pytest.raises(UsageError, match="this trace has no loss"):
        cs.plot.training_step(cs.trace(nn.Linear(2, 2), torch.ones(1, 2)))
