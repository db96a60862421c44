"""Attribution: what the methods say is what Captum says, and the differences are what they are."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import convscope as cs
from figures import assert_legible, image
from zoo import born

captum = pytest.importorskip("captum.attr", reason="attribution needs Captum")
pytestmark = pytest.mark.filterwarnings("ignore")


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3 * 16, 4)]
    return nn.Sequential(*layers)


def mapped(found: Any) -> Any:
    assert found.map is not None, found.refused
    return found.map


def test_gradient_times_input_is_the_exact_map() -> None:
    result = cs.probe.attribution(small(), image(1, 10, 10), methods=["input-x-gradient"])
    assert result.linear
    np.testing.assert_allclose(mapped(result.methods[0]), result.exact, rtol=0, atol=1e-6)
    assert float(result.exact.sum()) + result.constant == pytest.approx(result.value, abs=1e-5)
    assert result.methods[0].correlation == pytest.approx(1)
    assert result.methods[0].shared == 1
    assert result.methods[0].apart is None


def test_the_other_methods_give_captums_numbers() -> None:
    model, picture = small().eval(), image(1, 10, 10)
    result = {m.method: m for m in cs.probe.attribution(model, picture, 2).methods}
    assert not any(m.refused for m in result.values())
    x = torch.tensor(picture)[None]
    expected = captum.IntegratedGradients(model).attribute(x, target=2, n_steps=64)[0]
    np.testing.assert_allclose(mapped(result["integrated-gradients"]), expected, atol=1e-5)
    cam = captum.LayerGradCam(model, model[0]).attribute(x, target=2, relu_attributions=True)  # type: ignore[index]
    cam = captum.LayerAttribution.interpolate(cam, (10, 10), "bilinear")[0]
    np.testing.assert_allclose(mapped(result["grad-cam"]), cam.detach(), atol=1e-6)


def test_what_methods_promise_is_checked() -> None:
    model, picture = small().eval(), image(1, 10, 10)
    result = {m.method: m for m in cs.probe.attribution(model, picture, 2).methods}
    with torch.no_grad():
        promised = float((model(torch.tensor(picture)[None]) - model(torch.zeros(1, 1, 10, 10)))[0, 2])
    assert result["deep-lift"].promised == pytest.approx(promised, abs=1e-6)
    assert result["deep-lift"].total == pytest.approx(promised, abs=1e-4)
    assert result["occlusion"].promised is None


def test_classes_are_asked_by_name_and_the_chosen_one_is_the_default() -> None:
    model = cs.load_model("shapes-cnn")
    result = cs.probe.attribution(model, "shapes:test/3", methods=["saliency"])
    with torch.no_grad():
        logits = model(torch.tensor(cs.load_image("shapes:test/3"))[None])[0]
    assert result.value == pytest.approx(float(logits.max()), abs=1e-5)
    other = cs.probe.attribution(model, "shapes:test/3", "0", methods=["saliency"])
    assert other.value == pytest.approx(float(logits[0]), abs=1e-5)


def test_it_says_when_the_exact_map_is_a_tangent() -> None:
    result = cs.probe.attribution(cs.load_model("shapes-cnn"), "shapes:test/3", methods=["saliency"])
    assert not result.linear
    assert "(a tangent, because of tanh1, tanh2)" in str(result)


def test_a_network_of_functions_breaks_a_promise_and_the_table_shows_it() -> None:
    model, picture = born("ViT")
    result = cs.probe.attribution(model.eval(), picture[0].numpy(), methods=["deep-lift"]).methods[0]
    assert result.promised is not None
    assert abs(result.total - result.promised) > 1e-3


class Awkward(nn.Module):
    """No convolution, and one activation for two places: Grad-CAM and DeepLift do not work."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu = nn.Linear(36, 8), nn.Linear(8, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(self.relu(self.relu(self.one(x.flatten(1)))))
        return out


def test_a_method_that_does_not_work_says_why_and_leaves_the_model_alone() -> None:
    model = Awkward().train()
    result = cs.probe.attribution(model, image(1, 6, 6))
    cam = next(m for m in result.methods if m.method == "grad-cam")
    assert cam.map is None
    assert "grad-cam              does not work here: there is no convolution" in str(result)
    assert model.training
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(cs.UsageError, match="no attribution method is called 'gradcam'; did you mean 'grad-cam'"):
        cs.probe.attribution(small(), image(1, 10, 10), methods=["gradcam"])
    with pytest.raises(cs.UsageError, match="the model has outputs 0 to 3, not 4"):
        cs.probe.attribution(small(), image(1, 10, 10), 4)
    with pytest.raises(cs.UsageError, match="maps of 4x7x7 numbers"):
        cs.probe.attribution(nn.Conv2d(1, 4, 4), image(1, 10, 10))


def test_without_captum_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(cs.UsageError, match=r"pip install 'convscope\[attribution\]'"):
        cs.probe.attribution(small(), image(1, 10, 10))


def test_the_picture_of_a_large_image_adds_neighbouring_pixels_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    result = cs.probe.attribution(model, torch.rand(3, 160, 100).numpy(), 0, methods=["saliency"])
    figure = cs.plot.attribution(result)
    drawn = {str(image.get_label()): np.asarray(image.get_array()) for image in figure.axes[0].images}
    whole = result.exact.sum(axis=0)
    assert drawn["exact"].shape == drawn["saliency"].shape == (75, 75)
    assert drawn["exact"].sum() == pytest.approx(whole.sum() / np.abs(whole).sum())
    assert "the 160×100 pixels are added up in 75×75 cells" in [text.get_text() for text in figure.axes[0].texts]
    assert_legible(figure)


def test_it_tells_how_far_it_is_and_ends_between_two_passes_of_a_method() -> None:
    model, warned = small(), list[tuple[str, int, int]]()

    def progress(*at: Any) -> None:
        warned.append(at)
        if len(warned) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.probe.attribution(model, image(1, 10, 10), methods=["guided-backprop", "occlusion"], progress=progress)
    assert warned[0] == ("methods", 0, 2)
    assert warned[-1] == ("methods", 1, 2)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())

    warned.clear()
    cs.probe.attribution(model, image(1, 10, 10), methods=["saliency"], progress=lambda *at: warned.append(at))
    assert warned[-1] == ("methods", 1, 1)


def test_the_picture_is_legible() -> None:
    assert_legible(cs.plot.attribution(cs.probe.attribution(small(), image(1, 10, 10))))


def test_the_command(tmp_path: Path) -> None:
    from convscope.cli import app

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["probe", "attribution", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    picture = tmp_path / "attribution.png"
    message = run("simple-cnn", "shapes:test/3", "--class", "4", "--method", "saliency", "--out", str(picture))
    assert "output 4 of simple-cnn for shapes:test/3" in message or "4 of simple-cnn for shapes:test/3" in message
    assert picture.exists()
    assert json.loads(run("simple-cnn", "shapes:test/3", "--method", "saliency", "--json"))["shape"] == [1, 28, 28]
