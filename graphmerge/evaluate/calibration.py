"""Calibration: whether a network is right as often as it is sure.

Source: Guo et al. 2017, arXiv 1706.04599, section 2: expected calibration error over bins of equal width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.losses import IGNORED, logits_of
from graphmerge.metrics import evaluate
from graphmerge.trace.run import State, device_of


@dataclass(frozen=True)
class Calibration:
    """Bins of confidence: ``counts``, mean ``confidence`` and ``accuracy`` (0 to 1; NaN of an empty bin)."""

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def ece(self) -> float:
        """The mean gap between confidence and accuracy over the predictions (equation 3)."""
        return sum(n * g for n, g in self._gaps) / sum(self.counts)

    @property
    def mce(self) -> float:
        """The largest gap of a bin that is not empty (equation 5)."""
        return max(g for _, g in self._gaps)

    @property
    def _gaps(self) -> list[tuple[int, float]]:
        rows = zip(self.counts, self.confidence, self.accuracy, strict=True)
        return [(n, abs(p - a)) for n, p, a in rows if n]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; empty bins have None."""
        return {
            "ece": self.ece,
            "mce": self.mce,
            "counts": list(self.counts),
            "confidence": [p if n else None for n, p in zip(self.counts, self.confidence, strict=True)],
            "accuracy": [a if n else None for n, a in zip(self.counts, self.accuracy, strict=True)],
        }


def calibration(model: nn.Module, state: State, data: Iterable[Any], bins: int = 15) -> Calibration:
    """Confidence against accuracy of class predictions on batches ``(inputs, targets)``."""
    if bins < 1:
        raise UsageError(f"calibration needs at least 1 bin, got {bins}")
    collected = _Bins(bins, device_of(state))
    evaluate(model, state, data, metrics={"bins": collected})
    counts, sure, right = collected.sums.T
    return Calibration(
        tuple(int(n) for n in counts.tolist()),
        tuple((sure / counts).tolist()),
        tuple((right / counts).tolist()),
    )


class _Bins:
    """Sums [bin][count, confidence, hits] over predictions; bin k holds confidences in (k/n, (k+1)/n]."""

    def __init__(self, bins: int, device: torch.device) -> None:
        self.sums = torch.zeros(bins, 3, dtype=torch.float64, device=device)

    def update(self, outputs: Any, targets: torch.Tensor) -> None:
        p = logits_of(outputs).double().softmax(-1)
        p, wanted = p.reshape(-1, p.shape[-1]), targets.reshape(-1)
        sure, guess = p.max(-1)
        bins = len(self.sums)
        place = (sure * bins).ceil().long().clamp(1, bins) - 1
        rows = torch.stack([torch.ones_like(sure), sure, (guess == wanted).double()], 1)
        self.sums.index_add_(0, place, rows * (wanted != IGNORED).double()[:, None])

    def compute(self) -> float:
        return float(self.sums[:, 0].sum())
