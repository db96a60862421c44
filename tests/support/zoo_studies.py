"""More architectures for studies: with those of zoo.py, sixty of other libraries, small, with random weights."""

from collections.abc import Mapping
from typing import Any

import pytest

from zoo import Animal

VIT: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
FOUR: dict[str, Any] = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 20]}
VIT_DET: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    "window_size": 2,
}  # fmt: skip
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


STUDIED: Mapping[str, Animal] = {
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
    "DINOv2 with registers": _classifier(
        "Dinov2WithRegisters", 32, **{name: VIT[name] for name in VIT if name != "intermediate_size"}, mlp_ratio=2
    ),
    "VitDet": _classifier("VitDet", 32, "Model", **VIT_DET),
    "HGNetV2": _classifier(
        "HGNetV2", 64, embedding_size=8, stem_channels=[3, 8, 8], stage_in_channels=[8, 12, 16, 20],
        stage_mid_channels=[4, 4, 4, 4], stage_out_channels=[12, 16, 20, 24], hidden_sizes=[12, 16, 20, 24],
        depths=[1, 1, 1, 1], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
    ),
    "TextNet": _classifier("TextNet", 64, image_size=[64, 64]),
    "Swin2SR": _classifier(
        "Swin2SR", 16, "ForImageSuperResolution", image_size=16, embed_dim=12, depths=[1, 1], num_heads=[2, 2],
        window_size=4, upscale=2,
    ),
    "ResNet of monai": _of_monai(
        "ResNet", "basic", [1, 1, 1, 1], [4, 8, 8, 12], spatial_dims=2, n_input_channels=1, num_classes=4,
        shape=(1, 32, 32),
    ),
    "Discriminator": _of_monai("Discriminator", (1, 32, 32), (4, 8), (2, 2), shape=(1, 32, 32)),
    "Critic": _of_monai("Critic", (1, 32, 32), (4, 8), (2, 2), shape=(1, 32, 32)),
    "Classifier": _of_monai("Classifier", (1, 32, 32), 3, (4, 8), (2, 2), shape=(1, 32, 32)),
    "SegResNetDS": _of_monai("SegResNetDS", 2, init_filters=8, blocks_down=(1, 2), shape=(1, 32, 32)),
}  # fmt: skip
"""What the daily suite leaves out."""
