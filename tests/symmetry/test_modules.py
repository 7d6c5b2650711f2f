"""Groups and fixed axes by module."""

from __future__ import annotations

import torch
from torch import nn

import graphmerge as gm
from graphmerge.symmetry.modules import Branch, home, module_tree


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Residual(nn.Module):
    def __init__(self, *hidden: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(Block(8, h) for h in hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def tree(*hidden: int) -> Branch:
    graph = gm.trace(Residual(*hidden), (torch.randn(2, 5),))
    return module_tree(graph.structure.labels, graph.groups, graph.fixed)


def test_a_group_belongs_to_the_lowest_module_that_holds_its_members() -> None:
    graph = gm.trace(Residual(6, 6), (torch.randn(2, 5),))
    assert {g.name: home(g) for g in graph.groups} == {
        "stem": "",
        "blocks.0.up": "blocks.0",
        "blocks.1.up": "blocks.1",
    }


def test_alike_siblings_are_one_branch_under_all_their_numbers() -> None:
    assert [(b.label, b.alike) for b in tree(6, 6, 6).children] == [("blocks.0-2", 3)]
    (blocks,) = tree(6, 7, 6, 6, 9).children
    assert [(b.label, b.alike) for b in blocks.children] == [("0,2-3", 3), ("1", 1), ("4", 1)]
    assert [[(g.name, g.size) for g in b.groups] for b in blocks.children] == [
        [("blocks.0.up", 6)],
        [("blocks.1.up", 7)],
        [("blocks.4.up", 9)],
    ]


def test_modules_stand_in_the_order_of_their_parameters() -> None:
    (blocks,) = tree(*range(4, 16)).children
    assert [b.label for b in blocks.children] == [str(k) for k in range(12)]


def test_what_a_leaf_keeps_fixed_stands_at_its_parent() -> None:
    fixed = [(f.parameter, f.dim, f.units, f.cause) for f in tree(6).fixed]
    assert fixed == [
        ("stem.weight", 1, 5, "input"),
        ("head.weight", 0, 3, "output"),
        ("head.bias", 0, 3, "output"),
    ]


def test_a_group_that_one_module_alone_holds_goes_by_the_last_word_of_the_module() -> None:
    branch = Branch("blocks.0.qkv", "qkv", (), (), ())
    assert branch.local("blocks.0.qkv") == "qkv"
    assert branch.local("blocks.0.qkv.blocks") == "blocks"
    assert branch.local("stem") == "stem"


def test_every_group_and_every_fixed_axis_is_in_the_tree_once() -> None:
    graph = gm.trace(Residual(6, 7, 6), (torch.randn(2, 5),))
    groups, fixed = [], []
    todo = [module_tree(graph.structure.labels, graph.groups, graph.fixed)]
    while todo:
        branch = todo.pop()
        groups += [g.name for g in branch.groups for _ in range(branch.alike)]
        fixed += [f for f in branch.fixed for _ in range(branch.alike)]
        todo += branch.children
    assert len(groups) == len(graph.groups)
    assert len(fixed) == len(graph.fixed)
