"""Architectures in plain torch: one for each way in which axes can be tied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models_zoo.architectures.table import Architecture, Inputs, floats


class LastStep(nn.Module):
    """A recurrent layer read at its last step."""

    def __init__(self, layer: nn.Module, features: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(features, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0][:, -1])
        return out


class Attention(nn.Module):
    """nn.MultiheadAttention alone, attending to itself."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.weights = weights
        self.embed, self.attend = nn.Linear(6, 32), nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        out: Tensor = self.attend(h, h, h, need_weights=self.weights)[0]
        return out


class UNet(nn.Module):
    """Down, up by transposed convolution, and a skip by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
        self.up, self.mix = nn.ConvTranspose2d(12, 10, 2, 2), nn.Conv2d(18, 9, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(9), nn.Conv2d(9, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down1(x))
        up = F.relu(self.up(F.relu(self.down2(skip))))
        out: Tensor = self.out(F.relu(self.norm(self.mix(torch.cat([up, skip], 1)))))
        return out


class GroupNormBlock(nn.Module):
    """A residual block; where it changes the width, the shortcut is a convolution of size 1."""

    def __init__(self, before: int, after: int, groups: int = 4) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(groups, after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(groups, after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(h)))


class PixelShuffleNet(nn.Module):
    """Super-resolution: channels become space."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grow = nn.Conv2d(1, 10, 3, padding=1), nn.Conv2d(10, 24, 3, padding=1)
        self.last = nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(F.pixel_shuffle(self.grow(F.relu(self.first(x))), 2)))
        return out


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(13, 16), nn.Linear(16, 9)
        self.bias_two, self.bias_one = nn.Parameter(torch.randn(16)), nn.Parameter(torch.randn(13))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.two(torch.tanh(self.one(x))))
        back = torch.tanh(F.linear(code, self.two.weight.t(), self.bias_two))
        return F.linear(back, self.one.weight.t(), self.bias_one)


class TwoInputs(nn.Module):
    """Integers through an embedding and floats, to two outputs; one module is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.project, self.shared = nn.Embedding(17, 12), nn.Linear(5, 12), nn.Linear(12, 12)
        self.first, self.second = nn.Linear(12, 2), nn.Linear(12, 4)

    def forward(self, ids: Tensor, *, x: Tensor) -> dict[str, Tensor]:
        h = torch.relu(self.shared(torch.relu(self.shared(self.embed(ids).mean(1) + self.project(x)))))
        return {"first": self.first(h), "second": self.second(h)}


class GroupedQueryAttention(nn.Module):
    """A Llama-like block: grouped queries, a rotary table, a gated MLP, RMSNorm."""

    def __init__(self, width: int = 32, heads: int = 4, kv: int = 2) -> None:
        super().__init__()
        self.heads, self.kv, self.dim = heads, kv, width // heads
        self.embed, self.norm1, self.norm2 = nn.Embedding(19, width), nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, kv * self.dim, bias=False) for _ in range(2))
        self.gate, self.up = nn.Linear(width, 44, bias=False), nn.Linear(width, 44, bias=False)
        self.down, self.head = nn.Linear(44, width, bias=False), nn.Linear(width, 19, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2])[:, None] / 10 ** (torch.arange(self.dim // 2) / 4)
        cos, sin = (torch.cat([f(angle)] * 2, -1).to(x.dtype) for f in (torch.cos, torch.sin))
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        h = self.norm1(x)
        b, t, _ = x.shape
        q = self.rotate(self.q(h).view(b, t, self.heads, self.dim).transpose(1, 2))
        k = self.rotate(self.k(h).view(b, t, self.kv, self.dim).transpose(1, 2))
        v = self.v(h).view(b, t, self.kv, self.dim).transpose(1, 2)
        k, v = (y.repeat_interleave(self.heads // self.kv, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, -1)
        x = x + self.o(y)
        h = self.norm2(x)
        out: Tensor = self.head(x + self.down(F.silu(self.gate(h)) * self.up(h)))
        return out


@torch.library.custom_op("graphmerge_zoo::opaque", mutates_args=(), schema="(Tensor x) -> Tensor")
def opaque(x: Tensor) -> Tensor:
    """x + tanh(x) under a name that no table of operators holds."""
    return x + torch.tanh(x)


@opaque.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class UnknownOperator(nn.Module):
    """Two hidden layers: behind the first comes an operator that nobody knows, behind the second a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.three(F.relu(self.two(opaque(self.one(x)))))
        return out


def _prelu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.PReLU(12), nn.Conv2d(12, 7, 3), nn.PReLU(), nn.Flatten(), nn.Linear(252, 5)
    )  # fmt: skip


def _separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3, groups=12), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 20, 3, groups=4), nn.ReLU(), nn.Conv2d(20, 9, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def _grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 28, 3, groups=4), nn.BatchNorm2d(28), nn.ReLU(),
        nn.Conv2d(28, 24, 1, groups=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 9),
    )  # fmt: skip


def _conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 10, 3), nn.BatchNorm1d(10), nn.ReLU(), nn.Conv1d(10, 14, 3, dilation=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(14, 5),
    )  # fmt: skip


def _conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 9, 2), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(9, 5),
    )  # fmt: skip


def _groupnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 20, 3), GroupNormBlock(20, 20), GroupNormBlock(20, 28), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(28, 6),
    )  # fmt: skip


def _shared() -> nn.Module:
    shared = nn.Linear(16, 16)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(16, 5))


def _vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip


def _encoder(**options: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, **options)
    return nn.Sequential(
        nn.Linear(6, 32), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 5)
    )


def _tokens(batch: int) -> Callable[[], Inputs]:
    return lambda: ((torch.randint(0, 19, (batch, 7)),), {})


def _two_inputs() -> Inputs:
    return (torch.randint(0, 17, (3, 7)),), {"x": torch.randn(3, 5)}


ARCHITECTURES = (
    Architecture("mlp", lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 5)), floats(3, 6)),
    Architecture("vgg_flatten", _vgg, floats(7, 3, 22, 22), notes="2 x 2 positions are flattened into the features"),
    Architecture("lstm", lambda: LastStep(nn.LSTM(6, 16, batch_first=True), 16), floats(3, 7, 6)),
    Architecture("lstm_stacked_bidirectional", lambda: LastStep(nn.LSTM(6, 16, 2, batch_first=True, bidirectional=True), 32), floats(3, 7, 6)),
    Architecture("lstm_projected", lambda: LastStep(nn.LSTM(6, 16, 2, batch_first=True, proj_size=9), 9), floats(3, 7, 6)),
    Architecture("gru", lambda: LastStep(nn.GRU(6, 16, batch_first=True), 16), floats(3, 7, 6)),
    Architecture("gru_stacked_bidirectional", lambda: LastStep(nn.GRU(6, 16, 2, batch_first=True, bidirectional=True), 32), floats(3, 7, 6)),
    Architecture("rnn", lambda: LastStep(nn.RNN(6, 16, batch_first=True), 16), floats(3, 7, 6)),
    Architecture("transformer_encoder", lambda: _encoder(batch_first=True), floats(3, 7, 6)),
    Architecture("transformer_encoder_sequence_first", lambda: _encoder(batch_first=False), floats(7, 3, 6)),
    Architecture("transformer_encoder_prenorm", lambda: _encoder(batch_first=True, norm_first=True), floats(3, 7, 6)),
    Architecture("multihead_attention", lambda: Attention(False), floats(3, 7, 6)),
    Architecture("multihead_attention_with_weights", lambda: Attention(True), floats(3, 7, 6)),
    Architecture("unet", UNet, floats(2, 3, 28, 28)),
    Architecture("groupnorm_resnet", _groupnorm, floats(2, 3, 11, 11), notes="4 groups of 5, then of 7"),
    Architecture("pixel_shuffle", PixelShuffleNet, floats(5, 1, 9, 9)),
    Architecture("tied_autoencoder", TiedAutoencoder, floats(3, 13)),
    Architecture("prelu", _prelu, floats(2, 3, 10, 10)),
    Architecture("separable_convolutions", _separable, floats(7, 3, 17, 17), notes="two channels out for each one in"),
    Architecture("grouped_convolutions", _grouped, floats(2, 3, 15, 15), notes="4 groups of 5, of 7, of 6"),
    Architecture("conv1d", _conv1d, floats(3, 4, 19)),
    Architecture("conv3d", _conv3d, floats(3, 2, 10, 12, 14)),
    Architecture("two_inputs", TwoInputs, _two_inputs),
    Architecture("shared_module", _shared, floats(3, 6), notes="one Linear under two names: its rows and columns move alike"),
    Architecture("unknown_operator", UnknownOperator, floats(3, 6), notes="only the second hidden layer may move"),
    Architecture("grouped_query_attention", GroupedQueryAttention, _tokens(3)),
    Architecture("grouped_query_attention_by_three", lambda: GroupedQueryAttention(48, 6, 2), _tokens(5), notes="2 key heads, 3 queries each: the two numbers differ"),
)  # fmt: skip
