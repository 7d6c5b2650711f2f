"""From facts to symmetries, on facts written by hand: no operator, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from graphmerge.axes import ANY, FIXED, Universe, Value
from graphmerge.axes.grid import Grid, concat, expand, insert_dims, join, pick_dims, regroup, split, take
from graphmerge.axes.units import IntArray, Labels
from graphmerge.symmetry.build import build
from graphmerge.symmetry.structure import Structure, random_inner, reorder


@dataclass
class Facts:
    """A universe and the labelled tensors in it."""

    u: Universe = field(default_factory=Universe)
    values: dict[str, Value] = field(default_factory=dict)

    def units(self, n: int) -> IntArray:
        return self.u.new((n,))

    def tensor(self, name: str, grid: Grid) -> Grid:
        self.values[name] = Value(name, grid.shape, list(grid.labels))
        return grid

    def vector(self, name: str, n: int) -> Grid:
        return self.tensor(name, Grid((n,), (self.units(n),)))

    def solve(self) -> Structure:
        return build(self.u, self.values)


def atoms(s: Structure) -> list[tuple[int, int]]:
    """(size, copies) of everything that moves freely."""
    return sorted((s.sorts[k].size, s.sorts[k].order) for k in s.atoms)


def draw(s: Structure, seed: int = 0) -> IntArray:
    return s.extend(random_inner(s, np.random.default_rng(seed)))


def moved(s: Structure, name: str, phi: IntArray) -> list[int]:
    """Where each position of a vector comes from."""
    n = s.shapes[name][0]
    return [int(k) for k in reorder(torch.arange(n), s.sources(name, phi))]


class TestAtoms:
    def test_a_plain_axis_is_one_atom(self) -> None:
        f = Facts()
        f.vector("w", 7)
        assert atoms(f.solve()) == [(7, 1)]

    def test_tied_axes_are_one_atom_and_move_alike(self) -> None:
        f = Facts()
        a, b = f.vector("a", 5), f.vector("b", 5)
        f.u.tie(a.labels[0], b.labels[0], 0)
        s = f.solve()
        assert atoms(s) == [(5, 1)]
        assert moved(s, "a", draw(s)) == moved(s, "b", draw(s))

    def test_axes_that_nothing_ties_move_on_their_own(self) -> None:
        f = Facts()
        f.vector("a", 5)
        f.vector("b", 5)
        assert atoms(f.solve()) == [(5, 1), (5, 1)]

    def test_a_fixed_axis_under_every_unit_of_another_does_not_move(self) -> None:
        f = Facts()
        channels = f.u.new((5, 1))
        kernel = f.u.new((5, 3))
        f.u.tie(kernel, channels, 1)
        f.u.tie(kernel, FIXED, 1)
        f.tensor("w", Grid((5, 3), (channels, kernel)))
        s = f.solve()
        assert atoms(s) == [(5, 1)]
        assert s.labels["w"][1] is None

    def test_a_fixed_axis_has_no_atom(self) -> None:
        f = Facts()
        a = f.vector("a", 5)
        f.u.tie(a.labels[0], FIXED, 0)
        s = f.solve()
        assert atoms(s) == []
        assert s.labels["a"] == (None,)

    def test_one_marked_unit_stays_and_the_others_move(self) -> None:
        f = Facts()
        a = f.vector("a", 5)
        assert isinstance(a.labels[0], np.ndarray)
        f.u.mark(a.labels[0][:1])
        s = f.solve()
        assert atoms(s) == [(4, 1)]
        assert moved(s, "a", draw(s))[0] == 0

    def test_a_tie_of_an_axis_with_its_reverse_leaves_pairs(self) -> None:
        """Positions 0 and 5, 1 and 4, 2 and 3 are the same unit: three units in two places each."""
        f = Facts()
        a = f.vector("a", 6)
        assert isinstance(a.labels[0], np.ndarray)
        f.u.tie(a.labels[0], a.labels[0][::-1], 0)
        s = f.solve()
        assert atoms(s) == [(3, 1)]
        source = moved(s, "a", draw(s))
        assert {frozenset((source[k], source[5 - k])) for k in range(3)} == {
            frozenset((k, 5 - k)) for k in range(3)
        }

    def test_a_tie_of_an_axis_with_its_rotation_leaves_nothing(self) -> None:
        """Every position is the same unit."""
        f = Facts()
        a = f.vector("a", 5)
        assert isinstance(a.labels[0], np.ndarray)
        f.u.tie(a.labels[0], np.roll(a.labels[0], 1), 0)
        assert atoms(f.solve()) == []


class TestProducts:
    def test_heads_each_with_an_order_of_their_own(self) -> None:
        f = Facts()
        split(f.u, f.vector("w", 12), 0, (3, 4))
        s = f.solve()
        assert atoms(s) == [(3, 1), (4, 3)]
        rows = np.array(moved(s, "w", draw(s))).reshape(3, 4) // 4
        assert (rows == rows[:, :1]).all()

    def test_one_order_shared_by_all_heads(self) -> None:
        """A gain [4] used in every head takes their own orders away."""
        f = Facts()
        heads, gain = split(f.u, f.vector("w", 12), 0, (3, 4)), f.vector("gain", 4)
        f.u.tie(heads.labels[1], gain.labels[0], 1)
        s = f.solve()
        assert atoms(s) == [(3, 1), (4, 1)]
        phi = draw(s)
        inner = np.array(moved(s, "w", phi)).reshape(3, 4) % 4
        assert (inner == np.array(moved(s, "gain", phi))).all()

    def test_flattening_two_axes_moves_both(self) -> None:
        f = Facts()
        grid = Grid((3, 4), (f.u.new((3, 1)), f.u.new((1, 4))))
        f.tensor("x", grid)
        f.tensor("flat", join(f.u, grid, 0))
        s = f.solve()
        assert atoms(s) == [(3, 1), (4, 1)]
        phi, x = draw(s), torch.arange(12)
        assert torch.equal(
            reorder(x.reshape(3, 4), s.sources("x", phi)).ravel(), reorder(x, s.sources("flat", phi))
        )

    def test_channels_of_a_flattened_map_carry_their_places(self) -> None:
        f = Facts()
        grid = Grid((3, 4), (f.u.new((3, 1)), FIXED))
        f.tensor("columns", join(f.u, grid, 0))
        s = f.solve()
        assert atoms(s) == [(3, 1)]
        places = np.array(moved(s, "columns", draw(s))).reshape(3, 4) % 4
        assert (places == np.arange(4)).all()

    def test_a_dimension_split_in_three_is_a_tower(self) -> None:
        f = Facts()
        regroup(f.u, f.vector("w", 24), (2, 3, 4))
        assert atoms(f.solve()) == [(2, 1), (3, 2), (4, 6)]


class TestGroupedQueries:
    """Two key heads of 4 dimensions, repeated for three query heads each."""

    def facts(self) -> Facts:
        f = Facts()
        q = regroup(f.u, f.vector("q", 24), (2, 3, 4))
        k = regroup(f.u, f.vector("k", 8), (2, 4))
        spread = expand(insert_dims(k, [1]), (2, 3, 4))
        for axis in range(3):
            f.u.tie(q.labels[axis], spread.labels[axis], axis)
        return f

    def test_atoms_are_key_heads_repeats_and_dimensions(self) -> None:
        assert atoms(self.facts().solve()) == [(2, 1), (3, 2), (4, 2)]

    def test_all_query_heads_of_a_key_head_follow_its_dimensions(self) -> None:
        s = self.facts().solve()
        phi = draw(s)
        q = np.array(moved(s, "q", phi)).reshape(2, 3, 4)
        k = np.array(moved(s, "k", phi)).reshape(2, 4)
        assert (q % 4 == (k % 4)[:, None]).all()
        assert (q // 12 == (k // 4)[:, None]).all()


class TestParts:
    def test_parts_of_a_concatenation_move_on_their_own(self) -> None:
        f = Facts()
        f.tensor("x", concat(f.u, [f.vector("a", 3), f.vector("b", 3)], 0))
        s = f.solve()
        assert atoms(s) == [(3, 1), (3, 1)]
        phi = draw(s)
        assert moved(s, "x", phi) == [*moved(s, "a", phi), *(k + 3 for k in moved(s, "b", phi))]

    def test_slices_fall_into_classes_by_the_paths_they_take(self) -> None:
        """Positions 0-3 and 2-5 are read: three classes of two."""
        f = Facts()
        x = f.vector("x", 6)
        take(f.u, x, 0, np.arange(4))
        take(f.u, x, 0, np.arange(2, 6))
        assert atoms(f.solve()) == [(2, 1), (2, 1), (2, 1)]

    def test_a_shuffle_of_channels_permits_any_order(self) -> None:
        f = Facts()
        x = f.vector("x", 12)
        f.tensor("y", take(f.u, x, 0, np.arange(12).reshape(3, 4).T.ravel()))
        s = f.solve()
        assert atoms(s) == [(12, 1)]

    def test_a_shuffle_that_is_halved_leaves_classes(self) -> None:
        """ShuffleNet: two halves interleaved, then cut in half again."""
        f = Facts()
        a, b = f.vector("a", 4), f.vector("b", 4)
        both = regroup(f.u, concat(f.u, [a, b], 0), (2, 4))
        mixed = regroup(f.u, pick_dims(both, [1, 0]), (8,))
        for k, name in enumerate(("first", "second")):
            f.tensor(name, take(f.u, mixed, 0, np.arange(4 * k, 4 * k + 4)))
        s = f.solve()
        assert atoms(s) == [(2, 1)] * 4
        phi = draw(s)
        x = torch.cat(
            [reorder(torch.arange(4), s.sources("a", phi)), 4 + reorder(torch.arange(4), s.sources("b", phi))]
        )
        mixed_now = x.reshape(2, 4).T.ravel()
        wanted = [reorder(torch.arange(8).reshape(2, 4).T.ravel()[4 * k :][:4], s.sources(n, phi))
                  for k, n in enumerate(("first", "second"))]  # fmt: skip
        assert torch.equal(mixed_now, torch.cat(wanted))


def ring(f: Facts, seen: bool) -> None:
    """Each unit has two neighbours: all look alike, yet only turns and mirrors are symmetries.

    The pairs of neighbours are those of a parameter where they are ``seen``, else of an activation.
    """
    x, edges, pairs = f.units(6), f.units(6), f.u.new((6, 2))
    f.tensor("x", Grid((6,), (x,)))
    f.tensor("edges", Grid((6,), (edges,)))
    f.u.tie(pairs, edges[:, None], 0)
    f.u.tie(pairs, np.stack([x, np.roll(x, 1)], 1), 0)
    if seen:
        f.tensor("pairs", Grid((12,), (pairs.ravel(),)))


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
def test_what_is_irregular_is_frozen(seen: bool) -> None:
    """Colours do not tell the units of a ring apart, but they are not free: they stay."""
    f = Facts()
    ring(f, seen)
    assert atoms(f.solve()) == []


def heads(f: Facts) -> None:
    split(f.u, f.vector("w", 12), 0, (3, 4))


def grouped(f: Facts) -> None:
    other = TestGroupedQueries().facts()
    f.u, f.values = other.u, other.values


def stacked(f: Facts) -> None:
    """[experts, rows, columns], rows ordered in each expert."""
    experts: Labels = f.u.new((3, 1, 1))
    rows, columns = f.u.new((3, 4, 1)), f.u.new((1, 1, 5))
    f.u.tie(rows, experts, 1)
    f.tensor("w", Grid((3, 4, 5), (experts, rows, columns)))


def flat(f: Facts) -> None:
    grid = Grid((3, 4), (f.u.new((3, 1)), f.u.new((1, 4))))
    f.tensor("x", grid)
    f.tensor("flat", join(f.u, grid, 0))


@pytest.mark.parametrize("make", [heads, grouped, stacked, flat])
class TestLaws:
    def test_symmetries_are_permutations_that_keep_projections(self, make: Callable[[Facts], None]) -> None:
        f = Facts()
        make(f)
        s = f.solve()
        phi = draw(s)
        assert sorted(phi) == list(range(len(phi)))
        for k, sort in enumerate(s.sorts):
            to = s.targets(k, phi)
            assert (sort.images[:, to] == phi[sort.images]).all()

    def test_the_inverse_undoes(self, make: Callable[[Facts], None]) -> None:
        f = Facts()
        make(f)
        s = f.solve()
        phi = draw(s)
        for name, shape in s.shapes.items():
            x = torch.arange(int(np.prod(shape))).reshape(shape)
            there = reorder(x, s.sources(name, phi))
            assert not torch.equal(there, x)
            assert torch.equal(reorder(there, s.sources(name, np.argsort(phi))), x)

    def test_moving_twice_is_moving_by_the_composition(self, make: Callable[[Facts], None]) -> None:
        f = Facts()
        make(f)
        s = f.solve()
        first, second = draw(s, 1), draw(s, 2)
        for name, shape in s.shapes.items():
            x = torch.arange(int(np.prod(shape))).reshape(shape)
            twice = reorder(reorder(x, s.sources(name, first)), s.sources(name, second))
            assert torch.equal(twice, reorder(x, s.sources(name, second[first])))

    def test_a_composition_is_a_symmetry_again(self, make: Callable[[Facts], None]) -> None:
        """It is given by where it sends the units of each atom."""
        f = Facts()
        make(f)
        s = f.solve()
        phi = draw(s, 1)[draw(s, 2)]
        inner = {k: s.targets(k, phi).reshape(s.sorts[k].order, -1) % s.sorts[k].size for k in s.atoms}
        assert (s.extend(inner) == phi).all()

    def test_moving_nothing_is_the_identity(self, make: Callable[[Facts], None]) -> None:
        f = Facts()
        make(f)
        s = f.solve()
        phi = s.extend({})
        assert (phi == np.arange(len(phi))).all()
        assert all(s.sources(name, phi) == {} for name in s.shapes)


def test_a_constant_tensor_has_nothing_to_move() -> None:
    f = Facts()
    f.tensor("x", Grid((3,), (ANY,)))
    assert atoms(f.solve()) == []
