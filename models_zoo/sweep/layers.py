"""Plain torch layers with all the options that change their graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from models_zoo.architectures.table import Architecture, Inputs, floats


class Between(nn.Module):
    """A layer or function between two linear maps over the last dimension, [batch, time, 12] to [.., 12]."""

    def __init__(self, middle: Callable[..., Any], width: int = 12, after: int = 12) -> None:
        super().__init__()
        self.before, self.middle, self.after = nn.Linear(6, width), middle, nn.Linear(after, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.middle(self.before(x))
        out: Tensor = self.after(h[0] if isinstance(h, tuple) else h)
        return out


class Channels(nn.Module):
    """The same between two convolutions, [batch, 12, height, width] in and out."""

    def __init__(self, middle: Callable[..., Any], width: int = 12, after: int = 12) -> None:
        super().__init__()
        self.before, self.middle, self.after = nn.Conv2d(3, width, 3), middle, nn.Conv2d(after, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.middle(self.before(x)))
        return out


class Attend(nn.Module):
    """nn.MultiheadAttention with its options; keys and values of other widths where asked for."""

    def __init__(self, kdim: int | None = None, vdim: int | None = None, **options: Any) -> None:
        super().__init__()
        self.query, self.other = nn.Linear(6, 16), nn.Linear(6, kdim or 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, kdim=kdim, vdim=vdim, **options)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        other = self.other(x)
        out: Tensor = self.out(self.attention(self.query(x), other, other, need_weights=False)[0])
        return out


class EncoderDecoder(nn.Module):
    """nn.Transformer, as for translation."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.transformer = nn.Transformer(16, 4, 2, 2, 24, batch_first=True)
        self.out = nn.Linear(16, 5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.out(self.transformer(self.embed(x), self.embed(y)))
        return out


class Bags(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(19, 12, mode=mode), nn.Linear(12, 5)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.out(self.bag(ids))
        return out


class TwoSided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 10), nn.Linear(6, 14)
        self.both, self.out = nn.Bilinear(10, 14, 9), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.both(self.a(x), self.b(x)))
        return out


class Cells(nn.Module):
    """A recurrent cell stepped by a Python loop."""

    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.out = cell(6, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        out: Tensor = self.out(state[0] if isinstance(state, tuple) else state)
        return out


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 4, 3)), nn.Parameter(torch.randn(4, 3, 10))
        self.out = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.einsum("bti,ihd->bthd", x, self.a).relu()
        out: Tensor = self.out(torch.einsum("bthd,hdo->bto", h, self.b))
        return out


class Unfolded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.mix, self.after = nn.Conv2d(3, 8, 1), nn.Linear(32, 20), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(self.before(x), 2, stride=2)
        h = self.mix(columns.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.after(F.fold(h, (10, 10), 2, stride=2))
        return out


def _normed(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(
        norm(nn.Linear(6, 12)), nn.ReLU(), norm(nn.Linear(12, 9)), nn.ReLU(), nn.Linear(9, 5)
    )


def _pair() -> Inputs:
    return (torch.randn(3, 7, 6), torch.randn(3, 11, 6)), {}


SEQUENCE: dict[str, Callable[[], nn.Module]] = {
    "rnn_relu": lambda: Between(nn.RNN(12, 10, nonlinearity="relu", batch_first=True), after=10),
    "lstm_no_bias": lambda: Between(nn.LSTM(12, 10, bias=False, batch_first=True), after=10),
    "lstm_sequence_first": lambda: Between(nn.LSTM(12, 10, 2), after=10),
    "lstm_projected_bidirectional": lambda: Between(nn.LSTM(12, 10, 2, batch_first=True, bidirectional=True, proj_size=7), after=14),
    "gru_no_bias": lambda: Between(nn.GRU(12, 10, 2, bias=False, batch_first=True), after=10),
    "lstm_cell": lambda: Cells(nn.LSTMCell),
    "gru_cell": lambda: Cells(nn.GRUCell),
    "rnn_cell": lambda: Cells(nn.RNNCell),
    "layernorm_no_affine": lambda: Between(nn.LayerNorm(12, elementwise_affine=False)),
    "layernorm_no_bias": lambda: Between(nn.LayerNorm(12, bias=False)),
    "rmsnorm": lambda: Between(nn.RMSNorm(12)),
    "glu": lambda: Between(nn.GLU(-1), 24, 12),
    "softmax": lambda: Between(nn.Softmax(-1)),
    "log_softmax": lambda: Between(nn.LogSoftmax(-1)),
    "normalize": lambda: Between(lambda x: F.normalize(x, dim=-1)),
    "maxout": lambda: Between(lambda x: x.unflatten(-1, (12, 2)).amax(-1), 24, 12),
    "cumulative_sum": lambda: Between(lambda x: x.cumsum(-1)),
    "flip": lambda: Between(lambda x: x.flip(-1)),
    "roll": lambda: Between(lambda x: x.roll(2, -1)),
    "sort": lambda: Between(lambda x: x.sort(-1).values),
    "split_and_cat": lambda: Between(lambda x: torch.cat([x[..., 6:].relu(), x[..., :6].tanh()], -1)),
    "chunked_gates": lambda: Between(lambda x: torch.mul(*x.chunk(2, -1)), 24, 12),
    "interleaved_gates": lambda: Between(lambda x: x[..., ::2] * x[..., 1::2].sigmoid(), 24, 12),
    "outer_product": lambda: Between(lambda x: (x[..., :, None] * x[..., None, :]).sum(-1)),
    "identity_skip": lambda: Between(lambda x: x + x.relu()),
    "fft_mixing": lambda: Between(lambda x: torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real),
    "einsum": Einsum,
    "bilinear": TwoSided,
    "attention_no_bias": lambda: Attend(bias=False),
    "attention_bias_kv": lambda: Attend(add_bias_kv=True),
    "attention_zero": lambda: Attend(add_zero_attn=True),
    "attention_kdim": lambda: Attend(kdim=10, vdim=10),
    "transformer_decoder": lambda: nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, activation="gelu", bias=False), 2, enable_nested_tensor=False), nn.Linear(16, 5)),
    "weight_norm": lambda: _normed(parametrizations.weight_norm),
    "spectral_norm": lambda: _normed(parametrizations.spectral_norm),
    "orthogonal": lambda: _normed(parametrizations.orthogonal),
}  # fmt: skip
IMAGE: dict[str, Callable[[], nn.Module]] = {
    "instance_norm": lambda: Channels(nn.InstanceNorm2d(12, affine=True)),
    "instance_norm_tracked": lambda: Channels(nn.InstanceNorm2d(12, affine=True, track_running_stats=True)),
    "group_norm_of_one": lambda: Channels(nn.GroupNorm(1, 12)),
    "group_norm_of_all": lambda: Channels(nn.GroupNorm(12, 12)),
    "batch_norm_no_affine": lambda: Channels(nn.BatchNorm2d(12, affine=False)),
    "batch_norm_no_statistics": lambda: Channels(nn.BatchNorm2d(12, track_running_stats=False)),
    "local_response_norm": lambda: Channels(nn.LocalResponseNorm(3)),
    "depthwise": lambda: Channels(nn.Conv2d(12, 12, 3, padding=1, groups=12)),
    "depthwise_multiplied": lambda: Channels(nn.Conv2d(12, 36, 3, padding=1, groups=12), after=36),
    "grouped_twice": lambda: Channels(nn.Sequential(nn.Conv2d(12, 20, 1, groups=4), nn.ReLU(), nn.Conv2d(20, 12, 1, groups=2))),
    "dilated_same": lambda: Channels(nn.Conv2d(12, 12, 3, padding="same", dilation=2)),
    "circular": lambda: Channels(nn.Conv2d(12, 12, 3, padding=1, padding_mode="circular")),
    "transposed": lambda: Channels(nn.ConvTranspose2d(12, 9, 2, 2), after=9),
    "transposed_grouped": lambda: Channels(nn.ConvTranspose2d(12, 8, 2, 2, groups=4), after=8),
    "pixel_shuffle": lambda: Channels(nn.PixelShuffle(2), after=3),
    "pixel_unshuffle": lambda: Channels(nn.PixelUnshuffle(2), after=48),
    "channel_shuffle": lambda: Channels(nn.ChannelShuffle(3)),
    "adaptive_pool": lambda: Channels(nn.AdaptiveAvgPool2d(2)),
    "adaptive_max_pool": lambda: Channels(nn.AdaptiveMaxPool2d(2)),
    "lp_pool": lambda: Channels(nn.LPPool2d(2, 2)),
    "upsample": lambda: Channels(nn.Upsample(scale_factor=2, mode="bilinear")),
    "upsample_nearest": lambda: Channels(nn.Upsample(scale_factor=2)),
    "squeeze_excite": lambda: Channels(_Squeeze()),
    "softmax_over_channels": lambda: Channels(nn.Softmax2d()),
    "reflection_pad": lambda: Channels(nn.ReflectionPad2d(1)),
    "unfold_and_fold": Unfolded,
}  # fmt: skip


class _Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


def layers() -> Iterator[Architecture]:
    """One network for each layer or option."""
    for name, build in SEQUENCE.items():
        yield Architecture(f"layers/{name}", build, floats(3, 7, 6))
    for name, build in IMAGE.items():
        yield Architecture(f"layers/{name}", build, floats(2, 3, 10, 10))
    for mode in ("sum", "mean", "max"):
        yield Architecture(f"layers/embedding_bag_{mode}", partial(Bags, mode), _ids)
    yield Architecture("layers/transformer", EncoderDecoder, _pair)
    yield Architecture("layers/quantised", _quantised, floats(3, 6), notes=REFUSED)
    yield Architecture(
        "layers/complex", _complex, lambda: ((torch.randn(3, 6, dtype=torch.complex64),), {}), notes=REFUSED
    )


REFUSED = "refused"
"""The note of what cannot be merged and must be refused."""


def _quantised() -> nn.Module:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = quantize(nn.Sequential(nn.Linear(6, 12), nn.Linear(12, 5)), {nn.Linear})
    return made


def _complex() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12, dtype=torch.complex64), nn.Linear(12, 5, dtype=torch.complex64))


def _ids() -> Inputs:
    return (torch.randint(0, 19, (3, 7)),), {}
