"""Frank-Wolfe: all groups of all models at once, on doubly stochastic matrices.

What is raised is the sum over all pairs of models of the inner product of their parameters, each model
moved by a relaxed symmetry (see ``relaxed``). A step goes from where the models are towards the
permutations that the gradient favours, one assignment problem for each fibre of each group, and as far
as is best: along that line the objective is a polynomial of known degree, and its maximum is exact.

Source: C2M3, Crisostomi et al. 2024, Cycle-consistent multi-model merging, arXiv 2405.17897, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.polynomial import Chebyshev
from numpy.polynomial.chebyshev import chebvander

from graphmerge.match.assign import assign
from graphmerge.match.relaxed import Part, Soft, move, parts
from graphmerge.progress import Progress, silent
from graphmerge.symmetry import Transform
from graphmerge.symmetry.structure import Structure
from graphmerge.trace.run import State

GAIN = 1e-4
"""Relative gain of the objective below which a step counts for nothing."""

PATIENCE = 3
"""As many steps in a row that count for nothing are the end."""


@dataclass(frozen=True)
class Climb:
    """Where Frank-Wolfe ended.

    ``soft`` [model] are the relaxed symmetries, ``course`` the objective at the start and after every
    step, ``gap`` is what the linearised objective could still gain there (0: no direction leads up).
    """

    soft: tuple[Soft, ...]
    course: tuple[float, ...]
    gap: float
    converged: bool


@dataclass(frozen=True)
class Objective:
    """The sum over pairs of models of the inner products of their moved parameters."""

    structure: Structure
    models: Sequence[State]
    cut: Mapping[str, tuple[Part, ...]]

    def value(self, soft: Sequence[Soft]) -> float:
        """The objective (float64) where the models are moved by ``soft``."""
        with torch.no_grad():
            return sum(float(pairs(self._moved(n, soft))) for n in self.models[0])

    def slopes(self, soft: Sequence[Soft]) -> tuple[float, list[dict[int, torch.Tensor]]]:
        """The objective and its gradient in every matrix of every model, tensor by tensor."""
        leaves = [{k: x.detach().requires_grad_() for k, x in own.items()} for own in soft]
        flat = [x for own in leaves for x in own.values()]
        total, found = 0.0, [torch.zeros_like(x) for x in flat]
        for name in self.models[0]:
            with torch.enable_grad():
                value = pairs(self._moved(name, leaves))
            total += float(value.detach())
            if value.requires_grad:
                for slope, more in zip(
                    found, torch.autograd.grad(value, flat, allow_unused=True), strict=True
                ):
                    if more is not None:
                        slope += more
        given = iter(found)
        return total, [{k: next(given) for k in own} for own in leaves]

    def at_corners(self, corners: Sequence[Mapping[int, torch.Tensor]]) -> float:
        """The objective where the models are moved by permutations [fibre, place] -> unit."""
        moves = []
        for own in corners:
            inner = {k: columns.argsort(-1).cpu().numpy() for k, columns in own.items()}
            moves.append(Transform(self.structure, {}, {}, self.structure.extend(inner)))
        return sum(
            float(pairs([t.apply_to(n, model[n]) for t, model in zip(moves, self.models, strict=True)]))
            for n in self.models[0]
        )

    def degree(self, soft: Sequence[Soft]) -> int:
        """The degree of the objective along a line: of a tensor in one model, as many as are multiplied."""
        free, movable = sum(bool(own) for own in soft), set(self.structure.atoms)
        return min(2, free) * max(
            (
                sum(max(sum(k in movable for k, _ in b.factors) for b in part.blocks) for part in cut)
                for cut in self.cut.values()
            ),
            default=0,
        )

    def _moved(self, name: str, soft: Sequence[Soft]) -> list[torch.Tensor]:
        cut = self.cut[name]
        return [
            move(self.structure, cut, model[name], own) if own and cut else model[name]
            for model, own in zip(self.models, soft, strict=True)
        ]


def pairs(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of the inner products of all pairs of tensors (float64)."""
    total, found = tensors[0], torch.zeros((), dtype=torch.float64, device=tensors[0].device)
    for t in tensors[1:]:
        found = found + (total * t).sum(dtype=torch.float64)
        total = total + t
    return found


def climb(
    structure: Structure, models: Sequence[State], soft: Sequence[Soft], steps: int,
    progress: Progress = silent,
) -> Climb:  # fmt: skip
    """Raise the objective from ``soft`` [model] on; a model whose matrices are none stays as it is."""
    objective = Objective(structure, models, {n: parts(structure, n) for n in models[0]})
    degree, still = objective.degree(soft), 0
    value, slopes = objective.slopes(soft)
    course = [value]
    while True:
        corners = [{k: assign(g) for k, g in own.items()} for own in slopes]
        gap = sum(_gap(g, x[k], c[k]) for own, x, c in zip(slopes, soft, corners, strict=True)
                  for k, g in own.items())  # fmt: skip
        done = gap <= GAIN * abs(value) or still == PATIENCE
        if done or len(course) > steps:
            return Climb(tuple(soft), tuple(course), gap, done)
        last = partial(objective.at_corners, corners)
        at = highest(value, gap, last, partial(_between, objective, soft, corners), degree)
        soft = towards(soft, corners, at)
        value, slopes = objective.slopes(soft)
        still = 0 if value - course[-1] > GAIN * abs(value) else still + 1
        course.append(value)
        progress(f"matching: Frank-Wolfe step {len(course) - 1} of {steps}, objective {value:.4f}")


def _between(
    objective: Objective, soft: Sequence[Soft], corners: Sequence[Mapping[int, torch.Tensor]], at: float
) -> float:
    return objective.value(towards(soft, corners, at))


def _gap(slope: torch.Tensor, x: torch.Tensor, columns: torch.Tensor) -> float:
    """What the linearised objective gains from ``x`` to a permutation [fibre, place] -> unit."""
    corner = slope.gather(-1, columns[..., None]).sum(dtype=torch.float64)
    return float(corner - (slope * x).sum(dtype=torch.float64))


def towards(
    soft: Sequence[Soft], corners: Sequence[Mapping[int, torch.Tensor]], at: float
) -> list[dict[int, torch.Tensor]]:
    """(1 - at) soft + at corners, which are permutations [fibre, place] -> unit."""
    return [
        {
            k: (x * (1 - at)).scatter_add(-1, to[k][..., None], torch.full_like(x[..., :1], at))
            for k, x in own.items()
        }
        for own, to in zip(soft, corners, strict=True)
    ]


def highest(
    first: float, slope: float, last: Callable[[], float], between: Callable[[float], float], degree: int
) -> float:
    """Where on [0, 1] a polynomial of at most ``degree`` is highest.

    It is given by its value and slope at 0, its value at 1, and as many values in between as are wanting;
    its maximum is at an end, or where its derivative is zero.
    """
    known = [(chebvander(-1.0, degree)[0], first), (2 * _derivatives(degree), slope)]
    if degree > 1:
        known.append((chebvander(1.0, degree)[0], last()))
    for t in -np.cos(np.pi * np.arange(1, degree - 1) / max(1, degree - 1)):
        known.append((chebvander(t, degree)[0], between(float(t + 1) / 2)))
    rows, values = zip(*known[: degree + 1], strict=True)
    curve = Chebyshev(np.linalg.solve(np.stack(rows), np.array(values)), domain=[0, 1])
    flat = curve.deriv().trim(1e-12 * np.abs(curve.coef).max()).roots().real
    places = np.array([0.0, 1.0, *flat[(flat > 0) & (flat < 1)]])
    return float(places[np.argmax(curve(places))])


def _derivatives(degree: int) -> np.ndarray:
    """The derivatives of Chebyshev's polynomials up to ``degree`` at -1."""
    k = np.arange(degree + 1)
    found: np.ndarray = (-1.0) ** (k + 1) * k**2
    return found


def blurred(structure: Structure, trust: float, device: torch.device) -> dict[int, torch.Tensor]:
    """Each atom's matrices [fibre, place, unit] with ``trust`` in the identity, the rest spread evenly."""
    found = {}
    for k in structure.atoms:
        sort = structure.sorts[k]
        matrix = trust * torch.eye(sort.size) + (1 - trust) / sort.size
        found[k] = matrix.expand(sort.order, -1, -1).to(device)
    return found
