"""Pairs for the benchmark of weight matching: architectures at full size, three kinds of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from models_zoo.architectures.vision import torchvision_models
from models_zoo.mlp import mlp
from models_zoo.resnet import resnet20
from models_zoo.vgg import vgg

State = dict[str, torch.Tensor]

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
"""The 13 convolutions of VGG16, without the last pooling: images of 28x28 are too small for it."""

DECAY = 0.7
"""The k-th singular value of trained-like weights falls as k^-DECAY."""

RANK, NOISE = 64, 0.3
"""Trained-like weights: the rank of the part that decays, the share of the rest (in norm)."""


@dataclass(frozen=True)
class Case:
    """An architecture and what it is traced with (shape of an image batch, or of token ids)."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: bool = False

    def inputs(self) -> tuple[torch.Tensor]:
        """Random inputs to trace with."""
        if self.tokens:
            return (torch.randint(3, 1000, self.shape),)
        return (torch.randn(self.shape),)


class Logits(nn.Module):
    """GPT-2 124M with only its logits as the output."""

    def __init__(self) -> None:
        super().__init__()
        torchvision_models()  # transformers imports it where it is installed
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(GPT2Config())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(ids, use_cache=False).logits
        return logits


def _vgg16_plain() -> nn.Module:
    """VGG16 with one hidden linear layer of 512 units and no BatchNorm."""
    layers = [m for m in vgg(VGG16, hidden=512) if not isinstance(m, nn.BatchNorm2d)]
    for k, m in enumerate(layers):
        if isinstance(m, nn.Conv2d):
            layers[k] = nn.Conv2d(m.in_channels, m.out_channels, 3, padding=1)
    return nn.Sequential(*layers)


CASES: dict[str, Case] = {
    "mlp": Case(mlp, (2, 1, 28, 28)),
    "vgg16": Case(_vgg16_plain, (2, 1, 28, 28)),
    "vgg16_bn": Case(lambda: torchvision_models().vgg16_bn(), (2, 3, 64, 64)),
    "resnet20": Case(resnet20, (2, 1, 28, 28)),
    "resnet20_x4": Case(lambda: resnet20(4), (2, 1, 28, 28)),
    "resnet20_x16": Case(lambda: resnet20(16), (2, 1, 28, 28)),
    "resnet50": Case(lambda: torchvision_models().resnet50(), (2, 3, 64, 64)),
    "vit_b_16": Case(lambda: torchvision_models().vit_b_16(), (2, 3, 224, 224)),
    "gpt2": Case(Logits, (2, 11), tokens=True),
}

KINDS = ("planted", "independent", "trained-like")
"""The same weights in a random order; two initialisations; the same with a spectrum that decays."""


def trained_like(state: State, seed: int) -> State:
    """Every matrix replaced by one of the same norm whose singular values fall like those of trained ones."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, t in state.items():
        if t.ndim < 2 or not t.is_floating_point():
            found[name] = t
            continue
        n, m = len(t), t[0].numel()
        rank = min(RANK, n, m)
        left = torch.randn(n, rank, generator=generator) * torch.arange(1, rank + 1) ** -DECAY
        low = (left @ torch.randn(rank, m, generator=generator)).reshape(t.shape)
        rough = torch.randn(t.shape, generator=generator)
        mixed = low / low.norm() + NOISE * rough / rough.norm()
        found[name] = mixed * (t.norm() / mixed.norm())
    return found


def models(name: str, seed: int) -> list[nn.Module]:
    """Two initialisations of an architecture."""
    found = []
    for k in (0, 1):
        torch.manual_seed(2 * seed + k)
        found.append(CASES[name].build().eval())
    return found
