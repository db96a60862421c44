"""LSTM layers in one operation: gradients, bounds that do not grow with the sequence, broken rules that turn red."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.expr.call import Call, Cell, Operand
from convscope.expr.expr import Expr
from convscope.ops import OPS
from convscope.proof.explanation import explain
from convscope.proof.recomputation import recomputed
from convscope.traces.trace import Trace
from convscope.typing import Array
from tampering import tampered


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


class Truncated(NamedTuple):
    """What a wrong backward pass leaves out or exchanges."""

    through_h: float = 1.0
    """Fraction of the gradient that reaches an earlier step through the recurrent weights."""
    through_c: float = 1.0
    """Fraction of the one that reaches it through the forget gate."""
    squashed: bool = True
    """Whether the slope of the tanh of the cell state counts."""
    order: tuple[int, ...] = (0, 1, 2, 3)
    """Order of the gates' rows."""
    earlier: bool = True
    """Whether a recurrent weight's gradient takes the state before each step, not after it."""


def gradients_by_hand(trace: Trace, wrong: Truncated) -> dict[str, Array]:
    """The gradients of the weights of `layer_trace`'s LSTM, in float64, with a mistake."""
    step = next(s for s in trace.all_steps if s.op == "mkldnn_rnn_layer_backward")
    read = {name: np.asarray(a, float) for name, a in trace.operands(step).items() if isinstance(a, np.ndarray)}
    x, w, r, h, c = (read[name] for name in ("input", "weight1", "weight2", "hx_", "cx_tmp"))
    steps = []
    for at in range(len(x)):
        i, f, g, o = np.split(x[at] @ w.T + h @ r.T + read["weight3"] + read["weight4"], 4, 1)
        i, f, g, o = 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), np.tanh(g), 1 / (1 + np.exp(-o))
        before, earlier, c = c, h, f * c + i * g
        h = o * np.tanh(c)
        steps.append((i, f, g, o, before, c, earlier if wrong.earlier else h))
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    by_w, by_r = np.zeros_like(w), np.zeros_like(r)
    for at, (i, f, g, o, before, c, seen) in reversed(list(enumerate(steps))):
        dh = dh + read["grad_output"][at]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2 if wrong.squashed else 1)
        parts = dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * np.tanh(c) * o * (1 - o)
        d = np.concatenate([parts[gate] for gate in wrong.order], 1)
        by_w, by_r = by_w + d.T @ x[at], by_r + d.T @ seen
        dh, dc = wrong.through_h * d @ r, wrong.through_c * dc * f
    return {"lstm.weight_ih_l0.grad": by_w, "lstm.weight_hh_l0.grad": by_r}


WRONG = {
    "nothing through the recurrent weights": Truncated(through_h=0),
    "nothing through the forget gate": Truncated(through_c=0),
    "a thousandth missing through the forget gate": Truncated(through_c=0.999),
    "no slope of the cell state's tanh": Truncated(squashed=False),
    "exchanged gates": Truncated(order=(0, 2, 1, 3)),
    "the state after each step": Truncated(earlier=False),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_backward_pass_turns_red(mistake: str) -> None:
    torch.manual_seed(0)
    trace = cs.trace(Outputs(3, 4), torch.randn(6, 2, 3), target=torch.randn(6, 2, 4), loss=nn.functional.mse_loss)
    right, wrong = (gradients_by_hand(trace, how) for how in (Truncated(), WRONG[mistake]))
    changed = tampered(trace, outputs={name: lambda _, to=to: to.astype(np.float32) for name, to in wrong.items()})
    found = {step.name: step.finding for step in cs.verify(changed, cells=20).steps}
    unaffected = {name for name in wrong if np.array_equal(right[name], wrong[name])}
    assert unaffected <= {"lstm.weight_ih_l0.grad"}
    assert all((found[name] == "mismatch") == (name not in unaffected) for name in wrong), found
    same = tampered(trace, outputs={name: lambda _, to=to: to.astype(np.float32) for name, to in right.items()})
    assert cs.verify(same, cells=20).proved


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_gradients_of_a_long_sequence_keep_a_close_bound(name: str) -> None:
    """Errors are followed with their signs through time: their magnitudes alone would grow a million times."""
    torch.manual_seed(0)
    trace = cs.trace(Outputs(8, 32), torch.randn(40, 2, 8), target=torch.randn(40, 2, 32), loss=nn.functional.mse_loss)
    step = next(s for s in trace.all_steps if s.name == f"lstm.{name}.grad")
    witness = recomputed(trace, step)
    assert witness is not None
    assert np.median(witness.bounds) < 0.01 * np.sqrt(np.mean(step.output**2))
    why = cs.explain(trace, step, (5,) * len(step.shape))
    assert why.proved
    assert why.bound < 0.02 * np.sqrt(np.mean(step.output**2))


def test_a_gradient_is_followed_through_the_gates_to_the_next_step() -> None:
    torch.manual_seed(0)
    trace = cs.trace(Outputs(3, 4), torch.randn(3, 2, 3), target=torch.randn(3, 2, 4), loss=nn.functional.mse_loss)
    text = cs.explain(trace, "lstm.weight_hh_l0.grad", (9, 1)).to_text(depth=3)
    for part in ("what this weight multiplied", "the gradient of the candidate", "through the gates of the next step"):
        assert part in text
