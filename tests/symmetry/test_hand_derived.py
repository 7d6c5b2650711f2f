"""Groups worked out by hand for seven small networks; the engine must find these and no others.

A group is written (size, copies) and the set of parameter dimensions that it moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from graphmerge.symmetry import ModelGraph, SymmetryGroup, trace
from graphmerge.symmetry.verify import verify

Group = tuple[int, int, frozenset[tuple[str, int]]]


def group(size: int, copies: int, members: str) -> Group:
    """``members`` are words such as ``fc1.weight:0``."""
    places = (word.rpartition(":") for word in members.split())
    return size, copies, frozenset((name, int(dim)) for name, _, dim in places)


def found(graph: ModelGraph) -> set[Group]:
    return {(g.size, g.copies, frozenset(g.members)) for g in graph.groups}


def holding(graph: ModelGraph, size: int, copies: int) -> SymmetryGroup:
    """The one group of this size and number of copies."""
    (one,) = [g for g in graph.groups if (g.size, g.copies) == (size, copies)]
    return one


def check(model: nn.Module, args: Sequence[Any], expected: Sequence[Group]) -> ModelGraph:
    """Trace, compare with the groups expected, and prove them."""
    torch.manual_seed(0)
    graph = trace(model, args, strict=True)
    one_name = {(n, c, frozenset((graph.names[x], d) for x, d in members)) for n, c, members in expected}
    assert found(graph) == one_name
    assert verify(graph, model).passed
    return graph


def test_mlp() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4))
    check(
        model,
        (torch.randn(3, 5),),
        [group(8, 1, "0.weight:0 0.bias:0 2.weight:1"), group(6, 1, "2.weight:0 2.bias:0 4.weight:1")],
    )


def test_vgg_with_flatten() -> None:
    """Each channel of the last convolution carries its 2 x 2 block of columns of the classifier."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(6 * 2 * 2, 10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip
    norm = "1.weight:0 1.bias:0 1.running_mean:0 1.running_var:0"
    check(
        model,
        (torch.randn(5, 3, 8, 8),),
        [
            group(8, 1, f"0.weight:0 0.bias:0 {norm} 4.weight:1"),
            group(6, 1, "4.weight:0 4.bias:0 8.weight:1"),
            group(10, 1, "8.weight:0 8.bias:0 10.weight:1"),
        ],
    )


class BasicBlock(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.down = nn.Conv2d(width_in, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.down(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a, self.b, self.c = BasicBlock(4, 4, 1), BasicBlock(4, 4, 1), BasicBlock(4, 6, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(self.b(self.a(self.stem(x)))).mean((2, 3)))


def norm(name: str) -> str:
    return " ".join(f"{name}.{x}:0" for x in ("weight", "bias", "running_mean", "running_var"))


def test_resnet() -> None:
    """The residual stream of a stage is one group; each block has one group inside."""
    block_a = f"a.conv1.weight:1 a.conv2.weight:0 {norm('a.bn2')}"
    block_b = f"b.conv1.weight:1 b.conv2.weight:0 {norm('b.bn2')}"
    check(
        ResNet(),
        (torch.randn(2, 3, 8, 8),),
        [
            group(4, 1, f"stem.weight:0 stem.bias:0 {block_a} {block_b} c.conv1.weight:1 c.down.weight:1"),
            group(4, 1, f"a.conv1.weight:0 {norm('a.bn1')} a.conv2.weight:1"),
            group(4, 1, f"b.conv1.weight:0 {norm('b.bn1')} b.conv2.weight:1"),
            group(6, 1, f"c.conv1.weight:0 {norm('c.bn1')} c.conv2.weight:1"),
            group(6, 1, f"c.conv2.weight:0 {norm('c.bn2')} c.down.weight:0 head.weight:1"),
        ],
    )


class Attention(nn.Module):
    """Fused qkv, heads of ``dim`` each."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, s, c = x.shape
        qkv = self.qkv(x).reshape(n, s, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(n, s, c))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.n1, self.attn = nn.LayerNorm(width), Attention(width, heads, causal)
        self.n2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        return x + self.down(functional.gelu(self.up(self.n2(x))))


def block_groups(name: str, width: int, heads: int, hidden: int) -> list[Group]:
    """Heads; the q and k dimensions inside each, together; the v dimensions inside each; the mlp."""
    qkv = f"{name}.attn.qkv.weight:0 {name}.attn.qkv.bias:0"
    return [
        group(heads, 1, f"{qkv} {name}.attn.proj.weight:1"),
        group(width // heads, heads, qkv),
        group(width // heads, heads, f"{qkv} {name}.attn.proj.weight:1"),
        group(hidden, 1, f"{name}.up.weight:0 {name}.up.bias:0 {name}.down.weight:1"),
    ]


def block_stream(name: str) -> str:
    """What a block has of the residual stream."""
    norms = " ".join(f"{name}.{n}.{x}:0" for n in ("n1", "n2") for x in ("weight", "bias"))
    ends = f"{name}.attn.proj.weight:0 {name}.attn.proj.bias:0 {name}.down.weight:0 {name}.down.bias:0"
    return f"{norms} {ends} {name}.attn.qkv.weight:1 {name}.up.weight:1"


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.pos = nn.Parameter(torch.randn(1, 5, 12))
        self.a, self.b = Block(12, 3, 10), Block(12, 3, 14)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.b(self.a(x)))[:, 0])


def test_vit() -> None:
    outer = "patch.weight:0 patch.bias:0 cls:2 pos:2 norm.weight:0 norm.bias:0 head.weight:1"
    graph = check(
        ViT(),
        (torch.randn(2, 3, 8, 8),),
        [
            group(12, 1, f"{outer} {block_stream('a')} {block_stream('b')}"),
            *block_groups("a", 12, 3, 10),
            *block_groups("b", 12, 3, 14),
        ],
    )
    heads = {g.name for g in graph.groups if (g.size, g.copies) == (3, 1)}
    inside = [g for g in graph.groups if (g.size, g.copies) == (4, 3)]
    assert len(inside) == 4
    assert all(len(g.within) == 1 and set(g.within) <= heads for g in inside)


class GPT(nn.Module):
    """The head is the token embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 12), nn.Embedding(6, 12)
        self.a = Block(12, 3, 10, causal=True)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.a(x)))


def test_gpt_with_a_tied_head() -> None:
    graph = check(
        GPT(),
        (torch.randint(0, 11, (2, 5)),),
        [
            group(12, 1, f"tokens.weight:1 places.weight:1 norm.weight:0 norm.bias:0 {block_stream('a')}"),
            *block_groups("a", 12, 3, 10),
        ],
    )
    assert (graph.names["tokens.weight"], 0) in {(f.parameter, f.dim) for f in graph.fixed}
    assert graph.names["head.weight"] == graph.names["tokens.weight"]


class Llama(nn.Module):
    """One layer: 2 key heads, 3 query heads to each, dimensions of 4, rotary positions, SwiGLU, RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 20)
        self.n1, self.n2, self.norm = nn.RMSNorm(20), nn.RMSNorm(20), nn.RMSNorm(20)
        self.q, self.k, self.v = (nn.Linear(20, n, bias=False) for n in (24, 8, 8))
        self.o = nn.Linear(24, 20, bias=False)
        self.gate, self.up = nn.Linear(20, 14, bias=False), nn.Linear(20, 14, bias=False)
        self.down = nn.Linear(14, 20, bias=False)
        self.head = nn.Linear(20, 11, bias=False)
        self.register_buffer("frequency", 1.0 / 100.0 ** (torch.arange(0, 4, 2) / 4), persistent=False)

    def rotate(self, x: Tensor) -> Tensor:
        angle = torch.outer(torch.arange(x.shape[2]).to(self.frequency), self.frequency)
        angle = torch.cat([angle, angle], -1)
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * angle.cos() + half * angle.sin()

    def attend(self, x: Tensor) -> Tensor:
        n, s, _ = x.shape
        q, k, v = (f(x).view(n, s, -1, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = self.rotate(q), self.rotate(k)
        k, v = (y[:, :, None].expand(n, 2, 3, s, 4).reshape(n, 6, s, 4) for y in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(n, s, 24))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        x = x + self.attend(self.n1(x))
        y = self.n2(x)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.head(self.norm(x))


def test_llama_with_grouped_queries() -> None:
    """q and k dimensions are fixed: the rotary table turns each pair by an angle of its own."""
    stream = (
        "tokens.weight:1 n1.weight:0 n2.weight:0 norm.weight:0 q.weight:1 k.weight:1 v.weight:1 o.weight:0 "
        "gate.weight:1 up.weight:1 down.weight:0 head.weight:1"
    )
    graph = check(
        Llama(),
        (torch.randint(0, 11, (2, 5)),),
        [
            group(20, 1, stream),
            group(2, 1, "q.weight:0 k.weight:0 v.weight:0 o.weight:1"),
            group(3, 2, "q.weight:0 o.weight:1"),
            group(4, 2, "v.weight:0 o.weight:1"),
            group(14, 1, "gate.weight:0 up.weight:0 down.weight:1"),
        ],
    )
    keys = holding(graph, 2, 1)
    assert holding(graph, 3, 2).within == (keys.name,)
    assert holding(graph, 4, 2).within == (keys.name,)


class Gated(nn.Module):
    """GLU over stacked gate and value rows."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 16), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.glu(self.up(x)))


@pytest.mark.parametrize("batch", [1, 3])
def test_glu(batch: int) -> None:
    check(Gated(), (torch.randn(batch, 5),), [group(8, 1, "up.weight:0 up.bias:0 down.weight:1")])
