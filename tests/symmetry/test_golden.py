"""Every group of reference architectures, held against what a person derived from the architecture.

``golden/NAME.txt`` holds one network in the notation of ``spec.py``. The comparison is exact: size,
copies, members as (parameter, dimension), and the groups that a group lies in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from references import REFERENCES, made_of
from spec import Group, Spec, read

import graphmerge as gm
from models_zoo.architectures import ARCHITECTURES

GOLDEN = Path(__file__).with_name("golden")


def found(graph: gm.ModelGraph, spec: Spec) -> set[Group]:
    """The engine's groups, without those that move a dimension which the spec leaves out."""
    members = {g.name: frozenset(g.members) for g in graph.groups}
    kept = [g for g in graph.groups if not members[g.name] & spec.left_out()]
    names = {g.name for g in kept}
    return {
        Group(g.size, g.copies, members[g.name], frozenset(members[w] for w in g.within if w in names))
        for g in kept
    }


def difference(spec: set[Group], engine: set[Group]) -> str:
    """What one side has and the other has not; nearly equal groups by what sets them apart."""
    lines = []
    for title, mine, others in (("spec only", spec, engine), ("engine only", engine, spec)):
        for group in sorted(mine - others, key=lambda g: sorted(g.members)):
            lines.append(f"{title}: {group.copies} x {group.size} in {len(group.within)}")
            near = max(others, key=lambda g: len(g.members & group.members), default=None)
            members = group.members - near.members if near and near.members & group.members else group.members
            lines += [f"    {name}:{dim}" for name, dim in sorted(members)] or ["    (no other members)"]
    return "\n".join(lines)


@pytest.mark.parametrize("name", sorted(p.stem for p in GOLDEN.glob("*.txt")))
def test_the_groups_are_those_derived_by_hand(name: str) -> None:
    model, args, kwargs = made_of(REFERENCES[name])
    graph = gm.trace(model, args, kwargs)
    shapes = {n: graph.structure.shapes[n] for n in graph.structure.labels}
    spec = read((GOLDEN / f"{name}.txt").read_text(), shapes, graph.names)
    complaints = difference(spec.groups(), found(graph, spec))
    if complaints:
        pytest.fail(complaints, pytrace=False)


@dataclass
class Channels:
    """A network of convolutions followed channel by channel: ``places[unit]`` is where each one stands."""

    places: list[set[tuple[str, int]]] = field(default_factory=list)

    def put(self, units: Sequence[int], names: Sequence[str], dim: int = 0) -> Sequence[int]:
        for unit in units:
            self.places[unit] |= {(n, dim) for n in names}
        return units

    def norm(self, name: str, units: Sequence[int]) -> Sequence[int]:
        """Gain, bias and statistics of a BatchNorm; a depthwise convolution before it keeps the units."""
        return self.put(units, [f"{name}.{x}" for x in ("weight", "bias", "running_mean", "running_var")])

    def convolution(self, name: str, units: Sequence[int], width: int) -> Sequence[int]:
        self.put(units, [f"{name}.weight"], 1)
        made = range(len(self.places), len(self.places) + width)
        self.places += [set() for _ in made]
        return self.put(made, [f"{name}.weight"])

    def branch(self, at: str, units: Sequence[int], width: int, stem: bool) -> Sequence[int]:
        """[1x1, norm, relu,] depthwise, norm, 1x1, norm, relu."""
        first = 3 if stem else 0
        if stem:
            units = self.norm(f"{at}.1", self.convolution(f"{at}.0", units, width))
        units = self.norm(f"{at}.{first + 1}", self.put(units, [f"{at}.{first}.weight"]))
        return self.norm(f"{at}.{first + 3}", self.convolution(f"{at}.{first + 2}", units, width))


def test_shufflenet_by_following_every_channel() -> None:
    """Channels that stand in the same dimensions of the same parameters may change places, and no others.

    Each block halves the channels, passes one half on, and interleaves both: a channel's fate depends on
    its number, so that the groups of a stage fall into many small ones.
    """
    c = Channels()
    x = c.norm("conv1.1", c.convolution("conv1.0", (), 24))
    for stage, blocks, width in ((2, 4, 48), (3, 8, 96), (4, 4, 192)):
        for k in range(blocks):
            at = f"stage{stage}.{k}"
            half = len(x) // 2
            kept = c.branch(f"{at}.branch1", x, width // 2, stem=False) if k == 0 else x[:half]
            made = c.branch(f"{at}.branch2", x if k == 0 else x[half:], width // 2, stem=True)
            x = [unit for pair in zip(kept, made, strict=True) for unit in pair]
    x = c.norm("conv5.1", c.convolution("conv5.0", x, 1024))
    c.put(x, ["fc.weight"], 1)
    alike = Counter(frozenset(p) for p in c.places)
    expected = Counter((n, 1, members) for members, n in alike.items() if n > 1)

    model, args, kwargs = made_of(ARCHITECTURES["shufflenet_v2_x0_5"])
    graph = gm.trace(model, args, kwargs)
    assert Counter((g.size, g.copies, frozenset(g.members)) for g in graph.groups) == expected


def test_every_reference_has_a_golden_file() -> None:
    assert len(REFERENCES) >= 25
    assert {p.stem for p in GOLDEN.glob("*.txt")} == set(REFERENCES)
