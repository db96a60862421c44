"""Explanations: text that adds up, JSON that says the same, walks that end at pixels, contributions that check."""

import json
import math
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.errors import UnknownName, UsageError
from convscope.expr.call import Source
from convscope.expr.expr import Apply, Cells, Dot, Leaf
from convscope.ops import OPS, Op
from convscope.ops.op import VJPRule
from convscope.ops.vjp import VJP
from convscope.proof.explanation import Explanation, explain
from convscope.render.drawing import draw, result, rounding
from convscope.render.numbers import number_of
from convscope.render.sums import BLANK, Detail, Row
from convscope.traces.trace import Trace
from rule_cases import CASES, recorded

KERNEL = [[-1.5447, -0.6216, -1.7912], [-0.8678, 1.9076, -0.7804], [-1.2586, -0.4520, -1.7062]]
WINDOW_SUMS = ["−0.6951", "2.4405", "0.1171", "−0.1267", "2.2097", "−1.4276", "−0.9497", "1.9848", "−0.1690"]


class Crosses(nn.Module):
    """The first tutorial's network, with its published numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(3)
        self.conv.load_state_dict({"weight": torch.tensor([[KERNEL]]), "bias": torch.tensor([2.2435])})

    def forward(self, image: Tensor) -> Any:
        return self.pool(self.conv(image))


class Small(nn.Module):
    """Convolution, normalization, pooling, a branch, in-place and joined parts: piecewise linear throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2, padding_mode="circular")
        self.scale = nn.Parameter(torch.randn(1, 8, 1, 1))
        self.fc = nn.Linear(8 * 16, 5)
        self.bn1.load_state_dict(
            {
                "running_mean": torch.randn(8),
                "running_var": torch.rand(8) + 0.5,
                "num_batches_tracked": torch.tensor(1),
            },
            strict=False,
        )

    def forward(self, x: Tensor) -> Any:
        y = F.max_pool2d(F.relu_(self.bn1(self.conv1(x))), 2)
        z = self.conv2(y) + y * self.scale
        z = torch.cat([z[:, :4].clamp(-1, 1), F.hardtanh(z[:, 4:]) + 0.3], 1)
        z = F.interpolate(F.avg_pool2d(F.pad(z, (1, 1, 1, 1), value=0.7), 2, 1), size=(4, 4), mode="bilinear")
        z[:, :, 0] = z[:, :, 1] * 2
        return self.fc(z.flatten(1))


@pytest.fixture(scope="module")
def crosses() -> Trace:
    return cs.trace(Crosses(), cs.load_dataset("crosses", split="test").image("damaged-plus"))


@pytest.fixture(scope="module")
def small() -> tuple[Small, Tensor, Trace]:
    torch.manual_seed(5)
    model, image = Small().eval(), torch.randn(1, 3, 12, 12)
    return model, image, cs.trace(model, image)


# The calculation on paper


def test_the_tutorials_hand_calculation_is_printed(crosses: Trace) -> None:
    text = explain(crosses, "pool", (0, 0)).to_text(depth=2)
    results = re.findall(r"^  conv \(0, \d, \d\) = (\S+)   ✓ proved$", text, re.MULTILINE)
    assert results == WINDOW_SUMS
    assert text.startswith("pool (0, 0, 0) = 0.3760\nthe mean of 9 cells\n")


def test_the_other_damaged_cross_comes_out_as_published() -> None:
    trace = cs.trace(Crosses(), cs.load_dataset("crosses", split="test").image("damaged-x"))
    assert str(explain(trace, "pool", (0, 0))).startswith("pool (0, 0, 0) = 1.1387\n")


def test_a_page_reads_like_this(crosses: Trace) -> None:
    text = str(explain(crosses, "conv", (0, 1)))
    own = re.sub(r"(in full|recorded|difference) +[−\d.]+", r"\1 …", text)  # the last digits are the machine's own
    assert own == (
        "conv (0, 0, 1) = 2.4405\n"
        "9 window cells (3 of them padding) × kernel 0 of conv, plus its bias\n"
        "\n"
        "  input, rows −1 to 1, columns 0 to 2  ×  conv.weight[0, 0]  =  products\n"
        "  ·  ·  ·     −1.5447  −0.6216  −1.7912           ·        ·        ·\n"
        "  0  1  0  ×  −0.8678   1.9076  −0.7804  =   0.0000   1.9076   0.0000\n"
        "  1  1  0     −1.2586  −0.4520  −1.7062     −1.2586  −0.4520   0.0000\n"
        "\n"
        "  sum of the 9 products   0.1970\n"
        "  conv.bias[0]            2.2435\n"
        "  ─────────────────────────────────\n"
        "  calculated              2.4405      rounded to 4 decimals\n"
        "  in full …\n"
        "  recorded …\n"
        "  difference …   allowed ± 0.0000014\n"
        "\n"
        "✓ proved: explained here and recomputed by the NumPy reference, both within the bound"
    )


def test_long_sums_show_the_largest_terms_and_the_rest(small: tuple[Small, Tensor, Trace]) -> None:
    why = explain(small[2], "fc", (2,))
    short, long = why.to_text(), why.to_text(all=True)
    assert "120 others" in short
    assert short.count("fc.weight[2,") == 8
    assert long.count("fc.weight[2,") == 128
    assert "others" not in long


@pytest.mark.parametrize("name", CASES, scope="module")
def test_lines_fit_a_terminal(name: str) -> None:
    trace, _, _ = recorded(name)
    for step in trace.steps:
        if 0 not in step.shape:
            text = explain(trace, step, tuple(n - 1 for n in step.shape)).to_text(depth=2)
            names = [step.name, *(ref.name for _, _, ref in step.refs())]
            beyond = 2 * max(0, max(map(len, names)) - 12)  # a line holds up to two names, which are never cut
            assert max(map(len, text.splitlines())) <= 120 + beyond, text


def rows_of(dot: Dot) -> list[Row]:
    return [row for row in draw(dot) if isinstance(row, Row) and row is not BLANK]


def exact(text: str) -> Decimal:
    return Decimal(text.replace("−", "-"))


def assert_adds_up(dot: Dot) -> None:
    """The shown terms, to the last digit, give the shown result."""
    rows = rows_of(dot)
    factor = next((i for i, row in enumerate(rows) if row.label[:1] in "÷×" and row.label[:2] in {"÷ ", "× "}), None)
    if factor is None:
        assert sum(exact(row.number) for row in rows) == exact(result(dot)), rows
        return
    summed = next((i for i, row in enumerate(rows[:factor]) if row.label == "sum"), None)
    if summed is not None:
        assert sum(exact(row.number) for row in rows[:summed]) == exact(rows[summed].number), rows
    after = rows[factor:]
    assert sum(exact(row.number) for row in after) == exact(result(dot)), rows
    divided = Decimal(float(exact(rows[factor - 1].number)) * dot.factor)
    step = Decimal(1).scaleb(int(exact(rows[factor].number).as_tuple().exponent))
    assert abs(divided - exact(rows[factor].number)) <= step * Decimal("0.6"), rows


@pytest.mark.parametrize("name", CASES, scope="module")
def test_numbers_on_the_page_add_up(name: str) -> None:
    trace, _, _ = recorded(name)
    for step in trace.steps:
        if 0 in step.shape:
            continue
        why = explain(trace, step, tuple(n // 2 for n in step.shape))
        if isinstance(why.expr, Dot) and np.isfinite(why.expr.products).all():
            assert_adds_up(why.expr)


numbers = st.floats(-1e4, 1e4, width=32) | st.integers(-3, 3).map(float) | st.floats(-(2.0**-10), 2.0**-10, width=32)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), numbers, st.sampled_from([1.0, 3.0, 49.0]))
def test_any_sum_on_the_page_adds_up(terms: list[tuple[float, float]], bias: float, divisor: float) -> None:
    left, right = (
        Cells(np.array(side), Source(name, "step", (1, 99)), np.arange(2 * len(side)).reshape(-1, 2), (len(side),))
        for name, side in zip(("fc1", "fc2"), zip(*terms, strict=True), strict=True)
    )
    assert_adds_up(Dot(left, right, Leaf(bias, Source("fc.bias", "parameter", (1,)), (0,)), divisor=divisor))


@pytest.mark.parametrize("name", CASES, scope="module")
def test_formulas_with_the_shown_numbers_give_the_shown_result(name: str) -> None:
    """What the display's rounding leaves over is a line of its own."""
    trace, _, _ = recorded(name)
    for step in trace.steps:
        if 0 in step.shape:
            continue
        why = explain(trace, step, tuple(n // 2 for n in step.shape))
        if isinstance(why.expr, Apply) and math.isfinite(why.value):
            rows = [row for row in draw(why.expr) if isinstance(row, Row) and row.number]
            if rows[-1].label == "rounding of the numbers shown":
                total = number_of(rows[-1].number) + number_of(rows[-2].number)
                assert total == pytest.approx(number_of(result(why.expr)), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("rate", [0.1, 1e-5, 1e-9])
def test_an_update_shows_what_changed(optimizer: str, rate: float) -> None:
    """However small the step, before, change and after are seen, and what is shown adds up."""
    torch.manual_seed(3)
    step = cs.trace(nn.Linear(4, 3), torch.rand(5, 4), target=[0, 1, 2, 0, 1], optimizer=optimizer, lr=rate)
    why = explain(step, "weight.updated", (1, 2))
    assert isinstance(why.expr, Apply)
    rows = {row.label.split()[0]: row.number for row in draw(why.expr) if isinstance(row, Row) and row.label}
    before, after = number_of(rows["before"]), number_of(result(why.expr))
    assert before != after
    assert before - number_of(rows["lr"]) * number_of(rows["direction"]) == pytest.approx(
        after, abs=0.01 * abs(after - before)
    )
    assert rounding(why.expr).startswith("rounded to")


# The same as plain values


def evaluated(node: dict[str, Any]) -> float:
    """An expression of the JSON, calculated without convscope; only sums and leaves."""
    if node["type"] == "leaf":
        return float(node["value"])
    assert node["type"] == "dot"
    padding = set(node["left"]["padding"])
    weights = node["right"]["values"] if node["right"] else [1.0] * len(node["left"]["values"])
    terms = [v * w for i, (v, w) in enumerate(zip(node["left"]["values"], weights, strict=True)) if i not in padding]
    bias = evaluated(node["bias"]) if node["bias"] else 0.0
    return float(math.fsum(terms) * node["scale"] / node["divisor"] + bias)


@pytest.mark.parametrize("name", CASES, scope="module")
def test_json_is_plain_and_says_the_same(name: str) -> None:
    trace, _, _ = recorded(name)
    for step in trace.steps:
        if 0 not in step.shape:
            why = explain(trace, step, tuple(0 for _ in step.shape))
            results = json.loads(json.dumps(why.to_json(), allow_nan=False))
            assert results["recorded"] == why.recorded or isinstance(results["recorded"], str)
            assert results["status"] == why.status
            if results["expr"]["type"] == "dot" and (results["expr"]["bias"] or {"type": "leaf"})["type"] == "leaf":
                shares = results["expr"]["right"] and results["expr"]["right"]["kind"] == "computed"
                assert evaluated(results["expr"]) == pytest.approx(why.value, rel=1e-12, abs=1e-300) or shares


def test_json_can_hold_the_parts_too(crosses: Trace) -> None:
    results = explain(crosses, "pool", (0, 0)).to_json(depth=2)
    assert [part["name"] for part in results["parts"]] == [f"conv (0, {p}, {q})" for p in range(3) for q in range(3)]
    assert results["format"] == "convscope explanation 1"


def test_json_writes_nan_and_infinities_as_text() -> None:
    trace = cs.trace(nn.ReLU(), torch.tensor([[float("nan"), float("inf")]]))
    assert explain(trace, "relu", (0,)).to_json()["value"] == "nan"
    assert explain(trace, "relu", (1,)).to_json()["expr"]["arguments"]["x"]["value"] == "inf"


# Walking


def test_walking_ends_at_the_image(small: tuple[Small, Tensor, Trace]) -> None:
    why: Explanation | None = explain(small[2], "fc", (0,))
    names = []
    while why is not None:
        names.append(why.step.name)
        last, why = why, next((w for part in why.parts() if isinstance(part, Leaf) and (w := why.follow(part))), None)
    assert names[-1] == "conv1"
    assert {part.source.kind for part in last.parts() if isinstance(part, Leaf)} == {"input", "parameter"}


def test_walk_gives_levels(crosses: Trace) -> None:
    results = [(level, why.name) for level, why in explain(crosses, "pool", (0, 0)).walk(3)]
    assert results[0] == (0, "pool (0, 0, 0)")
    assert [level for level, _ in results[1:]] == [1] * 9


def test_circular_padding_is_looked_through(small: tuple[Small, Tensor, Trace]) -> None:
    """The window's wrapped cells name the pooling's cells at the other side."""
    parts = [p for p in explain(small[2], "conv2", (0, 0, 0)).parts(all=True) if isinstance(p, Leaf)]
    assert {p.source.name for p in parts} == {"max_pool2d", "conv2.weight", "conv2.bias"}
    assert (0, 0, 5, 5) in {p.cell for p in parts if p.source.name == "max_pool2d"}


# Contributions of pixels


SLOPED = [name for name, case in CASES.items() if case.slopes and not case.training]


@pytest.mark.parametrize("name", SLOPED)
def test_contributions_are_autograds(name: str) -> None:
    """In float64: the weights are autograd's slopes, and with the constant they give the number again."""
    trace, model, inputs = recorded(name, torch.float64)
    step = trace.steps[-1]
    if "float64" not in step.dtype or 0 in step.shape or OPS[step.op].vjp is None:
        return
    cell = tuple(n // 2 for n in step.shape)
    try:
        results = explain(trace, step, cell).to_input()
    except UsageError as error:
        assert "cannot be followed" in str(error)  # noqa: PT017 - what is refused says why
        return
    assert results.checks
    assert_slopes(model, inputs, step.name, cell, results.weights)


def assert_slopes(model: nn.Module, inputs: tuple[Tensor, ...], name: str, cell: tuple[int, ...], weights: Any) -> None:
    """Autograd's slopes of the model's last result, where that is one tensor."""
    arguments = [x.clone().requires_grad_() for x in inputs]
    torch.manual_seed(0)
    made = model(*arguments)
    if not isinstance(made, Tensor) or not made.requires_grad or made.ndim != len(cell):
        return
    try:
        slopes = torch.autograd.grad(made[cell], arguments, allow_unused=True)
    except RuntimeError as error:
        assert "not implemented" in str(error)  # noqa: PT017 - PyTorch has no slope, ours is 0
        return
    for (key, ours), theirs in zip(weights.items(), slopes, strict=True):
        expected = np.zeros(ours.shape) if theirs is None else theirs.numpy(force=True)
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-7, err_msg=f"{name} {key}")


def test_a_piecewise_linear_network_is_exact(small: tuple[Small, Tensor, Trace]) -> None:
    model, image, trace = small
    for unit in range(5):
        results = explain(trace, "fc", (unit,)).to_input()
        assert results.linear
        assert results.checks
        assert results.bound < 1e-3
        exact_image = image.double().requires_grad_()
        slope = torch.autograd.grad(Small.forward(model.double(), exact_image)[0, unit], exact_image)[0]
        model.float()
        np.testing.assert_allclose(results.weights["input"], slope.numpy(), rtol=1e-9, atol=1e-12)


def vjp_of(name: str) -> VJPRule:
    vjp = OPS[name].vjp
    assert vjp is not None
    return vjp


def test_the_constant_is_no_subtraction(small: tuple[Small, Tensor, Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong slope on the way makes the check fail: the constant does not make up for it."""
    relu = vjp_of("relu")

    def broken(call: Any, weights: Any, varies: Any) -> VJP:
        results = relu(call, weights, varies)
        return VJP({name: 1.01 * g for name, g in results.gradients.items()}, results.constant)

    monkeypatch.setitem(cast("dict[str, Op]", OPS), "relu", replace(OPS["relu"], vjp=broken))
    results = explain(small[2], "fc", (0,)).to_input()
    assert not results.checks


def test_what_is_left_over_is_nothing_but_pytorchs_rounding(small: tuple[Small, Tensor, Trace]) -> None:
    results = explain(small[2], "fc", (1,)).to_input()
    assert abs(results.residual) > 1e-12 * abs(results.value)
    assert abs(results.left) < 1e-4 * abs(results.residual)
    assert results.slack < 1e-6 * results.bound


def test_an_error_far_below_the_bound_is_seen(
    small: tuple[Small, Tensor, Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> VJP:
        results = convolution(*given)
        return VJP(results.gradients, results.constant * (1 + 1e-7))

    convolution = vjp_of("convolution")
    monkeypatch.setitem(cast("dict[str, Op]", OPS), "convolution", replace(OPS["convolution"], vjp=broken))
    results = explain(small[2], "fc", (0,)).to_input()
    assert abs(results.residual) <= results.bound
    assert not results.checks


def test_a_dropped_bias_is_seen(small: tuple[Small, Tensor, Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    convolution = vjp_of("convolution")
    without = replace(OPS["convolution"], vjp=lambda *given: VJP(convolution(*given).gradients))
    monkeypatch.setitem(cast("dict[str, Op]", OPS), "convolution", without)
    assert not explain(small[2], "fc", (0,)).to_input().checks


def test_other_networks_get_their_tangent_and_it_is_called_so() -> None:
    trace = cs.trace(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), torch.randn(1, 4))
    results = explain(trace, "2", (1,)).to_input()
    assert not results.linear
    assert results.bent == ("1",)
    assert "the tangent at this input, because these are not piecewise linear: 1" in str(results)
    assert results.checks


def test_contributions_of_the_crosses(crosses: Trace) -> None:
    text = str(explain(crosses, "pool", (0, 0)).to_input())
    assert "4 cells that take away          −1.8675" in text
    assert "constant: biases and shifts      2.2435" in text
    assert "exact, because every step on the way is piecewise linear" in text


def test_contributions_as_json(crosses: Trace) -> None:
    results = json.loads(json.dumps(explain(crosses, "pool", (0, 0)).to_input().to_json(), allow_nan=False))
    added = sum(results["inputs"]["input"]["contributions"]) + results["constant"]
    assert added == pytest.approx(results["value"], abs=results["bound"])
    assert results["inputs"]["input"]["shape"] == [1, 1, 3, 3]


# What is not as it should be


def test_an_unknown_step_names_the_nearest(crosses: Trace) -> None:
    with pytest.raises(UnknownName, match="no step is called 'cnv'; did you mean 'conv'"):
        explain(crosses, "cnv", (0, 0))


def test_a_cell_outside_says_the_valid_range(crosses: Trace) -> None:
    with pytest.raises(UsageError, match=r"conv has no cell \(0, 3, 0\); its shape is \(1, 3, 3\)"):
        explain(crosses, "conv", (0, 3, 0))


def test_an_incomplete_cell_names_the_choices() -> None:
    trace = cs.trace(nn.Conv2d(1, 4, 3), np.ones((2, 1, 8, 8), np.float32))
    with pytest.raises(
        UsageError, match=r"a cell of conv2d has 3 indices \(0 to 3, 0 to 5, 0 to 5\), so \(2, 5\) is inc"
    ):
        explain(trace, "conv2d", (2, 5))
    assert explain(trace, "conv2d", (3, 2, 5)).cell == explain(trace, "conv2d", (0, 3, 2, 5)).cell, "the first image"


def test_a_result_that_does_not_exist(crosses: Trace) -> None:
    with pytest.raises(UsageError, match="conv has 1 results, counted from 0; there is no result 1"):
        explain(crosses, "conv", (0, 0, 0), output=1)


def test_changed_weights_are_said() -> None:
    model = nn.Linear(3, 2)
    trace = cs.trace(model, torch.ones(1, 3))
    with torch.no_grad():
        model.weight.add_(1)
    why = explain(trace, "linear", (0,))
    assert why.status == "weights changed"
    assert not why.proved
    assert "weight changed since the trace." in why.notes
    assert "weights changed since the trace" in str(why)


class Bessel(nn.Module):
    """An operation that has no rule, between two that have."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.special.i0(x + 1))


def test_an_operation_without_a_rule_is_named_and_the_others_still_work() -> None:
    trace = cs.trace(Bessel(), torch.randn(1, 1, 4, 4))
    unknown = next(step for step in trace.steps if step.op not in OPS)
    why = explain(trace, unknown, (0, 1, 1))
    assert why.expr is None
    assert why.status == "unsupported"
    assert f"no rule explains {unknown.op!r}, which reads add" in str(why)
    assert why.to_json()["expr"] is None
    assert explain(trace, trace.steps[-1], (0, 1, 1)).proved
    with pytest.raises(
        UsageError, match="which has no vector-Jacobian product, so the number cannot be followed through it"
    ):
        why.to_input()


def test_without_a_rule_the_reference_still_speaks(crosses: Trace) -> None:
    why = explain(crosses, "conv", (0, 0), ops={})
    assert why.status == "recomputed"
    assert math.isnan(why.value)


def test_nan_says_where_it_came_in() -> None:
    image = torch.ones(1, 1, 4, 4)
    image[0, 0, 2, 2] = float("nan")
    trace = cs.trace(nn.Conv2d(1, 2, 3), image)
    why = explain(trace, "conv2d", (0, 1, 1))
    assert why.proved
    assert why.notes == ("nan comes from input (0, 2, 2).",)
    born = explain(cs.trace(Logarithm(), torch.tensor([[-1.0]])), "log", (0,))
    assert born.notes == ("nan arises here: the numbers that go in are finite.",)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_overflow_is_explained_as_such() -> None:
    trace = cs.trace(nn.Linear(1, 1), torch.tensor([[3e38]]), overrides={"weight": [[10.0]]})
    why = explain(trace, "linear", (0,))
    assert math.isinf(why.recorded)
    assert why.agrees


def test_where_kernels_mix_planes_the_badge_says_normwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of zeros beside a bright cell: a Winograd or Fourier kernel leaves a trace there, a sum does not."""
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 7, 7] = 100.0
    trace = cs.trace(nn.Conv2d(1, 1, 3, bias=False), image)
    leaky = np.array(trace["conv2d"].output)
    leaky[0, 0, 0, 0] = 1e-5
    step = replace(trace["conv2d"], values=Lying(leaky))
    assert explain(trace, step, (0, 0, 0)).status == "mismatch"
    monkeypatch.setattr("convscope.proof.tolerance.MIXES", True)
    mixed = explain(trace, step, (0, 0, 0))
    assert (mixed.status, mixed.proved) == ("proved normwise", True)
    leaky[0, 0, 0, 0] = 1.0
    assert explain(trace, step, (0, 0, 0)).status == "mismatch"


class Lying:
    """Where a step's numbers are, with another output than was recorded."""

    def __init__(self, output: Any) -> None:
        self.changed = output

    def output(self, step: int, index: int) -> Any:  # noqa: ARG002 - the names are the protocol's
        return self.changed

    def operand(self, step: int, name: str, item: int) -> Any:  # noqa: ARG002 - as above
        raise AssertionError("operands are read from the trace")


def test_numbers_that_were_given_are_not_proved() -> None:
    trace = cs.trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2), overrides={"0": [[1.0, 2.0]]})
    why = explain(trace, "0", (1,))
    assert (why.value, why.status) == (2.0, "given")
    assert explain(trace, "1", (1,)).proved


def test_dropout_in_training_is_explained_by_its_recorded_numbers() -> None:
    trace, _, _ = recorded("dropout with its recorded mask")
    statuses = {step.op: explain(trace, step, tuple(0 for _ in step.shape)).status for step in trace.all_steps}
    assert statuses["mul"] == "proved"
    assert "given" in statuses.values()


def test_a_saved_trace_explains_the_same(crosses: Trace, tmp_path: Path) -> None:
    crosses.save(tmp_path / "crosses.trace")
    again = Trace.load(tmp_path / "crosses.trace")
    assert explain(again, "pool", (0, 0)).to_text(depth=2) == explain(crosses, "pool", (0, 0)).to_text(depth=2)


def test_explaining_touches_its_window_alone(small: tuple[Small, Tensor, Trace]) -> None:
    """No numbers beyond those shown go into an explanation of a windowed operation."""
    why = explain(small[2], "conv1", (0, 4, 4))
    assert isinstance(why.expr, Dot)
    assert len(why.expr.left) == 27
    assert Detail().count(27) == 8
