"""The straight-through estimator: the loss moves a copy of the weights, and b follows by weight matching.

Source: Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.3 and algorithm 3.
"""

from __future__ import annotations

import torch

from graphmerge.match.descent import descend
from graphmerge.match.layout import plans
from graphmerge.match.search import Record, beginning, endless, identical, path_of, with_names
from graphmerge.match.task import Found, Task
from graphmerge.match.weights import WeightSimilarity
from graphmerge.symmetry import Transform


def match_straight_through(task: Task) -> Found:
    """Gradient descent on latent weights, which begin at those of a.

    Forward, b is moved as close to them as weight matching brings it from where it was, and the loss
    taken at the midpoint between it and a; its gradient for the moved b goes to the latent weights.
    """
    o, graph = task.options, task.graph
    path = path_of(task)
    transform = beginning(task)
    record = Record(lambda t: -path.midpoint(t), transform, task)
    if identical(task):
        return record.found()
    latent = {n: t.clone().requires_grad_() for n, t in task.a.items()}
    work = plans(graph, graph.structure, {n: x for n, x in graph.structure.labels.items() if n in latent})
    optimiser = torch.optim.SGD(list(latent.values()), lr=o["rate"], momentum=o["momentum"])
    batches = endless(path)
    for step in range(1, o["steps"] + 1):
        with task.stage("matching"):
            towards = {n: t.detach() for n, t in latent.items()}
            similarity = WeightSimilarity(towards, task.b, transform)
            descend(similarity, work, task.seed + step)
        if similarity.transform != transform:
            transform = similarity.transform
            record.offer(transform, step)
        with task.stage("descent"):
            moved = _leaves(transform, task)
            loss = path.at(with_names(task, moved), next(batches), 0.5, grad=True)
            gradients = torch.autograd.grad(loss, list(moved.values()), allow_unused=True)
            for n, g in zip(moved, gradients, strict=True):
                latent[n].grad = None if g is None else g.to(latent[n].dtype)
            optimiser.step()
        task.progress(f"matching: step {step} of {o['steps']}, midpoint loss {float(loss.detach()):.4f}")
    return record.found()


def _leaves(transform: Transform, task: Task) -> dict[str, torch.Tensor]:
    """The parameters of b as they are moved, as leaves to take a gradient for."""
    return {n: transform.apply_to(n, t).detach().requires_grad_() for n, t in task.b.items()}
