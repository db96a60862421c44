"""Receptive fields: exact by what steps read, never less than what autograd finds, and the same on a twin."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import convscope as cs
from figures import assert_legible
from gradients import Smooth, outputs_of, support, twin_of
from zoo import ZOO, born

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's models warn about themselves

WIDE = ("ResNet", "ConvNeXt", "RegNet", "MobileNetV1", "MobileNetV2", "EfficientNet", "PoolFormer", "DenseNet", "UNet")
"""Families that take an image of any size: a larger one leaves more that a number cannot see."""


def animal(name: str) -> tuple[nn.Module, Tensor]:
    model, image = born(name)
    return model.eval(), torch.rand(1, 3, 64, 96) if name in WIDE else image.abs() + 0.1


def compared(model: nn.Module, image: Tensor, twin: nn.Module | None, steps: int) -> Iterator[tuple[str, Any, Any]]:
    """The receptive field and the gradient's support for a random cell of several modules' results."""
    trace, random = cs.trace(model, image), np.random.default_rng(0)
    ran, x = (model, image.clone()) if twin is None else (twin, image.double())
    x.requires_grad_()
    with outputs_of(ran) as outputs, contextlib.nullcontext() if twin is None else Smooth():
        ran(x)
    shapes = {step.name: step.shape for step in trace.steps}
    paths = [path for path, made in outputs.items() if shapes.get(path) == made.shape and made.requires_grad]
    assert paths
    for path in dict.fromkeys(paths[int(at)] for at in np.linspace(0, len(paths) - 1, steps)):
        cell = tuple(int(random.integers(length)) for length in shapes[path])
        result = cs.probe.receptive_field(trace, path, cell)
        of = cell[0] if len(image) == shapes[path][0] else 0
        yield f"{path} {cell}", result.cells, support(outputs[path], cell, x)[of]


FAMILIES = sorted(ZOO.keys() - {"TransformerEncoder", "SENet"})


@pytest.mark.parametrize("name", FAMILIES)
def test_it_contains_what_autograd_finds_and_equals_it_where_nothing_is_zero(name: str) -> None:
    model, image = animal(name)
    twin = twin_of(model)
    for message, cells, seen in compared(model, image, None, steps=3):
        assert not (seen & ~cells).any(), message
    for message, cells, seen in compared(model, image, twin, steps=3):
        assert (seen == cells).all(), message


@pytest.mark.study
@pytest.mark.parametrize("name", [*FAMILIES, "SENet"])
def test_both_hold_for_many_cells(name: str) -> None:
    model, image = animal(name)
    twin = twin_of(model)
    for message, cells, seen in compared(model, image, twin, steps=40):
        assert (seen == cells).all(), message
    for message, cells, seen in compared(model, image, None, steps=40):
        assert not (seen & ~cells).any(), message


class Around(nn.Module):
    """A layer, and the image added to what it makes where the shapes allow it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layer(x)
        return made + x if made.shape == x.shape else made


class Padded(nn.Module):
    """One of PyTorch's paddings, and a window over it."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (2, 1, 1, 2), mode=self.mode), (2, 3))


SMALL = st.integers(1, 3)
TWO = st.tuples(SMALL, SMALL)


def _pool(kind: Any, size: tuple[int, int], stride: tuple[int, int], ceil: bool) -> nn.Module:
    made: nn.Module = kind(size, stride, (size[0] // 2, size[1] // 2), ceil_mode=ceil)
    return made


LAYERS: Mapping[str, st.SearchStrategy[nn.Module]] = {
    "convolution": st.builds(nn.Conv2d, st.just(4), st.just(4), TWO, TWO, TWO, TWO, st.sampled_from([1, 2, 4])),
    "transposed": st.builds(
        nn.ConvTranspose2d, st.just(4), st.just(4), TWO, TWO, groups=st.sampled_from([1, 2]), dilation=SMALL
    ),
    "pooling": st.builds(_pool, st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]), TWO, TWO, st.booleans()),
    "adaptive": st.one_of(st.builds(nn.AdaptiveAvgPool2d, TWO), st.builds(nn.AdaptiveMaxPool2d, TWO)),
    "nearest": st.builds(
        nn.Upsample, scale_factor=st.sampled_from([1.5, 2.0]), mode=st.sampled_from(["nearest", "nearest-exact"])
    ),
    "bilinear": st.builds(
        nn.Upsample, scale_factor=st.sampled_from([1.5, 2.0]), mode=st.just("bilinear"), align_corners=st.booleans()
    ),
    "padding": st.builds(Padded, st.sampled_from(["reflect", "replicate", "circular", "constant"])),
    "shuffle": st.just(nn.ChannelShuffle(2)),
}


@settings(max_examples=40)
@given(st.lists(st.one_of(*LAYERS.values()), min_size=1, max_size=4), st.booleans(), st.randoms(use_true_random=False))
def test_networks_drawn_at_random(drawn: list[nn.Module], skips: bool, random: Any) -> None:
    model = nn.Sequential(*[Around(layer) if skips else layer for layer in drawn]).eval()
    image = torch.rand(1, 4, 13, 17)
    try:
        output = model(image)
    except RuntimeError:  # a window larger than what it slides over
        return
    trace = cs.trace(model, image)
    cell = tuple(random.randrange(length) for length in output.shape)
    result = cs.probe.receptive_field(trace, trace.all_steps[-1].id, cell)
    real = image.clone().requires_grad_()
    assert not (support(model(real), cell, real)[0] & ~result.cells).any()
    smooth = image.double().requires_grad_()
    with Smooth():
        twin = twin_of(model)(smooth)
    assert (support(twin, cell, smooth)[0] == result.cells).all()
    assert_each_is_what_it_is_alone(trace)


def assert_each_is_what_it_is_alone(trace: cs.Trace) -> None:
    """All fields of a trace remember what lies before a result; one alone has nothing to remember."""
    together = cs.probe.receptive_fields(trace).fields
    assert len(together) == len(trace.steps)
    for step, result in zip(trace.steps, together, strict=True):
        alone = cs.probe.receptive_field(trace, step.id)
        assert (result.cells == alone.cells).all(), step.name
        assert result.to_json() == alone.to_json(), step.name


@pytest.mark.parametrize("name", ["ResNet", "DenseNet", pytest.param("MobileViT", marks=pytest.mark.study), "Swin"])
def test_the_fields_of_all_steps_are_those_of_each(name: str) -> None:
    assert_each_is_what_it_is_alone(cs.trace(*animal(name)))


class Chooses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        brightest = x[:, 0].flatten(1).argmax(1)
        return x.flatten(2)[torch.arange(len(x)), 0, brightest]


class Writes(nn.Module):
    """Writes over its image before it reads it again."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, :, 0] = 1
        y[:, :, :, 2] += y[:, :, :, 5]
        return y + 0


@pytest.mark.parametrize("made", [Chooses, Writes])
def test_so_are_those_of_a_model_that_chooses_or_writes_in_place(made: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), made(), nn.ReLU(), nn.Tanh())
    assert_each_is_what_it_is_alone(cs.trace(model, torch.rand(1, 1, 6, 7)))


def test_what_numbers_choose_is_called_data_dependent() -> None:
    result = cs.probe.receptive_field(cs.trace(Chooses(), torch.rand(1, 1, 4, 5)), "index")
    assert result.whole
    assert result.chosen_by == ("index",)
    assert "data-dependent: index chooses by the numbers what it reads" in str(result)


def test_writing_in_place_is_followed() -> None:
    trace = cs.trace(Writes(), torch.rand(1, 1, 4, 6))
    last = trace.steps[-1].name
    assert cs.probe.receptive_field(trace, last, (0, 0, 1)).count == 0
    assert [list(axis) for axis in cs.probe.receptive_field(trace, last, (0, 1, 2)).axes[1:]] == [[1], [2, 5]]
    assert "depends on no cell of the image" in str(cs.probe.receptive_field(trace, last, (0, 0, 1)))


def test_global_steps_are_named() -> None:
    model, _ = born("ResNet")
    trace = cs.trace(model, torch.rand(1, 3, 96, 96))
    result = cs.probe.receptive_field(trace, "classifier.1")
    assert result.whole
    assert result.whole_from == "resnet.pooler"
    assert "global: resnet.pooler reads along whole axes" in str(result)
    assert not cs.probe.receptive_field(trace, "resnet.embedder.embedder.convolution").whole_from


def test_batch_norm_in_training_sees_the_other_images() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    trace = cs.trace(model, torch.rand(3, 1, 6, 6), training=True)
    assert not cs.probe.receptive_field(trace, "0", (1, 0, 2, 2)).other_images
    result = cs.probe.receptive_field(trace, "1", (1, 0, 2, 2))
    assert result.other_images
    assert "other images of the batch" in str(result)


def test_an_unknown_operation_is_taken_to_read_all() -> None:
    class Unheard(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = torch.fft.fft(x).real
            return made

    trace = cs.trace(Unheard(), torch.rand(1, 1, 4, 5))
    result = cs.probe.receptive_field(trace, trace.steps[-1].name, (0, 1, 1))
    assert result.whole
    assert result.unknown
    assert "is taken to read all that it is given" in str(result)


def test_gaps_are_said_and_the_box_is_only_a_summary() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, dilation=3), nn.Conv2d(1, 1, 2, dilation=1))
    result = cs.probe.receptive_field(cs.trace(model, torch.rand(1, 12, 12)), "1", (0, 0, 0))
    assert [axis.tolist() for axis in result.axes] == [[0], [0, 1, 3, 4, 6, 7], [0, 1, 3, 4, 6, 7]]
    assert result.box == ((0, 0), (0, 7), (0, 7))
    assert not result.full_box
    assert "rows 0 to 1, 3 to 4, 6 to 7" in str(result)
    assert "some within it are not read" in str(result)
    assert result.to_json()["axes"][1] == [0, 1, 3, 4, 6, 7]


def test_the_picture_is_legible_and_veils_the_rest() -> None:
    trace = cs.trace(nn.Conv2d(3, 1, 5), torch.ones(3, 30, 40))
    figure = cs.plot.receptive_field(cs.probe.receptive_field(trace, "conv2d", (0, 3, 20)))
    assert_legible(figure)
    image = figure.axes[0].images[0].get_array()
    assert image is not None
    assert np.asarray(image)[5, 22].tolist() == [1, 1, 1]
    assert np.asarray(image)[20, 22].max() < 1
    with pytest.raises(cs.UsageError, match="an input of 4×9×9 is not a grey or colour picture"):
        cs.plot.receptive_field(cs.probe.receptive_field(cs.trace(nn.Conv2d(4, 1, 3), torch.ones(4, 9, 9)), "conv2d"))


def run(*arguments: str) -> str:
    from convscope.cli import app

    result = CliRunner().invoke(app, ["probe", "receptive-field", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_command(tmp_path: Path) -> None:
    assert "conv2    11x11    121   15.4 %\n" in run("shapes-cnn")
    picture = tmp_path / "field.png"
    message = run("shapes-cnn", "shapes:test/0", "--at", "conv2:0,4,4", "--out", str(picture))
    assert "rows 8 to 18, columns 8 to 18" in message
    assert picture.exists()
    assert json.loads(run("shapes-cnn", "--at", "conv2:0,4,4", "--json"))["cells"] == 121
    with pytest.raises(cs.UsageError, match="a picture shows one field; name the step"):
        run("shapes-cnn", "--out", str(picture))
    with pytest.raises(cs.UsageError, match="no step is called 'conv3'"):
        run("shapes-cnn", "--at", "conv3")
    with pytest.raises(cs.UsageError, match="conv2 has no cell"):
        run("shapes-cnn", "--at", "conv2:0,99,4")


def test_it_tells_how_many_steps_are_done() -> None:
    warned = list[tuple[str, int, int]]()
    trace = cs.trace(cs.load_model("shapes-cnn"), cs.load_image("shapes:test/0"))
    cs.probe.receptive_fields(trace, progress=lambda *at: warned.append(at))
    assert warned == [("steps", done, len(trace.steps)) for done in range(len(trace.steps) + 1)]


class Emptied(nn.Module):
    """Cuts out a part in which there is nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :0].relu(), x], 1)


def test_a_step_without_numbers_is_left_out_and_asked_for_it_says_so() -> None:
    trace = cs.trace(Emptied(), torch.ones(1, 4, 4))
    (empty, *_), fields = (
        [step.name for step in trace.steps if 0 in step.shape],
        cs.probe.receptive_fields(trace).fields,
    )
    assert [result.step for result in fields] == [step.name for step in trace.steps if 0 not in step.shape]
    with pytest.raises(cs.UsageError, match=f"{empty} holds no numbers"):
        cs.probe.receptive_field(trace, empty)


class Bits(nn.Module):
    """Looks at the bits of its numbers as numbers of another type, twice as many."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(torch.int16).float()


def test_dependencies_of_bits_viewed_as_another_type_are_unknown() -> None:
    trace = cs.trace(Bits(), torch.ones(1, 4, 4))
    result = cs.probe.receptive_field(trace, trace.steps[-1].name, (0, 1, 5))
    assert result.cells.all()
    assert result.unknown == ("view",)


def test_a_flattened_map_has_the_field_of_the_map() -> None:
    """The middle of the vector alone would be a corner of a channel."""
    layers = [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)]
    fields = cs.probe.receptive_fields(cs.trace(nn.Sequential(*layers), torch.zeros(1, 8, 8))).fields
    maps, vector = fields[1:3]
    assert vector.name == "2, all channels at (1, 1)"
    np.testing.assert_array_equal(vector.cells, maps.cells)
    by_itself = cs.probe.receptive_field(cs.trace(nn.Sequential(*layers), torch.zeros(1, 8, 8)), "2", (4,))
    np.testing.assert_array_equal(vector.cells, by_itself.cells)


@pytest.mark.parametrize("batch", [(), (1,)], ids=["alone", "batch"])
def test_a_vector_is_an_image_of_one_axis(batch: tuple[int, ...]) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    result = cs.probe.receptive_field(cs.trace(net, torch.rand(*batch, 4)), "1", (2,))
    assert (result.count, result.box, result.whole) == (4, ((0, 3),), True)
