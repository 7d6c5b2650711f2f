"""The pre-norm transformer block that the vision transformer and the GPT share."""

import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head attention with one fused linear for queries, keys and values.

    Keeps the shape [batch, time, dim]; with `causal`, a position sees itself and those before it.
    """

    def __init__(self, dim: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the positions of each sequence."""
        batch, time, dim = x.shape
        split = self.qkv(x).view(batch, time, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, time, dim))
        return projected


class TransformerBlock(nn.Module):
    """Pre-norm attention and GELU layers on a residual stream [batch, time, dim]."""

    def __init__(self, dim: int, heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, causal)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """The stream after both residual updates."""
        x = x + self.attention(self.norm1(x))
        update: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + update
