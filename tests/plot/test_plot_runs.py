"""Figures of runs and filters: history, confusion, filtered pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from convscope.filters import FILTERS, apply_filter, parse_kernel
from convscope.plot.canvas.style import ACCENT, INK
from convscope.plot.figures.confusion import confusion
from convscope.plot.figures.filtered import filtered
from convscope.plot.figures.history import history
from convscope.preprocess import Preprocess
from figures import assert_legible, cells, drawn, events, image, texts


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


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


def test_small_pictures_and_outputs_are_numbers() -> None:
    picture = np.arange(12.0).reshape(1, 3, 4)
    figure = filtered(picture, parse_kernel("1 0; 0 1"), apply_filter(picture, "1 0; 0 1"))
    assert {"11", "5", "15"} <= cells(figure)  # a pixel, the first sum, the last


def test_a_kernel_that_sums_to_one_gives_a_picture_again() -> None:
    picture = image(3, 20, 20)
    for name in ("blur", "sharpen"):
        output = apply_filter(picture, name, per_channel=True)
        shown = drawn(filtered(picture, FILTERS[name], output), "output").get_array()
        np.testing.assert_allclose(shown, np.clip(np.moveaxis(output, 0, -1), 0, 1))
    beyond = apply_filter(np.eye(20)[None], "sharpen")
    assert "1, less and more is clipped" in cells(filtered(np.eye(20)[None], FILTERS["sharpen"], beyond))
