"""LSTM layers in one operation: gradients, bounds that do not grow with the sequence, broken rules that turn red."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.expr import Expr
from convscope.ops import OPS
from convscope.proof.explanation import explain
from convscope.traces.trace import Trace


class Outputs(nn.Module):
    """All states of an LSTM."""

    def __init__(self, inputs: int, hidden: int, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.lstm(x)[0]
        return result


def layer_trace(steps: int = 6, inputs: int = 3, hidden: int = 4) -> Trace:
    torch.manual_seed(0)
    return cs.trace(Outputs(inputs, hidden), torch.randn(steps, 2, inputs))


def by_hand(reverse: bool) -> tuple[Call, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """A layer in float64 as a call, its inputs, and PyTorch's results for them."""
    torch.manual_seed(3)
    lstm: Any = nn.LSTM(3, 4).double()
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 2, 3), (2, 4), (2, 4)))
    x, h, c = inputs
    states, (last, cell) = lstm(x.flip(0) if reverse else x, (h[None], c[None]))
    results = (states.flip(0) if reverse else states, last[0], cell[0])
    names = ("input", "hx_", "cx_", "weight0", "weight1", "weight2", "weight3")
    tensors = (*inputs, lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0)
    given: dict[str, Any] = {n: Operand.of(t.detach().numpy(), n) for n, t in zip(names, tensors, strict=True)}
    given |= {"reverse": reverse, "batch_sizes": (), "mode": 2, "hidden_size": 4, "has_biases": True}
    extra = {"states": Operand.of(results[0].detach().numpy(), "lstm")}
    return Call("mkldnn_rnn_layer", given, (6, 2, 4), "float64", 0, extra), inputs, results


@pytest.mark.parametrize("output", range(3))
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_go_back_through_time_as_autograds_do(reverse: bool, output: int) -> None:
    call, inputs, results = by_hand(reverse)
    weights = np.random.default_rng(1).normal(size=results[output].shape)
    vjp = OPS["mkldnn_rnn_layer"].vjp
    assert vjp is not None
    back = vjp(replace(call, output=output, shape=weights.shape), weights, frozenset({"input", "hx_", "cx_"}))
    expected = torch.autograd.grad(results[output], inputs, torch.from_numpy(weights))
    for name, slope, values in zip(("input", "hx_", "cx_"), expected, inputs, strict=True):
        np.testing.assert_allclose(back.gradients[name], slope.numpy(), atol=1e-12)
        assert values.shape == slope.shape
    linear = sum(float(np.sum(back.gradients[n] * call[n].array)) for n in back.gradients)
    assert linear + back.constant == pytest.approx(float((results[output].detach().numpy() * weights).sum()))


@pytest.mark.parametrize("output", range(3))
@pytest.mark.parametrize("reverse", [False, True])
def test_every_cell_of_a_layer_is_the_one_of_pytorch(reverse: bool, output: int) -> None:
    call, _, results = by_hand(reverse)
    made = results[output].detach().numpy()
    for cell in np.ndindex(*made.shape):
        expr = OPS["mkldnn_rnn_layer"].rule(replace(call, output=output, shape=made.shape), cell)
        assert expr.value() == pytest.approx(made[cell], abs=1e-13)


def test_bounds_do_not_grow_with_the_sequence() -> None:
    """Each step starts from the recorded state; only the cell state carries an error on, and forgets it."""
    trace = layer_trace(steps=80, inputs=8, hidden=32)
    step = next(s for s in trace.all_steps if s.op == "mkldnn_rnn_layer")
    early, late = ([explain(trace, step, (t, 0, unit)).bound for unit in range(8)] for t in (5, 79))
    assert max(late) < 5 * max(early)
    assert cs.verify(trace).proved


BROKEN: Mapping[str, Any] = {
    "exchanged gates": lambda a: a | {"weight0": rolled(a["weight0"], 4)},
    "another unit": lambda a: a | {"weight1": rolled(a["weight1"], 1)},
    "one weight": lambda a: a | {"weight0": Operand(a["weight0"].array * (1 + 1e-4), a["weight0"].source)},
    "no bias": lambda a: a | {"has_biases": False},
    "the other direction": lambda a: a | {"reverse": True},
    "another first state": lambda a: a | {"cx_": Operand(a["cx_"].array + 1e-3, a["cx_"].source)},
}


def rolled(operand: Operand, by: int) -> Operand:
    return Operand(np.roll(operand.array, by, 0), operand.source)


@pytest.mark.parametrize("change", BROKEN)
def test_a_broken_layer_turns_red(change: str) -> None:
    trace = layer_trace()
    step = next(s for s in trace.all_steps if s.op == "mkldnn_rnn_layer")
    op = OPS["mkldnn_rnn_layer"]

    def broken(call: Call, cell: Cell) -> Expr:
        return op.rule(replace(call, arguments=BROKEN[change](dict(call.arguments))), cell)

    cells = [(t, image, unit) for t in range(6) for image in range(2) for unit in range(4)]
    wrong = {explain(trace, step, cell, ops={**OPS, step.op: replace(op, rule=broken)}).status for cell in cells}
    assert "mismatch" in wrong
    assert all(explain(trace, step, cell).proved for cell in cells)


def test_a_changed_state_is_a_mismatch() -> None:
    """A recorded number that does not follow from the step before it is back where it is."""
    trace = layer_trace()
    step = next(s for s in trace.all_steps if s.op == "mkldnn_rnn_layer")
    why = explain(trace, step, (3, 1, 2))
    assert abs(why.difference) <= why.bound < 1e-5
    assert "the cell state" in why.to_text()
