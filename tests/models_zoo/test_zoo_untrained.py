"""What training began with: averages of networks that were never trained are better than chance."""

from __future__ import annotations

import torch

import graphmerge as gm
from models_zoo.data import fashion_test
from models_zoo.registry import load, untrained


def test_initialisations_permuted_as_the_trained_networks_average_to_one_that_knows_something() -> None:
    """Benzing et al. 2022, arXiv 2209.07509; as they are, or aligned by themselves, they are at chance."""
    trained, initial = ([make("mlp", seed) for seed in (0, 1)] for make in (load, untrained))
    test = fashion_test(1000)
    model = initial[0]
    graph = gm.trace(model, (test[0][0][:2],))

    def accuracy(alignment: gm.Alignment | None) -> float:
        return gm.evaluate(model, gm.merge(graph, initial, alignment=alignment), test).accuracy

    assert accuracy(gm.match(graph, *trained)) > 0.4
    for chance in (None, gm.match(graph, *initial)):
        assert accuracy(chance) < 0.2


def test_a_seed_gives_the_weights_that_a_checkpoint_was_trained_from() -> None:
    """Trained weights still point where they pointed in the beginning; to others they are orthogonal."""
    ends, begins = (
        [torch.cat([t.flatten() for t in make("mlp", s).state_dict().values()]) for s in (0, 1)]
        for make in (load, untrained)
    )
    for k, end in enumerate(ends):
        assert torch.cosine_similarity(end, begins[k], dim=0) > 0.3
        assert torch.cosine_similarity(end, begins[1 - k], dim=0).abs() < 0.02
