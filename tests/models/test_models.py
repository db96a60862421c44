"""Models: the built-in networks."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from convscope.cards.card_inference import card_of
from convscope.data.catalog import DATASETS, load_dataset
from convscope.errors import ShapeError
from convscope.models.catalog import DEFAULT_MODELS, MODELS, ModelEntry
from convscope.models.loading import load_model

PARAMETERS = {
    "crosses": 10,
    "stripes": 64,
    "mlp-512": 669_706,
    "mnist-convnet": 187_349,
    "simple-cnn": 13_610,
    "shapes-mlp": 15_742,
    "shapes-cnn-1": 40,
    "shapes-cnn": 1_538,
    "color-cnn": 132,
    "mnist-small": 40_986,
    "blocks": 13_610,
}
"""As the tutorials count them; mnist-small is our own, and blocks without a list is simple-cnn."""

OUTPUTS: Mapping[str, tuple[int, ...]] = {
    "crosses": (2, 1),
    "stripes": (2, 4, 12, 13),
    "shapes-mlp": (2, 2),
    "shapes-cnn-1": (2, 2),
    "shapes-cnn": (2, 2),
    "color-cnn": (2, 2),
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def batch(entry: ModelEntry) -> torch.Tensor:
    channels, height, width = entry.shape
    return torch.rand(2, channels, height or 27, width or 29)


def test_the_table_has_every_network() -> None:
    assert {name: entry.parameters for name, entry in MODELS.items()} == PARAMETERS
    assert all(name == entry.name for name, entry in MODELS.items())
    assert set(DEFAULT_MODELS) <= set(DATASETS)
    assert all(data in MODELS[model].data for data, model in DEFAULT_MODELS.items())


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_a_network_has_its_parameters_and_returns_logits(entry: ModelEntry) -> None:
    model = load_model(entry.name)
    assert parameters(model) == entry.parameters
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        output = model(batch(entry))
    assert output.shape == OUTPUTS.get(entry.name, (2, 10))
    assert not torch.allclose(output.sum(-1), torch.ones(()))


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_every_layer_is_used_once_in_the_order_of_the_definition(entry: ModelEntry) -> None:
    model = load_model(entry.name, args={"softmax": True} if entry.tutorial == 5 else {})
    layers = {module: name for name, module in model.named_modules() if not any(module.children())}
    used: list[str] = []
    for layer, name in layers.items():
        layer.register_forward_hook(lambda *_, name=name: used.append(name))
    model(batch(entry))
    assert used == list(layers.values())


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_a_network_expects_its_data_sets_images(entry: ModelEntry) -> None:
    card = card_of(load_model(entry.name))
    assert card.name == card.source == entry.name
    assert card.notes == ()
    for name in entry.data:  # a network of several data sets centres drawings as its first one does
        assert card.preprocess == replace(DATASETS[name].preprocess, fit=card.preprocess.fit)
    assert not entry.data or card.preprocess == DATASETS[entry.data[0]].preprocess
    for name in entry.data:
        assert entry.shape == DATASETS[name].shape


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_fresh_weights_come_from_the_seed_and_leave_the_random_state_alone(entry: ModelEntry) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (load_model(entry.name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if name.endswith("weight") and ".bn" not in f".{name}"]
    assert any(torch.equal(first[name], other[name]) for name in drawn) == (entry.name == "stripes")


@pytest.mark.parametrize("entry", [MODELS[n] for n in MODELS if n not in {"crosses", "stripes"}], ids=lambda e: e.name)
def test_a_network_can_be_built_for_other_images_and_classes(entry: ModelEntry) -> None:
    assert entry.fits(entry.shape, OUTPUTS.get(entry.name, (2, 10))[1]) == {}
    args = entry.fits((2, 37, 37), 7)
    model = load_model(entry.name, args=args)
    assert model(torch.rand(3, 2, 37, 37)).shape == (3, 7)
    assert card_of(model).preprocess.size == (37, 37)
    assert card_of(model).preprocess.channels == 2
    if entry.name == "blocks":
        assert entry.fits((1, 30, 20), 2) == {"classes": 2, "shape": (1, 30, 20)}
        return
    with pytest.raises(ShapeError, match=f"{entry.name} takes square images, not 30x20"):
        entry.fits((1, 30, 20), 2)


def test_networks_without_such_arguments_are_left_as_they_are() -> None:
    assert MODELS["crosses"].fits((3, 9, 8), 5) == {}


def test_stripes_are_the_four_filters_of_the_tutorial_and_fixed() -> None:
    weight = load_model("stripes").get_parameter("conv1.weight")
    rising = np.tile([-1.0, -1, 1, 1], (4, 1))
    np.testing.assert_array_equal(weight.numpy()[:, 0], [rising, -rising, rising.T, -rising.T])
    assert not weight.requires_grad


def test_the_published_kernel_gives_the_published_numbers() -> None:
    model = load_model("crosses")
    kernel = [[-1.5447, -0.6216, -1.7912], [-0.8678, 1.9076, -0.7804], [-1.2586, -0.4520, -1.7062]]
    model.load_state_dict({"conv1.weight": torch.tensor([[kernel]]), "conv1.bias": torch.tensor([2.2435])})
    images = torch.from_numpy(load_dataset("crosses", split="test").scaled())
    with torch.no_grad():
        assert [f"{value:.4f}" for value in model(images)[:, 0].tolist()] == ["0.3760", "1.1387"]


@pytest.mark.parametrize("name", ["shapes-mlp", "shapes-cnn-1", "shapes-cnn", "color-cnn"])
def test_the_published_softmax_is_the_last_layer(name: str) -> None:
    plain, ending = load_model(name), load_model(name, args={"softmax": True})
    assert [name for name, _ in ending.named_modules()][-1] == "softmax"
    images = batch(MODELS[name])
    with torch.no_grad():
        torch.testing.assert_close(ending(images), plain(images).softmax(1))


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8, 9, 10, 13, 27, 28, 31, 64])
def test_our_own_network_fits_any_size(size: int) -> None:
    network = MODELS["mnist-small"].build(size=size, channels=3, classes=4).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 4)
