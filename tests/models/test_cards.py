"""Cards: what a model expects, from its own config, an image processor's settings, or its layers."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from convscope.cards.card import Card, attach
from convscope.cards.card_inference import card_of, infer_card, preprocess_from_processor, preprocess_from_timm
from convscope.errors import ModelError, UsageError
from convscope.images import pixels
from convscope.models.loading import load_model
from convscope.preprocess import Preprocess

# Settings as transformers saves them, and what each is the first to exercise.
PROCESSORS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "vit, stretched": ("vit.ViT", {}),
    "convnext below 384, scaled and cropped": ("convnext.ConvNext", {"size": {"shortest_edge": 96}, "crop_pct": 0.875}),
    "resnet, ImageNet's mean": (
        "convnext.ConvNext",
        {"size": {"shortest_edge": 224}, "image_mean": [0.485, 0.456, 0.406]},
    ),
    "convnext from 384, stretched": ("convnext.ConvNext", {"size": {"shortest_edge": 384}}),
    "mobilenet, an edge and a crop": ("mobilenet_v2.MobileNetV2", {}),
    "clip, no share left out": ("clip.CLIP", {}),
    "deit, stretched and cropped": ("deit.DeiT", {}),
    "poolformer, both crop_pct and a crop": ("poolformer.PoolFormer", {}),
    "levit, an edge of its own": ("levit.Levit", {}),
    "efficientnet, normalized twice": ("efficientnet.EfficientNet", {"image_std": [0.3, 0.4, 0.5]}),
    "efficientnet, from -1 to 1": (
        "efficientnet.EfficientNet",
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False, "do_normalize": False},
    ),
    "no rescaling": ("vit.ViT", {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0] * 3}),
    "segformer, another size": ("segformer.Segformer", {"size": {"height": 70, "width": 90}}),
}


def processor(name: str, **settings: Any) -> Any:
    module, kind = name.split(".")
    room = pytest.importorskip(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(room, f"{kind}ImageProcessorPil")(**settings)


def photo(width: int = 300, height: int = 260) -> Image.Image:
    """A smooth colour picture that is no square."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def assert_prepared_alike(picture: Image.Image, name: str, settings: Mapping[str, Any]) -> None:
    theirs = processor(name, **{"resample": 2, **settings})
    wanted = np.asarray(theirs(picture, return_tensors="np")["pixel_values"][0])
    result = preprocess_from_processor(theirs.to_dict())
    ours = result.apply(pixels(picture))
    assert ours.shape == wanted.shape
    steps = np.abs(ours - wanted) * np.array(result.std).reshape(-1, 1, 1) * 255  # in grey levels of a pixel
    assert steps.max() < 2.1, "transformers rounds to whole pixels when it resizes"
    assert steps.mean() < 0.6


@pytest.mark.parametrize(("name", "settings"), PROCESSORS.values(), ids=PROCESSORS)
def test_pictures_are_prepared_as_transformers_does(name: str, settings: Mapping[str, Any]) -> None:
    assert_prepared_alike(photo(), name, settings)


@pytest.mark.parametrize("case", ["vit, stretched", "resnet, ImageNet's mean", "convnext from 384, stretched"])
def test_the_real_photo_is_prepared_as_transformers_does(case: str, shared_data: Path) -> None:
    with Image.open(shared_data / "images" / "dog.jpg") as dog:
        assert_prepared_alike(dog.convert("RGB"), *PROCESSORS[case])


def test_the_comparison_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_prepared_alike(photo(), "vit.ViT", {"resample": 0})


@pytest.mark.parametrize(
    ("settings", "size", "fit", "ratio"),
    [
        ({"size": 224}, (224, 224), "stretch", 1.0),  # as older files of ViT
        ({"size": 224, "crop_pct": 0.875}, (224, 224), "crop", 0.875),  # as older files of ConvNeXT
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (224, 224), "crop", 0.875),
        (
            {"size": 256, "crop_size": 224, "do_center_crop": True, "feature_extractor_type": "DeiTFeatureExtractor"},
            (224, 224),
            "stretch",
            0.875,
        ),
        ({"do_resize": False, "size": {"height": 9, "width": 9}}, None, "stretch", 1.0),
    ],
)
def test_older_settings_with_one_number(settings: dict[str, Any], size: object, fit: str, ratio: float) -> None:
    result = preprocess_from_processor(settings)
    assert (result.size, result.fit, result.crop_ratio, result.channels) == (size, fit, ratio, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_flip_channel_order": True, "size": 9},
        {"do_pad": True, "size": 9},
        {"size": {"shortest_edge": 800, "longest_edge": 1333}},
        {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 256},
        {"size": {"shortest_edge": 224}},
        {"do_resize": False, "do_center_crop": True, "crop_size": 224},
        {"size": None},
    ],
)
def test_what_cannot_be_said_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"the image processor's setting .* cannot be expressed as a Preprocess"):
        preprocess_from_processor(settings)


@given(
    factor=st.floats(1e-3, 1.0),
    mean=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    std=st.lists(st.floats(0.1, 3), min_size=3, max_size=3),
    pixel=st.integers(0, 255),
)
def test_any_rescaling_becomes_mean_and_deviation(
    factor: float, mean: list[float], std: list[float], pixel: int
) -> None:
    settings = {"size": 2, "do_rescale": True, "rescale_factor": factor, "image_mean": mean, "image_std": std}
    ours = preprocess_from_processor(settings).apply(np.full((3, 2, 2), pixel, np.uint8))
    wanted = (pixel * factor - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(ours[:, 0, 0], wanted, rtol=1e-4, atol=1e-4)


def test_timm_settings() -> None:
    result = preprocess_from_timm(
        {"input_size": (3, 224, 224), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.3), "crop_pct": 0.9}
    )
    assert result.size == (224, 224)
    assert (result.fit, result.crop_ratio) == ("crop", 224 / 248)  # timm scales the shorter edge to floor(224 / 0.9)
    assert result.mean == (0.4, 0.5, 0.6)


class Timm(nn.Module):
    """Describes itself as timm's models do."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.pretrained_cfg = config


@pytest.mark.parametrize("wrap", [dict, SimpleNamespace], ids=["mapping", "object"])
def test_a_timm_model_says_what_it_expects(wrap: Any) -> None:
    config = wrap(
        input_size=(3, 64, 96), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", label_names=["cat", "dog"]
    )
    card = card_of(Timm(config))
    assert card.preprocess == Preprocess((64, 96), 3, mean=(0.5,) * 3, std=(0.5,) * 3, fit="crop")
    assert card.classes == ("cat", "dog")
    assert card.notes == ("pictures are resized bilinearly; the model's own processor uses bicubic",)


def tiny_convnext(**settings: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, image_size=64, **settings)
    model: nn.Module = transformers.ConvNextForImageClassification(config)
    return model


def test_a_transformers_config_says_size_channels_and_real_class_names() -> None:
    card = card_of(tiny_convnext(num_channels=1, id2label={0: "cat", 1: "dog", 2: "eel"}))
    assert card.preprocess == Preprocess(size=(64, 64), channels=1)
    assert card.classes == ("cat", "dog", "eel")
    assert "no mean and standard deviation" in card.notes[0]
    assert card_of(tiny_convnext()).classes == ()


def test_a_saved_transformers_model_brings_its_image_processor(tmp_path: Path) -> None:
    model = tiny_convnext()
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    processor("convnext.ConvNext", size={"shortest_edge": 64}).save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)  # type: ignore[attr-defined]
    card = card_of(loaded)
    assert card.preprocess.size == (64, 64)
    assert card.preprocess.crop_ratio == 64 / 73
    assert card.preprocess.mean == (0.5, 0.5, 0.5)
    assert str(tmp_path) in card.notes[0]
    weights = load_model(tiny_convnext(), weights=tmp_path / "model.safetensors")
    assert card_of(weights).preprocess == card.preprocess


def test_a_processor_that_cannot_be_said_is_noted_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"do_flip_channel_order": True}))
    card = infer_card(tiny_convnext(), tmp_path)
    assert card.preprocess.size == (64, 64)
    assert "do_flip_channel_order" in card.notes[0]
    for text in ("{", '{"size": 8, "image_mean": "much"}', "[1]"):
        path.write_text(text)
        with pytest.raises(ModelError, match="cannot be read as the config of an image processor"):
            infer_card(tiny_convnext(), tmp_path)


def test_layers_say_what_no_config_does() -> None:
    assert card_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).preprocess == Preprocess(channels=3)
    grey = card_of(nn.Sequential(nn.Flatten(), nn.Linear(49, 2)))
    assert grey.preprocess == Preprocess(size=(7, 7), channels=1)
    assert grey.notes == ("1 takes 49 numbers, so it is given grey pictures of 7x7",)
    assert card_of(nn.Linear(4, 2)).notes == (
        "the layer takes 4 numbers, as a vector: give it an array (.npy) of that length",
    )
    assert card_of(nn.Linear(3 * 81, 2)).preprocess == Preprocess(size=(9, 9), channels=3)
    assert card_of(nn.Linear(13, 2)).preprocess == Preprocess()
    assert card_of(nn.ReLU()).preprocess == Preprocess()


def test_a_card_survives_copies_and_files() -> None:
    card = Card("net", Preprocess((28, 28), 1, background="dark"), ("a", "b"), "net.py:Net", fixed_size=True)
    assert Card.from_json(json.loads(json.dumps(card.to_json()))) == card
    model = nn.ReLU()
    attach(model, card)
    assert card_of(copy.deepcopy(model)) == card
    assert not model.state_dict()
    assert torch.equal(model(torch.ones(1)), torch.ones(1))
