"""Small networks that read images: convolutions in their forms, and what lies between them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from parts import Small, conv, linear
from torch import Tensor, nn


def batch_norm() -> nn.Module:
    return nn.Sequential(conv(2, 5), nn.BatchNorm2d(5), nn.ReLU(), conv(5, 3), nn.Flatten(), linear(12, 3))


def group_norm() -> nn.Module:
    return nn.Sequential(conv(2, 6), nn.GroupNorm(3, 6), nn.ReLU(), conv(6, 3), nn.Flatten(), linear(12, 2))


def depthwise() -> nn.Module:
    return nn.Sequential(
        conv(2, 4, 1),
        nn.ReLU(),
        conv(4, 8, 3, groups=4),
        nn.ReLU(),
        conv(8, 3, 1),
        nn.Flatten(),
        linear(12, 2),
    )


def grouped() -> nn.Module:
    return nn.Sequential(conv(2, 6, 1), nn.ReLU(), conv(6, 4, 3, groups=2), nn.Flatten(), linear(16, 3))


def squeeze_excite() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = torch.relu(m.stem(x))
        gate = torch.sigmoid(m.up(torch.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return m.head((x * gate).amax((2, 3)))

    return Small(run, stem=conv(2, 6), down=conv(6, 3, 1), up=conv(3, 6, 1), head=linear(6, 3))


def skip_by_concatenation() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        skip = torch.relu(m.down(x))
        up = torch.relu(m.up(torch.relu(m.deep(skip))))
        return m.out(torch.cat([up, skip], 1))

    parts = {"down": conv(2, 4, 3, padding=1), "deep": conv(4, 5, 2, stride=2), "out": conv(7, 2, 1)}
    return Small(run, up=nn.ConvTranspose2d(5, 3, 2, 2), **parts)


def channel_shuffle() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.a(x).unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2)
        return m.c(m.b(x).mean((2, 3)))

    return Small(run, a=conv(2, 6, 1), b=conv(6, 6, 1, groups=2), c=linear(6, 2))


def film() -> nn.Module:
    """Features scaled and shifted by a second input."""

    def run(m: Any, x: Tensor, z: Tensor) -> Tensor:
        scale, shift = m.make(z)[:, :, None, None].chunk(2, 1)
        return m.head(torch.relu(m.stem(x) * (1 + scale) + shift).mean((2, 3)))

    return Small(run, make=linear(3, 10), stem=conv(2, 5), head=linear(5, 2))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(conv(1, 12, 3), nn.PixelShuffle(2), nn.ReLU(), conv(3, 1, 3))


def patches() -> nn.Module:
    """Swin's merging: four neighbours, one behind the other, into one."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return m.merge(m.norm(torch.cat(parts, -1))).amax((1, 2))

    return Small(run, embed=linear(2, 3), norm=nn.LayerNorm(12), merge=linear(12, 2))


def grouped_transposed() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(torch.relu(m.b(torch.relu(m.a(x)))).mean((2, 3)))

    return Small(run, a=conv(2, 6, 1), b=nn.ConvTranspose2d(6, 4, 2, groups=2), c=linear(4, 3))


def unfolded() -> nn.Module:
    """A convolution written as a product with unfolded patches."""

    def run(m: Any, x: Tensor) -> Tensor:
        patches = F.unfold(torch.relu(m.a(x)), 2)
        return m.c(torch.relu(m.b(patches.transpose(1, 2))).amax(1))

    return Small(run, a=conv(2, 3, 1), b=linear(12, 5), c=linear(5, 2))


def dynamic_convolution() -> nn.Module:
    """Kernels mixed by attention over a bank of them."""

    def run(m: Any, x: Tensor) -> Tensor:
        weight = (m.bank * m.route.softmax(0)[:, None, None, None, None]).sum(0)
        return m.head(torch.relu(F.conv2d(m.stem(x), weight)).mean((2, 3)))

    parts = {"bank": torch.randn(3, 4, 5, 2, 2), "route": torch.randn(3)}
    return Small(run, stem=conv(2, 5, 1), head=linear(4, 2), **parts)
