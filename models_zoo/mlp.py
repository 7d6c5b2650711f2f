"""A plain multilayer perceptron for 28x28 images."""

from itertools import pairwise

from torch import nn


def mlp(width: int = 512, hidden: int = 3, classes: int = 10) -> nn.Sequential:
    """`hidden` ReLU layers of `width` units: [batch, 1, 28, 28] -> logits [batch, classes]."""
    sizes = [28 * 28] + [width] * hidden
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
