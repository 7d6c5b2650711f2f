"""A small vision transformer for 28x28 grey images."""

import torch
from torch import Tensor, nn

from models_zoo.transformer import TransformerBlock

IMAGE_SIDE = 28


class VisionTransformer(nn.Module):
    """Patches, class token, blocks: [batch, 1, 28, 28] -> logits [batch, classes]."""

    def __init__(self, patch: int, dim: int, depth: int, heads: int, hidden: int, classes: int) -> None:
        super().__init__()
        patches = (IMAGE_SIDE // patch) ** 2
        self.patch = nn.Conv2d(1, dim, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, patches + 1, dim))
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits read from the class token."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(x.shape[0], -1, -1)
        stream = torch.cat([first, patches], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(stream))[:, 0])
        return logits


def vit(
    patch: int = 4, dim: int = 64, depth: int = 4, heads: int = 4, hidden: int = 128, classes: int = 10
) -> VisionTransformer:
    """A vision transformer on patches of `patch` x `patch` pixels, `patch` dividing 28."""
    return VisionTransformer(patch, dim, depth, heads, hidden, classes)
