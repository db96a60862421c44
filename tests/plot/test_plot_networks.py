"""Figures of networks: kernels, feature maps and whole strips show the recorded numbers, branches and selections."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
from convscope.cards.card import Card, attach
from convscope.errors import ShapeError, UnknownName
from convscope.plot.figures.feature_maps import maps, maps_by_class
from convscope.plot.figures.kernels import kernels
from convscope.plot.figures.network import network
from convscope.preprocess import Preprocess
from convscope.render.numbers import aligned, compact
from figures import Residual, Small, assert_legible, cells, data, drawn, image, named, texts


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_kernels_show_the_weights_their_sums_and_their_bias() -> None:
    layer = nn.Conv2d(3, 2, 3)
    figure = kernels(layer, inputs=("red", "green", "blue"))
    weight = layer.weight.detach().double().numpy()
    limits = set()
    for k, c in np.ndindex(2, 3):
        shown = drawn(figure, f"Conv2d[{k}, {c}]")
        np.testing.assert_array_equal(shown.get_array(), weight[k, c])
        limits.add(shown.get_clim())
        assert set(aligned(weight[k, c]).ravel()) <= cells(figure)
    most = float(np.abs(weight).max())
    assert limits == {(-most, most)}
    assert {f"Σ {text}" for text in aligned(weight.sum(axis=(2, 3))).ravel()} <= cells(figure)
    assert layer.bias is not None
    assert {f"bias {text:>7}" for text in aligned(layer.bias.detach().double().numpy())} <= cells(figure)
    assert {"red", "green", "blue", f"−{compact(most)}", f"+{compact(most)}"} <= cells(figure)


def test_many_kernels_become_a_labelled_selection_of_those_with_the_largest_range() -> None:
    layer = nn.Conv2d(64, 512, 3)
    with torch.no_grad():
        layer.weight[7] *= 50
        layer.weight[:, 63] *= 20
    figure = kernels(layer)
    message = (
        "24 of 512 kernels, those with the largest range; 12 of 64 input channels of each, those with the largest range"
    )
    assert message in texts(figure)
    assert len(named(figure, "Conv2d[")) == 24 * 12
    np.testing.assert_array_equal(drawn(figure, "Conv2d[7, 63]").get_array(), layer.weight[7, 63].detach().double())


def test_a_layer_is_found_by_name_transposed_and_grouped_ones_by_what_they_read() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 4, 2, groups=2, bias=False))
    grouped, transposed = kernels(model), kernels(model, "1")
    assert any(text.startswith("6 kernels of 2×3×3, 2 groups, with bias") for text in texts(grouped))
    assert any(text.startswith("4 kernels of 3×2×2, 2 groups, no bias") for text in texts(transposed))
    assert any(text == "other convolutions: 1" for text in texts(grouped))
    weight = next(model[1].parameters()).detach().double().numpy()  # (C, K / groups, R, S)
    np.testing.assert_array_equal(drawn(transposed, "1[3, 2]").get_array(), weight[3 + 2, 1])


def test_maps_are_the_steps_numbers_in_one_symmetric_scale_each() -> None:
    trace = cs.trace(Small(), image(1, 9, 9))
    figure = maps(trace)
    for step in ("conv1", "relu"):
        most = float(np.abs(trace[step].output).max())
        for k in range(4):
            shown = drawn(figure, f"{step}[{k}]")
            np.testing.assert_array_equal(shown.get_array(), trace[step].output[0, k])
            assert shown.get_clim() == (-most, most)
        assert {compact(most), f"+{compact(most)}"} & cells(figure)
    assert "the same numbers, reshaped" in cells(figure)  # flatten
    assert {"square", "circle", "image"} <= cells(figure)
    assert set(aligned(trace["fc"].output[0])) <= cells(figure)
    np.testing.assert_allclose(drawn(figure, "image").get_array(), image(1, 9, 9)[0])


def test_steps_are_told_in_words_not_in_names_of_operators() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2))
    message = texts(maps(cs.trace(model, image(1, 12, 12))))
    assert {"convolution 3x3, stride 2", "max pooling 2x2", "linear 18 to 2"} <= {*message} | {
        text.removesuffix(", padding 1") for text in message
    }
    assert not any("addmm" in text or "_with_indices" in text for text in message)


def test_no_part_stands_alone_below_the_others_where_a_little_more_width_holds_it() -> None:
    """The network of the published recipe: the image and eight parts."""
    model = cs.load_model("shapes-cnn", args={"softmax": True})
    figure = network(cs.trace(model, np.zeros((1, 28, 28), np.float32)))
    heights = {text.get_position()[1] for text in figure.axes[0].texts if text.get_text() in {"conv1", "fc", "softmax"}}
    assert len(heights) == 1
    assert_legible(figure)


def test_a_shared_scale_holds_all_steps() -> None:
    trace = cs.trace(Small(), image(1, 9, 9) * 9)
    most = max(float(np.abs(step.output).max()) for step in trace.steps)
    shown = named(maps(trace, shared=True), "conv1[") + named(maps(trace, shared=True), "relu[")
    assert {picture.get_clim() for picture in shown} == {(-most, most)}
    assert len(named(maps(trace, shared=True), "legend")) == 1


def test_many_channels_become_a_labelled_selection_that_activations_keep() -> None:
    model = nn.Sequential(nn.Conv2d(1, 512, 3), nn.ReLU(), nn.Conv2d(512, 32, 1))
    trace = cs.trace(model, image(1, 9, 9))
    figure = maps(trace)
    message = cells(figure)
    assert {"24 of 512 channels", "those with the largest range", "the same as above", "24 of 32 channels"} <= message
    values = trace["0"].output[0]
    best = sorted(np.argsort(-np.ptp(values.reshape(512, -1), axis=1))[:24])
    for step in ("0", "1"):
        assert [str(p.get_label()) for p in named(figure, f"{step}[")] == [f"{step}[{k}]" for k in best]


def test_maps_of_chosen_steps_only_and_an_unknown_one_is_named() -> None:
    trace = cs.trace(Small(), image(1, 9, 9))
    figure = maps(trace, steps=["relu"])
    assert not named(figure, "conv1[")
    assert len(named(figure, "relu[")) == 4
    with pytest.raises(UnknownName, match="no step is called 'rel'; did you mean 'relu'"):
        maps(trace, steps=["rel"])


def test_a_normalized_image_is_shown_in_its_own_units() -> None:
    model = nn.Conv2d(3, 2, 3)
    attach(model, Card("net", Preprocess(channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))))
    picture = image(3, 8, 8)
    trace = cs.trace(model, cs.card_of(model).preprocess.apply(picture, white=1.0))
    np.testing.assert_allclose(drawn(maps(trace), "image").get_array(), np.moveaxis(picture, 0, -1), atol=1e-6)


def test_maps_by_class_put_images_of_a_class_side_by_side() -> None:
    toy, model = data(2, 8), Small()
    indices = [3, 0, 5, 2]
    trace = cs.trace(model, toy.scaled(indices))
    figure = maps_by_class(trace, "conv1", toy, indices, name="small")
    lefts = {int(str(p.get_label()).split()[1]): p.get_extent()[0] for p in named(figure, "image ")}
    assert sorted(lefts, key=lefts.__getitem__) == [0, 2, 3, 5]  # class 0, then class 1
    for path, index in enumerate(indices):
        shown = drawn(figure, f"conv1[{path}, 2]")
        np.testing.assert_array_equal(shown.get_array(), trace["conv1"].output[path, 2])
        assert shown.get_extent()[0] == lefts[index]
    assert {"class 0", "class 1", "channel 3"} <= cells(figure)
    with pytest.raises(ShapeError, match="holds 4 images, but 3 indices"):
        maps_by_class(trace, "conv1", toy, [0, 1, 2])
    assert len(named(maps_by_class(trace, "fc", toy, indices), "fc[")) == 8


def test_the_network_shows_names_shapes_and_the_answer() -> None:
    figure = network(cs.trace(Small(), image(1, 9, 9)))
    assert {"small", "image", "conv1", "relu", "pool", "fc", "4×9×9", "4×3×3", "square", "circle"} <= cells(figure)
    assert "flatten" not in cells(figure)
    assert any("and 1 that only reshapes" in text for text in texts(figure))
    assert texts(figure).count("→") == 4


def tips(figure: Figure) -> int:
    return sum(line.get_marker() == "^" for line in figure.axes[0].lines)


def test_a_branch_is_a_line_that_goes_round() -> None:
    figure = network(cs.trace(Residual(), image(1, 9, 9)))
    assert tips(figure) == 1  # a is read by add too
    assert texts(figure).count("→") == 5
    assert tips(network(cs.trace(Small(), image(1, 9, 9)))) == 0


def test_a_branch_over_a_single_step_is_drawn_too() -> None:
    class Short(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.add(torch.tanh(x), x)

    assert tips(network(cs.trace(Short(), image(1, 9, 9)))) == 1


def test_a_branch_into_another_line_of_the_figure_is_named_at_both_ends() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(1 if k == 0 else 16, 16, 1) for k in range(12)])

        def forward(self, x: Tensor) -> Tensor:
            first = x = self.layers[0](x)
            for layer in self.layers[1:]:
                x = layer(x)
            return torch.add(x, first)

    figure = network(cs.trace(Long(), image(1, 9, 9)))
    assert {"to add", "from layers.0"} <= cells(figure)
    assert_legible(figure)


class Deep(nn.Module):
    """Four stages of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.stages = nn.ModuleList([nn.Sequential(*(self.block() for _ in range(2))) for _ in range(4)])

    @staticmethod
    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x) + x
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def test_a_deep_network_is_folded_by_module_as_deep_as_there_is_room() -> None:
    trace = cs.trace(Deep(), image(1, 9, 9))
    figure = network(trace)
    assert {"stem", "stages.0.0", "stages.3.1", "4 steps"} <= cells(figure)
    assert any(f"{len(trace.steps) - 1} steps in 14 parts" in text for text in texts(figure))
    np.testing.assert_array_equal(drawn(figure, "stages.2.1[3]").get_array(), trace["stages.2.1.3"].output[0, 3])
    assert tips(figure) == 4  # each stage's addition reads its input too
    assert "stages.1" in cells(network(trace, depth=1))
    assert "stages.1.0" not in cells(network(trace, depth=1))


def test_a_long_network_without_modules_is_folded_into_runs() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(30):
                x = torch.add(torch.tanh(x), 1)
            return x

    figure = network(cs.trace(Flat(), image(1, 9, 9)))
    assert any("60 steps in 20 parts" in text for text in texts(figure))
    assert "3 steps" in cells(figure)


@settings(max_examples=8)
@given(
    channels=st.integers(1, 40),
    size=st.integers(1, 40),
    depth=st.integers(1, 4),
    units=st.integers(1, 30),
    shared=st.booleans(),
)
def test_any_small_network_is_legible(channels: int, size: int, depth: int, units: int, shared: bool) -> None:
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 1)]
    for _ in range(depth - 1):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, units))
    trace = cs.trace(model, image(1, size, size))
    assert_legible(network(trace, shared=shared))
    assert_legible(maps(trace, shared=shared))


def test_maps_say_where_an_image_has_more_than_a_picture_can_show() -> None:
    layer = torch.nn.Conv2d(1, 1, 2)
    trace = cs.trace(layer, np.array([[[0, 3], [1, 2]]], np.float32))
    texts = [text.get_text() for text in cs.plot.maps(trace).axes[0].texts]
    assert "from 0 to 3, drawn from 0 to 1" in texts
    small = cs.trace(layer, np.array([[[0, 1], [1, 0.5]]], np.float32))
    assert not any("drawn from" in text.get_text() for text in cs.plot.maps(small).axes[0].texts)


def test_maps_of_a_small_network_are_about_as_wide_as_tall() -> None:
    """Sixteen maps are one line; small ones are written out where they take few lines, or were asked for."""
    trace = cs.trace("shapes-cnn", "shapes:test/0")
    page, asked = cs.plot.maps(trace), cs.plot.maps(trace, steps=["pool2"])
    width, height = page.get_size_inches()
    assert 0.8 < width / height < 1.3
    written = [
        [text for text in figure.axes[0].texts if text.get_horizontalalignment() == "center" and "." in text.get_text()]
        for figure in (page, asked)
    ]
    assert [len(each) for each in written] == [2, 16 * 9]  # the scores; all of pool2
