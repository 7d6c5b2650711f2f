"""Relaxed symmetries: at a permutation they are the permutation, between they average."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace

import pytest
import torch

import graphmerge as gm
from graphmerge.match.relaxed import Part, exact, hardened, move, parts
from models_zoo.architectures import ARCHITECTURES

KINDS = (
    "vgg_flatten", "lstm_projected", "gru_stacked_bidirectional", "multihead_attention", "groupnorm_resnet",
    "pixel_shuffle", "tied_autoencoder", "separable_convolutions", "grouped_convolutions", "unknown_operator",
    "grouped_query_attention_by_three", "vit_b_16_small", "mixtral_batched",
)  # fmt: skip
"""One of every kind: positions that share a unit, blocks, both sides of one tensor, stacked experts."""

CHOSEN = tuple(ARCHITECTURES) if os.environ.get("GRAPHMERGE_SLOW") == "1" else KINDS

LARGEST = 3e7
"""Multiplications that one tensor may take by the whole product of the factors."""


def graph_of(name: str) -> gm.ModelGraph:
    architecture = ARCHITECTURES[name]
    if importlib.util.find_spec(architecture.needs) is None:
        pytest.skip(f"{architecture.needs} is not installed")
    args, kwargs = architecture.inputs()
    return gm.trace(architecture.build().eval(), args, kwargs)


def ungridded(cut: tuple[Part, ...]) -> tuple[Part, ...]:
    """The same parts, moved by the whole product of the factors."""
    assert all(b.grid for p in cut for b in p.blocks)
    return tuple(replace(p, blocks=tuple(replace(b, grid=()) for b in p.blocks)) for p in cut)


@pytest.mark.parametrize("name", CHOSEN)
def test_at_a_permutation_it_is_the_permutation_and_between_it_keeps_sums(name: str) -> None:
    graph = graph_of(name)
    structure = graph.structure
    one, other = (graph.random_transform(seed) for seed in (1, 2))
    hard = exact(one, torch.device("cpu"))
    assert hardened(graph.identity(), hard) == one
    soft = {k: 0.3 * x + 0.7 * exact(other, torch.device("cpu"))[k] for k, x in hard.items()}
    for parameter, shape in structure.shapes.items():
        cut, t = parts(structure, parameter), torch.randn(shape)
        assert torch.equal(move(structure, cut, t, hard), one.apply_to(parameter, t)), parameter
        mixed, axes = move(structure, cut, t, soft), [d for p in cut for d in p.axes]
        assert torch.allclose(move(structure, cut, torch.ones(shape), soft), torch.ones(shape), atol=1e-4)
        if axes:
            assert torch.allclose(mixed.sum(axes), t.sum(axes), atol=1e-3), parameter
        if sum(b.rows.shape[1] for p in cut for b in p.blocks) * torch.Size(shape).numel() <= LARGEST:
            assert torch.allclose(move(structure, ungridded(cut), t, soft), mixed, atol=1e-5), parameter


def test_a_group_alone_is_the_average_of_its_permutations() -> None:
    graph = graph_of("mlp")
    name = graph.groups[0].members[0][0]
    transforms = [graph.random_transform(seed, [graph.groups[0].name]) for seed in (1, 2)]
    first, second = (exact(t, torch.device("cpu")) for t in transforms)
    t = torch.randn(graph.structure.shapes[name])
    mixed = move(
        graph.structure, parts(graph.structure, name), t, {k: (first[k] + second[k]) / 2 for k in first}
    )
    assert torch.allclose(mixed, sum(x.apply_to(name, t) for x in transforms) / 2)


def test_gradients_reach_the_matrices_of_blocks_and_of_what_is_in_them() -> None:
    graph = graph_of("multihead_attention")
    structure = graph.structure
    nested = [k for k in structure.atoms if structure.sorts[k].order > 1]
    soft = {k: x.double() for k, x in exact(graph.random_transform(0), torch.device("cpu")).items()}
    keys = list(dict.fromkeys([*nested, *(p for k in nested for p in structure.sorts[k].parents)]))
    names = [n for n, dims in structure.labels.items() if any(x is not None for x in dims)]
    state = {n: torch.randn(structure.shapes[n], dtype=torch.float64) for n in names}
    assert len(keys) > len(nested) > 0

    def total(*matrices: torch.Tensor) -> torch.Tensor:
        given = {**soft, **dict(zip(keys, matrices, strict=True))}
        moved = [move(structure, parts(structure, n), state[n], given) for n in names]
        return torch.stack(
            [(x.square() * torch.arange(x.numel()).reshape(x.shape)).sum() for x in moved]
        ).sum()

    leaves = [(soft[k] + 0.1).requires_grad_() for k in keys]
    assert torch.autograd.gradcheck(total, leaves, rtol=1e-4, fast_mode=True)
    assert all(float(g.abs().sum()) > 0 for g in torch.autograd.grad(total(*leaves), leaves))
