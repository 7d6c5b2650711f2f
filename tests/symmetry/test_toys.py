"""The toy graphs that other tools get wrong: exact groups, and the proof that they hold."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from parts import Small, conv, heads, linear, together
from torch import Tensor, nn

import graphmerge as gm

Group = tuple[int, int, frozenset[str]]


def group(size: int, copies: int, members: str) -> Group:
    """``members`` are words such as ``fc1.weight:0``."""
    return size, copies, frozenset(members.split())


def check(model: nn.Module, inputs: Any, *expected: Group) -> gm.ModelGraph:
    """These groups and no others, each seen to hold."""
    torch.manual_seed(0)
    graph = gm.trace(model, inputs, strict=True)
    found = Counter((g.size, g.copies, frozenset(f"{n}:{d}" for n, d in g.members)) for g in graph.groups)
    assert found == Counter(expected)
    result = gm.verify(graph, model)
    assert result.passed
    assert result.unobservable == ()
    return graph


def test_flatten_after_convolution() -> None:
    """A channel carries all its pixels: its columns of the linear layer move as one block."""
    model = nn.Sequential(conv(2, 5), nn.ReLU(), nn.Flatten(), linear(5 * 4, 3))
    graph = check(model, (torch.randn(3, 2, 4, 4),), group(5, 1, "0.weight:0 0.bias:0 3.weight:1"))
    moved = graph.random_transform(1).apply({"3.weight": torch.arange(20.0)[None]})["3.weight"].view(5, 4)
    assert (moved % 4 == torch.arange(4)).all()  # whole blocks of pixels, each in its order
    assert (moved[:, 0] // 4).tolist() != list(range(5))


def test_reshape_without_flatten_module() -> None:
    """The same by ``reshape`` alone, where an unmatched reshape would look like no link at all."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.relu(m.norm(m.a(x))).reshape(3, 16))

    model = Small(run, a=conv(2, 4), norm=nn.BatchNorm2d(4), b=linear(16, 3))
    norm = " ".join(f"norm.{x}:0" for x in ("weight", "bias", "running_mean", "running_var"))
    check(model, (torch.randn(3, 2, 4, 4),), group(4, 1, f"a.weight:0 a.bias:0 {norm} b.weight:1"))


def test_concatenation_then_reshape() -> None:
    """Two branches side by side, their pixels flattened behind: every part keeps an order of its own."""

    def run(m: Any, x: Tensor) -> Tensor:
        return m.c(torch.cat([m.a(x), torch.relu(m.b(x))], 1).reshape(x.shape[0], -1))

    model = Small(run, a=conv(2, 3), b=conv(2, 4), c=linear(7 * 4, 2))
    check(
        model,
        (torch.randn(5, 2, 4, 4),),
        group(3, 1, "a.weight:0 a.bias:0 c.weight:1"),
        group(4, 1, "b.weight:0 b.bias:0 c.weight:1"),
    )


def test_unbind_of_fused_qkv() -> None:
    """Three parts of one matrix: q and k share the order inside each head, v has its own."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return m.out(together(F.scaled_dot_product_attention(q, k, v)))

    qkv = "qkv.weight:0 qkv.bias:0"
    graph = check(
        Small(run, qkv=linear(3, 24), out=linear(8, 3)),
        (torch.randn(5, 6, 3),),
        group(2, 1, f"{qkv} out.weight:1"),
        group(4, 2, qkv),
        group(4, 2, f"{qkv} out.weight:1"),
    )
    (outer,) = [g for g in graph.groups if g.copies == 1]
    assert all(g.within == (outer.name,) for g in graph.groups if g.copies == 2)


def test_shared_weights() -> None:
    """One matrix on both sides of itself: its rows and its columns have one order."""
    shared = linear(5, 5)
    model = nn.Sequential(linear(3, 5), nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh(), linear(5, 2))
    members = "0.weight:0 0.bias:0 4.weight:0 4.weight:1 4.bias:0 6.weight:1"
    check(model, (torch.randn(7, 3),), group(5, 1, members))


def test_tied_matrix_transposed() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(m.one(x)), m.one.weight.t())

    check(Small(run, one=linear(4, 6)), (torch.randn(7, 4),), group(6, 1, "one.weight:0 one.bias:0"))


def test_frozen_statistics() -> None:
    """Running statistics are buffers, and move with the channels; frozen gains kept as buffers do, too."""

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("weight", "bias", "mean", "var"):
                self.register_buffer(name, torch.rand(5) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            scale = self.weight * (self.var + 1e-5).rsqrt()
            return x * scale[:, None, None] + (self.bias - self.mean * scale)[:, None, None]

    model = nn.Sequential(conv(2, 5), Frozen(), nn.ReLU(), conv(5, 3))
    buffers = "1.weight:0 1.bias:0 1.mean:0 1.var:0"
    check(model, (torch.randn(3, 2, 6, 6),), group(5, 1, f"0.weight:0 0.bias:0 {buffers} 3.weight:1"))


def test_shortcut_with_unequal_channels() -> None:
    """Channels padded with zeros (ResNet's option A): the padded part is another part of the stream."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(torch.relu(F.pad(x, (0, 0, 0, 0, 0, 3)) + m.wide(torch.relu(x))).mean((2, 3)))

    model = Small(run, stem=conv(2, 4, 1), wide=conv(4, 7, 1), head=linear(7, 2))
    stream = "wide.weight:0 wide.bias:0 head.weight:1"
    check(
        model,
        (torch.randn(5, 2, 3, 3),),
        group(4, 1, f"stem.weight:0 stem.bias:0 wide.weight:1 {stream}"),
        group(3, 1, stream),
    )


def test_shortcut_by_projection() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(torch.relu(m.shortcut(x) + m.wide(torch.relu(x))).mean((2, 3)))

    model = Small(
        run, stem=conv(2, 4, 1), wide=conv(4, 7, 1), shortcut=conv(4, 7, 1, bias=False), head=linear(7, 2)
    )
    check(
        model,
        (torch.randn(5, 2, 3, 3),),
        group(4, 1, "stem.weight:0 stem.bias:0 wide.weight:1 shortcut.weight:1"),
        group(7, 1, "shortcut.weight:0 wide.weight:0 wide.bias:0 head.weight:1"),
    )


def test_squeeze_excite() -> None:
    """The gate's output is tied to the channels that it multiplies, through a mean over space."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = torch.relu(m.stem(x))
        gate = torch.sigmoid(m.up(torch.relu(m.down(x.mean((2, 3), keepdim=True)))))
        return m.head((x * gate).mean((2, 3)))

    model = Small(run, stem=conv(2, 6), down=conv(6, 3, 1), up=conv(3, 6, 1), head=linear(6, 3))
    check(
        model,
        (torch.randn(5, 2, 4, 4),),
        group(6, 1, "stem.weight:0 stem.bias:0 down.weight:1 up.weight:0 up.bias:0 head.weight:1"),
        group(3, 1, "down.weight:0 down.bias:0 up.weight:1"),
    )


def test_channel_shuffle() -> None:
    """Two groups of three, interleaved, then two groups again: channel (i, j) goes to place (j, i).

    Behind the shuffle the groups are 0 3 1 and 4 2 5: of the channels between, 0 and 1 share both their
    groups, and so do 4 and 5. (All could also be reversed at once, both layers with their groups: such a
    symmetry of the groups against each other is not looked for.)
    """

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.b(m.a(x)).unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2)
        return m.d(m.c(x).mean((2, 3)))

    parts = {"a": conv(2, 6, 1), "b": conv(6, 6, 1, groups=2), "c": conv(6, 4, 1, groups=2)}
    first = group(3, 1, "a.weight:0 a.bias:0 b.weight:1")
    between = group(2, 1, "b.weight:0 b.bias:0 c.weight:1")
    last = group(2, 1, "c.weight:0 c.bias:0 d.weight:1")
    model = Small(run, d=linear(4, 2), **parts)
    check(model, (torch.randn(5, 2, 3, 3),), first, first, between, between, last, last)


def test_blocks_scaled_one_by_one_and_added_turned_about() -> None:
    """Gains that a flip ties to one another still tell their blocks apart."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = m.a(x).unflatten(-1, (2, 3)) * m.gain[:, None]
        return m.b(h.flatten(1)) * m.c(m.gain + m.gain.flip(0))

    inside = group(3, 1, "a.weight:0 a.bias:0 b.weight:1")
    model = Small(run, a=linear(3, 6), gain=torch.randn(2), b=linear(6, 2), c=linear(2, 2))
    check(model, (torch.randn(5, 3),), inside, inside)


def test_blocks_that_meet_turned_about() -> None:
    """Two parts of every block go on, one of them with the blocks reversed: the blocks cannot move."""

    def run(m: Any, x: Tensor) -> Tensor:
        z = torch.einsum("ngi,gio->ngo", m.a(x).unflatten(-1, (2, 4)), m.w)
        p, q = z.split([2, 1], -1)
        t = torch.tanh(torch.cat([p, q.flip(1)], -1))
        return m.b(torch.einsum("nci,cio->nco", t, m.v).flatten(1))

    model = Small(run, a=linear(3, 8), w=torch.randn(2, 4, 3), v=torch.randn(2, 3, 5), b=linear(10, 2))
    graph = gm.trace(model, (torch.randn(5, 3),), strict=True)
    assert gm.verify(graph, model).passed
    assert sum(g.units for g in graph.groups) >= 4 + 4 + 2 + 2 + 5 + 5


def test_interleaved_branches() -> None:
    """ShuffleNet's unit, once: half of the channels pass, half are transformed, and both interleave."""

    def run(m: Any, x: Tensor) -> Tensor:
        kept, more = m.stem(x).chunk(2, -1)
        return m.head(torch.stack([kept, torch.relu(m.a(more))], -1).flatten(-2))

    model = Small(run, stem=linear(3, 8), a=linear(4, 4), head=linear(8, 2))
    check(
        model,
        (torch.randn(7, 3),),
        group(4, 1, "stem.weight:0 stem.bias:0 head.weight:1"),
        group(4, 1, "stem.weight:0 stem.bias:0 a.weight:1"),
        group(4, 1, "a.weight:0 a.bias:0 head.weight:1"),
    )


def test_every_head_has_an_order_of_its_own() -> None:
    """A permutation of the full width that mixes heads is no symmetry; one in each head, and of heads, is."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (heads(f(x), 3) for f in (m.q, m.k, m.v))
        return m.out(together(F.scaled_dot_product_attention(q, k, v)))

    model = Small(run, out=linear(12, 2), **{n: linear(3, 12, False) for n in "qkv"})
    graph = check(
        model,
        (torch.randn(5, 6, 3),),
        group(3, 1, "q.weight:0 k.weight:0 v.weight:0 out.weight:1"),
        group(4, 3, "q.weight:0 k.weight:0"),
        group(4, 3, "v.weight:0 out.weight:1"),
    )
    for seed in range(5):
        rows = torch.arange(12.0)[:, None].expand(12, 3)
        order = graph.random_transform(seed).apply({"v.weight": rows})["v.weight"][:, 0].long()
        blocks = order.view(3, 4) // 4
        assert (blocks == blocks[:, :1]).all()  # every head's rows stay together
        assert len({tuple((row % 4).tolist()) for row in order.view(3, 4)}) > 1 or seed


def test_all_products_of_two_units_and_one_of_them_by_itself() -> None:
    """Column (i, j) holds t_i tanh t_j. With t_1 tanh t_1 singled out, the columns (1, j), (j, 1) and (j, j)
    all follow unit j, each in its own part: which of them stands first differs from unit to unit.
    """

    def run(m: Any, x: Tensor) -> Tensor:
        t = m.a(x)
        pairs = (t[:, :, None] * torch.tanh(t)[:, None, :]).flatten(1)
        return m.b(pairs + pairs[:, 5:6])

    check(
        Small(run, a=linear(3, 4), b=linear(16, 2)),
        (torch.randn(5, 3),),
        group(3, 1, "a.weight:0 a.bias:0 b.weight:1"),
    )


def test_an_empty_part_ties_nothing() -> None:
    """What a slice past the end leaves (no dimensions without a rotary turn) is laid behind the rest."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.b(torch.cat([torch.tanh(h[:, :6]), h[:, 6:].view(len(x), 0)], -1))

    members = "a.weight:0 a.bias:0 b.weight:1"
    check(Small(run, a=linear(3, 6), b=linear(6, 2)), (torch.randn(5, 3),), group(6, 1, members))
