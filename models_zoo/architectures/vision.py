"""torchvision's architectures with 10 classes; those ending in ``_small`` are the same classes, reduced."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from models_zoo.architectures.table import Architecture, floats


@cache
def torchvision_models() -> Any:
    """torchvision.models, also where torchvision's compiled operators do not load.

    They are built for CUDA: beside a CPU build of torch the import fails for want of two operators that
    none of these models calls. Only then are their schemas defined here; where the operators do load,
    defining them twice would be an error.
    """
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:  # operator torchvision::nms does not exist
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        return importlib.import_module("torchvision.models")


_KEPT: list[torch.library.Library] = []
"""A definition lasts as long as its library object."""


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
    Architecture("vit_b_16_small", _class("vision_transformer", "VisionTransformer", image_size=40, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48), floats(3, 3, 40, 40), "torchvision"),
    Architecture("swin_t_small", _class("swin_transformer", "SwinTransformer", patch_size=[2, 2], embed_dim=20, depths=[2, 2], num_heads=[2, 5], window_size=[3, 3], stochastic_depth_prob=0.0), floats(7, 3, 48, 48), "torchvision"),
    Architecture("maxvit_t", _named("maxvit_t"), floats(2, 3, 224, 224), "torchvision", "windows of 7 through five halvings: no smaller image fits"),
    Architecture("maxvit_t_small", _class("maxvit", "MaxVit", input_size=(64, 64), stem_channels=16, block_channels=[16, 32], block_layers=[1, 2], head_dim=8, stochastic_depth_prob=0.0, partition_size=4), floats(2, 3, 64, 64), "torchvision"),
)  # fmt: skip
