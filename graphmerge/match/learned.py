"""Permutations learned by gradient descent on scores, one matrix of them for each fibre of each group.

"sinkhorn": the scores become doubly stochastic matrices, which go into the loss as they are (Pena et
al. 2022, Re-basin via implicit Sinkhorn differentiation, arXiv 2212.12042, section 3). "learned": the
loss sees the best permutation under the scores, and its gradient goes to them straight through (Theus
et al. 2025, Generalized linear mode connectivity for transformers, arXiv 2506.22712, learned matching).
Both end with permutations, the best that came by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from graphmerge.match.assign import assign
from graphmerge.match.relaxed import Soft, hardened, move, parts
from graphmerge.match.search import Record, beginning, endless, generator, identical, path_of, with_names
from graphmerge.match.sinkhorn import sinkhorn
from graphmerge.match.task import Found, Task
from graphmerge.symmetry import Transform
from graphmerge.trace.run import State, device_of

NOISE = 0.1
"""Standard deviation of the noise on the first scores, in temperatures (as published)."""

JUDGED = 10
"""How often in a run the permutations under the scores are measured on all the data."""


@dataclass(frozen=True)
class Problem:
    """What is lowered (a function of b as it is moved), what is raised in the end, and b.

    Tensors go by their names in the structure (see ``Structure.gather``).
    """

    loss: Callable[[State], torch.Tensor]
    value: Callable[[Transform], float]
    b: State


def match_sinkhorn(task: Task) -> Found:
    """Descent on doubly stochastic matrices, by the distance of the weights or the loss on the path."""
    o = task.options
    heat, trust = o["temperature"], o["trust"]

    def soften(scores: Soft) -> Soft:
        return {k: sinkhorn(x, heat, o["iterations"]) for k, x in scores.items()}

    def diagonal(size: int) -> float:  # so that a softmax of a row has ``trust`` on the diagonal
        return float(heat * max(0.0, math.log(trust * (size - 1) / (1 - trust))))

    between = {"l2": None, "mid": (0.5, 0.5), "rnd": (0.0, 1.0)}[o["criterion"]]
    problem = _task_loss(task, between) if between else _distance(task)
    return _descend(task, beginning(task), soften, diagonal, problem)


def match_learned(task: Task) -> Found:
    """Descent on scores through the permutations under them, at places around the midpoint."""

    def soften(scores: Soft) -> Soft:
        found = {}
        for k, x in scores.items():
            hard = torch.zeros_like(x).scatter_(-1, assign(x.detach())[..., None], 1.0)
            found[k] = x + (hard - x).detach()
        return found

    half = task.options["spread"]
    return _descend(task, beginning(task), soften, lambda _: 1.0, _task_loss(task, (0.5 - half, 0.5 + half)))


def _task_loss(task: Task, between: tuple[float, float]) -> Problem:
    """The loss of the next batch at a place drawn from ``between``, and minus the midpoint loss."""
    path, draw = path_of(task), generator(task.seed + 1)
    batches = endless(path)

    def loss(moved: State) -> torch.Tensor:
        at = between[0] + (between[1] - between[0]) * float(torch.rand((), generator=draw))
        return path.at(with_names(task, moved), next(batches), at, grad=True)

    own = {task.graph.names.get(n, n): t for n, t in task.states[1].items() if t.is_floating_point()}
    return Problem(loss, lambda t: -path.midpoint(t), task.graph.structure.gather(own))


def _distance(task: Task) -> Problem:
    """The mean squared difference of the parameters, and their inner product."""
    a, b = task.a, task.b
    count = sum(t.numel() for t in a.values())

    def loss(moved: State) -> torch.Tensor:
        return torch.stack([(a[n] - moved[n]).square().sum() for n in a]).sum() / count

    def inner(t: Transform) -> float:
        return sum(float((a[n] * t.apply_to(n, b[n])).sum(dtype=torch.float64)) for n in a)

    return Problem(loss, inner, b)


def _descend(
    task: Task,
    begin: Transform,
    soften: Callable[[Soft], Soft],
    diagonal: Callable[[int], float],
    problem: Problem,
) -> Found:
    """Adam on the scores; the permutations under them are measured now and then, and the best kept."""
    o, graph = task.options, task.graph
    record = Record(problem.value, begin, task)
    if identical(task):
        return record.found()
    with task.stage("layout"):
        cut = {name: parts(graph.structure, name) for name in graph.structure.labels}
    b = {n: begin.apply_to(n, t) for n, t in problem.b.items()}
    scores = _scores(task, diagonal, device_of(b))
    optimiser = torch.optim.Adam(list(scores.values()), lr=o["rate"])
    every = max(1, o["steps"] // JUDGED)
    for step in range(1, o["steps"] + 1):
        with task.stage("descent"), torch.enable_grad():
            soft = soften(scores)
            moved = {n: move(graph.structure, cut.get(n, ()), t, soft) for n, t in b.items()}
            loss = problem.loss(moved)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        task.progress(f"matching: step {step} of {o['steps']}, loss {float(loss.detach()):.4f}")
        if step % every == 0 or step == o["steps"]:
            record.offer(hardened(graph.identity(), scores) @ begin, step)
    return record.found(last_loss=float(loss.detach()))


def _scores(task: Task, diagonal: Callable[[int], float], device: torch.device) -> dict[int, torch.Tensor]:
    """First scores for every atom [fibre, place, unit]: in favour of where the units are."""
    structure, rng = task.graph.structure, generator(task.seed)
    found = {}
    for k in structure.atoms:
        sort = structure.sorts[k]
        noise = NOISE * torch.randn(sort.order, sort.size, sort.size, generator=rng)
        scores = noise + diagonal(sort.size) * torch.eye(sort.size)
        found[k] = scores.to(device).requires_grad_()
    return found
