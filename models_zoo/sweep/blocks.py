"""Kinds of network that no library of the sweep has, written down in their simplest form.

A denoising U-Net (Ho et al. 2020), a diffusion transformer (Peebles and Xie 2023), RWKV-4 (Peng et al.
2023), a retentive network (Sun et al. 2023), a Perceiver (Jaegle et al. 2021), a selective state space
(Gu and Dao 2023), experts as separate modules beside a shared one (Dai et al. 2024), a decoder with
parallel branches, partial rotary positions, normed queries and keys and linear biases, and a model that
reads an image and a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models_zoo.architectures.table import Architecture, Inputs, floats


class Residual(nn.Module):
    """Two convolutions, the time added in between; a convolution of 1 beside them where the width changes."""

    def __init__(self, before: int, after: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, before), nn.Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(time, after)
        self.norm2, self.conv2 = nn.GroupNorm(4, after), nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        out: Tensor = self.skip(x) + self.conv2(F.silu(self.norm2(h)))
        return out


class Denoiser(nn.Module):
    """A U-Net that is told the time by its sines, with attention over positions in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(16, 24), nn.SiLU(), nn.Linear(24, 24))
        self.enter, self.leave = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 3, 3, padding=1)
        self.down, self.halve = Residual(12, 20, 24), nn.Conv2d(20, 20, 3, 2, 1)
        self.norm, self.qkv, self.mix = nn.GroupNorm(4, 20), nn.Conv2d(20, 60, 1), nn.Conv2d(20, 20, 1)
        self.grow, self.up = nn.ConvTranspose2d(20, 20, 2, 2), Residual(40, 12, 24)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(-torch.arange(8, device=t.device) / 2)
        time = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        wide = self.down(self.enter(x), time)
        h = self.halve(wide)
        q, k, v = self.qkv(self.norm(h)).reshape(len(x), 3, 5, 4, -1).unbind(1)
        weights = torch.softmax(torch.einsum("bhcs,bhct->bhst", q, k) / 2, -1)
        h = h + self.mix(torch.einsum("bhst,bhct->bhcs", weights, v).reshape(h.shape))
        out: Tensor = self.leave(self.up(torch.cat([self.grow(h), wide], 1), time))
        return out


class Modulated(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 40), nn.GELU(), nn.Linear(40, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        h = self.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(h, h, h, need_weights=False)[0]
        out: Tensor = x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)
        return out


class DiffusionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.time, self.label = nn.Conv2d(4, 32, 2, 2), nn.Linear(1, 32), nn.Embedding(7, 32)
        self.position = nn.Parameter(torch.randn(16, 32))
        self.blocks = nn.ModuleList(Modulated(32, 4) for _ in range(2))
        self.out = nn.Linear(32, 16)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2) + self.position
        c = self.time(t[:, None]) + self.label(label)
        for block in self.blocks:
            h = block(h, c)
        out: Tensor = self.out(h).unflatten(1, (4, 4)).unflatten(-1, (2, 2, 4))
        return torch.einsum("bhwpqc->bchpwq", out).reshape(x.shape)


class Rwkv(nn.Module):
    """Time mixing and channel mixing, the recurrence as a loop over time."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Parameter(torch.rand(5, width))
        self.decay, self.first = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.key, self.value, self.receptance, self.output = (
            nn.Linear(width, width, False) for _ in range(4)
        )
        self.wide, self.narrow = nn.Linear(width, 40, False), nn.Linear(40, width, False)
        self.gate = nn.Linear(width, width, False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        before = F.pad(h, (0, 0, 1, -1))
        k, v, r = (
            f(h * m + before * (1 - m))
            for f, m in zip((self.key, self.value, self.receptance), self.mix, strict=False)
        )
        total, weight, outs = torch.zeros_like(v[:, 0]), torch.zeros_like(v[:, 0]), []
        for t in range(x.shape[1]):
            now = torch.exp(self.first + k[:, t])
            outs.append((total + now * v[:, t]) / (weight + now + 1e-6))
            keep = torch.exp(-torch.exp(self.decay))
            total, weight = keep * total + k[:, t].exp() * v[:, t], keep * weight + k[:, t].exp()
        x = x + self.output(r.sigmoid() * torch.stack(outs, 1))
        h = self.norm2(x)
        before = F.pad(h, (0, 0, 1, -1))
        k = self.wide(h * self.mix[3] + before * (1 - self.mix[3])).relu().square()
        out: Tensor = x + self.gate(h * self.mix[4] + before * (1 - self.mix[4])).sigmoid() * self.narrow(k)
        return out


class Retention(nn.Module):
    """Attention without softmax, each head forgetting at a rate of its own, heads normed apart."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.qkv, self.gate = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.out = nn.GroupNorm(heads, width), nn.Linear(width, width)
        self.rates = nn.Buffer(1 - 2.0 ** (-5 - torch.arange(heads)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        steps = torch.arange(x.shape[1], device=x.device)
        distance = steps[:, None] - steps
        decay = torch.where(distance >= 0, self.rates[:, None, None] ** distance.clamp_min(0), 0.0)
        h = ((q @ k.transpose(-1, -2)) * decay.to(q) @ v).transpose(1, 2).flatten(2)
        h = self.norm(h.flatten(0, 1)).view_as(h)
        out: Tensor = x + self.out(F.silu(self.gate(x)) * h)
        return out


class Perceiver(nn.Module):
    """A few learned vectors attend to a long input, then to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 16))
        self.cross = nn.MultiheadAttention(16, 2, kdim=10, vdim=10, batch_first=True)
        self.inner = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.enter, self.out = nn.Linear(6, 10), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        z = self.cross(self.latents.expand(len(x), -1, -1), h, h, need_weights=False)[0]
        out: Tensor = self.out(self.inner(z).mean(1))
        return out


class StateSpace(nn.Module):
    """A gated selective state space, scanned by a loop."""

    def __init__(self, width: int = 16, state: int = 5) -> None:
        super().__init__()
        self.enter, self.select = nn.Linear(width, 2 * width), nn.Linear(width, 1 + 2 * state)
        self.conv = nn.Conv1d(width, width, 3, padding=2, groups=width)
        self.step = nn.Linear(1, width)
        self.rates, self.skip = nn.Parameter(torch.rand(width, state)), nn.Parameter(torch.randn(width))
        self.out, self.state = nn.Linear(width, width), state

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.enter(x).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        d, b, c = self.select(u).split([1, self.state, self.state], -1)
        d = F.softplus(self.step(d))
        h, outs = torch.zeros_like(d[:, 0, :, None] * b[:, 0, None]), []
        for t in range(x.shape[1]):
            h = torch.exp(-d[:, t, :, None] * self.rates.exp()) * h + (d * u)[:, t, :, None] * b[:, t, None]
            outs.append((h * c[:, t, None]).sum(-1) + self.skip * u[:, t])
        out: Tensor = x + self.out(torch.stack(outs, 1) * F.silu(gate))
        return out


class Experts(nn.Module):
    """Experts as separate modules, two for each token, beside one for all."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 10), nn.SiLU(), nn.Linear(10, width)) for _ in range(4)
        )
        self.shared = nn.Sequential(nn.Linear(width, 12), nn.SiLU(), nn.Linear(12, width))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        out: Tensor = x + self.shared(x)
        for k, expert in enumerate(self.experts):
            out = out + expert(x) * (weights * (chosen == k)).sum(-1, keepdim=True)
        return out


class Parallel(nn.Module):
    """Attention and MLP side by side from one fused projection; queries and keys normed, partly rotated."""

    def __init__(self, width: int = 24, heads: int = 3, turned: int = 4) -> None:
        super().__init__()
        self.heads, self.turned = heads, turned
        self.norm, self.fused = nn.RMSNorm(width), nn.Linear(width, 3 * width + 2 * 40)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        self.out = nn.Linear(width + 40, width)

    def forward(self, x: Tensor) -> Tensor:
        width, steps = x.shape[-1], torch.arange(x.shape[1], device=x.device)
        qkv, gate, up = self.fused(self.norm(x)).split([3 * width, 40, 40], -1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        angle = (steps[:, None] / 10.0 ** torch.arange(self.turned // 2, device=x.device)).to(x)
        q, k = (self._turn(norm(z), angle) for norm, z in ((self.q_norm, q), (self.k_norm, k)))
        far = (steps[:, None] - steps).abs()
        slopes = 2.0 ** -torch.arange(1, self.heads + 1, device=x.device)
        bias = torch.where(far < 5, -slopes[:, None, None] * far, -torch.inf).to(x)
        h = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2)
        out: Tensor = x + self.out(torch.cat([h, F.silu(gate) * up], -1))
        return out

    def _turn(self, z: Tensor, angle: Tensor) -> Tensor:
        half = self.turned // 2
        a, b, rest = z[..., :half], z[..., half : 2 * half], z[..., 2 * half :]
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


class SeeAndRead(nn.Module):
    """Patches of an image, projected, in front of the words of a text; the next word comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.eye = nn.Conv2d(3, 20, 4, 4), nn.TransformerEncoderLayer(20, 2, 28, batch_first=True)
        self.project = nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 16))
        self.words, self.body = nn.Embedding(41, 16), nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        seen = self.project(self.eye(self.patch(image).flatten(2).transpose(1, 2)))
        h = self.body(torch.cat([seen, self.words(ids)], 1))
        out: Tensor = h[:, seen.shape[1] :] @ self.words.weight.T
        return out


def _stack(block: Callable[[], nn.Module], width: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(6, width), block(), block(), nn.LayerNorm(width), nn.Linear(width, 5)
    )


def _time(*shape: int) -> Callable[[], Inputs]:
    return lambda: ((torch.randn(shape), torch.rand(shape[0])), {})


def _labelled() -> Inputs:
    return (torch.randn(3, 4, 8, 8), torch.rand(3), torch.randint(0, 7, (3,))), {}


def _both() -> Inputs:
    return (torch.randn(3, 3, 8, 8), torch.randint(0, 41, (3, 11))), {}


def blocks() -> Iterator[Architecture]:
    """One network of each kind."""
    for name, block, width in (
        ("rwkv", Rwkv, 24), ("retnet", Retention, 32), ("state_space", StateSpace, 16),
        ("experts_shared", Experts, 16), ("parallel_rotary_alibi", Parallel, 24),
    ):  # fmt: skip
        yield Architecture(f"blocks/{name}", _stack(block, width), floats(3, 7, 6))
    yield Architecture("blocks/denoising_unet", Denoiser, _time(2, 3, 10, 10))
    yield Architecture("blocks/diffusion_transformer", DiffusionTransformer, _labelled)
    yield Architecture("blocks/perceiver", Perceiver, floats(3, 17, 6))
    yield Architecture("blocks/image_and_text", SeeAndRead, _both)
