"""Robustness: how scores fall when weights or inputs are disturbed, by chance or against the network.

The attack is FGSM (Goodfellow et al. 2015, arXiv 1412.6572). That merged networks are more robust than their
parents is claimed by Franke et al. 2025, arXiv 2510.09174.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, UsageError
from graphmerge.losses import CROSS_ENTROPY, Loss
from graphmerge.metrics import Score, Scorer, evaluate
from graphmerge.trace.export import quiet_eval
from graphmerge.trace.run import State, device_of, functional, readable_again, split_batch, to_device

Kind = Literal["weights", "inputs", "fgsm"]
"""Gaussian noise on the weights (times the root mean square of each tensor), Gaussian noise on the inputs,
or a step of the inputs along the sign of the gradient of the loss; both in units of the inputs."""


@dataclass(frozen=True)
class Robustness:
    """``scores`` [level] under a disturbance of each size in ``levels``."""

    kind: Kind
    levels: tuple[float, ...]
    scores: tuple[Score, ...]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "kind": self.kind,
            "levels": list(self.levels),
            "loss": [s.loss for s in self.scores],
            "accuracy": [s.accuracy for s in self.scores],
        }


def robustness(
    model: nn.Module,
    state: State,
    data: Iterable[Any],
    kind: Kind,
    levels: Sequence[float],
    seed: int = 0,
    *,
    score: Scorer = evaluate,
    loss: Loss = CROSS_ENTROPY,
) -> Robustness:
    """Score a network under each level of one kind of disturbance; the seed fixes the noise.

    ``loss`` is what FGSM raises. Raises UsageError for an unknown kind or a negative level, InputError
    where inputs would be disturbed that hold no floating tensor (texts), or that the loss does not depend on.
    """
    if kind not in get_args(Kind):
        raise UsageError(f"unknown disturbance {kind!r}; there are: {', '.join(get_args(Kind))}")
    if any(x < 0 for x in levels):
        raise UsageError(f"levels of a disturbance are at least 0, got {min(levels)}")
    readable_again(data)
    scores = []
    for level in levels:
        generator = torch.Generator().manual_seed(seed)
        if kind == "weights":
            scores.append(score(model, noisy_weights(model, state, level, generator), data))
        else:
            disturbed = _disturbed(model, state, data, kind, level, generator, loss)
            scores.append(score(model, state, disturbed))
    return Robustness(kind, tuple(levels), tuple(scores))


def noisy_weights(
    model: nn.Module, state: State, level: float, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Gaussian noise, ``level`` times the root mean square of each parameter; tied ones stay tied."""
    first = dict(model.named_parameters())  # each parameter under one name
    alias = {id(p): n for n, p in first.items()}
    names = {n: alias[id(p)] for n, p in model.named_parameters(remove_duplicate=False)}
    noisy = {
        n: t + level * t.float().square().mean().sqrt() * torch.randn(t.shape, generator=generator).to(t)
        for n in first
        if (t := state[n]).is_floating_point()
    }
    return {n: noisy.get(names.get(n, ""), t).to(t) for n, t in state.items()}


def _disturbed(
    model: nn.Module,
    state: State,
    data: Iterable[Any],
    kind: Kind,
    level: float,
    generator: torch.Generator,
    loss: Loss,
) -> Iterator[tuple[Any, Any]]:
    """The batches with all floating inputs disturbed."""
    for batch in data:
        inputs, targets = to_device((split_batch(batch), batch[1]), device_of(state))
        leaves, spec = pytree.tree_flatten(inputs)
        places = [k for k, t in enumerate(leaves) if isinstance(t, torch.Tensor) and t.is_floating_point()]
        if not places:
            raise InputError(f"{kind} disturbs inputs that are floating tensors; the data holds none")
        if kind == "fgsm":
            steps = [g.sign() for g in _gradients(model, state, leaves, spec, places, targets, loss)]
        else:
            steps = [torch.randn(leaves[k].shape, generator=generator).to(leaves[k]) for k in places]
        for k, step in zip(places, steps, strict=True):
            leaves[k] = leaves[k] + level * step
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        yield (kwargs or args), targets


def _gradients(
    model: nn.Module,
    state: State,
    leaves: Sequence[Any],
    spec: pytree.TreeSpec,
    places: Sequence[int],
    targets: torch.Tensor,
    loss: Loss,
) -> tuple[torch.Tensor, ...]:
    """Gradients of the loss of a batch by the floating inputs."""
    inputs = [t.detach().requires_grad_() if k in places else t for k, t in enumerate(leaves)]
    with quiet_eval(model), torch.enable_grad():
        args, kwargs = pytree.tree_unflatten(inputs, spec)
        outputs = functional(model, {n: t.detach() for n, t in state.items()}, args, kwargs)
        total = loss.mean(outputs, targets)
        if not total.requires_grad:
            raise InputError("fgsm needs a loss that floating inputs reach: here none depends on them")
        return torch.autograd.grad(total, [inputs[k] for k in places], materialize_grads=True)
