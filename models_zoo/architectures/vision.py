"""torchvision's architectures with 10 classes, the transformers at small size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from models_zoo.architectures.table import Architecture, floats


@cache
def torchvision_models() -> Any:
    """torchvision.models, also where torchvision has no compiled operators.

    There is no CPU build of torchvision; its Python code needs the schemas of two operators that
    none of these models calls.
    """
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
    import torchvision

    return torchvision.models


_KEPT: list[torch.library.Library] = []


def _named(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model: nn.Module = getattr(torchvision_models(), name)(num_classes=10, **options)
        return model

    return build


def _class(module: str, name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model: nn.Module = getattr(getattr(torchvision_models(), module), name)(num_classes=10, **options)
        return model

    return build


_SIMPLE = (
    "alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "mobilenet_v2",
    "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0", "regnet_y_400mf", "squeezenet1_1", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "convnext_tiny", "swin_t",
)  # fmt: skip

ARCHITECTURES = (
    *(Architecture(name, _named(name), floats(2, 3, 64, 64), "torchvision") for name in _SIMPLE),
    Architecture("googlenet", _named("googlenet", aux_logits=False, init_weights=False), floats(2, 3, 64, 64), "torchvision"),
    Architecture("inception_v3", _named("inception_v3", aux_logits=False, init_weights=False), floats(2, 3, 96, 96), "torchvision"),
    Architecture("vit_b_16", _named("vit_b_16", image_size=64), floats(2, 3, 64, 64), "torchvision"),
    Architecture("maxvit_t", _class("maxvit", "MaxVit", input_size=(64, 64), stem_channels=16, block_channels=[16, 32], block_layers=[1, 2], head_dim=8, stochastic_depth_prob=0.0, partition_size=4), floats(2, 3, 64, 64), "torchvision"),
)  # fmt: skip
