"""Zoo: architectures of other libraries, small, with random weights; no downloads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SIDE = (3, 32, 32)


@dataclass(frozen=True)
class Animal:
    """A family of models: how to build a small one, and the shape of its image."""

    build: Callable[[], Any]
    shape: tuple[int, ...] = SIDE


def _transformers(name: str, task: str = "ImageClassification", **settings: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        config = getattr(transformers, f"{name}Config")(**settings)
        return getattr(transformers, f"{name}For{task}")(config)

    return build


def _monai(name: str, *arguments: Any, **settings: Any) -> Callable[[], Any]:
    def build() -> Any:
        nets = __import__("pytest").importorskip("monai.networks.nets")
        return getattr(nets, name)(*arguments, **settings)

    return build


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


STAGES: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 1]}
TOKENS: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
WINDOWS: dict[str, Any] = {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32}
PYRAMID: dict[str, Any] = STAGES | {"num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2]}

ZOO: Mapping[str, Animal] = {
    "ResNet": Animal(_transformers("ResNet", embedding_size=8, **STAGES)),
    "ConvNeXt": Animal(_transformers("ConvNext", num_stages=2, **STAGES)),
    "ConvNeXtV2": Animal(_transformers("ConvNextV2", num_stages=2, **STAGES)),
    "RegNet": Animal(_transformers("RegNet", embedding_size=8, groups_width=4, **STAGES)),
    "MobileNetV1": Animal(_transformers("MobileNetV1", depth_multiplier=0.25, min_depth=4, image_size=32)),
    "MobileNetV2": Animal(_transformers("MobileNetV2", depth_multiplier=0.1, min_depth=4, image_size=32)),
    "EfficientNet": Animal(
        _transformers("EfficientNet", width_coefficient=0.25, depth_coefficient=0.2, image_size=32, hidden_dim=320)
    ),
    "ViT": Animal(_transformers("ViT", intermediate_size=32, patch_size=8, **TOKENS)),
    "BEiT": Animal(_transformers("Beit", intermediate_size=32, patch_size=8, **TOKENS)),
    "DINOv2": Animal(_transformers("Dinov2", mlp_ratio=2, patch_size=8, **TOKENS)),
    "Swin": Animal(_transformers("Swin", patch_size=4, **WINDOWS)),
    "SwinV2": Animal(_transformers("Swinv2", patch_size=4, **WINDOWS)),
    "SegFormer": Animal(
        _transformers(
            "Segformer",
            "SemanticSegmentation",
            num_attention_heads=[1, 2],
            sr_ratios=[2, 1],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
            **PYRAMID,
        )
    ),
    "PoolFormer": Animal(_transformers("PoolFormer", padding=[2, 1], **PYRAMID)),
    "PVT": Animal(
        _transformers(
            "Pvt",
            image_size=32,
            sequence_reduction_ratios=[2, 1],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            **(PYRAMID | {"patch_sizes": [4, 2]}),
        )
    ),
    "CvT": Animal(
        _transformers("Cvt", embed_dim=[8, 16, 16], num_heads=[1, 2, 2], depth=[1, 2, 3], mlp_ratio=[2.0, 2.0, 2.0])
    ),
    "LeViT": Animal(
        _transformers(
            "Levit",
            image_size=64,
            hidden_sizes=[16, 32, 48],
            num_attention_heads=[2, 2, 2],
            depths=[1, 1, 1],
            key_dim=[4, 4, 4],
        ),
        (3, 64, 64),
    ),
    "FocalNet": Animal(
        _transformers("FocalNet", embed_dim=8, depths=[1, 1], image_size=32, focal_levels=[1, 1], focal_windows=[3, 3])
    ),
    "MobileViT": Animal(
        _transformers(
            "MobileViT",
            image_size=32,
            hidden_sizes=[16, 16, 16],
            neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
            num_attention_heads=2,
            patch_size=2,
        )
    ),
    "UNet": Animal(_monai("UNet", 2, 3, 2, (4, 8, 16), (2, 2), num_res_units=1)),
    "UNet in 3-d": Animal(_monai("UNet", 3, 1, 2, (4, 8), (2,)), (1, 8, 8, 8)),
    "DenseNet": Animal(_monai("DenseNet", 2, 3, 4, init_features=8, growth_rate=4, block_config=(2, 2))),
    "SENet": Animal(
        _monai("SENet", 2, 3, "se_bottleneck", [1, 1, 1, 1], 1, 16, num_classes=4, dropout_prob=None), (3, 64, 64)
    ),
    "SegResNet": Animal(_monai("SegResNet", 2, 8, 3, 2, blocks_down=(1, 1), blocks_up=(1,))),
    "TransformerEncoder": Animal(_encoder, (2, 7, 16)),
}


def born(name: str, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A model of the family and an image for it, the batch axis first."""
    torch.manual_seed(seed)
    model: nn.Module = ZOO[name].build()
    shape = ZOO[name].shape
    return model, torch.randn(shape if name == "TransformerEncoder" else (1, *shape))
