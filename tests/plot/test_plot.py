"""Figures can be read and keep to themselves: text, formats, scales, numbers, no global setting."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

import convscope as cs
from convscope.data.dataset import Dataset
from convscope.errors import ModelError, RunError, ShapeError, UnknownName, UsageError
from convscope.filters import FILTERS, apply_filter
from convscope.plot.canvas.style import DIVERGING, PAGE, ColorScale, width
from convscope.plot.figures.confusion import confusion
from convscope.plot.figures.feature_maps import maps, maps_by_class
from convscope.plot.figures.filtered import filtered
from convscope.plot.figures.history import history
from convscope.plot.figures.kernels import kernels
from convscope.plot.figures.network import network
from convscope.plot.figures.pixels import pixels, planes
from convscope.plot.figures.samples import samples
from convscope.render.numbers import aligned, compact
from figures import Residual, Small, assert_legible, cells, data, events, image, texts


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


MAKERS: dict[str, Callable[[], Figure]] = {
    "samples": lambda: samples(data(3)),
    "pixels": lambda: pixels(image(1, 28, 28)),
    "pixels of a cross": lambda: pixels(np.eye(3), units=1),
    "pixels of a photo": lambda: pixels(image(1, 120, 90), name="photo"),
    "planes": lambda: planes(image(3, 40, 30)),
    "planes, cropped": lambda: planes(image(3, 40, 30), crop=(3, 4, 12, 14)),
    "kernels of one channel": lambda: kernels(Small()),
    "kernels of three": lambda: kernels(nn.Conv2d(3, 6, 5), inputs=("red", "green", "blue")),
    "kernels of many": lambda: kernels(nn.Conv2d(64, 512, 3)),
    "kernels, large": lambda: kernels(nn.Conv2d(3, 8, 11)),
    "maps": lambda: maps(cs.trace(Small(), image(1, 9, 9)), name="toy:test/0"),
    "maps of many": lambda: maps(cs.trace(Small(64), image(1, 9, 9)), shared=True),
    "maps by class": lambda: maps_by_class(cs.trace(Small(), data().scaled()), "conv1", data(), range(12)),
    "network": lambda: network(cs.trace(Small(), image(1, 9, 9))),
    "network with branches": lambda: network(cs.trace(Residual(), image(1, 9, 9))),
    "history": lambda: history(events()),
    "history of losses": lambda: history([{"event": "epoch", "epoch": e, "loss": 10.0**-e} for e in range(9)]),
    "confusion": lambda: confusion(np.array([[9, 1], [0, 1200]]), ["square", "circle"]),
    "confusion of many": lambda: confusion(np.eye(60, dtype=int) + 1, [f"a longer name {k}" for k in range(60)]),
    "filtered": lambda: filtered(image(1, 30, 30), FILTERS["sobel-x"], apply_filter(image(1, 30, 30), "sobel-x")),
    "filtered by colour": lambda: filtered(
        image(3, 30, 30), FILTERS["edge"], apply_filter(image(3, 30, 30), "edge", per_channel=True)
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_text_is_on_the_page_and_none_touch(name: str) -> None:
    assert_legible(MAKERS[name]())


def test_the_check_for_legibility_can_fail() -> None:
    figure = samples(data())
    figure.axes[0].text(0, 0.12, "over the title")
    with pytest.raises(AssertionError, match="over the title"):
        assert_legible(figure)


@pytest.mark.parametrize(
    "name",
    [
        *("kernels of three", "network with branches", "history"),
        *(pytest.param(name, marks=pytest.mark.study) for name in ("samples", "planes")),
    ],
)
def test_three_formats_are_written_and_text_stays_text_in_two(name: str, tmp_path: Path) -> None:
    figure = MAKERS[name]()
    title = "history" if name.startswith("history") else figure.axes[0].texts[0].get_text()
    for form, start in {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}.items():
        path = tmp_path / f"figure.{form}"
        figure.savefig(path)
        assert path.read_bytes().startswith(start)
    drawing = (tmp_path / "figure.svg").read_text()
    assert drawing.count("<text") >= len([t for t in texts(figure) if t.strip()]) // 2
    assert title in drawing


def test_the_same_figure_gives_the_same_file_whatever_the_global_settings_are(tmp_path: Path) -> None:
    strange: Any = {
        "font.size": 30,
        "svg.fonttype": "path",
        "text.usetex": True,
        "axes.facecolor": "red",
        "image.cmap": "jet",
        "lines.linewidth": 9,
        "axes.grid": True,
        "axes.titlesize": 40,
        "savefig.dpi": 3000,
        "savefig.bbox": "tight",
        "savefig.transparent": True,
        "svg.image_inline": False,
        "path.sketch": (3.0, 2.0, 1.0),
    }
    before = dict(mpl.rcParams)
    for name in ("network", "history", "confusion", "maps"):
        files = []
        for position, chosen in enumerate(({}, strange)):
            with mpl.rc_context(chosen):
                torch.manual_seed(0)
                path = tmp_path / f"{position}.svg"
                MAKERS[name]().savefig(path, metadata={"Date": None})
                files.append(path.read_bytes())
        assert files[0] == files[1], name
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (2, 4, 0), (2, 30, 0), (40, 0, 0), (0,), (3, 0), (2, 3, 0, 4)])
def test_steps_without_numbers_are_drawn_as_such(shape: tuple[int, ...]) -> None:
    class Empty(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten().sum() + torch.relu(x.new_zeros((1, *shape))).sum()

    trace = cs.trace(Empty(), image(1, 9, 9))
    for draw in (maps, network):
        assert_legible(draw(trace))


def test_no_global_setting_is_touched_and_no_figure_kept(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    gone = []
    for name, make in MAKERS.items():
        figure = make()
        if name in {"network", "history"}:
            figure.savefig(tmp_path / "figure.png", dpi=30)
        gone.append(weakref.ref(figure))
        del figure
    gc.collect()
    assert [ref for ref in gone if ref() is not None] == []
    assert dict(mpl.rcParams) == before


def test_neither_pyplot_nor_torch_is_loaded() -> None:
    code = """
import sys
import numpy as np
import convscope.plot as plot
plot.pixels(np.eye(3)).savefig(sys.argv[1])
plot.kernels(np.ones((2, 1, 3, 3)))
print([name for name in ("matplotlib.pyplot", "torch") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code, os.devnull + ".png" if os.name == "nt" else "/dev/stdout"],
        capture_output=True,
        check=False,
    )
    assert result.stdout.endswith(b"[]\n") or b"[]" in result.stdout, result.stderr


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_a_scale_is_symmetric_and_its_legend_has_the_half_that_is_used(values: list[float]) -> None:
    scale = ColorScale.of(np.array(values))
    assert scale.norm.vmin == -scale.limit
    assert scale.norm.vmax == scale.limit > 0
    low, high = scale.ends
    assert low <= min(*values, 0) <= max(*values, 0) <= high
    assert (low == 0) == (min(values) >= 0)
    assert (high == 0) == (max(values) <= 0)


def test_zero_is_the_page_itself_and_what_is_not_finite_has_a_colour_of_its_own() -> None:
    scale = ColorScale.of(np.array([-1.0, 2.0, np.nan, np.inf]))
    assert scale.ends == (-2.0, 2.0)
    assert scale.strange == 2
    colors = scale.colors(np.array([0.0, np.nan, np.inf]))
    zero, nan, inf = colors[0], colors[1], colors[2]
    page = np.array([int(PAGE[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    np.testing.assert_allclose(zero, page, atol=0.01)
    np.testing.assert_array_equal(nan, inf)
    every = np.asarray(DIVERGING(np.linspace(0, 1, 256)))[:, :3]
    assert np.abs(every - nan).max(axis=1).min() > 0.05
    broken = image(1, 9, 9)
    broken[0, 0, 0] = np.nan
    assert "9 not finite" not in cells(kernels(np.ones((1, 1, 3, 3))))
    assert any("not finite" in text for text in cells(maps(cs.trace(nn.Conv2d(1, 2, 1), broken))))


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_a_number_is_written_as_it_is_within_its_digits(value: float) -> None:
    text = compact(value)
    assert "-" not in text
    assert float(text.replace("−", "-")) == pytest.approx(value, rel=1e-3)


@given(st.lists(st.floats(-99_999, 99_999).map(lambda v: v if abs(v) > 1e-8 else 0.0), min_size=1, max_size=9))
def test_a_table_of_numbers_has_equal_decimals_and_fits_its_cells(values: list[float]) -> None:
    written = aligned(np.array(values)).tolist()
    assert len({len(text.partition(".")[2].partition("e")[0]) for text in written}) == 1
    assert max(map(len, written)) <= 7
    most = max(map(abs, values))
    for value, text in zip(values, written, strict=True):
        assert abs(float(text.replace("−", "-")) - value) <= max(most * 1e-3, 5.0001e-5)
        assert text != "−0"
        assert not text.startswith("−0.0000")


def test_a_wider_text_is_measured_as_wider() -> None:
    assert width("ii", 8) < width("WW", 8) < width("WW", 8, bold=True)
    assert width("ii", 8, mono=True) == width("WW", 8, mono=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pixels(np.zeros((2, 5, 5))), ShapeError, r"\(H, W\), \(1, H, W\) or \(3, H, W\), not \(2, 5, 5\)"),
        (lambda: pixels(np.full((1, 5, 5), 7.0)), ShapeError, "not float64 from 7.0 to 7.0; undo its normalization"),
        (lambda: pixels(np.zeros((1, 5, 5)), crop=(3, 0, 4, 1)), UsageError, "crop of 4x1 pixels at row 3, column 0"),
        (lambda: pixels(np.zeros((1, 99, 99)), crop=(0, 0, 90, 9)), UsageError, "90x9 numbers cannot be read"),
        (lambda: planes(np.zeros((1, 5, 5))), ShapeError, "planes need a colour picture"),
        (lambda: kernels(nn.Linear(3, 4)), ModelError, "Linear has no convolution"),
        (
            lambda: kernels(Small(), "conv"),
            UnknownName,
            "no convolution of this model is called 'conv'; did you mean 'co",
        ),
        (lambda: kernels(np.zeros((2, 3, 4))), ShapeError, r"kernels have the shape \(K, C, R, S\)"),
        (lambda: history([]), RunError, "has reported no loss yet"),
        (
            lambda: confusion(np.zeros((2, 3)), ["a", "b"]),
            ShapeError,
            r"has the shape \(2, 2\), not \(2, 3\)",
        ),
        (lambda: confusion(np.zeros((2, 2)), ["a"]), ShapeError, "a confusion matrix of 1 classes"),
        (lambda: filtered(np.zeros((5, 5)), FILTERS["blur"], np.zeros((1, 3, 3))), ShapeError, "1 or 3 channels"),
    ],
)
def test_what_cannot_be_drawn_gets_a_sentence(call: Callable[[], Figure], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_names_in_any_script_and_with_any_sign_are_drawn(tmp_path: Path) -> None:
    names = ("方形", "$x_1$ & <b>", "two\nlines\x00")
    toy = data(3)
    strange = Dataset("名 $", toy.images, toy.labels, names)
    for figure in (samples(strange), confusion(np.eye(3, dtype=int), names, name="$a_b$"), history(events(), name="$")):
        figure.savefig(tmp_path / "figure.png", dpi=50)
        figure.savefig(tmp_path / "figure.svg")
    assert "$x_1$" in " ".join(texts(samples(strange)))
