"""Networks of tens of units, one for each way in which units can be tied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import small_images as images
import small_sequences as sequences
import torch
import torch.nn.functional as F
from parts import Small, floats, ids, linear
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def tied_autoencoder() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(m.one(x)), m.one.weight.t(), m.bias)

    return Small(run, one=linear(5, 6), bias=torch.randn(5))


def layer_norm() -> nn.Module:
    return nn.Sequential(linear(3, 6), nn.LayerNorm(6), nn.GELU(), linear(6, 5), nn.RMSNorm(5), linear(5, 2))


def residual() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.b(torch.relu(m.a(x)))
        return m.head(torch.relu(m.shortcut(x) + m.d(torch.relu(m.c(x)))))

    parts = {
        "a": linear(5, 4),
        "b": linear(4, 5),
        "c": linear(5, 3),
        "d": linear(3, 6),
        "shortcut": linear(5, 6),
    }
    return Small(run, stem=linear(3, 5), head=linear(6, 2), **parts)


def halves_passed_on() -> nn.Module:
    """Two blocks that pass one half of the channels on and interleave."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        for block in (m.a, m.b):
            kept, more = x.chunk(2, -1)
            x = torch.stack([kept, torch.relu(block(more))], -1).flatten(-2)
        return m.head(x)

    return Small(run, stem=linear(3, 8), a=linear(4, 4), b=linear(4, 4), head=linear(8, 2))


def glu() -> nn.Module:
    return nn.Sequential(linear(3, 10), nn.GLU(), linear(5, 2))


def gated_mlp() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        gate, up = m.both(x)[..., ::2], m.both(x)[..., 1::2]
        return m.down(F.silu(gate) * up)

    return Small(run, both=linear(3, 10), down=linear(5, 2))


def bilinear() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.head(torch.tanh(m.pair(m.a(x), m.b(x))))

    return Small(run, a=linear(3, 4), b=linear(3, 5), pair=nn.Bilinear(4, 5, 6), head=linear(6, 2))


def weight_norm() -> nn.Module:
    first = parametrizations.weight_norm(linear(3, 6))
    return nn.Sequential(first, nn.ReLU(), parametrizations.weight_norm(linear(6, 2)))


def concatenated_branches() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.head(torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x)), x], -1))

    return Small(run, a=linear(3, 4), b=linear(3, 4), head=linear(11, 2))


def maxout() -> nn.Module:
    return Small(lambda m, x: m.b(m.a(x).unflatten(-1, (4, 3)).amax(-1)), a=linear(3, 12), b=linear(4, 2))


def low_rank_adapter() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.head(torch.relu(m.base(x) + m.up(m.down(x))))

    parts = {"down": linear(4, 3, False), "up": linear(3, 6, False)}
    return Small(run, base=linear(4, 6), head=linear(6, 2), **parts)


def hypernetwork() -> nn.Module:
    """The weights of one layer are made by another from a second input."""

    def run(m: Any, x: Tensor, z: Tensor) -> Tensor:
        weight = m.make(z).unflatten(-1, (4, 5))
        return m.head(torch.relu(torch.einsum("noi,ni->no", weight, torch.tanh(m.embed(x)))))

    return Small(run, make=linear(2, 20), embed=linear(3, 5), head=linear(4, 2))


def two_towers() -> nn.Module:
    def run(m: Any, x: Tensor, z: Tensor) -> Tensor:
        a, b = F.normalize(m.a(x), dim=-1), F.normalize(torch.tanh(m.b(z)), dim=-1)
        return a @ b.t() * m.scale.exp()

    return Small(run, a=linear(3, 6), b=linear(4, 6), scale=torch.rand(()))


def mixture() -> nn.Module:
    """A soft choice among layers held in one tensor."""

    def run(m: Any, x: Tensor) -> Tensor:
        made = torch.tanh(torch.einsum("ni,eih->neh", x, m.one) + m.bias)
        return torch.einsum("ne,neh,eho->no", m.gate(x).softmax(-1), made, m.two)

    parts = {"one": torch.randn(3, 3, 4), "bias": torch.randn(3, 4), "two": torch.randn(3, 4, 2)}
    return Small(run, gate=linear(3, 3), **parts)


def prelu() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 5, 2), nn.InstanceNorm1d(5, affine=True), nn.PReLU(5), nn.Conv1d(5, 2, 2)
    )


def shared_layer() -> nn.Module:
    layer = linear(5, 5)
    return nn.Sequential(linear(3, 5), nn.Tanh(), layer, nn.Tanh(), layer, nn.Tanh(), linear(5, 2))


def split_and_joined() -> nn.Module:
    """Split, transposed, and flat again: nothing looks at the blocks, so all six units are alike."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.relu(m.a(x)).unflatten(-1, (2, 3)).transpose(1, 2).flatten(1))

    return Small(run, a=linear(3, 6), b=linear(6, 2))


def largest() -> nn.Module:
    """Maxout and a median by operators that also return indices, which nobody reads."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = m.a(x).unflatten(-1, (4, 3)).max(-1)[0]
        return torch.cat([m.b(h), h.median(-1, keepdim=True)[0]], -1)

    return Small(run, a=linear(3, 12), b=linear(4, 2))


def sorted_units() -> nn.Module:
    """The values of the units in order of size: it does not matter which unit is which."""
    return Small(lambda m, x: m.b(torch.tanh(m.a(x)).sort(-1)[0]), a=linear(3, 5), b=linear(5, 2))


def pointwise_heads() -> nn.Module:
    """Split into heads for an elementwise gate, one number for each head."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = m.a(x).unflatten(-1, (3, 2)) * torch.sigmoid(m.gate(x))[..., None]
        return m.b(h.flatten(-2))

    return Small(run, a=linear(3, 6), gate=linear(3, 3), b=linear(6, 2))


def reversed_and_rolled() -> nn.Module:
    """Units turned about by steps that are known: h - flip(h), then a roll."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.tanh(m.a(x))
        return m.c(torch.relu(m.b(h + h.flip(-1))).roll(2, -1))

    return Small(run, a=linear(3, 6), b=linear(6, 5), c=linear(5, 2))


def slices() -> nn.Module:
    """A part of the units is read twice, and one unit by itself."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.tanh(m.a(x))
        return m.b(h) * h[:, :1] + m.c(h[:, 2:6])

    return Small(run, a=linear(3, 8), b=linear(8, 2), c=linear(4, 2))


def written_over() -> nn.Module:
    """Some units are overwritten, some padded."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.tanh(m.a(x)).clone()
        h[:, 2:5] = m.b(x)
        return m.c(F.pad(h, (1, 2)))

    return Small(run, a=linear(3, 7), b=linear(3, 3), c=linear(10, 2))


def outer_product() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b = torch.tanh(m.a(x)), torch.relu(m.b(x))
        return m.c((a[:, :, None] * b[:, None, :]).flatten(1))

    return Small(run, a=linear(3, 4), b=linear(3, 3), c=linear(12, 2))


ROWS, IMAGE, SEQUENCE = floats((9, 3)), floats((5, 2, 4, 4)), floats((6, 5, 3))

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "mlp": (lambda: nn.Sequential(linear(3, 6), nn.ReLU(), linear(6, 4), nn.Tanh(), linear(4, 2)), ROWS),
    "tied autoencoder": (tied_autoencoder, floats((9, 5))),
    "batch norm and flatten": (images.batch_norm, floats((5, 2, 6, 6))),
    "group norm": (images.group_norm, floats((5, 2, 6, 6))),
    "layer norm": (layer_norm, ROWS),
    "residual": (residual, ROWS),
    "depthwise": (images.depthwise, IMAGE),
    "grouped": (images.grouped, IMAGE),
    "squeeze-excite": (images.squeeze_excite, IMAGE),
    "attention": (sequences.attention, SEQUENCE),
    "attention by hand": (sequences.attention_by_hand, floats((6, 5, 4))),
    "grouped queries": (sequences.grouped_queries, SEQUENCE),
    "rotary": (sequences.rotary, floats((6, 5, 4))),
    "tied embedding": (sequences.tied_embedding, ids(7, 6, 4)),
    "lstm": (lambda: sequences.recurrent(nn.LSTM), floats((2, 3, 3))),
    "gru": (lambda: sequences.recurrent(nn.GRU), floats((2, 3, 3))),
    "rnn": (lambda: sequences.recurrent(nn.RNN, num_layers=2), SEQUENCE),
    "skip by concatenation": (images.skip_by_concatenation, IMAGE),
    "channel shuffle": (images.channel_shuffle, IMAGE),
    "halves passed on": (halves_passed_on, ROWS),
    "glu": (glu, ROWS),
    "gated mlp": (gated_mlp, ROWS),
    "einsum": (sequences.einsum, SEQUENCE),
    "bilinear": (bilinear, ROWS),
    "mixer": (sequences.mixer, SEQUENCE),
    "weight norm": (weight_norm, ROWS),
    "concatenated branches": (concatenated_branches, ROWS),
    "maxout": (maxout, ROWS),
    "low-rank adapter": (low_rank_adapter, floats((9, 4))),
    "hypernetwork": (hypernetwork, floats((9, 3), (9, 2))),
    "film": (images.film, floats((5, 2, 4, 4), (5, 3))),
    "two towers": (two_towers, floats((9, 3), (7, 4))),
    "mixture": (mixture, ROWS),
    "pixel shuffle": (images.pixel_shuffle, floats((5, 1, 5, 5))),
    "prelu": (prelu, floats((5, 2, 6))),
    "shared layer": (shared_layer, ROWS),
    "patches": (images.patches, floats((5, 4, 4, 2))),
    "gram": (sequences.gram, SEQUENCE),
    "state space": (sequences.state_space, SEQUENCE),
    "split and joined": (split_and_joined, ROWS),
    "largest": (largest, ROWS),
    "sorted units": (sorted_units, ROWS),
    "transformer layer": (sequences.transformer_layer, SEQUENCE),
    "pointwise heads": (pointwise_heads, ROWS),
    "reversed and rolled": (reversed_and_rolled, ROWS),
    "bag": (sequences.bag, ids(7, 9, 3)),
    "grouped transposed": (images.grouped_transposed, IMAGE),
    "unfolded": (images.unfolded, IMAGE),
    "slices": (slices, ROWS),
    "written over": (written_over, ROWS),
    "dynamic convolution": (images.dynamic_convolution, IMAGE),
    "outer product": (outer_product, ROWS),
}
