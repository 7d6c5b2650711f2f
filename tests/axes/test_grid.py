"""Laws of the grid: reshapes undo one another, and labels describe what really moves."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphmerge.axes import ANY, FIXED, Universe, Value
from graphmerge.axes.grid import (
    Grid,
    common_factors,
    concat,
    expand,
    insert_dims,
    join,
    pick_dims,
    regroup,
    split,
    take,
)
from graphmerge.axes.units import Labels, Whole
from graphmerge.symmetry.build import build
from graphmerge.symmetry.structure import Structure, random_inner, reorder


def free(u: Universe, shape: tuple[int, ...]) -> Grid:
    """A tensor whose dimensions each have an order of their own."""
    labels: list[Labels] = []
    for axis, n in enumerate(shape):
        extent = [1] * len(shape)
        extent[axis] = n
        labels.append(ANY if n == 1 else u.new(tuple(extent)))
    return Grid(shape, tuple(labels))


def same(a: Grid, b: Grid) -> bool:
    return a.shape == b.shape and all(same_labels(x, y) for x, y in zip(a.labels, b.labels, strict=True))


def same_labels(x: Labels, y: Labels) -> bool:
    return x is y if isinstance(x, Whole) or isinstance(y, Whole) else np.array_equal(x, y)


def structure(u: Universe, **grids: Grid) -> Structure:
    return build(u, {name: Value(name, g.shape, list(g.labels)) for name, g in grids.items()})


def moves_alike(u: Universe, before: Grid, after: Grid, seed: int = 0) -> bool:
    """Every symmetry moves a reshaped tensor as it moves the tensor."""
    s = structure(u, before=before, after=after)
    x = torch.arange(prod(before.shape)).reshape(before.shape)
    for draw in range(3):
        phi = s.extend(random_inner(s, np.random.default_rng(seed + draw)))
        moved = reorder(x, s.sources("before", phi)).reshape(after.shape)
        if not torch.equal(moved, reorder(x.reshape(after.shape), s.sources("after", phi))):
            return False
    return True


class TestSplitAndJoin:
    @pytest.mark.parametrize("sizes", [(3, 4), (4, 3), (1, 12), (12, 1), (2, 6)])
    def test_joining_what_was_split_gives_the_labels_back(self, sizes: tuple[int, int]) -> None:
        u = Universe()
        grid = free(u, (2, 12, 5))
        assert same(join(u, split(u, grid, 1, sizes), 1), grid)

    def test_splitting_twice_gives_the_same_labels(self) -> None:
        u = Universe()
        grid = free(u, (12,))
        assert same(split(u, grid, 0, (3, 4)), split(u, grid, 0, (3, 4)))

    def test_splitting_what_was_joined_gives_blocks_that_follow_the_rows(self) -> None:
        u = Universe()
        grid = free(u, (3, 4))
        again = split(u, join(u, grid, 0), 0, (3, 4))
        assert moves_alike(u, grid, again)
        assert {s.size for s in structure(u, a=grid, b=again).sorts} >= {3, 4}

    def test_a_fixed_dimension_stays_fixed(self) -> None:
        u = Universe()
        grid = split(u, Grid((12,), (FIXED,)), 0, (3, 4))
        assert grid.labels == (FIXED, FIXED)
        assert join(u, grid, 0).labels == (FIXED,)

    def test_units_inside_blocks_have_an_order_of_their_own(self) -> None:
        u = Universe()
        s = structure(u, x=split(u, free(u, (12,)), 0, (3, 4)))
        assert sorted((k.order, k.size) for k in s.sorts) == [(1, 3), (3, 4)]


class TestRegroup:
    def test_to_the_same_shape_changes_nothing(self) -> None:
        u = Universe()
        grid = free(u, (3, 4, 5))
        assert same(regroup(u, grid, (3, 4, 5)), grid)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ((12,), (3, 4)),
            ((2, 12), (2, 3, 4)),
            ((6, 4), (3, 8)),
            ((12, 5), (4, 3, 5)),
            ((3, 1, 4), (3, 4)),
            ((8, 6), (4, 2, 3, 2)),
        ],
    )
    def test_there_and_back_gives_the_labels_back(self, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        u = Universe()
        grid = free(u, old)
        there = regroup(u, grid, new)
        back = regroup(u, there, old)
        assert back.shape == old
        assert moves_alike(u, grid, there)
        assert moves_alike(u, grid, back)

    def test_common_factors_are_the_coarsest_refinement(self) -> None:
        assert common_factors((12,), (3, 4)) == (3, 4)
        assert common_factors((6, 4), (3, 8)) == (3, 2, 4)
        assert common_factors((4, 6), (6, 4)) is None

    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def test_of_any_shape_the_labels_describe_what_moves(self, data: st.DataObject) -> None:
        factors = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=4))
        old, new = (tuple(_merged(factors, data.draw(_cuts(len(factors))))) for _ in range(2))
        u = Universe()
        grid = free(u, old)
        assert moves_alike(u, grid, regroup(u, grid, new), data.draw(st.integers(0, 99)))

    @given(st.permutations([2, 2, 3]), st.permutations([2, 2, 3]))
    @settings(max_examples=20, deadline=None)
    def test_boundaries_that_do_not_nest_stay_sound(self, old: list[int], new: list[int]) -> None:
        u = Universe()
        grid = free(u, tuple(old))
        there = regroup(u, grid, new)
        assert moves_alike(u, grid, there)
        assert moves_alike(u, grid, regroup(u, there, (12,)))


def _cuts(n: int) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=n - 1, max_size=n - 1)


def _merged(factors: list[int], cuts: list[bool]) -> list[int]:
    """Neighbouring factors multiplied where there is no cut."""
    sizes = [factors[0]]
    for factor, cut in zip(factors[1:], cuts, strict=True):
        if cut:
            sizes.append(factor)
        else:
            sizes[-1] *= factor
    return sizes


class TestMoving:
    @given(st.permutations(range(4)))
    @settings(max_examples=24, deadline=None)
    def test_a_permutation_and_its_inverse_cancel(self, order: list[int]) -> None:
        u = Universe()
        grid = split(u, free(u, (2, 12, 5)), 1, (3, 4))
        assert same(pick_dims(pick_dims(grid, order), [int(k) for k in np.argsort(order)]), grid)

    def test_inserted_dimensions_can_be_left_out_again(self) -> None:
        u = Universe()
        grid = split(u, free(u, (12, 5)), 0, (3, 4))
        wide = insert_dims(grid, [0, 3])
        assert wide.shape == (1, 3, 4, 1, 5)
        assert same(pick_dims(wide, [1, 2, 4]), grid)

    def test_an_expanded_dimension_is_the_same_in_any_order(self) -> None:
        u = Universe()
        wide = expand(free(u, (3, 1)), (2, 3, 4))
        assert wide.shape == (2, 3, 4)
        assert wide.labels[0] is ANY
        assert wide.labels[2] is ANY


class TestConcatAndTake:
    def test_taking_from_a_concatenation_gives_the_parts(self) -> None:
        u = Universe()
        a, b = free(u, (2, 5)), free(u, (3, 5))
        both = concat(u, [a, b], 0)
        assert same_labels(take(u, both, 0, np.arange(2)).labels[0], a.labels[0])
        assert same_labels(take(u, both, 0, np.arange(2, 5)).labels[0], b.labels[0])

    def test_parts_never_mix(self) -> None:
        u = Universe()
        whole = free(u, (6,))
        concat(u, [take(u, whole, 0, np.arange(2)), take(u, whole, 0, np.arange(2, 6))], 0)
        assert sorted(s.size for s in structure(u, x=whole).sorts) == [2, 4]

    def test_two_copies_of_one_tensor_move_alike(self) -> None:
        u = Universe()
        a = free(u, (4,))
        both = concat(u, [a, a], 0)
        s = structure(u, a=a, both=both)
        phi = s.extend(random_inner(s, np.random.default_rng(0)))
        x = torch.arange(4)
        moved = reorder(x, s.sources("a", phi))
        assert torch.equal(
            reorder(torch.cat([x, x + 4]), s.sources("both", phi)), torch.cat([moved, moved + 4])
        )

    def test_fixed_parts_stay_fixed(self) -> None:
        u = Universe()
        both = concat(u, [Grid((3,), (FIXED,)), free(u, (4,))], 0)
        s = structure(u, both=both)
        phi = s.extend(random_inner(s, np.random.default_rng(0)))
        assert torch.equal(reorder(torch.arange(7), s.sources("both", phi))[:3], torch.arange(3))
        assert s.moved("both", phi) == (0,)

    def test_what_is_left_out_is_told_apart(self) -> None:
        u = Universe()
        whole = free(u, (6,))
        take(u, whole, 0, np.array([0, 2, 4]))
        assert [s.size for s in structure(u, x=whole).sorts] == [3, 3]

    def test_all_positions_taken_in_another_order_tell_nothing_apart(self) -> None:
        u = Universe()
        whole = free(u, (6,))
        turned = take(u, whole, 0, np.roll(np.arange(6), 2))
        assert [s.size for s in structure(u, x=whole, y=turned).sorts] == [6]
