"""Least squares: operators of the merged network answer as those of the models do on average.

For every affine operator the merged weight W and bias c minimise the sum over the models of weight x the
mean of |z W + c - (x_i W_i + c_i)|^2, where x_i is what model i has there for an input of its data, and z
what the merged network has there for the same input. Through the layers merged before ("merged") z makes
up for what these lost; "averaged" takes the mean of the x_i, as published: Nasery et al. 2024, "PLeaS:
merging models with permutations and least squares", arXiv 2407.02447, section 3 (there by gradient
descent; here solved, with a ridge towards the average of the weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
import torch.nn.functional as F

from graphmerge.merge.average import linear
from graphmerge.merge.equations import Equations, Solved, again, batches_of, filled, operands, used_once
from graphmerge.merge.gram import Product
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.merge.pairing import own_order
from graphmerge.precision import weighted_sum, wide
from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE
from graphmerge.trace.run import Inputs, Visit, program_for, run_together


@dataclass(frozen=True)
class Part:
    """A batch, one of so many of the same data, and the models that are to be answered as."""

    inputs: Inputs
    of: int
    models: tuple[int, ...]


def least_squares(job: Job, inputs: str, ridge: float) -> Merged:
    """Operators in the order in which they run, each solution drawn to the average by ``ridge``.

    All models and the merged network run together on all batches: memory is that of one large batch each.
    """
    program = program_for(job.graph.model, job.data[0], job.graph.program)
    found, skipped = _paired(job, program)
    by_node = {p.node: p for p in found}
    parts, follows = _parts(program, job), inputs == "merged"
    solved: Solved = {}

    def settle(visits: list[Visit]) -> list[torch.Tensor | None]:
        p, rest = by_node[visits[0].node.name], iter(visits)
        job.progress(f"least squares: solving for {p.weight}")
        matrices, shares = _matrices(job, p), job.weights[job.names[p.weight]]
        equations = Equations(weighted_sum(matrices, shares))
        ours = []
        for part in parts:
            seen = list(islice(rest, len(part.models) + follows))
            own = [shares[k] for k in part.models]
            _add(equations, p, seen, [matrices[k] for k in part.models], own, part.of)
            ours += [False] * len(own) + [True] * follows
        equations.draw(ridge)
        given = operands(p, equations.solve(), job.states[0][job.names[p.weight]])
        names = (n for n in (p.weight, p.bias) if n)
        solved.update({job.names[n]: t for n, t in zip(names, given.values(), strict=True)})
        return [again(v, given) if merged else None for v, merged in zip(visits, ours, strict=True)]

    with torch.no_grad():
        states = [job.full(s) for s in job.states]
        begin = [job.full(linear(replace(job, out_dtype=None)).state)] if follows else []
        runs = [(s, p.inputs) for p in parts for s in [*(states[k] for k in p.models), *begin]]
        run_together(program, runs, by_node, settle)
    return filled(job, solved, skipped)


def _paired(job: Job, program: Program) -> tuple[tuple[Product, ...], dict[str, str]]:
    """The operators that can be solved for: their rows are of the same things in all models."""
    found, skipped = used_once(program)
    nodes = {n.name: n for n in program.graph.graph.nodes}
    ordered = own_order(job.graph, program)
    apart = {p.weight for p in found if nodes[p.node].args[AFFINE[p.op].x].name in ordered}
    skipped |= dict.fromkeys(apart, "each model gives it rows in an order of its own")
    return tuple(p for p in found if p.weight not in apart), skipped


def _parts(program: Program, job: Job) -> list[Part]:
    """The batches of each model's data; where that is the same for several, they are answered as together."""
    sharing: dict[int, list[int]] = {}
    for k, data in enumerate(job.data):
        sharing.setdefault(id(data), []).append(k)
    found = ((batches_of(program, job, models[0]), tuple(models)) for models in sharing.values())
    return [Part(x, len(batches), models) for batches, models in found for x in batches]


def _matrices(job: Job, p: Product) -> list[torch.Tensor]:
    """The weight of every model, and its bias as one more feature: [group, unit, feature] (float64)."""
    names = [job.names[n] for n in (p.weight, p.bias) if n]
    return [p.matrix(*(wide(s[n]).double() for n in names)) for s in job.states]


def _add(
    equations: Equations, p: Product, seen: Sequence[Visit], matrices: Sequence[torch.Tensor],
    shares: Sequence[float], batches: int,
) -> None:  # fmt: skip
    """One of so many batches: ``seen`` by the models, and last by the merged network if its inputs count."""
    total, models = sum(shares), len(shares)
    if not total:
        return
    parts = [w / total for w in shares]
    places = seen[0].value.numel() // equations.mean[..., 0].numel()
    for rows in zip(*(_rows(p, v) for v in seen), strict=True):
        y = weighted_sum((x @ m.mT for x, m in zip(rows, matrices, strict=False)), parts)
        z = rows[models] if len(rows) > models else weighted_sum(rows, parts)
        equations.add(z.mT @ z, y.mT @ z, total / batches / places)


def _rows(p: Product, visit: Visit) -> Iterator[torch.Tensor]:
    """Input features [group, row, feature], a one for the bias among them."""
    return (F.pad(x, (0, 1), value=1.0) if p.bias else x for x in p.rows(visit))
