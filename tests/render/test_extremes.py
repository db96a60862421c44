"""Numbers at the ends of float64 as text: every one is written, and what is shown still adds up."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.render.numbers import NumberScale
from rule_case import Doing

NAN, INF = float("nan"), float("inf")


WRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "deviation of an infinity": (lambda x: x.std(-1), [1.0, INF, 3.0]),
    "deviation of nan": (lambda x: x.std(-1), [1.0, NAN, 3.0]),
    "variance beyond the largest": (lambda x: x.var(-1), [-1e200, 1e200, 3.0]),
    "sum that overflows on its way": (lambda x: x.sum(-1), [1.5e308, 1.5e308, -1.5e308] * 8),
    "mean of the largest": (lambda x: x.mean(-1), [1.7976931348623157e308, 1.0, 2.0]),
    "smallest number": (lambda x: x.clamp_min(0), [5e-324]),
    "largest number": (lambda x: x.log_softmax(-1), [-1.7976931348623157e308, 0.0]),
    "square beyond the largest": (lambda x: nn.functional.mse_loss(x, -x, reduction="none"), [1e200]),
    "loss of nan": (lambda x: nn.functional.soft_margin_loss(x, x.new_ones(1, 3)), [NAN, 1.0, 2.0]),
    "logit loss of an infinity": (
        lambda x: nn.functional.binary_cross_entropy_with_logits(x, x.new_ones(1, 3)),
        [INF, 1.0, 2.0],
    ),
    "margin of an infinity": (
        lambda x: nn.functional.multi_margin_loss(x, torch.tensor([0]), reduction="sum"),
        [INF, 1.0, 2.0],
    ),
    "cube beyond the largest": (lambda x: nn.functional.gelu(x, approximate="tanh"), [1.5e308]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_explanation_of_extreme_numbers_is_written(name: str) -> None:
    call, numbers = WRITTEN[name]
    trace = cs.trace(Doing(call), torch.tensor([numbers], dtype=torch.float64))
    cell = (0,) * trace.all_steps[-1].outputs[0].ndim
    text = cs.explain(trace, trace.all_steps[-1], cell).to_text()
    assert "calculated" in text
    assert "recorded" in text


@pytest.mark.parametrize("number", [5e-324, 1.2345e-310, 2e-308, 1.7e308, -1e300])
def test_units_of_the_last_decimal_are_the_number_again(number: float) -> None:
    scale = NumberScale.of([number])
    assert np.isclose(scale.number(scale.units(number)), number, rtol=1e-4, atol=0)
