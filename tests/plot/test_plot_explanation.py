"""Pictures of one number: what they show are the expression's own numbers, and these add up as they are shown."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import convscope as cs
from convscope.errors import UsageError
from convscope.plot.figures.attribution import contributions
from convscope.plot.figures.explanation import explanation
from figures import assert_legible, drawn, image, named, texts

NUMBER = re.compile(r"−?\d[\d,]*(\.\d+)?$")


def net() -> nn.Sequential:
    """A network with a step of every kind that is drawn."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 64, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Conv2d(64, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 10), nn.Softmax(1)]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def trace() -> Any:
    return cs.trace(net(), image(3, 16, 16))


def lines(figure: Figure) -> dict[str, str]:
    """The calculation below the picture: what each line says, and its number."""
    result: dict[str, str] = {}
    rows: dict[float, list[tuple[float, str]]] = {}
    for text in figure.axes[0].texts:
        if "mono" in str(text.get_fontfamily()):
            x, y = text.get_position()
            rows.setdefault(round(float(y), 4), []).append((float(x), text.get_text()))
    for row in rows.values():
        words = [word for _, word in sorted(row)]
        numbers = [word for word in words if NUMBER.match(word)]
        if len(words) > 1 and numbers and not NUMBER.match(words[0]):
            result[words[0]] = numbers[-1]
    return result


def value(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def test_one_channel_is_window_times_kernel_equals_products(trace: Any) -> None:
    why = cs.explain(cs.trace(nn.Conv2d(1, 2, 3), image(1, 6, 6)), "conv2d", (1, 2, 3))
    figure = explanation(why)
    expr: Any = why.expr
    np.testing.assert_allclose(drawn(figure, "kernel").get_array().ravel(), expr.weights)
    np.testing.assert_allclose(drawn(figure, "products").get_array().ravel(), expr.products)
    window = drawn(figure, "window")
    np.testing.assert_allclose(window.get_array().ravel(), expr.values)
    assert window.get_cmap().name == "gray", "pixels are grey"
    kernel, products = (drawn(figure, name).norm for name in ("kernel", "products"))
    assert (kernel.vmin, kernel.vmax) == (products.vmin, products.vmax), "one scale for both"
    assert kernel.vmin == -kernel.vmax
    assert "✓ proved" in texts(figure)
    assert_legible(figure)


@pytest.mark.parametrize(("step", "cell", "count", "shown"), [("0", (3, 4, 4), 3, 3), ("3", (3, 4, 4), 8, 4)])
def test_channels_and_the_rest_add_up_as_they_are_shown(
    trace: Any, step: str, cell: tuple[int, ...], count: int, shown: int
) -> None:
    why = cs.explain(trace, step, cell)
    figure = explanation(why)
    assert len(named(figure, "products")) == shown
    result = lines(figure)
    terms = [value(n) for label, n in result.items() if "sum of" in label and not label.startswith("sum")]
    total = value(result[f"sum of the {9 * count} products"])
    assert len(terms) == shown + (shown < count)
    assert sum(terms) == pytest.approx(total, abs=1e-9)
    rest = value(result.get("rounding of the numbers shown", "0"))
    bias = value(result[f"{step}.bias[{cell[0]}]"])
    assert total + rest + bias == pytest.approx(value(result["calculated"]), abs=1e-9)
    assert_legible(figure)


def test_the_channels_drawn_are_those_with_the_largest_sums(trace: Any) -> None:
    why = cs.explain(trace, "6", (2, 1, 1))
    expr: Any = why.expr
    sums = expr.products.reshape(64, 9).sum(1)
    best = sorted(np.argsort(-abs(sums))[:3])
    figure = explanation(why, most=3)
    message = texts(figure)
    assert "3 of 64 channels, those whose products sum to the most" in message
    assert [text for text in message if text.startswith("6.weight[")] == [f"6.weight[2, {k}]" for k in best]
    shown = [float(picture.get_array().sum()) for picture in named(figure, "products")]
    np.testing.assert_allclose(shown, sums[best], atol=1e-12)
    others = value(lines(figure)["the other 61 channels, sum of 549"])
    assert others == pytest.approx(sums.sum() - sums[best].sum(), abs=1e-4)


def test_padding_is_marked_in_window_and_products_and_has_no_number(trace: Any) -> None:
    why = cs.explain(trace, "0", (1, 0, 0))
    figure = explanation(why)
    assert texts(figure).count("pad") == 5 * 3 * 2
    assert texts(explanation(cs.explain(trace, "0", (1, 4, 4)))).count("pad") == 0
    assert_legible(figure)


def test_a_maximum_frames_the_winner(trace: Any) -> None:
    why = cs.explain(trace, "5", (7, 2, 3))
    figure = explanation(why)
    candidates = drawn(figure, "candidates")
    numbers = np.asarray(candidates.get_array())
    left, right, bottom, top = candidates.get_extent()
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_linewidth() == 1.6]
    (frame,) = frames
    row, column = np.unravel_index(int(numbers.argmax()), numbers.shape)
    assert frame.get_x() == pytest.approx(left + (right - left) * column / 2)
    assert frame.get_y() == pytest.approx(top + (bottom - top) * row / 2)
    assert any(text.endswith(", the largest") for text in texts(figure))
    assert_legible(figure)


def test_a_long_sum_shows_its_largest_terms_as_bars_and_the_rest(trace: Any) -> None:
    why = cs.explain(trace, "9", (3,))
    figure = explanation(why)
    expr: Any = why.expr
    bars = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_height() == pytest.approx(0.1)]
    order = np.argsort(-abs(expr.products))[:8]
    expected = [*expr.products[order], np.delete(expr.products, order).sum()]
    widths = np.array([bar.get_width() for bar in bars])
    np.testing.assert_allclose(widths / widths.max(), np.abs(expected) / np.abs(expected).max(), atol=0.01)
    assert "28 others" in texts(figure)
    assert_legible(figure)


@pytest.mark.parametrize(
    ("step", "cell", "said"),
    [
        ("1", (2, 3, 3), "(x − mean) ÷ √(var + eps) × weight + bias"),
        ("2", (2, 3, 3), "x × 0.5 × (1 + erf(x ÷ √2))"),
        ("4", (2, 3, 3), "max(0, x)"),
        ("7", (2, 1, 1), "the mean of 4 cells"),
        ("8", (20,), "the same number as layer 7 (2, 0, 2)"),
        ("10", (4,), "exp(x − max) ÷ sum of exp(cells − max)"),
    ],
)
def test_other_operations_say_what_they_are_and_put_the_numbers_in(
    trace: Any, step: str, cell: tuple[int, ...], said: str
) -> None:
    why = cs.explain(trace, step, cell)
    figure = explanation(why)
    assert said in texts(figure)
    result = lines(figure)
    assert value(result["recorded by PyTorch"]) == pytest.approx(why.recorded, rel=1e-5, abs=1e-5)
    assert value(result["calculated"]) == pytest.approx(why.value, rel=1e-4, abs=1e-5)
    assert_legible(figure)


@pytest.mark.parametrize(
    ("function", "curve"),
    [(nn.ReLU(), True), (nn.GELU(), True), (torch.log, True), (torch.reciprocal, True), (lambda x: x * 2, False)],
    ids=["relu", "gelu", "log", "reciprocal", "doubled"],
)
def test_a_function_of_one_number_is_drawn_as_a_curve_with_its_point(function: Any, curve: bool) -> None:
    class Applied(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)  # type: ignore[no-any-return]  # any function of a tensor

    why = cs.explain(cs.trace(Applied(), torch.tensor([[0.7, 1.5]])), 0, (1,))
    figure = explanation(why)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(marks) == curve
    curves = [line for line in figure.axes[0].lines if len(np.asarray(line.get_xdata())) > 30]
    for mark in marks:
        at = np.array([mark.get_xdata(), mark.get_ydata()], np.float64).ravel()
        lies = [np.hypot(*(np.array(line.get_data(), np.float64) - at[:, None])).min() for line in curves]
        assert min(lies) < 0.05, "the point lies on the curve"
    assert_legible(figure)


def test_a_number_that_is_wrong_gets_a_red_badge() -> None:
    layer = nn.Linear(2, 1)
    trace = cs.trace(layer, torch.ones(1, 2))
    with torch.no_grad():
        layer.weight += 1
    assert "weights changed since the trace" in texts(explanation(cs.explain(trace, "linear", (0,))))


def test_nan_and_infinity_are_drawn() -> None:
    x = image(1, 4, 4)
    x[0, 1, 1], x[0, 2, 2] = np.nan, np.inf
    figure = explanation(cs.explain(cs.trace(nn.Conv2d(1, 1, 3), x), "conv2d", (0, 0, 0)))
    assert any("nan" in text for text in texts(figure))
    assert_legible(figure)


def test_contributions_are_zero_centred_and_add_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    result = cs.explain(cs.trace(model, image(3, 8, 8)), "3", (1,)).to_input()
    figure = contributions(result)
    maps = named(figure, "contributions")
    (pixels,) = result.pixels.values()
    np.testing.assert_allclose(np.stack([m.get_array() for m in maps]), pixels[0])
    assert all(m.norm.vmin == -m.norm.vmax == -np.abs(pixels).max() for m in maps)
    message = lines(figure)
    parts = [n for label, n in message.items() if "cells that" in label or "constant" in label or "rounding" in label]
    assert sum(map(value, parts)) == pytest.approx(value(message["calculated"]), abs=1e-9)
    assert "✓ adds up, within the bound" in texts(figure)
    assert "exact: every step on the way is piecewise linear" in texts(figure)
    assert_legible(figure)


def test_the_tangent_says_that_it_is_one(trace: Any) -> None:
    message = texts(contributions(cs.explain(trace, "2", (1, 2, 2)).to_input()))
    assert any(text.startswith("the tangent at this input") and text.endswith("2") for text in message)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    from convscope.cli import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return call


@pytest.mark.parametrize("more", [(), ("--to-input",)])
def test_the_command_writes_the_figure_and_says_where(command: Callable[..., str], more: tuple[str, ...]) -> None:
    message = command("plot", "number", "crosses", "crosses:plus", "--at", "conv1:0,1,1", *more)
    assert message.startswith("wrote number-crosses-crosses-plus-conv1-0-1-1.png (")
    with Image.open("number-crosses-crosses-plus-conv1-0-1-1.png") as picture:
        assert min(picture.size) > 300


def test_no_channel_at_all_is_refused(trace: Any) -> None:
    with pytest.raises(cs.UsageError, match="most must be 1 or more, not 0"):
        explanation(cs.explain(trace, "3", (0, 0, 0)), most=0)


def test_a_cell_that_does_not_exist_is_refused_in_a_sentence(command: Callable[..., str]) -> None:
    with pytest.raises(cs.UsageError, match="conv1"):
        command("plot", "number", "crosses", "crosses:plus", "--at", "conv1:0,9,9")
    assert not list(Path().glob("*.png"))


def test_depth_2_draws_the_nine_windows_of_the_tutorials_hand_calculation() -> None:
    model = cs.load_model("crosses", args={"published": True})
    why = cs.explain(cs.trace(model, cs.load_image("crosses:damaged-plus", like=model)), "pool", (0, 0, 0))
    figure = cs.plot.explanation(why, depth=2)
    images = [str(image.get_label()) for image in figure.axes[0].images]
    assert [f"products of conv1 (0, {row}, {column})" for row in range(3) for column in range(3)] == images[-9:]
    sums = [text.get_text() for text in figure.axes[0].texts if " + 2.2435 = " in text.get_text()]
    ends = "−0.6951 2.4405 0.1171 −0.1267 2.2097 −1.4276 −0.9497 1.9848 −0.1690"
    assert [text.rpartition(" = ")[2] for text in sums] == ends.split()
    said = [text.get_text() for text in figure.axes[0].texts]
    assert images[-10] == "kernel"
    assert "conv1.weight[0, 0]" in said
    assert "bias 2.2435" in said
    assert said.count("pad") == 4 * 5 + 4 * 3  # four corners, four borders
    with pytest.raises(UsageError, match="depth is 1, or 2"):
        cs.plot.explanation(why, depth=3)
