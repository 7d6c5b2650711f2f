"""The gate: a symmetry counts only after the model has been run with it.

Every group is moved by a random cycle of all its units, then by the exchange of two neighbours in it:
all orders are composed of these, where a random order alone might lie in a smaller group that does
hold. The outputs must not change (float64, relative tolerance 1e-9). The control moves one member of
the group alone: now the outputs must change, else nothing was tested; a derivative along that move
that is not zero shows it as well. Weights, norms and running statistics are randomised first, so that
no symmetry hides behind a zero or a one. Where a model computes parts in float32 whatever its weights
are, the noise of its own arithmetic is measured, and is what the error is judged against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from graphmerge.errors import GateError, UsageError, listing, refusal
from graphmerge.progress import Progress, silent
from graphmerge.symmetry.graph import ModelGraph
from graphmerge.symmetry.groups import SymmetryGroup
from graphmerge.symmetry.runner import Runner
from graphmerge.symmetry.structure import generators
from graphmerge.trace.export import quiet_eval
from graphmerge.trace.program import module_path

TOLERANCE = 1e-9
"""Largest relative change of an output, in float64, under a symmetry."""

UNSTEADY = 1e-3
"""Largest relative difference between two runs on the same input at which a gate still means something."""

DRAWS = 12
"""How many draws of weights may be tried before a group counts as not observable."""

_NOISE_FACTOR = 20.0
_CONTROL_FACTOR = 2.0


@dataclass(frozen=True)
class GroupCheck:
    """``error``: relative change of the outputs under the group, or under all at once where that is within
    the tolerance; ``control``: under one side of it."""

    name: str
    error: float
    control: float
    passed: bool
    observable: bool


@dataclass(frozen=True)
class Verification:
    """The outcome of ``verify``: relative errors, the tolerance they were held to, and the noise floor."""

    passed: bool
    max_error: float
    tolerance: float
    noise: float
    dtype: torch.dtype
    groups: tuple[GroupCheck, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of groups that do not hold."""
        return tuple(g.name for g in self.groups if not g.passed)

    @property
    def unobservable(self) -> tuple[str, ...]:
        """The names of groups of which nothing shows when they move."""
        return tuple(g.name for g in self.groups if not g.observable)

    def require(self) -> Verification:
        """Raise GateError unless every group passed."""
        if not self.passed:
            rows = [f"  {g.name}: outputs change by {g.error:.1e}" for g in self.groups if not g.passed]
            raise GateError(
                f"{len(rows) or 'All'} symmetry groups failed the invariance gate"
                f" (outputs change by {self.max_error:.1e}, tolerance {self.tolerance:.1e}):\n"
                + ("\n".join(rows) or "  each holds alone, all together do not")
                + "\n  This is a defect of a rule: please report it with the model."
                " To go on without these groups, use graph.freeze([...])."
            )
        return self


def verify(
    graph: ModelGraph, model: nn.Module, seed: int = 0, *, progress: Progress = silent
) -> Verification:
    """Prove the groups of ``graph`` by running ``model`` with other weights; its own are not touched.

    A model whose outputs differ from run to run is judged against that difference. Raises UsageError
    for a model without weights (on the meta device) or without finite outputs, GateError where two runs
    differ so much that nothing could be proved.
    """
    with quiet_eval(model):
        return _verify(graph, model, seed, progress)


def _verify(graph: ModelGraph, model: nn.Module, seed: int, progress: Progress) -> Verification:
    progress("verifying: running the model with other weights")
    runner = Runner(graph, model, seed)
    tolerance, noise = _tolerance(graph, runner)
    together, found = _judge(graph, runner, graph.groups, tolerance, seed, progress)
    checks = {c.name: c for c in found}
    for draw in range(1, DRAWS):
        hidden = [g for g in graph.groups if not checks[g.name].observable]
        if not hidden:
            break
        progress(f"verifying: other weights to show {len(hidden)} groups that did not show")
        try:
            other = Runner(graph, model, seed + draw, gentle=draw % 2 == 1)
            shown = [g for g in hidden if other.alive(g, seed)]
            level = _tolerance(graph, other)[0] if shown else TOLERANCE
        except (GateError, UsageError):
            continue  # these weights show nothing: the groups stay hidden
        _, found = _judge(graph, other, shown, level, seed)
        checks |= {c.name: c for c in found if c.observable or not c.passed}
    worst = max((c.error for c in checks.values()), default=0.0)
    passed = all(c.passed for c in checks.values()) and together <= tolerance
    return Verification(passed, max(worst, together), tolerance, noise, runner.dtype, tuple(checks.values()))


def _judge(
    graph: ModelGraph,
    runner: Runner,
    groups: Sequence[SymmetryGroup],
    tolerance: float,
    seed: int,
    progress: Progress = silent,
) -> tuple[float, list[GroupCheck]]:
    """The error of all groups moved together, and each group's own check."""
    if not groups:
        return 0.0, []
    progress(f"verifying: all {len(groups)} groups together")
    together = _error(graph, runner, groups, seed)
    checks = []
    for k, group in enumerate(groups, 1):
        progress(f"verifying: group {k} of {len(groups)}, {group.name}")
        error = together
        if together > tolerance:  # someone fails: find out who
            error = _error(graph, runner, [group], seed)
        control = runner.control(group, seed, _CONTROL_FACTOR * tolerance)
        seen = control > _CONTROL_FACTOR * tolerance
        checks.append(GroupCheck(group.name, error, control, error <= tolerance, seen))
    return together, checks


def _error(graph: ModelGraph, runner: Runner, groups: Sequence[SymmetryGroup], seed: int) -> float:
    """Change of the outputs when all of ``groups`` move at once, by either generator."""
    atoms = [graph.atom_of[g.name] for g in groups]
    orders = generators(graph.structure, np.random.default_rng(seed), atoms)
    moves = (replace(graph.identity(), phi=graph.structure.extend(inner)) for inner in orders)
    return max(runner.error(move.apply(runner.state)) for move in moves)


def _tolerance(graph: ModelGraph, runner: Runner) -> tuple[float, float]:
    """The tolerance for this draw of weights, and the noise that it follows from."""
    unsteady = runner.unsteadiness()
    if unsteady > UNSTEADY:
        raise GateError(_unsteady(graph, unsteady))
    noise = max(runner.noise(), unsteady)
    return max(TOLERANCE, _NOISE_FACTOR * noise), noise


def _unsteady(graph: ModelGraph, difference: float) -> str:
    nodes = graph.program.graph.graph.nodes
    random = [n for n in nodes if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ())]
    return refusal(
        "The model gives other outputs when it is run again on the same inputs.",
        expected=f"outputs that differ by at most {UNSTEADY:.0e} of the largest",
        seen=f"{difference:.1e}; operators that draw random numbers: "
        + (listing(f"{n.target} in {module_path(n) or 'the model itself'}" for n in random) or "none"),
        means="a changed output could come from a wrong symmetry or from chance: nothing can be proved",
        fix="switch the randomness off in evaluation mode (dropout by nn.Dropout, noise by self.training)",
    )
