"""What every merge method does alike with what is no weight, and the tensors that all models must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphmerge.errors import InputError
from graphmerge.precision import weighted_sum, wide

State = Mapping[str, torch.Tensor]


def measured(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Buffers of floating dtype, such as the statistics of a BatchNorm: their mean, in ``wide`` precision.

    They are measurements, so that negative weights count as none, the others by their share of the
    sum: a variance stays one. What is equal in all models is given back as it is.
    """
    if all(torch.equal(tensors[0], t) for t in tensors[1:]):
        return wide(tensors[0]).clone()
    shares = [max(w, 0.0) for w in weights]
    total = sum(shares)
    return weighted_sum(tensors, [w / total if total else 1 / len(shares) for w in shares])


def whole(name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Integers and booleans: counters (``num_batches_tracked``) take the maximum, others must be equal.

    Raises InputError where they are not.
    """
    first = tensors[0]
    if name.rpartition(".")[2] == "num_batches_tracked":
        return torch.stack(list(tensors)).max(0).values
    if any(not torch.equal(first, t.to(first.device)) for t in tensors):
        raise InputError(
            f"tensor {name} ({first.dtype}) differs between the models and integers have no average;"
            " expected equal values: were the models built with the same configuration?"
        )
    return first.clone()


def require_same_tensors(states: Sequence[State]) -> None:
    """Raise InputError unless all states hold tensors of the same names and shapes."""
    for k, s in enumerate(states[1:], 2):
        odd = sorted(states[0].keys() ^ s.keys())
        if odd:
            raise InputError(
                f"model {k} and model 1 do not have the same tensors; only one has: {', '.join(odd[:5])}"
            )
    for name, first in states[0].items():
        if any(s[name].shape != first.shape for s in states):
            shapes = ", ".join(str(tuple(s[name].shape)) for s in states)
            raise InputError(
                f"tensor {name} has shapes {shapes}; expected equal ones"
                " (heads for other classes are joined by merge_heads)"
            )
