"""Explanations: the page, its sums, the same as plain values, and walking to the image."""

import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import convscope as cs
from convscope.expr.call import Source
from convscope.expr.expr import Apply, Cells, Dot, Leaf
from convscope.proof.explanation import Explanation, explain
from convscope.render.drawing import draw, result, rounding
from convscope.render.numbers import number_of
from convscope.render.sums import BLANK, Detail, Row
from convscope.traces.trace import Trace
from explained_networks import Crosses, Small
from rule_cases import CASES, recorded

WINDOW_SUMS = ["−0.6951", "2.4405", "0.1171", "−0.1267", "2.2097", "−1.4276", "−0.9497", "1.9848", "−0.1690"]


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


def test_the_layers_of_a_sequential_network_read_as_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    trace = cs.trace(model, np.ones((1, 4, 4), np.float32))
    assert "layer 0 (1, 0, 1) = " in str(cs.explain(trace, "0", (1, 0, 1)))
    assert "× kernel 1 of layer 0, plus its bias" in str(cs.explain(trace, "0", (1, 0, 1)))
    assert "x   layer 0 (1, 0, 1)" in str(cs.explain(trace, "1", (1, 0, 1)))


NORMS = {"batch": nn.BatchNorm2d(2), "group": nn.GroupNorm(1, 2), "layer": nn.LayerNorm((2, 3, 3))}


@pytest.mark.parametrize(("norm", "mean"), [("batch", "batch mean"), ("group", "mean"), ("layer", "mean")])
def test_statistics_of_a_normalization_have_names(norm: str, mean: str) -> None:
    """They are results of one operation: with its name alone, the mean and the rate would be called the same."""
    model = nn.Sequential(NORMS[norm], nn.Flatten(), nn.Linear(18, 2))
    images = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    trace = cs.trace(model, images, target=[0, 1, 0], training=True)
    text = str(explain(trace, "input.grad", (1, 1, 2, 0)))
    labels = set(re.findall(r"^  (?:mean|rate) +(.*?) \(\d", text, re.MULTILINE))
    assert labels == {f"layer 0, {mean}", "layer 0, 1 ÷ √(var + eps)"}
