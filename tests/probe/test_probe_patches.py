"""Patches: the extreme places of every image, cut out by exact receptive fields, in one frame."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import convscope as cs
from convscope.probe.support.scan import Batch, BatchResult, scan
from figures import assert_legible, data


class Two(nn.Module):
    """Two convolutions with a gap, a border and a functional activation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, 2, dilation=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv2(torch.relu(self.conv1(x))))


def test_they_are_the_extremes_that_traces_find() -> None:
    model, images = Two(), data(count=11)
    result = cs.probe.patches(model, images, "conv2", count=3)
    maps = cs.trace(model, images.scaled())["conv2"].output.reshape(11, 4, -1)
    for unit in range(4):
        best = maps[:, unit].max(axis=1)
        order = np.argsort(-best, kind="stable")[:3]
        assert [patch.image for patch in result.most[unit]] == order.tolist()
        np.testing.assert_allclose([patch.value for patch in result.most[unit]], best[order], rtol=1e-5)
        worst = maps[:, unit].min(axis=1)
        assert [patch.image for patch in result.least[unit]] == np.argsort(worst, kind="stable")[:3].tolist()


def test_a_patch_is_the_image_where_the_number_can_look() -> None:
    model, images = Two(), data(count=11)
    result = cs.probe.patches(model, images, "conv2", count=2)
    trace = cs.trace(model, images.image(0))
    assert result.frame == (6, 6)
    for unit, patches in result.most.items():
        for patch in patches:
            field = cs.probe.receptive_field(trace, "conv2", (unit, *patch.place))
            (top, bottom), (left, right) = patch.box
            assert field.box[1:] == patch.box
            inside = patch.kind > 0
            np.testing.assert_array_equal(
                patch.picture[:, inside],
                images.picture(patch.image)[:, top : bottom + 1, left : right + 1].reshape(1, -1),
            )
            assert np.count_nonzero(patch.kind == 2) == field.count


def test_only_the_patch_counts() -> None:
    """All pixels outside a patch can change, and its number stays."""
    model, images = Two(), data(count=11)
    patch = cs.probe.patches(model, images, "conv2", count=1).most[2][0]
    seen = cs.probe.receptive_field(cs.trace(model, images.image(0)), "conv2", (2, *patch.place)).cells
    changed = np.where(seen, images.image(patch.image), np.float32(0.77))
    value = cs.trace(model, changed)["conv2"].output[0, 2][patch.place]
    assert value == pytest.approx(patch.value, rel=1e-5)


def test_vectors_have_patches_of_the_whole_image() -> None:
    result = cs.probe.patches(
        cs.load_model("simple-cnn"), cs.load_dataset("shapes", split="test"), "fc1", channels=4, count=1
    )
    assert result.frame == (28, 28)
    assert result.units == 10
    assert sorted(result.most) == [0, 1, 2, 3]
    assert result.most[0][0].place == ()
    assert "and 6 more channels" in str(result)


def test_a_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cs.probe.patches(model, data(), count=1)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_interrupted_scan_goes_on(tmp_path: Path) -> None:
    images = cs.load_dataset("shapes", split="train", size=700)
    seen: list[int] = []

    def work(batch: Batch) -> BatchResult:
        if batch.number == 2 and 2 not in seen:
            seen.append(2)
            raise KeyboardInterrupt
        seen.append(batch.number)
        return {"sum": batch.images.double().sum().numpy()}

    def again() -> BatchResult:
        return scan(images, [nn.Flatten()], work, lambda a, b: {"sum": a["sum"] + b["sum"]}, what="x", folder=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        again()
    done = seen.copy()
    assert done == [0, 1, 2]
    whole = again()
    assert seen[len(done) :] == [2]
    assert whole["sum"] == pytest.approx(float((images.images / 255.0).sum()), rel=1e-6)
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_another_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text("{}")
    with pytest.raises(cs.ConvscopeError, match="holds the partial results of another scan"):
        cs.probe.patches(Two(), data(), count=1, folder=tmp_path)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(cs.UsageError, match="no step is called 'conv3'; did you mean"):
        cs.probe.patches(Two(), data(), "conv3")
    with pytest.raises(cs.UsageError, match="count and channels must be 1 or more, not 0 and 64"):
        cs.probe.patches(Two(), data(), "conv2", count=0)
    with pytest.raises(cs.ConvscopeError, match="2 channels"):
        cs.probe.patches(Two(), data(shape=(2, 9, 9)), "conv2")


def test_a_model_that_does_something_else_for_other_images_is_refused() -> None:
    class Fickle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) if float(x[0, 0, 0, 0]) > 0.5 else torch.tanh(x)

    images = np.zeros((300, 1, 4, 4), np.uint8)
    images[256:] = 255
    mixed = cs.Dataset("mixed", images, np.zeros(300, np.int64), ("one",))
    with pytest.raises(cs.TraceError, match="the model ran relu where it ran tanh"):
        cs.probe.patches(Fickle(), mixed, "tanh")


def test_the_picture_is_legible_and_has_one_scale() -> None:
    images = data(count=11)
    faint = cs.Dataset("faint", images.images // 8, images.labels, images.classes)
    figure = cs.plot.patches(cs.probe.patches(Two(), faint, "conv2", count=3))
    assert_legible(figure)
    assert len(figure.axes[0].images) == 4 * 2 * 3
    brightest = [float(np.asarray(image.get_array())[2:4, 2:4].max()) for image in figure.axes[0].images]
    assert max(brightest) < 1


def test_the_command(tmp_path: Path) -> None:
    from convscope.cli import app

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["probe", "patches", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    picture = tmp_path / "patches.svg"
    message = run("shapes-cnn", "shapes", "--step", "conv1", "--count", "2", "--out", str(picture))
    assert message.startswith("conv1 of shapes-cnn on shapes:test: 200 images, patches of 3x3 pixels")
    assert picture.exists()
    results = json.loads(run("shapes-cnn", "shapes", "--channels", "2", "--json"))
    assert [row["channel"] for row in results["channels"]] == [0, 1]
    assert len(results["channels"][0]["most"]) == 6
    with pytest.raises(cs.UsageError, match="shapes-cnn is not a run, so name the data set"):
        run("shapes-cnn")
