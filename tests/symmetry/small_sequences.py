"""Small networks that read sequences: attention, recurrence, mixing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from parts import Small, heads, linear, together
from torch import Tensor, nn


def attention() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(m.embed(x)).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4).unbind(0)
        return m.head(m.out(together(F.scaled_dot_product_attention(q, k, v))))

    return Small(run, embed=linear(3, 5), qkv=linear(5, 18), out=linear(6, 4), head=linear(4, 2))


def attention_by_hand() -> nn.Module:
    """Written out; q and k normalised with one gain for all heads; heads' logits scaled one by one."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (heads(f(x), 2) for f in (m.q, m.k, m.v))
        scores = (m.norm(q) @ m.norm(k).transpose(-1, -2)) * m.scale
        return m.out(together(scores.softmax(-1) @ v))

    parts = {n: linear(4, 6, False) for n in "qkv"}
    return Small(run, norm=nn.RMSNorm(3), scale=torch.rand(2, 1, 1), out=linear(6, 3), **parts)


def grouped_queries() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = heads(m.q(x), 4), heads(m.k(x), 2), heads(m.v(x), 2)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return m.out(together(F.scaled_dot_product_attention(q, k, v, is_causal=True)))

    return Small(run, q=linear(3, 12), k=linear(3, 6), v=linear(3, 6), out=linear(12, 2))


def rotary() -> nn.Module:
    def turn(x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (heads(f(x), 2) for f in (m.q, m.k, m.v))
        return m.out(together(F.scaled_dot_product_attention(turn(q), turn(k), v)))

    return Small(run, out=linear(8, 3), **{n: linear(4, 8, False) for n in "qkv"})


def tied_embedding() -> nn.Module:
    def run(m: Any, ids: Tensor) -> Tensor:
        x = m.tokens(ids) + m.places.weight[: ids.shape[1]]
        return F.linear(m.norm(x + m.down(torch.tanh(m.up(x)))), m.tokens.weight)

    parts = {"tokens": nn.Embedding(7, 5), "places": nn.Embedding(4, 5), "norm": nn.LayerNorm(5)}
    return Small(run, up=linear(5, 4), down=linear(4, 5), **parts)


def recurrent(kind: type[nn.RNNBase], **options: Any) -> nn.Module:
    layer = kind(3, 4, batch_first=True, **options)
    return Small(lambda m, x: m.head(m.layer(x)[0][:, -1]), layer=layer, head=linear(4, 2))


def einsum() -> nn.Module:
    """Low-rank bilinear attention pooling, written with einsum."""

    def run(m: Any, x: Tensor) -> Tensor:
        keys = torch.einsum("nsi,ihd->nhsd", x, m.key)
        scores = torch.einsum("nhsd,hd->nhs", torch.tanh(keys), m.query).softmax(-1)
        return torch.einsum("nhs,nsi,hio->no", scores, x, m.out)

    return Small(run, key=torch.randn(3, 2, 4), query=torch.randn(2, 4), out=torch.randn(2, 3, 2))


def mixer() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.embed(x)
        x = x + m.down1(torch.relu(m.up1(x.transpose(1, 2)))).transpose(1, 2)
        return m.head((x + m.down2(torch.relu(m.up2(m.norm(x))))).mean(1))

    parts = {"up1": linear(5, 4), "down1": linear(4, 5), "up2": linear(6, 3), "down2": linear(3, 6)}
    return Small(run, embed=linear(3, 6), norm=nn.LayerNorm(6), head=linear(6, 2), **parts)


def gram() -> nn.Module:
    """The products of all pairs of features, flattened: every unit occurs in rows and in columns."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = torch.tanh(m.embed(x))
        return m.head((h.transpose(1, 2) @ h).flatten(1))

    return Small(run, embed=linear(3, 4), head=linear(16, 2))


def state_space() -> nn.Module:
    """One step of a diagonal state-space model with inputs that choose (Mamba's shapes)."""

    def run(m: Any, x: Tensor) -> Tensor:
        u = m.into(x)
        step, b, c = m.make(u).split([2, 3, 3], -1)
        decay = torch.exp(-F.softplus(m.wide(step))[..., None] * torch.exp(m.rate))
        state = decay * (u[..., None] * b[..., None, :])
        return m.out((state * c[..., None, :]).sum(-1) + u * m.skip)

    parts = {"into": linear(3, 5), "make": linear(5, 8, False), "wide": linear(2, 5), "out": linear(5, 2)}
    return Small(run, rate=torch.randn(5, 3), skip=torch.randn(5), **parts)


def transformer_layer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, norm_first=True)
    return nn.Sequential(linear(3, 4), layer, linear(4, 2))


def bag() -> nn.Module:
    def run(m: Any, ids: Tensor) -> Tensor:
        return m.b(torch.relu(m.a(ids)))

    return Small(run, a=nn.EmbeddingBag(7, 5, mode="mean"), b=linear(5, 2))
