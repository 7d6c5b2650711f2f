"""Saved buffers that models share: a fixed mask stays what it is, statistics move with their units."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import graphmerge as gm


class Masked(nn.Module):
    """The weights between two layers are pruned by a mask that is saved with them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 8)
        self.norm, self.out = nn.BatchNorm1d(8), nn.Linear(8, 3)
        mask = torch.rand(12, 16, generator=torch.Generator().manual_seed(0)) < 0.3
        self.register_buffer("mask", mask.float())
        self.norm.running_mean = torch.randn(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.linear(torch.relu(self.a(x)), self.b.weight * self.mask, self.b.bias)
        y: torch.Tensor = self.out(torch.relu(self.norm(self.c(torch.relu(x)))))
        return y


def setting() -> tuple[gm.ModelGraph, list[Masked]]:
    models = [Masked(seed).eval() for seed in range(3)]
    graph, _ = gm.prove(gm.trace(models[0], (torch.randn(5, 6),)), models[0])
    assert [g.name for g in graph.groups] == ["a", "b", "c"]
    return graph, models


def test_a_table_that_both_models_share_keeps_its_units_in_place(tmp_path: Path) -> None:
    graph, (a, b, _) = setting()
    found = gm.match(graph, a, b)
    assert found.notes["tables"] == {"a": "mask", "b": "mask"}
    moved = found.transform.moved_units()
    assert moved["a"] == moved["b"] == 0
    assert moved["c"] > 0, "statistics differ, and move with their units"
    merged = gm.merge(graph, [a, b], alignment=found)
    assert torch.equal(merged["mask"], a.state_dict()["mask"])
    found.save(tmp_path / "one.safetensors")
    assert gm.load_alignment(tmp_path / "one.safetensors", graph).transform == found.transform
    again = gm.match(graph, a, b, start=found)
    assert again.objective >= found.objective


def test_a_copy_in_another_order_has_its_table_in_that_order_too() -> None:
    graph, (a, *_) = setting()
    planted = graph.random_transform(1)
    found = gm.match(graph, a, planted.inverse().apply(a.state_dict()))
    assert found.transform == planted
    assert "tables" not in found.notes


def test_a_table_that_is_the_same_along_a_group_lets_it_move() -> None:
    graph, models = setting()
    for m in models:
        m.mask.fill_(1.0)
    assert "tables" not in gm.match(graph, *models[:2]).notes


def test_many_models_keep_the_table_that_all_share() -> None:
    graph, models = setting()
    for way in ("cycle", "reference"):
        found = gm.match_many(graph, models, way)
        assert all(t.moved_units()["a"] == 0 for t in found.transforms)
        assert all(a.notes["tables"] == {"a": "mask", "b": "mask"} for a in found.alignments)
        assert any(t.moved_units()["c"] for t in found.transforms)
