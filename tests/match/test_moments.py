"""Second moments of units over data, each statistic against its definition."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from graphmerge.match.moments import STATISTICS, Moments, update

SAMPLES = 60


def rows(seed: int) -> torch.Tensor:
    """Five units [unit, sample] of different sizes and means, of which the last never varies."""
    made = torch.randn(5, SAMPLES, generator=torch.Generator().manual_seed(seed))
    return made * torch.tensor([1.0, 2, 3, 0.1, 0])[:, None] + torch.tensor([0.0, 5, -1, 0.2, 3])[:, None]


def streamed(a: torch.Tensor, b: torch.Tensor) -> Moments:
    """Moments taken in three batches of different sizes."""
    found = None
    for x, y in zip(a.split([10, 30, 20], 1), b.split([10, 30, 20], 1), strict=True):
        found = update(found, x, y)
    assert found is not None
    return found


def scaled(product: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A site as a whole scaled to the size 1 in both models."""
    return product / (a.square().mean(1).mean() * b.square().mean(1).mean()).sqrt()


def test_each_statistic_is_what_its_name_says() -> None:
    a, b = rows(0), rows(1)
    x, y = (m - m.mean(1, keepdim=True) for m in (a, b))
    moments = streamed(a, b)
    expected = {
        "correlation": torch.corrcoef(torch.cat([a, b])).nan_to_num()[:5, 5:],
        "covariance": scaled(x @ y.T / SAMPLES, x, y),
        "cosine": cosine_similarity(a[:, None], b[None], dim=-1),
        "product": scaled(a @ b.T / SAMPLES, a, b),
    }
    assert expected.keys() == STATISTICS.keys()
    for statistic, wanted in expected.items():
        torch.testing.assert_close(moments.similarity(statistic), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_site_compared_with_itself_sums_to_its_living_rows(statistic: str) -> None:
    a = rows(2)
    total = float(streamed(a, a).similarity(statistic).trace())
    assert total == pytest.approx(4 if statistic == "correlation" else 5, rel=1e-5)
