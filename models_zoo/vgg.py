"""A VGG-style network with BatchNorm for 28x28 grey images."""

from collections.abc import Sequence

from torch import nn

POOL = "M"
PLAN: tuple[int | str, ...] = (32, 32, POOL, 64, 64, POOL, 128, 128, POOL)


def vgg(plan: Sequence[int | str] = PLAN, hidden: int = 128, classes: int = 10) -> nn.Sequential:
    """3x3 convolutions by `plan`, mean over pixels, two linear layers.

    A number in `plan` is a convolution with that many output channels, "M" halves the image.
    Maps [batch, 1, height, width] to logits [batch, classes].
    """
    layers: list[nn.Module] = []
    channels = 1
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += conv_norm_relu(channels, step)
            channels = step
    head = [nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def conv_norm_relu(channels_in: int, channels_out: int) -> list[nn.Module]:
    """One 3x3 convolution with its BatchNorm and ReLU, image size kept."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]
