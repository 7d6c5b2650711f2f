"""RegMean: weights that make the merged operators answer their inputs as the models did theirs.

For every affine operator the merged weight minimises the sum over the models of weight x the mean of
|x W - x W_i|^2 over the inputs x that model i has there. Source: Jin et al. 2023, "Dataless knowledge
fusion by merging weights of language models", arXiv 2212.09849, section 3; RegMean++: Nguyen et al.
2025, arXiv 2508.03121, where x comes through the layers that are merged already. Biases are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from graphmerge.merge.average import linear
from graphmerge.merge.equations import Equations, Solved, again, batches_of, filled, operands, used_once
from graphmerge.merge.gram import Product, products
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.merge.tensors import State
from graphmerge.precision import weighted_sum, wide
from graphmerge.trace import Program
from graphmerge.trace.run import Inputs, Visit, program_for, run_together


def regmean(job: Job, alpha: float) -> Merged:
    """RegMean, the inputs of each model being those that it has itself; off-diagonals x ``alpha``."""
    program = program_for(job.graph.model, job.data[0], job.graph.program)
    found, skipped = products(program)
    sums = _equations(job, found)
    with torch.no_grad():
        for k, state in enumerate(job.states):
            job.progress(f"RegMean: inputs of model {k + 1}")
            batches = batches_of(program, job, k)
            grams = _grams(program, job.full(state), batches, found)
            for p in found:
                _add(sums[p.weight], job, p, k, grams[p.node] / len(batches), alpha)
    solved: Solved = {}
    for p in {p.weight: p for p in found}.values():
        job.progress(f"RegMean: solving for {p.weight}")
        name = job.names[p.weight]
        solved[name] = p.weight_of(sums[p.weight].solve(), job.states[0][name])
    return filled(job, solved, skipped)


def regmean_plus(job: Job, alpha: float) -> Merged:
    """RegMean++: operators in the order in which they run, inputs through what is merged so far.

    The batches of all models run together: memory is that of one large batch.
    """
    program = program_for(job.graph.model, job.data[0], job.graph.program)
    found, skipped = used_once(program)
    sums, by_node = _equations(job, found), {p.node: p for p in found}
    parts = [batches_of(program, job, k) for k in range(len(job.states))]
    owner = [k for k, part in enumerate(parts) for _ in part]
    solved: Solved = {}

    def settle(visits: list[Visit]) -> list[torch.Tensor]:
        p = by_node[visits[0].node.name]
        job.progress(f"RegMean++: solving for {p.weight}")
        for v, k in zip(visits, owner, strict=True):
            _add(sums[p.weight], job, p, k, p.gram(v) / len(parts[k]), alpha)
        name = job.names[p.weight]
        given = operands(p, sums[p.weight].solve(), job.states[0][name])
        (solved[name],) = given.values()
        return [again(v, given) for v in visits]

    with torch.no_grad():
        begin = job.full(linear(replace(job, out_dtype=None)).state)
        run_together(program, [(begin, x) for part in parts for x in part], by_node, settle)
    return filled(job, solved, skipped)


def _equations(job: Job, found: Sequence[Product]) -> dict[str, Equations]:
    """For every weight its equations, nothing in them yet."""
    sums = {}
    for p in found:
        name = job.names[p.weight]
        mean = weighted_sum((wide(t).double() for t in job.all(name)), job.weights[name])
        sums[p.weight] = Equations(p.matrix(mean))
    return sums


def _add(equations: Equations, job: Job, p: Product, k: int, gram: torch.Tensor, alpha: float) -> None:
    """A model's Gram matrix, off-diagonals x ``alpha``, and what its own weight makes of it."""
    name = job.names[p.weight]
    gram = alpha * gram + (1 - alpha) * torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    equations.add(gram, p.matrix(wide(job.states[k][name])).double() @ gram, job.weights[name][k])


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
        run_together(program, [(state, inputs)], by_node, look)
    return grams
