"""Figures say the truth: the numbers drawn are the data's, scales are symmetric and shown, text can be read."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from convscope.filters import FILTERS, apply_filter, parse_kernel
from convscope.plot.canvas.style import ACCENT, DIVERGING, INK, PAGE, ColorScale, width
from convscope.plot.figures.confusion import confusion
from convscope.plot.figures.feature_maps import maps, maps_by_class
from convscope.plot.figures.filtered import filtered
from convscope.plot.figures.history import history
from convscope.plot.figures.kernels import kernels
from convscope.plot.figures.network import network
from convscope.plot.figures.pixels import pixels, planes
from convscope.plot.figures.samples import samples, spread
from convscope.preprocess import Preprocess
from convscope.render.numbers import aligned, compact
from figures import Residual, Small, assert_legible, cells, data, drawn, events, image, named, texts


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


@pytest.mark.parametrize("name", ["samples", "planes", "kernels of three", "network with branches", "history"])
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
    }
    before = dict(mpl.rcParams)
    for name in ("network", "history", "confusion"):
        files = []
        for position, chosen in enumerate(({}, strange)):
            with mpl.rc_context(chosen):
                torch.manual_seed(0)
                path = tmp_path / f"{position}.svg"
                MAKERS[name]().savefig(path, metadata={"Date": None})
                files.append(path.read_bytes())
        assert files[0] == files[1], name
    assert dict(mpl.rcParams) == before


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


def test_samples_show_the_images_of_their_class_with_their_index() -> None:
    toy = data(3, 30)
    figure = samples(toy, per_class=4)
    shown = [str(picture.get_label()) for picture in figure.axes[0].images]
    assert len(shown) == 12
    for path, label in enumerate(shown):
        index = int(label.removeprefix("test/"))
        assert toy.labels[index] == path // 4
        assert str(index) in cells(figure)
        np.testing.assert_array_equal(drawn(figure, label).get_array(), toy.picture(index)[0])
    assert f"4 of each class, evenly spaced · each with its index, as in {toy.name}:{shown[-1]}" in cells(figure)
    assert all(picture.get_clim() == (0, 1) for picture in figure.axes[0].images)


def test_samples_name_the_classes_of_the_tutorials_in_full() -> None:
    for name in ("shapes", "color-shapes", "fashion-mnist"):
        classes = cs.DATASETS[name].classes
        toy = Dataset(name, np.zeros((len(classes), 1, 28, 28), np.uint8), np.arange(len(classes)), classes)
        assert set(classes) <= set(texts(samples(toy)))


def test_samples_of_very_many_classes_say_that_they_are_some() -> None:
    assert any(text.startswith("20 of 25 classes, the first") for text in texts(samples(data(25, 50))))


def test_samples_use_names_where_images_have_them() -> None:
    crosses = cs.load_dataset("crosses", split="all")
    assert set(crosses.names) <= cells(samples(crosses))
    long = replace(crosses, names=("a/1.png", "a/2.png", "b/3.png", "b/IMG_20240519_101112_edited.png"))
    assert {"0", "1", "2", "3"} <= cells(samples(long))  # all or none: else the same word would be under many
    assert not any("png" in text for text in texts(samples(long)))
    assert "each with its index, as in crosses:all/3" in cells(samples(long))


def test_a_long_class_name_keeps_both_of_its_ends() -> None:
    crosses = replace(
        cs.load_dataset("crosses", split="all"), classes=("retriever " * 9 + "one", "retriever " * 9 + "x")
    )
    for figure in (samples(crosses), confusion(np.eye(2, dtype=np.int64), crosses.classes)):
        message = [text for text in texts(figure) if text.startswith("retr")]
        assert {text[-2:].strip(" e") for text in message} == {"n", "x"}
        assert all("…" in text and width(text, 8, bold=True) < 2.3 for text in message)


def test_no_kernels_are_refused() -> None:
    with pytest.raises(UsageError, match="most must be 1 or more kernels, not 0"):
        kernels(np.ones((1, 1, 3, 3)), most=0)


def test_samples_are_a_hundred_of_a_class_at_most() -> None:
    toy = data(2, 300)
    assert len(spread(toy, 10**9)) == 200
    assert "100 of each class, evenly spaced" in " ".join(cells(samples(toy, per_class=10**9)))


@pytest.mark.parametrize("per_class", [0, -1])
def test_no_samples_are_refused(per_class: int) -> None:
    with pytest.raises(UsageError, match=f"per_class must be 1 or more, not {per_class}"):
        samples(data(), per_class=per_class)


def test_spread_takes_first_and_last_of_each_class() -> None:
    toy = data(2, 21)
    result = spread(toy, 3)
    assert result == [0, 10, 20, 1, 9, 19]
    assert spread(toy, 100) == [*range(0, 21, 2), *range(1, 21, 2)]


def test_pixels_writes_every_number_of_a_digit() -> None:
    digit = np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
    figure = pixels(digit)
    written = [t.get_text() for t in figure.axes[0].texts][2 : 2 + 784]
    assert list(map(int, written)) == digit.ravel().tolist()
    np.testing.assert_allclose(drawn(figure, "pixels").get_array() * 255, digit[0])
    assert pixels(digit.astype(np.float32) / 255).axes[0].texts[2 + 5].get_text() == str(digit[0, 0, 5])
    assert {"0", "27"} <= cells(figure)


def test_a_cropped_photo_shows_where_and_the_numbers_there() -> None:
    photo = image(1, 80, 100)
    figure = pixels(photo, crop=(70, 20, 3, 4), units=1)
    assert any("rows 70 to 72, columns 20 to 23" in text for text in texts(figure))
    np.testing.assert_allclose(drawn(figure, "pixels").get_array(), photo[0, 70:73, 20:24])
    assert {f"{v:.3f}" for v in photo[0, 70:73, 20:24].ravel()} <= cells(figure)
    np.testing.assert_allclose(drawn(figure, "picture").get_array(), photo[0])


def test_without_a_crop_the_busiest_part_is_written_out() -> None:
    photo = np.full((1, 96, 96), 0.5)
    photo[0, 48:72, 24:48] = np.random.default_rng(0).random((24, 24))
    assert any("rows 48 to 71, columns 24 to 47" in text for text in texts(pixels(photo)))


def test_planes_add_up_to_the_picture_and_are_written_in_both_units() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 20, 20), dtype=np.uint8)
    figure = pixels(picture, crop=(2, 3, 2, 2))  # a colour picture becomes its planes
    whole, *tinted = [p.get_array() for p in named(figure, "picture")]
    np.testing.assert_allclose(np.sum(tinted, axis=0), whole)
    np.testing.assert_allclose(np.moveaxis(whole, -1, 0) * 255, picture)
    part = picture[:, 2:4, 3:5]
    assert {str(v) for v in part.ravel()} <= cells(figure)
    assert {f"{v / 255:.3f}" for v in part.ravel() if 0 < v < 255} <= cells(figure)
    assert {"red", "green", "blue", "255", "1", "0 to 255", "0 to 1"} <= cells(figure)


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


def test_history_draws_the_metrics_and_names_its_curves() -> None:
    figure = history(events(), name="run")
    loss, accuracy = figure.axes
    curves: dict[str, Any] = {str(line.get_label()): line for line in loss.lines}
    np.testing.assert_allclose(curves["training"].get_xydata(), np.array([[1, 1], [2, 1 / 2], [3, 1 / 3]]))
    np.testing.assert_allclose(curves["test"].get_ydata(), [1.5, 0.75, 0.5])
    np.testing.assert_allclose(curves["batches"].get_xdata(), [0.5, 1.5, 2.5])
    assert curves["training"].get_color() == INK
    assert curves["test"].get_color() == ACCENT
    rates: dict[str, Any] = {str(line.get_label()): line for line in accuracy.lines}
    np.testing.assert_allclose(rates["test"].get_ydata(), [50, 75, 100 - 50 / 3])
    message = " ".join(texts(figure))
    for words in ("run", "3 epochs · 30 steps · 4.5 s", "best on test data 0.5", "test", "training", "83.33 %"):
        assert words in message


@pytest.mark.parametrize("gone", [("accuracy", "test_accuracy"), ("test_loss", "test_accuracy")])
def test_history_leaves_out_what_was_not_measured(gone: Sequence[str]) -> None:
    measured = [{key: None if key in gone else value for key, value in event.items()} for event in events()]
    assert len(history(measured).axes) == (1 if "accuracy" in gone else 2)
    assert_legible(history(measured))


def test_history_of_a_run_that_has_only_begun_or_went_wrong() -> None:
    begun = [{"event": "train", "step": 10, "epoch": 1, "loss": 2.0, "accuracy": None, "lr": 1, "seconds": 0.1}]
    assert_legible(history(begun))
    wrong = [*events(), {"event": "epoch", "epoch": 4, "step": 40, "loss": float("nan"), "accuracy": 0.1}]
    assert_legible(history(wrong))


def test_confusion_writes_counts_shares_and_colours_mistakes_only() -> None:
    counts = np.array([[90, 10, 0], [0, 50, 0], [0, 30, 20]])
    figure = confusion(counts, ["a", "b", "c"])
    shown = drawn(figure, "mistakes")
    np.testing.assert_allclose(shown.get_array(), np.array([[0, 0.1, 0], [0, 0, 0], [0, 0.6, 0]]))
    assert shown.get_clim() == (-0.6, 0.6)
    message = cells(figure)
    assert {"90", "10", "50", "30", "20", "90.00 %", "100.00 %", "40.00 %", "60 % of the images of a class"} <= message
    assert "160 of 200 images are classified correctly: 80.00 %" in message


def test_confusion_without_mistakes_or_without_images_of_a_class() -> None:
    assert "no mistakes" in cells(confusion(np.diag([5, 7]), ["a", "b"]))
    assert "no images" in cells(confusion(np.array([[5, 1], [0, 0]]), ["a", "b"]))


def test_a_large_confusion_names_the_most_frequent_mistakes() -> None:
    counts = np.diag(np.full(100, 50))
    counts[17, 71] = 13
    counts[3, 4] = 9
    message = texts(confusion(counts, [f"class {k}" for k in range(100)]))
    assert "class 17 taken for class 71" in message
    assert message.index("class 17 taken for class 71") < message.index("class 3 taken for class 4")


def test_filtered_shows_kernel_picture_and_output_in_signed_colours() -> None:
    picture, kernel = image(3, 20, 24), parse_kernel("1 2; -3 0.5; 0 1")
    output = apply_filter(picture, kernel)
    figure = filtered(picture, kernel, output, name="photo")
    np.testing.assert_array_equal(drawn(figure, "output").get_array(), output[0])
    most = float(np.abs(output).max())
    assert drawn(figure, "output").get_clim() == (-most, most)
    np.testing.assert_array_equal(drawn(figure, "kernel").get_array(), kernel.kernel)
    grey = Preprocess(channels=1).apply(picture, white=1.0)
    np.testing.assert_allclose(drawn(figure, "picture").get_array(), grey[0])
    assert {"custom 3x2 on photo", "3×2", "1×20×24", "1×18×23", "−3.0000", "sum 1.5"} <= cells(figure)


def test_a_kernel_that_sums_to_one_gives_a_picture_again() -> None:
    picture = image(3, 20, 20)
    for name in ("blur", "sharpen"):
        output = apply_filter(picture, name, per_channel=True)
        shown = drawn(filtered(picture, FILTERS[name], output), "output").get_array()
        np.testing.assert_allclose(shown, np.clip(np.moveaxis(output, 0, -1), 0, 1))
    beyond = apply_filter(np.eye(20)[None], "sharpen")
    assert "1, less and more is clipped" in cells(filtered(np.eye(20)[None], FILTERS["sharpen"], beyond))
