"""Weights of affine operators solved for: what RegMean and least squares have in common.

The solution is found as a correction of the weighted average, so that directions of which the data
says nothing keep the average. Weights of no affine operator, and weights that something else reads
too (a tied embedding), are averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from graphmerge.errors import InputError
from graphmerge.merge.average import linear
from graphmerge.merge.gram import Product, products
from graphmerge.merge.job import Job
from graphmerge.merge.method import Merged
from graphmerge.trace import Program
from graphmerge.trace.affine import AFFINE
from graphmerge.trace.run import Inputs, Visit, device_of, fitting

RIDGE = 1e-10
"""Part of the diagonal added to it, so that unseen directions keep the average."""

Solved = dict[str, torch.Tensor]
"""Tensors that were solved for, by the name that they have in the job."""


@dataclass
class Equations:
    """The normal equations of one weight, summed over models.

    ``mean`` and ``right`` are [group, unit, feature], ``left`` is [group, feature, feature], all float64.
    """

    mean: torch.Tensor
    left: torch.Tensor | float = 0.0
    right: torch.Tensor | float = 0.0

    def add(self, gram: torch.Tensor, wanted: torch.Tensor, weight: float) -> None:
        """Rows x that are to give y: the means of x'x and of y'x, and what they count."""
        self.left = self.left + weight * gram
        self.right = self.right + weight * (wanted - self.mean @ gram)

    def draw(self, ridge: float) -> None:
        """Draw the solution to the average: ridge x mean square of the inputs x |W - average|^2 is added.

        The same for all inputs: what rarely fires must not get weights that hold for few samples only.
        """
        left = torch.as_tensor(self.left)
        size = ridge * left.diagonal(dim1=-2, dim2=-1).mean(-1)
        self.left = left + size[:, None, None] * torch.eye(left.shape[-1]).to(left)

    def solve(self) -> torch.Tensor:
        """The merged weight as a matrix [group, unit, feature] (float64)."""
        left, right = torch.as_tensor(self.left), torch.as_tensor(self.right)
        size = left.diagonal(dim1=-2, dim2=-1)
        if not bool(torch.isfinite(size).all()):
            raise InputError("the inputs of an operator are not finite: does the data hold NaN or infinity?")
        factor = torch.linalg.cholesky(left + torch.diag_embed(torch.where(size > 0, RIDGE * size, 1.0)))
        return self.mean + torch.cholesky_solve(right.mT, factor).mT


def used_once(program: Program) -> tuple[tuple[Product, ...], dict[str, str]]:
    """As ``products``, without the weights that several operators share: the first of them would decide."""
    found, skipped = products(program)
    uses = Counter(p.weight for p in found)
    skipped |= {w: "it is used more than once" for w, times in uses.items() if times > 1}
    return tuple(p for p in found if p.weight not in skipped), skipped


def batches_of(program: Program, job: Job, model: int) -> list[Inputs]:
    """The inputs of a model, of the shapes of the first batch."""
    device = device_of(job.states[model])
    found = [x for x in fitting(program, job.data[model], device) if x is not None]
    if not found:
        raise InputError(
            f"the data of model {model + 1} hold no batch of the shapes of the first model's first batch:"
            " give batches of one size to all models"
        )
    return found


def again(visit: Visit, given: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """What an operator returns with other arguments at some places."""
    args = [given[k].to(a) if k in given else a for k, a in enumerate(visit.args)]
    value: torch.Tensor = visit.node.target(*args, **visit.node.kwargs)  # type: ignore[operator]
    return value


def operands(p: Product, matrix: torch.Tensor, like: torch.Tensor) -> dict[int, torch.Tensor]:
    """A solved matrix as arguments of its operator, by place: the weight, and the bias if that was solved."""
    places, width = AFFINE[p.op], p.matrix(like).shape[-1]
    found = {places.weight: p.weight_of(matrix[..., :width], like)}
    if matrix.shape[-1] > width:
        found[places.bias] = matrix[..., width].flatten()
    return found


def filled(job: Job, solved: Solved, skipped: Mapping[str, str]) -> Merged:
    """The average with the solved tensors in it, and which they are."""
    state = linear(job).state
    state |= {name: t.to(state[name].dtype) for name, t in solved.items()}
    reasons = {job.names[n]: reason for n, reason in skipped.items()}
    rest = [n for n in job.states[0] if n in job.parameters and n not in solved]
    averaged = {n: reasons.get(n, "not the weight of an affine operator") for n in rest}
    return Merged(state, {"solved": tuple(solved), "averaged": averaged})
