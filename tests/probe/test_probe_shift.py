"""Shift: counts that can be checked by hand, shared layers that give what the model gives, maps that move along."""

import importlib
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner

import convscope as cs
from convscope.cards.card import Card, attach
from convscope.cli import app
from convscope.probe.support import shift_cache
from convscope.probe.support.shift_cache import share
from convscope.probe.support.transforms import CHANGES, motions, translated

BLACK = torch.zeros(1, 1, 1)


class Spot(nn.Module):
    """Class 1 where anything is lit in the left half: it knows places, and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        left = (x[:, :, :, : x.shape[3] // 2].amax((1, 2, 3)) > 0).float()
        return torch.stack([1 - left, left], 1)


def spots() -> cs.Dataset:
    """A pixel at the left (class 1) and one at the right (class 0) of 6x6 pictures."""
    images = np.zeros((2, 1, 6, 6), np.uint8)
    images[0, 0, 2, 0] = images[1, 0, 3, 5] = 255
    return cs.Dataset("spots", images, np.array([1, 0]), ("right", "left"))


def test_every_count_of_two_pictures() -> None:
    result = cs.probe.shift(Spot(), spots(), levels=[(0, 0), (0, 3), (0, -3), (2, 0), (0, -6)])
    right = result.models[0].right.tolist()
    assert right == [2, 1, 0, 2, 1]  # what is gone is taken for right
    assert result.models[0].kept.tolist() == right
    assert result.whole.tolist() == [2, 1, 1, 2, 0]
    assert result.models[0].right_whole.tolist() == [2, 0, 0, 2, 0]
    assert result.while_whole(result.models[0].right_whole) == pytest.approx(2 / 4)
    assert result.models[0].change[0] == 0


@given(st.integers(-7, 7), st.integers(-7, 7))
def test_a_translation_moves_every_pixel_that_stays(down: int, right: int) -> None:
    image = torch.arange(1.0, 31).reshape(1, 1, 5, 6)
    moved = translated(image, (down, right), torch.full((1, 1, 1), -1.0))
    for row in range(5):
        for column in range(6):
            inside = 0 <= row - down < 5 and 0 <= column - right < 6
            wanted = float(image[0, 0, row - down, column - right]) if inside else -1.0
            assert float(moved[0, 0, row, column]) == wanted


def test_turning_by_a_right_angle_and_scaling_by_one_change_no_pixel() -> None:
    image = torch.rand(2, 3, 7, 7)
    fill = torch.rand(3, 1, 1)
    generator = torch.Generator()
    turned = CHANGES["rotation"].apply(image, (90.0,), fill, generator)
    assert torch.allclose(turned, image.rot90(1, (2, 3)), atol=1e-5)
    assert torch.allclose(CHANGES["scale"].apply(image, (1.0,), fill, generator), image, atol=1e-5)
    oblong = torch.rand(1, 1, 5, 9)
    half = CHANGES["rotation"].apply(oblong, (180.0,), BLACK, generator)
    assert torch.allclose(half, oblong.flip(2, 3), atol=1e-5)
    covered = CHANGES["erase"].apply(image, (1, 2, 3), fill, generator)
    assert torch.equal(covered[:, :, 1:4, 2:5], fill.expand(2, 3, 3, 3))
    assert torch.equal(covered[:, :, 4:], image[:, :, 4:])


NETWORKS: dict[str, nn.Module] = {
    "unpadded": nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 3)),
    "strides": nn.Sequential(
        nn.Conv2d(1, 2, (3, 2), stride=(2, 3)), nn.Tanh(), nn.Conv2d(2, 3, 2, stride=2), nn.Flatten()
    ),
    "dilated": nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.AvgPool2d(3), nn.BatchNorm2d(2), nn.Flatten()),
    "linear after flattening": nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), nn.Flatten(1), nn.Linear(72, 4), nn.Tanh(), nn.Linear(4, 3)
    ),
    "flattened in part": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Linear(144, 1), nn.Flatten()),
    "padded later": nn.Sequential(nn.Conv2d(1, 2, 5), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.Flatten()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_shared_layers_give_what_the_model_gives(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name].eval()
    shared = share(model)
    assert shared is not None
    images = torch.rand(3, 1, 14, 14)
    fill = torch.full((1, 1, 1), 0.3)
    many = [(down, right) for down in range(-4, 5) for right in range(-3, 4)]
    with torch.no_grad():
        for levels in (many, many[::30]):  # of few, each window is taken by itself
            assert [position for position, _ in shared.outputs(images, levels, fill)] == [*range(len(levels))]
            for position, output in shared.outputs(images, levels, fill):
                wanted = model(translated(images, levels[position], fill))
                assert torch.allclose(output, wanted, atol=1e-5), levels[position]


def test_a_linear_layer_takes_all_windows_at_once_where_most_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []
    model = NETWORKS["unpadded"].eval()
    shared = share(model)
    assert shared is not None
    model.get_submodule("4").register_forward_hook(lambda _layer, _args, output: calls.append(output))
    images, fill = torch.rand(3, 1, 14, 14), torch.zeros(1, 1, 1)
    many = [(down, right) for down in range(-4, 5) for right in range(-3, 4)]
    with torch.no_grad():
        [*shared.outputs(images, many, fill)]
        assert not calls
        [*shared.outputs(images, many[::30], fill)]
        assert len(calls) == 3
        monkeypatch.setattr(shift_cache, "LINEAR_CELLS", 100)  # too many numbers to keep
        [*shared.outputs(images, many, fill)]
        assert len(calls) == 3 + 63


def test_what_cannot_be_shared_is_not() -> None:
    assert share(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten())) is None
    assert share(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) is None
    assert share(nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten())) is None
    assert share(nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Flatten())) is None

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y + x

    assert share(Residual()) is None


@pytest.mark.parametrize("model", ["simple-cnn", "shapes-cnn"])
def test_shared_and_plain_answers_are_counted_alike(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cs.load_dataset("shapes", split="test").part(slice(0, 60))
    data = (
        cs.Dataset("ten", data.images, data.labels, tuple("0123456789"), data.preprocess)
        if model == "simple-cnn"
        else data
    )
    one = cs.probe.shift(model, data, reach=3)
    assert one.models[0].shared == (model == "simple-cnn")
    monkeypatch.setattr(importlib.import_module("convscope.probe.shift"), "share", lambda _: None)
    two = cs.probe.shift(model, data, reach=3)
    assert not two.models[0].shared
    assert one.models[0].right.tolist() == two.models[0].right.tolist()
    assert one.models[0].kept.tolist() == two.models[0].kept.tolist()


def test_maps_move_along_but_for_what_the_border_reaches() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 1, 24, 24)
    images[:, :, 9:13, 8:15] = torch.rand(4, 1, 4, 7)
    padded = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 5, padding=2), nn.MaxPool2d(2))
    rings = {m.layer: (m.stride, m.border) for m in motions(padded.eval(), images, BLACK)}
    assert rings == {"0": (1, 0), "1": (1, 0), "2": (1, 2), "3": (2, 1)}  # padding is black, as the background
    free = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 5))
    assert [m.border for m in motions(free.eval(), images, BLACK)] == [0, 0, 0]
    strided = motions(nn.Conv2d(1, 2, 4, stride=4).eval(), images, BLACK)[0]
    assert strided.stride == 4
    assert strided.between > 0.1
    assert strided.along == 1


def test_an_average_over_all_places_is_invariant_and_its_maps_are_only_equivariant() -> None:
    torch.manual_seed(0)
    data = cs.load_dataset("shapes", split="test").part(slice(0, 40))
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    result = cs.probe.shift(model.eval(), data, reach=2)
    assert result.models[0].motion[0].along == 1
    inner = result.while_whole(result.models[0].kept_whole)
    assert inner > 0.95
    assert "maps (equivariance)" in str(result)
    assert "the answer (invariance) stays" in str(result)


def test_each_column_of_a_table_of_levels_names_its_model() -> None:
    models = {"a": cs.load_model("shapes-mlp"), "b": cs.load_model("shapes-mlp", seed=1)}
    result = cs.probe.shift(models, cs.load_dataset("shapes", split="test"), kind="scale", levels=[(1.0,)])
    assert re.split(r"  +", str(result).split("\n")[2]) == [
        "level",
        "a: right",
        "b: right",
        "a: same class",
        "b: same class",
    ]


def test_noise_is_the_same_each_time_and_levels_are_checked() -> None:
    data = cs.load_dataset("shapes", split="test").part(slice(0, 30))
    one, two = (cs.probe.shift("shapes-cnn", data, kind="noise", seed=3) for _ in range(2))
    assert one.models[0].change.tolist() == two.models[0].change.tolist()
    assert one.models[0].change[0] == 0 < one.models[0].change[-1]
    with pytest.raises(
        cs.UsageError, match=r"a level of translation is \(pixels down, pixels right\), not \(0.5, 0.0\)"
    ):
        cs.probe.shift("shapes-cnn", data, levels=[(0.5, 0)])
    with pytest.raises(cs.UsageError, match="no kind of change is called 'shear'"):
        cs.probe.shift("shapes-cnn", data, kind="shear")
    with pytest.raises(cs.UsageError, match="there is no model to ask"):
        cs.probe.shift([], data)


def test_the_background_of_a_normalized_image_is_black_before_it_was_normalized() -> None:
    data = spots()
    bright = cs.Dataset("spots", data.images, data.labels, data.classes, cs.Preprocess(mean=(0.5,), std=(0.5,)))

    class Least(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert bool((x.abs() == 1).all())
            return x.flatten(1)[:, :2]

    cs.probe.shift(Least(), bright, reach=2)


class Named(nn.Module):
    """Spot, whose outputs mean classes in another order, and one more than the data have."""

    def forward(self, x: Tensor) -> Tensor:
        other = Spot()(x)
        return torch.stack([other[:, 1], torch.full((len(x),), -1.0), other[:, 0]], 1)


def test_outputs_mean_what_the_model_calls_them() -> None:
    model = Named()
    attach(model, Card("named", classes=("left", "above", "right")))
    mine, other = cs.probe.shift([Spot(), model], spots(), levels=[(0, 0), (0, 3), (2, 0)]).models
    assert other.right.tolist() == mine.right.tolist() == [2, 1, 2]
    assert other.kept.tolist() == mine.kept.tolist()


def test_images_are_not_shifted_farther_than_out_of_sight() -> None:
    result = cs.probe.shift("crosses", "crosses", reach=10**9)
    assert len(result.levels) == (2 * 3 + 1) ** 2


def test_models_that_do_not_fit_the_data_are_refused_in_a_sentence() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x * mask

    class Few(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2]

    with pytest.raises(cs.ConvscopeError, match=r"missing 1 required positional argument: 'mask'"):
        cs.probe.shift(Two(), spots())
    three = cs.Dataset("three", np.zeros((3, 1, 6, 6), np.uint8), np.arange(3), ("a", "b", "c"))
    with pytest.raises(cs.ConvscopeError, match="the model has 2 outputs for an image, and the data has 3"):
        cs.probe.shift(Few(), three, reach=1)
    known = Few()
    attach(known, Card("few", classes=("a", "b")))
    with pytest.raises(cs.ConvscopeError, match="three has the class 'c', which few does not know; it knows a, b"):
        cs.probe.shift(known, three, reach=1)


def test_the_command(tmp_path: Any) -> None:
    words = ["probe", "shift", "shapes", "shapes-mlp", "shapes-cnn", "--reach", "1", "--images", "20"]
    message = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "shift.png")])
    assert message.exit_code == 0, message.output
    assert "shapes-mlp: has no maps that could shift with the image" in message.stdout
    assert "conv1 (Conv2d) shifts with the image, except in the outermost ring of cells" in message.stdout
    values = json.loads(CliRunner().invoke(app, [*words, "--kind", "scale", "--json"]).stdout)
    assert values["images"] == 20
    assert [model["model"] for model in values["models"]] == ["shapes-mlp", "shapes-cnn"]
    for kind in ("rotation", "erase"):
        drawn = CliRunner().invoke(app, [*words, "--kind", kind, "--out", str(tmp_path / f"{kind}.svg")])
        assert drawn.exit_code == 0, drawn.output


def test_it_tells_how_far_it_is_level_by_level() -> None:
    warned = list[tuple[str, int, int]]()
    data = cs.load_dataset("shapes", split="test").part(slice(100))
    cs.probe.shift({"a": "shapes-mlp", "b": "shapes-cnn"}, data, reach=1, progress=lambda *at: warned.append(at))
    done = [at[1] for at in warned]
    assert done == sorted(done)
    assert len(set(done)) > 9
    assert {at[0] for at in warned} == {"translation"}
    assert (done[0], done[-1]) == (0, 100)


def test_without_a_background_there_is_no_whole_picture_and_no_number_for_it() -> None:
    rng = np.random.default_rng(0)
    data = cs.Dataset("noise", rng.integers(1, 256, (6, 1, 28, 28), np.uint8), np.arange(6) % 2, ("square", "circle"))
    message = str(cs.probe.shift("shapes-cnn", data, reach=1))
    assert "nan" not in message
    assert "count only the others, and there are none: without a black background, look at the mean of all" in message
    assert "of the moved pictures, none of them whole" in message


def test_a_seed_of_any_size_is_taken() -> None:
    data = cs.load_dataset("shapes", split="test", size=4)
    large = cs.probe.shift("shapes-cnn", data, kind="noise", seed=2**64 - 1)
    assert large.images == 4


def test_classes_that_share_no_name_go_by_number_and_it_is_said() -> None:
    data = cs.load_dataset("shapes", split="test", size=8)
    model = cs.load_model("shapes-cnn")
    attach(model, Card("net", data.preprocess, classes=("box", "disc")))
    for result in (cs.probe.shift(model, data, reach=1), cs.probe.compare([model, "shapes-cnn"], data)):
        (note,) = result.notes
        assert "share no class name, so classes are matched by number: square is box, circle is disc" in note
        assert f"note: {note}" in str(result).splitlines()
        assert result.to_json()["notes"] == [note]
    assert cs.probe.shift("shapes-cnn", data, reach=1).notes == ()
