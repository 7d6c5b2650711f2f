"""Units, and what operators state of them.

A *unit* is one position along one dimension of one tensor: a neuron, a channel, a head.
A symmetry of a network is a permutation of all its units that every operator respects.
Operators state just four things, and nothing is solved until all have been read:

``tie``     these units move together, element by element. Where many units are tied to one
            (the 64 units of a head to the head, one per head to a shared gain) the many
            *project* onto the one: it must follow wherever they go.
``mark``    these units were singled out (sliced, selected, padded): no unit outside the
            marked ones may take their place.
``allow``   these units may move only as long as those others are free to take any order (experts,
            while the tokens that are sorted by expert are treated alike).
``link``    two dimensions are related, and by which operator: for people, not for the solver.

A dimension is ``FIXED`` (its positions never move), ``ANY`` (the tensor is constant along it,
so every order of it is the same tensor), or an array of unit numbers.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Whole(enum.Enum):
    """Labels of a dimension that need no array."""

    FIXED = "fixed"
    ANY = "any"


FIXED, ANY = Whole.FIXED, Whole.ANY
Labels = IntArray | Whole
"""Labels of one dimension of a tensor of rank r: an array of rank r, of full extent along the
dimension itself, and along every other dimension of extent 1, or of full extent where the order
depends on the position there (a *fibre*: each head has an order of its own)."""


@dataclass(frozen=True)
class Where:
    """The place in the traced graph that states a fact."""

    op: str = ""
    node: str = ""
    module: str = ""

    def __str__(self) -> str:
        return f"{self.op} at {self.module or self.node or 'the top'}"


@dataclass(frozen=True)
class Link:
    """Dimension ``a`` is related to ``b``; ``b`` is None where ``a`` is fixed for ``reason``."""

    a: tuple[str, int]
    b: tuple[str, int] | None
    where: Where
    reason: str = ""


@dataclass(frozen=True)
class Positions:
    """What integers say of a dimension: they change as the units of that dimension move.

    ``role`` "position": each names a position along it (what a router chose); "place": so it does, but one
    of several that hold the same number is named by its place; "count": how often that position is named;
    "offset": where its entries end when all stand sorted; "order": each entry is named once, in that
    sorted order.
    ``labels`` are those of the dimension (along ``axis`` where they vary along others), ``place`` is its
    tensor and dimension for people, ``source`` the tensor that first held these integers: they were not
    chosen from since, at most reordered.
    """

    labels: Labels
    axis: int
    place: tuple[str, int]
    source: str
    role: Literal["position", "place", "count", "offset", "order"] = "position"

    def names_the_same(self, other: Positions | None) -> bool:
        """Whether both stand for the same units in the same way."""
        if other is None or self.role != other.role:
            return False
        if isinstance(self.labels, Whole) or isinstance(other.labels, Whole):
            return self.labels is other.labels
        return np.array_equal(self.labels, other.labels)

    @property
    def units(self) -> IntArray | None:
        """The units named, where each number names one and they may move."""
        plain = self.role == "position" and not isinstance(self.labels, Whole) and self.labels.ndim == 1
        return self.labels if plain else None  # type: ignore[return-value]


@dataclass
class Value:
    """A tensor as the rules see it. ``labels`` is None for a parameter nobody has read yet.

    ``positions`` is there where its integers stand for positions of a dimension that may move;
    ``counted`` is a dimension along which it is 0, 1, 2, ... and nothing else. ``coarse`` values may be
    equal at several positions, whatever the weights are: clipped, rounded, or made of such values.
    ``known`` is the content of a vector of integers that is a constant of the model.

    ``routed`` names, for a dimension, the index tensor that chose what stands at its positions
    (which expert serves a token). That is not known when tracing: the labels of other dimensions
    show every choice in turn along it, and may be compared only with labels routed alike.
    """

    name: str
    shape: tuple[int, ...]
    labels: list[Labels] | None
    routed: dict[int, str] = field(default_factory=dict)
    positions: Positions | None = None
    counted: int | None = None
    dtype: torch.dtype | None = None
    coarse: bool = False
    known: IntArray | None = None

    def __post_init__(self) -> None:
        for x in self.labels or ():
            assert isinstance(x, Whole) or x.ndim == self.rank, f"{self.name}: labels of another rank"

    @property
    def rank(self) -> int:
        return len(self.shape)


def fixed_value(name: str, shape: tuple[int, ...]) -> Value:
    """A tensor none of whose dimensions moves; dimensions of size 1 carry no unit."""
    return Value(name, shape, [ANY if n == 1 else FIXED for n in shape])


def constant_value(name: str, t: torch.Tensor) -> Value:
    """A tensor that is no parameter: fixed along every dimension on which it is not uniform."""
    if t.device.type == "meta" or t.numel() == 0:
        return fixed_value(name, tuple(t.shape))
    uniform = [bool((t == t.narrow(k, 0, 1)).all()) for k in range(t.ndim)]
    value = Value(name, tuple(t.shape), [ANY if same else FIXED for same in uniform])
    if t.ndim == 1 and t.dtype in (torch.int32, torch.int64):
        value.known = t.cpu().numpy().astype(np.int64)
    return value


def holds(dtype: torch.dtype | None, numbers: torch.Tensor) -> bool:
    """Whether a type (None: their own) holds these integers as they are."""
    return dtype is None or torch.equal(numbers.to(dtype.to_real()).long(), numbers)


Tag = tuple[str, int, int]
"""Which statement it is: the node that stated it, of which of its operands or pieces (-1: of none of them
in particular), and the how manieth of these."""


@dataclass
class Universe:
    """All units of one graph, with every statement made of them; ``cuts`` [mark] is where it was made.

    ``origins`` are the first units made at once, with the node and the part of it that made them.
    """

    count: int = 0
    ties: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    marks: list[IntArray] = field(default_factory=list)
    cuts: list[Where] = field(default_factory=list)
    conditions: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    sorted_by: dict[int, str] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    pinned: list[tuple[Where, str]] = field(default_factory=list)
    probed: list[tuple[Where, str]] = field(default_factory=list)
    where: Where = field(default_factory=Where)
    part: int = -1
    tie_tags: list[Tag] = field(default_factory=list)
    mark_tags: list[Tag] = field(default_factory=list)
    origins: list[tuple[int, str, int]] = field(default_factory=list)
    _made: dict[tuple[object, ...], tuple[IntArray, slice]] = field(default_factory=dict, repr=False)
    _stated: Counter[tuple[str, int]] = field(default_factory=Counter, repr=False)

    def new(self, shape: tuple[int, ...]) -> IntArray:
        """Units never seen before, one per element of ``shape``."""
        size = int(np.prod(shape, dtype=np.int64))
        units = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.origins.append((self.count, self.where.node, self.part))
        self.count += size
        return units

    def tie(self, units: Labels, onto: Labels, axis: int) -> None:
        """State that ``units`` and ``onto`` (broadcast against each other) move together.

        ``axis`` is the dimension that they label; it is used where ``onto`` is FIXED.
        """
        if isinstance(units, Whole):
            units, onto = onto, units
        if isinstance(units, Whole) or onto is ANY or units is onto:
            return
        if onto is FIXED:
            onto = fixed_numbers(units.shape[axis % units.ndim], axis % units.ndim, units.ndim)
        assert not isinstance(onto, Whole)
        a, b = np.broadcast_arrays(units, onto)
        self._tie(a.ravel(), b.ravel())

    def _tie(self, a: IntArray, b: IntArray) -> None:
        self.ties.append((a, b))
        self.tie_tags.append(self._tag())

    def _tag(self) -> Tag:
        key = (self.where.node, self.part)
        self._stated[key] += 1
        return (*key, self._stated[key])

    def mark(self, units: Labels) -> None:
        """State that ``units`` are singled out from all others."""
        if not isinstance(units, Whole):
            self.marks.append(np.unique(units))
            self.mark_tags.append(self._tag())
            self.cuts.append(self.where)

    def allow(self, units: Labels, while_free: IntArray) -> None:
        """State that ``units`` may move only as long as ``while_free`` may take any order."""
        if not isinstance(units, Whole):
            self.conditions.append((units.ravel(), while_free.ravel()))

    def once(
        self, parts: tuple[Labels, ...], sizes: tuple[int, ...], make: Callable[[], IntArray]
    ) -> IntArray:
        """What ``make`` returned on the first call with equal ``parts`` and ``sizes``, of any rank."""
        if ANY in [x for x in parts if isinstance(x, Whole)]:
            return make()  # copies of one tensor need not agree with each other
        key = (_signature(parts), sizes)
        if key in self._made:
            made, stated = self._made[key]
            for a, b in self.ties[
                stated
            ]:  # every operator states its facts, for what is alike must state alike
                self._tie(a, b)
            return made
        start = len(self.ties)
        made = make()
        self._made[key] = (made, slice(start, len(self.ties)))
        return made

    def link(self, a: tuple[str, int], b: tuple[str, int]) -> None:
        """Record for people that dimensions ``a`` and ``b`` are related here."""
        if a != b:
            self.links.append(Link(a, b, self.where))

    def fix(self, a: tuple[str, int], reason: str) -> None:
        """Record for people that dimension ``a`` is fixed here, and why."""
        self.links.append(Link(a, None, self.where, reason))

    def pin(self, reason: str) -> None:
        """Record that the operator here was not understood and everything it touches is fixed."""
        self.pinned.append((self.where, reason))


def _signature(parts: tuple[Labels, ...]) -> tuple[object, ...]:
    """A key that equal labels share, also where one has more dimensions of size 1."""
    arrays = [x for x in parts if not isinstance(x, Whole)]
    rank = max(x.ndim for x in arrays)
    full = [k for k in range(rank) if any(x.shape[k] > 1 for x in arrays)]
    return tuple(x if isinstance(x, Whole) else (x.tobytes(), tuple(x.shape[k] for k in full)) for x in parts)


def fixed_numbers(size: int, axis: int, rank: int) -> IntArray:
    """Positions of a fixed dimension as units that never move: -1, -2, ... along ``axis``."""
    shape = [1] * rank
    shape[axis] = size
    return (-1 - np.arange(size, dtype=np.int64)).reshape(shape)
