"""Verify on architectures that nobody here wrote: the same bits as an untraced run, and 100 % proved."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from proving import assert_proved, fused_transformers
from zoo import ZOO, Animal, born

VIT: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
FOUR: dict[str, Any] = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 20]}
HEADS: dict[str, Any] = {"num_attention_heads": [1, 2, 3, 4]}


def _of_transformers(name: str, settings: Mapping[str, Any], side: int, task: str) -> Animal:
    def build() -> Any:
        import transformers

        return getattr(transformers, f"{name}{task}")(getattr(transformers, f"{name}Config")(**settings))

    return Animal(build, (3, side, side))


def _of_monai(name: str, *arguments: Any, shape: tuple[int, ...], **settings: Any) -> Animal:
    def build() -> Any:
        nets = pytest.importorskip("monai.networks.nets")
        return getattr(nets, name)(*arguments, **settings)

    return Animal(build, shape)


def _classifier(name: str, side: int = 64, task: str = "ForImageClassification", **settings: Any) -> Animal:
    return _of_transformers(name, settings, side, task)


MORE: Mapping[str, Animal] = {
    "DeiT": _classifier("DeiT", 32, **VIT),
    "CLIP": _classifier("CLIPVision", 32, "Model", **VIT),
    "SigLIP": _classifier("SiglipVision", 32, "Model", **VIT),
    "I-JEPA": _classifier("IJepa", 32, **VIT),
    "data2vec": _classifier("Data2VecVision", 32, **VIT),
    "ViT-MSN": _classifier("ViTMSN", 32, **VIT),
    "YOLOS": _classifier("Yolos", 32, "ForObjectDetection", **VIT | {"image_size": [32, 32]}),
    "DINOv3": _classifier("DINOv3ViT", 32, "Model", **VIT),
    "DINOv3 ConvNeXt": _classifier("DINOv3ConvNext", 64, "Model", **FOUR),
    "BiT": _classifier("Bit", embedding_size=8, num_groups=4, **FOUR | {"hidden_sizes": [32, 32, 64, 64]}),
    "MobileViTV2": _classifier("MobileViTV2", image_size=64, width_multiplier=0.25),
    "PVTv2": _classifier("PvtV2", image_size=64, **HEADS, **FOUR | {"hidden_sizes": [8, 16, 24, 32]}),
    "Hiera": _classifier("Hiera", image_size=[64, 64], embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
    "SwiftFormer": _classifier("SwiftFormer", image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 12, 16, 20]),
    "GLPN": _classifier(
        "GLPN", 64, "ForDepthEstimation", decoder_hidden_size=8, **HEADS, **FOUR | {"hidden_sizes": [8, 16, 24, 32]}
    ),
    "DPT": _classifier(
        "DPT", 32, "ForDepthEstimation", backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 12, 12],
        fusion_hidden_size=8, **VIT | {"num_hidden_layers": 4},
    ),
    "Donut": _classifier(
        "DonutSwin", 48, "Model", image_size=48, patch_size=4, embed_dim=12, depths=[2, 2], num_heads=[2, 3],
        window_size=3,
    ),
    "BasicUNet": _of_monai("BasicUNet", 2, 1, 2, features=(4, 4, 6, 8, 8, 4), shape=(1, 32, 32)),
    "BasicUNet++": _of_monai("BasicUNetPlusPlus", 2, 1, 2, features=(4, 4, 6, 8, 8, 4), shape=(1, 32, 32)),
    "AttentionUnet": _of_monai("AttentionUnet", 2, 1, 2, (4, 8), (2,), shape=(1, 32, 32)),
    "VNet": _of_monai("VNet", 2, 1, 2, shape=(1, 16, 16)),
    "HighResNet": _of_monai("HighResNet", 2, 1, 2, shape=(1, 16, 16)),
    "DynUNet": _of_monai("DynUNet", 2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], shape=(1, 32, 32)),
    "AutoEncoder": _of_monai("AutoEncoder", 2, 1, 1, (4, 8), (2, 2), shape=(1, 32, 32)),
    "Regressor": _of_monai("Regressor", (1, 32, 32), (2,), (4, 8), (2, 2), shape=(1, 32, 32)),
    "MedNeXt": _of_monai(
        "MedNeXt", 2, init_filters=4, in_channels=1, out_channels=2, encoder_expansion_ratio=1,
        decoder_expansion_ratio=1, bottleneck_expansion_ratio=1, blocks_down=(1,) * 4, blocks_bottleneck=1,
        blocks_up=(1,) * 4, shape=(1, 32, 32),
    ),
    "EfficientNet of monai": _of_monai(
        "EfficientNetBN", "efficientnet-b0", pretrained=False, in_channels=3, num_classes=4, shape=(3, 32, 32)
    ),
}  # fmt: skip
"""What the daily suite leaves out."""


def animal(name: str) -> tuple[nn.Module, Tensor]:
    """A model with weights, biases and running statistics that are nowhere 0 or 1, and an image for it."""
    if name in MORE:
        torch.manual_seed(0)
        model: nn.Module = MORE[name].build()
        image = torch.randn(1, *MORE[name].shape)
    else:
        model, image = born(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        for path, buffer in model.named_buffers():
            if path.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape))
            elif path.endswith("running_var"):
                buffer.mul_(0.5 + torch.rand(buffer.shape))
    return model.eval(), image


@pytest.mark.parametrize("name", ZOO)
def test_every_number_of_a_family_is_proved(name: str) -> None:
    assert_proved(*animal(name))


@pytest.mark.study
@pytest.mark.parametrize("name", [*ZOO, *MORE])
def test_every_number_of_every_family_is_proved_with_the_full_sample(name: str) -> None:
    assert_proved(*animal(name), cells=200)


HALF = ["ResNet", "ConvNeXt", "ViT", "MobileNetV2", "UNet"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", HALF)
def test_narrow_and_wide_types_are_proved(name: str, dtype: torch.dtype) -> None:
    model, image = animal(name)
    assert_proved(model.to(dtype), image.to(dtype), cells=20)


@pytest.mark.study
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", [*ZOO, *MORE])
def test_every_family_is_proved_in_every_type(name: str, dtype: torch.dtype) -> None:
    model, image = animal(name)
    assert_proved(model.to(dtype), image.to(dtype), cells=40)


class Attending(nn.Module):
    """PyTorch's own attention layer, attending to itself."""

    def __init__(self, weights: bool, **settings: Any) -> None:
        super().__init__()
        self.weights = weights
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, need_weights=self.weights)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("settings", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"bias": False}], ids=str)
def test_attention_layers_are_proved(settings: dict[str, Any], weights: bool) -> None:
    torch.manual_seed(0)
    assert_proved(Attending(weights, **settings).eval(), torch.randn(2, 7, 12))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("first", [True, False])
def test_encoder_layers_are_proved_step_by_step(activation: str, first: bool) -> None:
    """PyTorch's fused encoder layer is taken apart while tracing: every inner number is proved, a few bits apart."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True, activation=activation, norm_first=first)
    model, image = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 7, 12)
    report = assert_proved(model, image)
    assert len(report.steps) > 20
    with fused_transformers(True), torch.no_grad():
        fused = model(image)
        np.testing.assert_allclose(cs.trace(model, image).output, fused.numpy(), rtol=0, atol=2e-6)
        assert torch.backends.mha.get_fastpath_enabled()


def test_the_switch_of_fused_transformers_is_restored_when_the_model_raises() -> None:
    class Failing(nn.Module):
        def forward(self, _x: Tensor) -> Tensor:
            assert not torch.backends.mha.get_fastpath_enabled()
            raise ValueError("no")

    for enabled in (True, False):
        with fused_transformers(enabled):
            with pytest.raises(cs.TraceError):
                cs.trace(Failing(), torch.zeros(1, 1, 4, 4))
            assert torch.backends.mha.get_fastpath_enabled() is enabled


def test_encoders_are_proved_on_the_slow_path() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 20)
    report = assert_proved(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval(), torch.randn(5, 2, 12))
    assert "_softmax" in {step.op for step in report.steps} or len(report.steps) > 5
