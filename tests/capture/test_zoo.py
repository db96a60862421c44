"""Verify on architectures from other libraries: the same bits as an untraced run, and 100 % proved."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from proving import assert_proved, fused_transformers
from zoo import ZOO, born
from zoo_studies import STUDIED


def animal(name: str) -> tuple[nn.Module, Tensor]:
    """A model with weights, biases and running statistics that are nowhere 0 or 1, and an image for it."""
    if name in STUDIED:
        torch.manual_seed(0)
        model: nn.Module = STUDIED[name].build()
        image = torch.randn(1, *STUDIED[name].shape)
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
@pytest.mark.parametrize("name", [*ZOO, *STUDIED])
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
@pytest.mark.parametrize("name", [*ZOO, *STUDIED])
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
