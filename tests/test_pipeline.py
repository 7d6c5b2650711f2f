"""The whole path in one call: what is kept, what stays in place, and what is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import graphmerge as gm
from graphmerge.candidates import Candidate, choose
from graphmerge.evaluate import Score
from graphmerge.pipeline import split
from graphmerge.recipe import How
from models_zoo.data import batches
from models_zoo.registry import load


class Muted(nn.Module):
    """Hidden units are multiplied by nothing: their order never shows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 8), nn.Linear(4, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(x) + self.three(torch.relu(self.one(x)) * 0)
        return out


def states(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two random initialisations."""
    torch.manual_seed(0)
    return tuple({n: torch.randn_like(t) for n, t in model.state_dict().items()} for _ in range(2))  # type: ignore[return-value]


def test_a_group_that_does_not_show_is_kept_in_place() -> None:
    model, said = Muted(), list[str]()
    a, b = states(model)
    hidden = gm.verify(gm.trace(model, (torch.randn(5, 4),)), model).unobservable
    result = gm.merge_models(model, [a, b], (torch.randn(5, 4),), say=said.append)
    assert hidden == ("one",)
    assert result.graph.frozen == hidden
    assert any("kept in place" in line and "one" in line for line in said)
    (alignment,) = result.kept_alignments
    assert not set(alignment.transform.moved_units()) & set(hidden)


def test_without_data_the_aligned_average_is_taken_unmeasured() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    a, b = states(model)
    result = gm.merge_models(model, [a, b], (torch.randn(5, 4),))
    assert [c.name for c in result.candidates] == ["naive", "weight matching"]
    assert result.kept.name == "weight matching"
    assert result.kept.score is None


def test_what_is_merged_as_it_is_goes_by_its_method() -> None:
    """Naive is the average alone."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    a, b = states(model)
    how = How(match="none", merge={"method": "ties"})
    result = gm.merge_models(model, [a, b], (torch.randn(5, 4),), how=how, base=model.state_dict())
    assert [c.name for c in result.candidates] == ["ties, not matched"]


def test_data_may_come_from_a_loader() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    a, b = states(model)
    torch.manual_seed(0)
    samples = TensorDataset(torch.randn(200, 4), torch.randint(0, 3, (200,)))
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(samples, batch_size=50)
    result = gm.merge_models(model, [a, b], (torch.randn(5, 4),), data=loader, test=loader)
    assert result.kept.held_out
    assert result.kept.held_out.samples == 50
    assert result.endpoints[0].samples == 200


def test_identical_models_are_given_back() -> None:
    model, said = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), list[str]()
    a, _ = states(model)
    result = gm.merge_models(model, [a, dict(a)], (torch.randn(5, 4),), say=said.append)
    assert any("identical" in line for line in said)
    assert all(torch.allclose(result.kept.state[n], t) for n, t in a.items())


def test_a_real_pair_is_merged_and_the_choice_is_made_on_data_held_out() -> None:
    a, b = load("mlp", 0), load("mlp", 1)
    data, test = (list(batches(split, limit=2000)) for split in ("train", "test"))
    result = gm.merge_models(a, [a.state_dict(), b.state_dict()], (data[0][0][:3],), data=data, test=test)
    found = {c.name: c for c in result.candidates}
    naive, kept = found["naive"].score, result.kept.score
    assert naive is not None
    assert kept is not None
    assert kept.accuracy > naive.accuracy + 0.15
    assert kept.accuracy > min(s.accuracy for s in result.endpoints) - 0.02
    assert result.kept.held_out is not None
    assert result.kept.held_out.samples < 2000
    assert kept.samples == 2000
    assert result.ensemble is not None


@pytest.mark.parametrize(
    ("sizes", "held"),
    [
        ([10, 10, 10, 10], [10]),
        ([10] * 10, [10, 10]),
        ([64, 64, 64, 1], [64, 1]),
        ([8, 8, 8, 8, 8, 1, 1, 1], [8, 1, 1, 1]),
        ([100, 1], [1]),
    ],
)
def test_a_quarter_of_the_batches_is_held_out_and_more_where_the_last_are_small(
    sizes: list[int], held: list[int]
) -> None:
    data = [(torch.zeros(n, 4), torch.zeros(n).long()) for n in sizes]
    work, kept = split(data)
    assert work is not None
    assert kept is not None
    assert [len(x) for x, _ in (*work, *kept)] == sizes
    assert [len(x) for x, _ in kept] == held


def test_one_batch_cannot_be_held_out_from() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    a, b = states(model)
    with pytest.raises(gm.InputError, match="at least 2"):
        gm.merge_models(
            model, [a, b], (torch.randn(5, 4),), data=[(torch.randn(40, 4), torch.zeros(40).long())]
        )


def test_a_candidate_that_gives_nan_is_never_kept() -> None:
    candidates = [
        Candidate("naive", "none", "none", {}, Score(float("nan"), 0.1, 10), None),
        Candidate("aligned", "weight", "none", {}, Score(2.0, 0.3, 10), None),
    ]
    assert choose(candidates).name == "aligned"


def test_repairs_are_tried_by_name_and_the_best_goes_further() -> None:
    a, b = load("mlp", 0), load("mlp", 1)
    data = list(batches("train", limit=1500))
    how = How.model_validate(
        {"match": "weight", "repair": {"method": "rescale", "options": {"gains": "no"}, "finetune": 3}}
    )
    result = gm.merge_models(a, [a.state_dict(), b.state_dict()], (data[0][0],), how=how, data=data)
    names = [c.repair for c in result.candidates]
    assert names[:4] == ["none", "rescale", "none", "rescale"]
    assert names[4] in ("finetune", "rescale+finetune")


@pytest.mark.parametrize(
    ("repair", "words"),
    [
        ("resacle", "unknown repair 'resacle'"),
        ({"method": "repair", "options": {"steps": 3}}, "no option 'steps'"),
        ({"options": {"gains": "perhaps"}}, "one of no, yes"),
    ],
)
def test_repairs_that_there_are_not_are_refused(repair: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        How.model_validate({"repair": repair})
