"""Compare: counts by hand, multiply-adds by arithmetic, similarities by their definition."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import convscope as cs
from commands import Commands
from convscope.cards.card import Card, attach
from convscope.probe.support.model_measures import cka, costs, dependence, gram
from figures import assert_legible, data


class Corner(nn.Module):
    """Says the class by how bright one pixel is."""

    def __init__(self, row: int) -> None:
        super().__init__()
        self.row = row
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        bright = torch.relu(x[:, 0, self.row, 0])
        return torch.stack([1 - bright, bright], 1) * self.weight


def test_a_model_beside_itself_has_another_name() -> None:
    result = cs.probe.compare(["shapes-cnn", "shapes-cnn"], data(), names=["a", "a"])
    assert [model.name for model in result.models] == ["a", "a (2)"]
    written = [text.get_text() for text in cs.plot.compare(result).axes[0].texts]
    assert not any(text.startswith("index and class") for text in written)  # they disagree on nothing


def test_counts_are_those_of_a_plain_loop() -> None:
    images = data(count=40)
    result = cs.probe.compare([Corner(0), Corner(3)], images, shown=5, names=["top", "middle"])
    one, other = (images.scaled()[:, 0, row, 0] > 0.5 for row in (0, 3))
    labels = images.labels.astype(bool)
    assert [model.accuracy.hits for model in result.models] == [int((g == labels).sum()) for g in (one, other)]
    pair = result.pairs[0]
    assert pair.same == int((one == other).sum())
    assert pair.only_one == int(((one == labels) & (other != labels)).sum())
    assert pair.only_other == int(((other == labels) & (one != labels)).sum())
    assert result.disagreeing == 40 - pair.same
    assert [d.image for d in result.disagreements] == np.flatnonzero(one != other)[:5].tolist()
    first = result.disagreements[0]
    assert first.answers == (int(one[first.image]), int(other[first.image]))
    np.testing.assert_array_equal(first.picture, images.picture(first.image))


def test_a_paired_difference_has_an_interval_around_it() -> None:
    pair = cs.probe.compare([Corner(0), Corner(3)], data(count=40)).pairs[0]
    shift, low, high = pair.difference
    assert shift == (pair.only_other - pair.only_one) / 40
    assert low < shift < high


def test_multiply_adds_are_the_arithmetic_of_the_layers() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, groups=1), nn.Flatten(), nn.Linear(8 * 6 * 8, 7))
    grouped = nn.Conv2d(4, 8, 3, groups=2, padding=1)
    with torch.no_grad():
        one, other = costs([conv, grouped], [torch.zeros(2, 3, 15, 20), torch.zeros(2, 4, 6, 5)])
    assert one.multiply_adds == 6 * 8 * 8 * 3 * 25 + 8 * 6 * 8 * 7
    assert other.multiply_adds == 6 * 5 * 8 * 2 * 9
    assert one.parameters == 8 * 3 * 25 + 8 + 384 * 7 + 7
    assert one.least <= one.milliseconds <= one.most


def test_fused_attention_is_counted_like_its_parts() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model, image = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), torch.rand(3, 7, 16)
    with torch.no_grad():
        fused = costs([model.eval()], [image])[0].multiply_adds
    assert (
        fused == costs([model.train()], [image])[0].multiply_adds == 7 * 16 * 16 * 4 + 2 * 7 * 7 * 16 + 2 * 7 * 16 * 32
    )


def test_similarity_is_one_up_to_rotation_and_scale_and_none_for_noise() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(200, 12, generator=random)
    turned = 3 * x @ torch.linalg.qr(torch.randn(12, 12, generator=random))[0] + 5
    noise = torch.randn(200, 12, generator=random)
    grams = [gram(layer) for layer in (x, turned, noise)]
    own = np.array([dependence([g], [g])[0, 0] for g in grams])
    alike = cka(dependence(grams, grams), own, own)
    assert alike[0, 1] == pytest.approx(1, abs=1e-6)
    assert abs(alike[0, 2]) < 0.05


def test_similarity_is_the_published_estimator() -> None:
    """By the definition, with explicit sums over different indices (Song et al., 2012)."""
    x, y = np.random.default_rng(1).normal(size=(2, 6, 3))
    k, m = x @ x.T, y @ y.T
    n, index = 6, range(6)
    by_hand = sum(
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i in index for j in index for q in index for r in index
        if len({i, j, q, r}) == 4
    ) / (n * (n - 1) * (n - 2) * (n - 3))  # fmt: skip
    result = dependence([gram(torch.tensor(x))], [gram(torch.tensor(y))])[0, 0]
    assert result == pytest.approx(by_hand, rel=1e-4)


def test_a_model_is_like_itself() -> None:
    model = cs.load_model("shapes-cnn")
    result = cs.probe.compare([model, model], cs.load_dataset("shapes", split="test"))
    assert [m.name for m in result.models] == ["shapes-cnn", "shapes-cnn (2)"]
    np.testing.assert_allclose(np.diag(result.pairs[0].similarity), 1, atol=1e-9)
    assert result.disagreeing == 0


def test_classes_in_another_order_are_matched_by_name() -> None:
    images = data(count=40)
    plain, swapped = Corner(0), Corner(0)
    attach(swapped, Card("swapped", classes=("class 1", "class 0")))
    result = cs.probe.compare([plain, swapped], images)
    assert result.models[0].accuracy.hits + result.models[1].accuracy.hits == 40


def test_a_class_that_the_data_do_not_have_is_an_answer_and_is_wrong() -> None:
    images = data(count=40)
    last = nn.Linear(int(np.prod(images.shape)), 3)
    last.bias.data += torch.tensor([0.0, 0.0, 1e3])
    third = nn.Sequential(nn.Flatten(), last)
    attach(third, Card("third", classes=("class 0", "class 1", "class 2")))
    result = cs.probe.compare([Corner(0), third], images)
    assert result.models[1].accuracy.hits == 0
    assert {case.answers[1] for case in result.disagreements} == {-1}
    assert_legible(cs.plot.compare(result))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(cs.UsageError, match="compare takes two or more models"):
        cs.probe.compare([Corner(0)], data())
    few = cs.Dataset("many", data().images, np.arange(12), tuple(map(str, range(12))))
    with pytest.raises(cs.ConvscopeError, match="the model has 2 outputs for an image, and the data has 12"):
        cs.probe.compare([Corner(0), Corner(1)], few)


def test_the_picture_is_legible() -> None:
    models = [cs.load_model("shapes-cnn"), cs.load_model("shapes-mlp")]
    assert_legible(cs.plot.compare(cs.probe.compare(models, cs.load_dataset("shapes", split="test"))))


def test_the_command(tmp_path: Path) -> None:
    from convscope.cli import app

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["probe", "compare", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    picture = tmp_path / "compare.png"
    message = run("shapes-cnn", "shapes-mlp", "--on", "shapes", "--out", str(picture))
    assert message.startswith("shapes:test: 200 images; intervals: Wilson 95 %")
    assert "shapes-cnn       1,538        150,048" in message
    assert picture.exists()
    results = json.loads(run("shapes-cnn", "shapes-mlp", "--on", "shapes", "--shown", "3", "--json"))
    assert results["models"][1]["parameters"] == 15742
    assert len(results["disagreements"]) <= 3


def test_the_command_says_which_run_was_trained_on_other_images(tmp_path: Path, convscope: Commands) -> None:
    for name, recipe, seed in (("published", "tutorial", 0), ("fast", "fast", 0), ("other", "fast", 0)):
        cs.train("shapes", "shapes-cnn-1", recipe=recipe, epochs=1, seed=seed, out=tmp_path / name)
    published, fast, other = (tmp_path / name for name in ("published", "fast", "other"))
    noted = convscope("probe", "compare", published, fast).err
    assert f"note: {fast} was trained on other images than {published}, whose data is used" in noted.replace("\n", " ")
    assert "other images" not in convscope("probe", "compare", fast, other).err
    assert "other images" not in convscope("probe", "compare", published, fast, "--on", "shapes").err
