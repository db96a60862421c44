"""Steps of an optimizer by its functional form: the same bits as the optimizer's own."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.training.objectives import OPTIMIZERS, AdamStepper, make_optimizer, stepper_of
from convscope.training.recipes import Recipe

SHAPES = ((3, 2), (1,), (2, 1, 3, 3))


def model_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.ParameterList([torch.randn(shape) for shape in SHAPES])


def moved(
    stepper: Any, optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], plan: list[tuple[Any, ...]]
) -> None:
    """Step after step, each with a learning rate and gradients of its own for some of the weights."""
    generator = torch.Generator().manual_seed(7)
    for lr, given_to in plan:
        optimizer.param_groups[0]["lr"] = lr
        stepper.zero_grad()
        assert all(weight.grad is None for weight in weights)
        for weight, has in zip(weights, given_to, strict=True):
            gradient = torch.randn(weight.shape, generator=generator)
            weight.grad = gradient if has else None
        stepper.step()


rates = st.floats(1e-5, 0.5)
steps = st.lists(st.tuples(rates, st.tuples(*[st.booleans()] * len(SHAPES))), min_size=1, max_size=6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@settings(max_examples=25)
@given(steps, st.sampled_from([0.0, 0.01, 0.5]))
def test_the_same_bits_as_the_optimizer_itself(name: str, plan: list[tuple[Any, ...]], decay: float) -> None:
    recipe = Recipe(epochs=1, optimizer=name, weight_decay=decay)
    models = model_of(0), model_of(0)
    one, two = (make_optimizer(model, recipe) for model in models)
    assert isinstance(stepper_of(two), AdamStepper)
    moved(one, one, list(models[0].parameters()), plan)
    moved(stepper_of(two), two, list(models[1].parameters()), plan)
    for mine, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for mine_state, their_state in zip(two.state.values(), one.state.values(), strict=True):
        for key, value in their_state.items():
            assert torch.equal(mine_state[key], value), key


def test_state_that_was_loaded_is_stepped_with() -> None:
    recipe, plan = Recipe(epochs=1, optimizer="adam"), [(0.1, (True,) * len(SHAPES))] * 3
    models = model_of(0), model_of(0)
    whole, before = (make_optimizer(model, recipe) for model in models)
    moved(whole, whole, list(models[0].parameters()), plan)
    moved(stepper_of(before), before, list(models[1].parameters()), plan)
    after = make_optimizer(models[1], recipe)
    stepper = stepper_of(after)
    after.load_state_dict(before.state_dict())
    moved(whole, whole, list(models[0].parameters()), plan)
    moved(stepper, after, list(models[1].parameters()), plan)
    for mine, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_other_optimizers_step_by_themselves() -> None:
    for name in OPTIMIZERS.keys() - {"adam", "adamw"}:
        optimizer = make_optimizer(model_of(0), Recipe(epochs=1, optimizer=name))
        assert stepper_of(optimizer) is optimizer
