"""Networks grown at random from operators that have rules: a list of numbers is a network.

Each number picks an operator and its options among those that fit the value made last (or one made
before); what does not fit is passed over, so that every list is a network and shorter lists are
simpler ones. Values are [3, ...]; the first dimension is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 3000
"""Elements of a value; what would grow beyond is passed over."""


class Pick:
    """Choices drawn from one number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def of(self, options: Sequence[int]) -> int:
        self.number, k = divmod(self.number, len(options))
        return options[k]

    def below(self, n: int) -> int:
        return self.of(range(n))


Step = Callable[[Tensor], Tensor]


class Grown(nn.Module):
    """``steps`` run on one another's values; ``head`` reads the last, flattened."""

    def __init__(self, choices: Sequence[int], first: str) -> None:
        super().__init__()
        self.made = nn.ModuleList()
        self.steps: list[Step] = []
        torch.manual_seed(0)
        example = inputs(first)
        self.first: nn.Module = {
            "rows": nn.Linear(3, 12),
            "places": nn.Linear(3, 8),
            "image": nn.Conv2d(2, 8, 3),
            "ids": nn.Embedding(7, 12),
        }[first]
        value = self.first(example)
        self.values = [value]
        for number in choices:
            step = self._step(Pick(number), value)
            try:
                new = step(value) if step else None
            except (RuntimeError, ValueError, IndexError):
                continue  # does not fit
            if step is not None and new is not None and 1 < new.numel() <= LARGEST and new.ndim < 6:
                self.steps.append(step)
                value = new
                self.values.append(new)
        self.head = nn.Linear(value[0].numel(), 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.values = [self.first(x)]
        for step in self.steps:
            self.values.append(step(self.values[-1]))
        out: Tensor = self.head(self.values[-1].flatten(1))
        return out

    def _step(self, pick: Pick, x: Tensor) -> Step | None:
        make = pick.of(range(len(MAKERS)))
        return MAKERS[make](self, pick, x)

    def keep(self, module: nn.Module) -> nn.Module:
        self.made.append(module)
        return module


def inputs(first: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if first == "ids":
        return torch.randint(0, 7, (3, 5), generator=generator)
    shape = {"rows": (3, 3), "places": (3, 5, 3), "image": (3, 2, 5, 5)}[first]
    return torch.randn(shape, generator=generator)


def _linear(m: Grown, pick: Pick, x: Tensor) -> Step:
    return m.keep(nn.Linear(x.shape[-1], pick.of((4, 6, 8, 12)), bias=bool(pick.below(2))))


def _conv(m: Grown, pick: Pick, x: Tensor) -> Step | None:
    c = x.shape[1]
    groups = pick.of([g for g in (1, 2, 3, 4, c) if c % g == 0])
    kinds = {3: (nn.Conv1d, nn.ConvTranspose1d), 4: (nn.Conv2d, nn.ConvTranspose2d)}
    if x.ndim not in kinds:
        return None
    kind = kinds[x.ndim][pick.below(2)]
    return m.keep(kind(c, groups * pick.of((1, 2, 3)), pick.of((1, 2)), groups=groups))


def _norm(m: Grown, pick: Pick, x: Tensor) -> Step | None:
    c = x.shape[1]
    kind = pick.below(4)
    if kind == 0:
        return m.keep(nn.LayerNorm(x.shape[-1]))
    if kind == 1:
        return m.keep(nn.RMSNorm(x.shape[-1]))
    if kind == 2:
        return m.keep(nn.GroupNorm(pick.of([g for g in (1, 2, 3, 4, c) if c % g == 0]), c))
    batch = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    return m.keep(batch[x.ndim](c).eval()) if x.ndim in batch else None


def _activation(_: Grown, pick: Pick, x: Tensor) -> Step:
    dim = 1 + pick.below(x.ndim - 1)
    kinds: tuple[Step, ...] = (
        torch.relu, torch.tanh, F.gelu, lambda t: t.softmax(dim), F.silu, lambda t: F.glu(t, dim),
        lambda t: F.normalize(t, dim=dim), lambda t: t.cumsum(dim), lambda t: t.flip(dim),
        lambda t: t.roll(1, dim),
    )  # fmt: skip
    return kinds[pick.below(len(kinds))]


def _scale(m: Grown, pick: Pick, x: Tensor) -> Step:
    dim = 1 + pick.below(x.ndim - 1)
    shape = [1] * x.ndim
    shape[dim] = x.shape[dim]
    if pick.below(2):
        shape[1 + pick.below(x.ndim - 1)] = 1
    gain = nn.ParameterList([torch.randn(shape)])
    m.keep(gain)  # type: ignore[arg-type]
    if pick.below(2):
        return lambda t: t * gain[0]
    return lambda t: t + gain[0]


def _together(m: Grown, pick: Pick, x: Tensor) -> Step | None:
    """With a value made before: added, multiplied, laid beside it."""
    k = pick.below(len(m.values))
    other, dim = m.values[k], 1 + pick.below(x.ndim - 1)
    kind = pick.below(4)
    if other.shape != x.shape and (kind < 2 or other.ndim != x.ndim):
        return None
    kinds: tuple[Step, ...] = (
        lambda t: t + torch.tanh(m.values[k]), lambda t: t * m.values[k],
        lambda t: torch.cat([t, m.values[k]], dim),
        lambda t: torch.stack([t, m.values[k]], dim).flatten(dim, dim + 1),
    )  # fmt: skip
    return kinds[kind]


def _cut(_: Grown, pick: Pick, x: Tensor) -> Step | None:
    dim = 1 + pick.below(x.ndim - 1)
    n = x.shape[dim]
    if n < 2:
        return None
    at = 1 + pick.below(n - 1)
    kinds: tuple[Step, ...] = (
        lambda t: t.narrow(dim, 0, at), lambda t: t.chunk(2, dim)[1],
        lambda t: t.index_select(dim, torch.arange(0, n, 2)),
        lambda t: torch.cat(t.split([at, n - at], dim)[::-1], dim),
        lambda t: t.select(dim, at).unsqueeze(dim) + t,
        lambda t: torch.cat([torch.tanh(t.narrow(dim, 0, at)), t.narrow(dim, at, n - at)], dim),
    )  # fmt: skip
    return kinds[pick.below(len(kinds))]


def _shape(_: Grown, pick: Pick, x: Tensor) -> Step | None:
    dim = 1 + pick.below(x.ndim - 1)
    n = x.shape[dim]
    factors = [k for k in range(2, n) if n % k == 0]
    kind = pick.below(5)
    if kind == 0 and factors:
        k = pick.of(factors)
        return lambda t: t.unflatten(dim, (k, -1))
    if kind == 1 and factors:
        k = pick.of(factors)
        return lambda t: t.unflatten(dim, (k, -1)).transpose(dim, dim + 1).flatten(dim, dim + 1)
    if kind == 2 and dim + 1 < x.ndim:
        return lambda t: t.flatten(dim, dim + 1)
    if kind == 3:
        to = 1 + pick.below(x.ndim - 1)
        return lambda t: t.movedim(dim, to)
    return (lambda t: t.transpose(1, 2)) if x.ndim > 2 else None


def _reduce(_: Grown, pick: Pick, x: Tensor) -> Step | None:
    dim = 1 + pick.below(x.ndim - 1)
    kinds: tuple[Step, ...] = (
        lambda t: t.mean(dim), lambda t: t.amax(dim), lambda t: t - t.mean(dim, keepdim=True),
        lambda t: t.sum(dim), lambda t: t * torch.sigmoid(t.mean(dim, keepdim=True)), lambda t: t.max(dim)[0],
    )  # fmt: skip
    return kinds[pick.below(len(kinds))] if x.ndim > 2 else None


def _product(m: Grown, pick: Pick, x: Tensor) -> Step | None:
    """Products of a value with itself, and attention over its rows."""
    if x.ndim < 3:
        return lambda t: (t[:, :, None] * torch.tanh(t)[:, None, :]).flatten(1)
    kind = pick.below(3)
    if kind == 0:
        return lambda t: torch.tanh(t @ t.transpose(-1, -2))
    if kind == 1:
        return lambda t: F.scaled_dot_product_attention(t, torch.tanh(t), t)
    count, width = pick.of((1, 2, 3)), pick.of((2, 4))
    qkv = m.keep(nn.Linear(x.shape[-1], 3 * count * width))

    def attend(t: Tensor) -> Tensor:
        q, k, v = qkv(t).unflatten(-1, (3, count, width)).movedim(-3, 0).transpose(-2, -3).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)

    return attend


def _space(_: Grown, pick: Pick, x: Tensor) -> Step | None:
    kinds: tuple[Step, ...] = (
        lambda t: F.pixel_shuffle(t, 2), lambda t: F.max_pool2d(t, 2), lambda t: F.pad(t, (1, 0, 0, 1)),
        lambda t: F.pixel_unshuffle(t, 2), lambda t: F.unfold(t, 2), lambda t: F.channel_shuffle(t, 2),
    )  # fmt: skip
    return kinds[pick.below(len(kinds))] if x.ndim == 4 else (lambda t: F.pad(t, (0, 2)))


def _again(m: Grown, pick: Pick, x: Tensor) -> Step | None:
    """A layer that was made before, used once more."""
    fitting = [q for q in m.made if isinstance(q, nn.Linear) and q.in_features == x.shape[-1]]
    return fitting[pick.below(len(fitting))] if fitting else None


MAKERS: tuple[Callable[[Grown, Pick, Tensor], Step | None], ...] = (
    _linear, _activation, _norm, _conv, _scale, _together, _cut, _shape, _reduce, _product, _space, _again,
)  # fmt: skip
