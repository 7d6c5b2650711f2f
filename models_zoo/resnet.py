"""ResNet20 for small grey images, normalised over the batch or over the channels of a pixel."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "layer"]
BLOCKS_PER_STAGE = 3


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel: [batch, channels, height, width], shape kept."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Gain and bias per channel after removing the pixel's mean and scaling by its deviation."""
        channels_last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


NORMS: dict[Norm, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "layer": ChannelLayerNorm}


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    [batch, channels_in, height, width] -> [batch, channels_out, height / stride, width / stride].
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        make_norm = NORMS[norm]
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = make_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = make_norm(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, make_norm(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output after its last ReLU."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of residual blocks: [batch, 1, height, width] -> logits [batch, classes]."""

    def __init__(self, width: int, norm: Norm, classes: int) -> None:
        super().__init__()
        channels = 16 * width
        self.conv = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = NORMS[norm](channels)
        self.stage1 = stage(channels, channels, 1, norm)
        self.stage2 = stage(channels, 2 * channels, 2, norm)
        self.stage3 = stage(2 * channels, 4 * channels, 2, norm)
        self.head = nn.Linear(4 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the mean over the pixels of the last stage."""
        x = F.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def stage(channels_in: int, channels_out: int, stride: int, norm: Norm) -> nn.Sequential:
    """Residual blocks at one image size; the first may widen and stride."""
    first = Block(channels_in, channels_out, stride, norm)
    rest = [Block(channels_out, channels_out, 1, norm) for _ in range(BLOCKS_PER_STAGE - 1)]
    return nn.Sequential(first, *rest)


def resnet20(width: int = 1, norm: Norm = "batch", classes: int = 10) -> ResNet:
    """The CIFAR ResNet20 with one input channel and 16/32/64 x `width` channels."""
    model = ResNet(width, norm, classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def resnet20_layernorm(width: int = 1, classes: int = 10) -> ResNet:
    """ResNet20 with `ChannelLayerNorm` in place of BatchNorm."""
    return resnet20(width, "layer", classes)
