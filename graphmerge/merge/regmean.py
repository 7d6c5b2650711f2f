"""RegMean: weights that make the merged operators answer their inputs as the models did theirs.

For every affine operator the merged weight minimises the sum over the models of weight x the mean of
|x W - x W_i|^2 over the inputs x that model i has there. Source: Jin et al. 2023, "Dataless knowledge
fusion by merging weights of language models", arXiv 2212.09849, section 3; RegMean++: Nguyen et al.
2025, arXiv 2508.03121, where x comes through the layers that are merged already.

The solution is found as a correction of the weighted average, so that directions of which the data
says nothing keep the average. Weights of no affine operator, biases, and weights that something else
reads too (a tied embedding) are averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from graphmerge.errors import InputError
from graphmerge.merge.average import linear
from graphmerge.merge.gram import Product, products
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.merge.tensors import State, weighted_sum, wide
from graphmerge.trace import Program
from graphmerge.trace.run import Inputs, Visit, device_of, fitting, program_for, run_together

RIDGE = 1e-10
"""Part of the diagonal added to it, so that unseen directions keep the average."""

Solution = tuple[Product, torch.Tensor]
"""An operator and its weight as a matrix."""


@dataclass
class Equations:
    """The normal equations of one weight, summed over models.

    ``mean`` and ``right`` are [group, unit, feature], ``left`` is [group, feature, feature], all float64.
    """

    mean: torch.Tensor
    left: torch.Tensor | float = 0.0
    right: torch.Tensor | float = 0.0

    def add(self, gram: torch.Tensor, matrix: torch.Tensor, weight: float, diagonal: float) -> None:
        """One model: its Gram matrix, its weight as a matrix, its share."""
        kept = torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
        gram = weight * (diagonal * gram + (1 - diagonal) * kept)
        self.left = self.left + gram
        self.right = self.right + (matrix.double() - self.mean) @ gram

    def solve(self) -> torch.Tensor:
        """The merged weight as a matrix [group, unit, feature] (float64)."""
        left, right = torch.as_tensor(self.left), torch.as_tensor(self.right)
        size = left.diagonal(dim1=-2, dim2=-1)
        if not bool(torch.isfinite(size).all()):
            raise InputError("the inputs of an operator are not finite: does the data hold NaN or infinity?")
        ridge = torch.diag_embed(torch.where(size > 0, RIDGE * size, 1.0))
        factor = torch.linalg.cholesky(left + ridge)
        return self.mean + torch.cholesky_solve(right.mT, factor).mT


def regmean(job: Job, alpha: float) -> Merged:
    """RegMean, the inputs of each model being those that it has itself; off-diagonals x ``alpha``."""
    program = program_for(job.graph.model, job.data[0], job.graph.program)
    found, skipped = products(program)
    sums = _equations(job, found)
    with torch.no_grad():
        for k, state in enumerate(job.states):
            job.progress(f"RegMean: inputs of model {k + 1}")
            batches = _batches(program, job, k)
            grams = _grams(program, job.full(state), batches, found)
            for p in found:
                name = job.names[p.weight]
                matrix = p.matrix(wide(state[name]))
                sums[p.weight].add(grams[p.node] / len(batches), matrix, job.weights[name][k], alpha)
    solved = {}
    for p in {p.weight: p for p in found}.values():
        job.progress(f"RegMean: solving for {p.weight}")
        solved[job.names[p.weight]] = (p, sums[p.weight].solve())
    return _filled(job, solved, skipped)


def regmean_plus(job: Job, alpha: float) -> Merged:
    """RegMean++: operators in the order in which they run, inputs through what is merged so far.

    The batches of all models run together: memory is that of one large batch.
    """
    program = program_for(job.graph.model, job.data[0], job.graph.program)
    found, skipped = products(program)
    uses = Counter(p.weight for p in found)
    skipped |= {w: "it is used more than once" for w, times in uses.items() if times > 1}
    found = tuple(p for p in found if p.weight not in skipped)
    sums, by_node = _equations(job, found), {p.node: p for p in found}
    parts = [_batches(program, job, k) for k in range(len(job.states))]
    owner = [k for k, part in enumerate(parts) for _ in part]
    solved: dict[str, Solution] = {}

    def settle(visits: list[Visit]) -> list[torch.Tensor]:
        p = by_node[visits[0].node.name]
        name = job.names[p.weight]
        job.progress(f"RegMean++: solving for {p.weight}")
        for v, k in zip(visits, owner, strict=True):
            gram = p.gram(v) / len(parts[k])
            sums[p.weight].add(gram, p.matrix(wide(job.states[k][name])), job.weights[name][k], alpha)
        solved[name] = (p, sums[p.weight].solve())
        return [_again(p, v, solved[name][1]) for v in visits]

    with torch.no_grad():
        begin = job.full(linear(replace(job, out_dtype=None)).state)
        run_together(program, begin, [x for part in parts for x in part], by_node, settle)
    return _filled(job, solved, skipped)


def _equations(job: Job, found: Sequence[Product]) -> dict[str, Equations]:
    """For every weight its equations, nothing in them yet."""
    sums = {}
    for p in found:
        name = job.names[p.weight]
        mean = weighted_sum((wide(t).double() for t in job.all(name)), job.weights[name])
        sums[p.weight] = Equations(p.matrix(mean))
    return sums


def _batches(program: Program, job: Job, model: int) -> list[Inputs]:
    """The inputs of a model, of the shapes of the first batch."""
    device = device_of(job.states[model])
    found = [x for x in fitting(program, job.data[model], device) if x is not None]
    if not found:
        raise InputError(f"the data of model {model + 1} holds no batch of the shapes of the first model's")
    return found


def _grams(
    program: Program, state: State, batches: Sequence[Inputs], found: Sequence[Product]
) -> dict[str, torch.Tensor]:
    """The sum over the batches of every operator's mean Gram matrix."""
    grams: dict[str, torch.Tensor] = {}
    by_node = {p.node: p for p in found}

    def look(visits: list[Visit]) -> None:
        for v in visits:
            gram = by_node[v.node.name].gram(v)
            grams[v.node.name] = grams[v.node.name] + gram if v.node.name in grams else gram

    for inputs in batches:
        run_together(program, state, [inputs], by_node, look)
    return grams


def _again(p: Product, visit: Visit, matrix: torch.Tensor) -> torch.Tensor:
    """What an operator returns with another weight."""
    place = 2 if p.op == "aten::addmm" else 1
    weight = visit.args[place]
    args = [*visit.args[:place], p.weight_of(matrix, weight).to(weight), *visit.args[place + 1 :]]
    value: torch.Tensor = visit.node.target(*args, **visit.node.kwargs)  # type: ignore[operator]
    return value


def _filled(job: Job, solved: Mapping[str, Solution], skipped: Mapping[str, str]) -> Merged:
    """The average with the solved weights in it, and which they are."""
    state = linear(job).state
    for name, (p, matrix) in solved.items():
        state[name] = p.weight_of(matrix, state[name]).to(state[name].dtype)
    reasons = {job.names[n]: reason for n, reason in skipped.items()}
    rest = [n for n in job.states[0] if n in job.parameters and n not in solved]
    averaged = {n: reasons.get(n, "not the weight of an affine operator") for n in rest}
    return Merged(state, {"solved": tuple(solved), "averaged": averaged})
