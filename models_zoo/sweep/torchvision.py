"""torchvision's classification, segmentation, video, detection and flow models, one or two of each family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from models_zoo.architectures.table import Architecture, Inputs, floats
from models_zoo.architectures.vision import torchvision_models

CLASSIFIERS = {
    "alexnet": 96, "convnext_tiny": 64, "convnext_small": 64, "densenet121": 64, "densenet161": 64,
    "efficientnet_b0": 64, "efficientnet_b1": 64, "efficientnet_b2": 64, "regnet_y_3_2gf": 64, "efficientnet_v2_s": 64, "googlenet": 64, "inception_v3": 96,
    "mnasnet0_5": 64, "mnasnet1_3": 64, "mobilenet_v2": 64, "mobilenet_v3_large": 64, "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64, "regnet_x_1_6gf": 64, "regnet_y_400mf": 64, "regnet_y_1_6gf": 64, "resnet18": 64,
    "resnet34": 64, "resnet50": 64, "resnet101": 64, "resnext50_32x4d": 64, "resnext101_32x8d": 64,
    "shufflenet_v2_x0_5": 64, "shufflenet_v2_x1_0": 64, "shufflenet_v2_x2_0": 64, "squeezenet1_0": 64,
    "squeezenet1_1": 64, "swin_t": 64, "swin_s": 64, "swin_v2_t": 64, "vgg11": 64, "vgg11_bn": 64, "vgg16_bn": 64,
    "vit_b_16": 64, "vit_b_32": 64, "wide_resnet50_2": 64, "maxvit_t": 224,
}  # fmt: skip
SEGMENTERS = (
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large",
)  # fmt: skip
VIDEO = {
    "mc3_18": (2, 3, 8, 48, 48), "r2plus1d_18": (2, 3, 8, 48, 48), "r3d_18": (2, 3, 8, 48, 48),
    "s3d": (2, 3, 16, 64, 64), "swin3d_t": (2, 3, 8, 64, 64), "mvit_v1_b": (1, 3, 16, 224, 224),
    "mvit_v2_s": (1, 3, 16, 224, 224),
}  # fmt: skip
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": 320, "retinanet_resnet50_fpn": 128, "fcos_resnet50_fpn": 128,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 128,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
    "vit_b_16": {"image_size": 64},
    "vit_b_32": {"image_size": 64},
    "alexnet": {},
}


class Backbone(nn.Module):
    """A detector's features and heads, without the boxes that are chosen by comparing scores."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone

    def forward(self, x: torch.Tensor) -> Any:
        return list(self.backbone(x).values())


def _make(name: str, options: dict[str, Any], of: str = "") -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        module: Any = torchvision_models()
        for part in of.split(".") if of else ():
            module = getattr(module, part)
        model: nn.Module = getattr(module, name)(weights=None, **options)
        return model

    return build


def _detector(name: str) -> Callable[[], nn.Module]:
    return lambda: Backbone(_make(name, {"weights_backbone": None, "num_classes": 5}, "detection")())


def torchvision() -> Iterator[Architecture]:
    """Inputs are small, for the graph is the same at any size."""
    for name, size in CLASSIFIERS.items():
        build = _make(name, {"num_classes": 10, **OPTIONS.get(name, {})})
        yield Architecture(f"torchvision/{name}", build, floats(2, 3, size, size), "torchvision")
    for name in SEGMENTERS:
        build = _make(name, {"num_classes": 5, "weights_backbone": None}, "segmentation")
        yield Architecture(f"torchvision/{name}", build, floats(2, 3, 64, 64), "torchvision")
    for name, shape in VIDEO.items():
        build = _make(name, {"num_classes": 10}, "video")
        yield Architecture(f"torchvision/{name}", build, floats(*shape), "torchvision")
    for name, size in DETECTORS.items():
        yield Architecture(
            f"torchvision/{name}", _detector(name), floats(2, 3, size, size), "torchvision", "features only"
        )
    yield Architecture(
        "torchvision/raft_small", _make("raft_small", {}, "optical_flow"), _pair, "torchvision"
    )


def _pair() -> Inputs:
    return (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128)), {"num_flow_updates": 2}
