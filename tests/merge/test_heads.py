"""Heads for different classes: whose rows are kept, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.errors import InputError, UsageError

A = {"fc.weight": torch.tensor([[1.0, 2], [3, 4]]), "fc.bias": torch.tensor([1.0, 2])}
B = {"fc.weight": torch.tensor([[5.0, 6], [7, 8], [9, 0]]), "fc.bias": torch.tensor([3.0, 4, 5])}
LABELS = (["cat", "dog"], ["dog", "owl", "yak"])


@pytest.mark.parametrize(
    ("keep", "labels", "bias"),
    [
        ("a", ("cat", "dog"), [1, 2]),
        ("b", ("dog", "owl", "yak"), [3, 4, 5]),
        ("both", ("cat", "dog", "dog", "owl", "yak"), [1, 2, 3, 4, 5]),
        ("union", ("cat", "dog", "owl", "yak"), [1, 2.5, 4, 5]),
    ],
)
def test_rows_follow_their_labels(keep: str, labels: tuple[str, ...], bias: list[float]) -> None:
    head = gm.merge_heads(A, B, "fc.*", keep, LABELS)
    assert head.labels == labels
    assert head.tensors["fc.bias"].tolist() == bias
    assert head.tensors["fc.weight"].shape == (len(labels), 2)
    if keep == "union":
        assert head.tensors["fc.weight"].tolist() == [[1, 2], [4, 5], [7, 8], [9, 0]]
        weighted = gm.merge_heads(A, B, "fc.*", keep, LABELS, (0.75, 0.25))
        assert weighted.tensors["fc.bias"].tolist() == [1, 2.25, 4, 5]
    assert A["fc.bias"].tolist() == [1, 2]


def test_two_models_of_other_classes_become_one_of_all_classes() -> None:
    torch.manual_seed(0)

    def net(classes: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, classes))

    a, b = net(2), net(4)
    graph = gm.trace(a, (torch.randn(5, 3),))
    first = a.state_dict()
    lent = {**b.state_dict(), **{n: t for n, t in first.items() if n.startswith("2.")}}
    moved = gm.match(graph, a, lent).apply(b)
    head = gm.merge_heads(first, moved, "2.*", "union", ([0, 1], [1, 2, 3, 4]))
    trunk = gm.merge(graph, [first, {**moved, **{n: first[n] for n in head.tensors}}])
    merged = net(len(head.labels))
    merged.load_state_dict({**trunk, **head.tensors})
    assert merged(torch.randn(5, 3)).shape == (5, 5)


@pytest.mark.parametrize(
    ("b", "head", "keep", "labels", "error", "fragment"),
    [
        (B, "fc.*", "neither", LABELS, UsageError, "a, b, both or union"),
        (B, "head.*", "union", LABELS, UsageError, "head.*"),
        (B, "fc.*", "union", (["cat"], LABELS[1]), InputError, "first model"),
        (B, "fc.*", "union", (LABELS[0], ["owl", "owl", "yak"]), InputError, "different labels"),
        ({**B, "fc.weight": torch.ones(3, 7)}, "fc.*", "union", LABELS, InputError, "no merged trunk"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_heads_is_refused(
    b: dict[str, torch.Tensor], head: str, keep: str, labels: object, error: type[Exception], fragment: str
) -> None:
    with pytest.raises(error, match=fragment):
        gm.merge_heads(A, b, head, keep, labels)
