"""A small GPT that predicts the next character of a text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models_zoo.data import CONTEXT, vocabulary
from models_zoo.transformer import TransformerBlock


class Gpt(nn.Module):
    """Causal transformer: tokens int64 [batch, time] -> logits [batch, time, vocabulary].

    `time` is at most `context`. The head is tied: it reuses the token embedding.
    """

    def __init__(self, tokens: int, context: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, context, dim))
        blocks = (TransformerBlock(dim, heads, 4 * dim, causal=True) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the token that follows each position."""
        stream = self.tokens(tokens) + self.positions[:, : tokens.shape[1]]
        return F.linear(self.norm(self.blocks(stream)), self.tokens.weight)


def gpt(
    vocab: int | None = None, context: int = CONTEXT, dim: int = 64, depth: int = 3, heads: int = 4
) -> Gpt:
    """A character GPT; without `vocab`, for the characters of the shipped text."""
    return Gpt(vocab or len(vocabulary()), context, dim, depth, heads)
