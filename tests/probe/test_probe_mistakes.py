"""Every mistake and slogan of the tutorials is found by a probe, and what corrects it is not."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import convscope as cs


def checks(found: cs.probe.Lint) -> set[str]:
    return {finding.check for finding in found.findings}


TRAINED = ["crosses", "shapes-mlp", "shapes-cnn-1", "shapes-cnn", "color-cnn"]
ON = {"crosses": "crosses", "color-cnn": "color-shapes"}
ENDS_IN_SOFTMAX = set(TRAINED) - {"crosses"}


@pytest.mark.parametrize("model", TRAINED)
def test_lint_finds_the_softmax_and_the_shared_images_of_each_published_training(model: str, tmp_path: Path) -> None:
    data = ON.get(model, "shapes")
    published = cs.train(data, model, recipe="tutorial", epochs=1, out=tmp_path / "published")
    result = cs.probe.lint(published)
    wanted = {"softmax-before-cross-entropy", "test-in-training"} if model in ENDS_IN_SOFTMAX else set()
    assert checks(result) == wanted, str(result)
    if wanted:
        assert "the loss cannot fall below 0.3133" in str(result)
        assert min(event["loss"] for event in published.history) > 0.3133
    corrected = cs.train(data, model, epochs=1, out=tmp_path / "corrected")
    assert not cs.probe.lint(corrected), str(cs.probe.lint(corrected))


@pytest.mark.parametrize("model", ["mlp-512", "mnist-convnet", "simple-cnn", "mnist-small"])
def test_lint_is_silent_on_the_networks_for_digits(model: str, shared_data: Path) -> None:
    data, test = (
        cs.load_dataset("mnist", split=split, data_dir=shared_data).part(slice(0, 600)) for split in ("train", "test")
    )
    assert not cs.probe.lint(cs.load_model(model), data, test=test)


def test_lint_is_silent_on_the_hand_made_stripes() -> None:
    kernels = dict(cs.load_model("stripes").named_parameters())["conv1.weight"].detach().numpy()[:, 0]
    titles = ["vertical, bright right", "vertical, bright left", "horizontal, bright below", "horizontal, bright above"]
    assert not cs.probe.lint(kernels=dict(zip(titles, kernels, strict=True)))


def test_the_filter_check_finds_the_vertical_edge_kernel_titled_horizontal() -> None:
    kernel = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]])
    result = cs.probe.lint(kernels={"horizontal": kernel, "vertical": kernel})
    assert [finding.where for finding in result.findings] == ["horizontal"]
    assert "it finds vertical edges" in result.findings[0].evidence
    assert cs.filters.edge_response(kernel).direction == "vertical"


def test_lint_finds_classes_0_and_1_titled_1_and_2() -> None:
    data = cs.load_dataset("shapes")
    for titles, wrong in (
        (("1", "2"), True),
        (("class 1", "class 2"), True),
        (("0", "1"), False),
        (data.classes, False),
    ):
        named = cs.Dataset("shapes", data.images, data.labels, titles, data.preprocess)
        assert ("class-titles" in checks(cs.probe.lint(cs.load_model("shapes-cnn"), named))) == wrong


def test_shift_measures_translation_invariance_and_tells_it_from_equivariance() -> None:
    """A convolution is equivariant: its maps move along, but for borders and strides; the answer is another matter."""
    data = cs.load_dataset("shapes", split="test")
    result = cs.probe.shift(["shapes-cnn", "shapes-mlp"], data, reach=4)
    cnn, mlp = result.models
    conv, pool = (next(m for m in cnn.motion if m.layer == name) for name in ("conv1", "pool1"))
    assert (conv.stride, conv.border) == (1, 1)
    assert pool.stride == 3
    assert pool.between > 0.1
    assert not mlp.motion
    assert "maps (equivariance)" in str(result)
    assert "the answer (invariance) stays" in str(result)
    assert "a border effect that no network can undo" in str(result)


def test_shift_measures_that_size_does_matter(tmp_path: Path) -> None:
    """'A nose regardless of size': a network that is right on every image is not at 1.5 times their size."""
    run = cs.train("shapes", "shapes-cnn", epochs=4, out=tmp_path / "run")
    result = cs.probe.shift(run.model, "shapes", kind="scale", levels=[(1,), (1.5,)])
    unmoved, larger = result.accuracy()
    assert unmoved > 0.9
    assert larger < unmoved - 0.2


def test_shortcut_finds_that_area_alone_decides() -> None:
    result = cs.probe.shortcut("shapes")
    assert result.features[0].name == "area"
    assert result.features[0].exact == pytest.approx(17 / 18)
    assert "94.4 %" in str(result)


def test_lint_finds_pictures_scaled_by_their_own_minimum_and_maximum() -> None:
    model = cs.load_model("shapes-cnn", seed=1)
    maps = cs.trace(model, cs.load_image("shapes:test/0", like=model))["conv1"].output[0]
    for limits in (None, (float(maps.min()), float(maps.max()))):
        figure = Figure()
        for k, values in enumerate(maps[:4]):
            low, high = limits or (float(values.min()), float(values.max()))
            figure.add_subplot(1, 4, k + 1).imshow(values, cmap="gray", vmin=low, vmax=high)
        assert ("own-scales" in checks(cs.probe.lint(figure=figure))) == (limits is None)


def test_lint_finds_test_images_that_occur_in_training() -> None:
    for sampling, wrong in (("published", True), ("split", False)):
        train, test = (cs.load_dataset("shapes", split=split, sampling=sampling) for split in ("train", "test"))
        result = cs.probe.lint(cs.load_model("shapes-cnn"), train, test=test)
        assert ("test-in-training" in checks(result)) == wrong
        if wrong:
            assert "69 of the 200 test images occur among the 1,000 training images" in str(result)
