"""The gate: a symmetry counts only after the model has been run with it.

Every group is moved by a random element and the outputs must not change (float64, relative
tolerance 1e-9). The control moves one member of the group alone: now the outputs must change, else
nothing was tested. Weights, norms and running statistics are randomised first, so that no symmetry
hides behind a zero or a one. Where a model computes parts in float32 whatever its weights are, the
noise of its own arithmetic is measured, and is what the error is judged against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphmerge.errors import GateError, UsageError, listing, refusal
from graphmerge.progress import Progress, silent
from graphmerge.symmetry.graph import ModelGraph
from graphmerge.symmetry.groups import SymmetryGroup
from graphmerge.trace.export import quiet_eval, ties
from graphmerge.trace.program import module_path
from graphmerge.trace.run import call

TOLERANCE = 1e-9
"""Largest relative change of an output, in float64, under a symmetry."""

UNSTEADY = 1e-3
"""Largest relative difference between two runs on the same input at which a gate still means something."""

DRAWS = 4
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
        return tuple(g.name for g in self.groups if not g.passed)

    @property
    def unobservable(self) -> tuple[str, ...]:
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
    runner = _Runner(graph, model, seed)
    tolerance, noise = _tolerance(graph, runner)
    together = runner.error(graph.random_transform(seed).apply(runner.state))
    checks = {}
    for k, group in enumerate(graph.groups, 1):
        progress(f"verifying: group {k} of {len(graph.groups)}, {group.name}")
        error = together
        if together > tolerance:  # someone fails: find out who
            error = runner.error(graph.random_transform(seed, [group.name]).apply(runner.state))
        checks[group.name] = _check(runner, group, error, tolerance, seed)
    for draw in range(1, DRAWS):
        hidden = [g for g in graph.groups if not checks[g.name].observable]
        if not hidden:
            break
        progress(f"verifying: other weights to show {len(hidden)} groups that did not show")
        try:
            other = _Runner(graph, model, seed + draw, gentle=draw % 2 == 1)
            level, _ = _tolerance(graph, other)
        except (GateError, UsageError):
            continue  # these weights show nothing: the groups stay hidden
        for group in hidden:
            error = other.error(graph.random_transform(seed, [group.name]).apply(other.state))
            found = _check(other, group, error, level, seed)
            if found.observable or not found.passed:
                checks[group.name] = found
    worst = max((c.error for c in checks.values()), default=0.0)
    passed = all(c.passed for c in checks.values()) and together <= tolerance
    return Verification(
        passed,
        max(worst, together if checks else 0.0),
        tolerance,
        noise,
        runner.dtype,
        tuple(checks.values()),
    )


def _tolerance(graph: ModelGraph, runner: _Runner) -> tuple[float, float]:
    """The tolerance for this draw of weights, and the noise that it follows from."""
    unsteady = runner.error(runner.state)
    if unsteady > UNSTEADY:
        raise GateError(_unsteady(graph, unsteady))
    noise = max(runner.noise(), unsteady)
    return max(TOLERANCE, _NOISE_FACTOR * noise), noise


def _check(runner: _Runner, group: SymmetryGroup, error: float, tolerance: float, seed: int) -> GroupCheck:
    control = runner.control(group, seed, tolerance)
    observable = control > _CONTROL_FACTOR * tolerance
    return GroupCheck(group.name, error, control, error <= tolerance, observable)


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


class _Runner:
    """The model under weights drawn anew, in float64 where it permits it, with its reference outputs.

    The module is not copied (not every module can be) and not changed: its parameters and buffers are
    replaced for the time of each call.
    """

    def __init__(self, graph: ModelGraph, model: nn.Module, seed: int, gentle: bool = False) -> None:
        if any(p.device.type == "meta" for p in model.parameters()):
            raise UsageError("the model has no weights (meta device): verify needs a model that runs")
        self.graph, self.model, self.dtype = graph, model, torch.float64
        self.generator = torch.Generator().manual_seed(seed)
        tensors = (model.named_parameters, model.named_buffers)
        own = {n: t.detach() for named in tensors for n, t in named(remove_duplicate=False)}
        self.buffers = {n for n, _ in model.named_buffers(remove_duplicate=False)}
        for kind in dict.fromkeys((gentle, True)):
            self.state = self._drawn(own, kind)
            self._refer()
            if not self.reference:
                raise UsageError(
                    "the model returns no floating tensor: nothing that is done to its weights can be seen;"
                    " trace the part of it that returns logits or features"
                )
            if all(bool(torch.isfinite(t).all()) for t in self.reference):
                return
        raise UsageError(
            refusal(
                "The model returns NaN or infinity on inputs like the example.",
                expected="finite outputs, with random weights and with its own, slightly changed",
                seen="values that are not finite",
                means="nothing that is done to the weights can be seen in them",
                fix="give an example of the size and range that the model is made for",
            )
        )

    def _refer(self) -> None:
        """Inputs and reference outputs; in float32 where an operator has no float64 kernel."""
        try:
            self.args, self.kwargs = self._inputs(self.graph.program.example)
            self.reference = self.run(self.state)
        except RuntimeError:
            if self.dtype == torch.float32:
                raise
            self.dtype = torch.float32
            self.state = {n: _in(t, self.dtype) for n, t in self.state.items()}
            self._refer()

    def _drawn(self, own: Mapping[str, torch.Tensor], gentle: bool) -> dict[str, torch.Tensor]:
        """Parameters, and the buffers that move (statistics), drawn anew; ``gentle`` perturbs them only.

        Matrices get the scale at which a layer keeps the size of its input: at the small scale of
        some initialisations attention is uniform, and queries and keys could be anything.
        """
        moving = {alias for alias, name in self.graph.names.items() if name in self.graph.structure.tensors}
        found: dict[str, torch.Tensor] = {}
        for name, names in ties(own).items():
            t = _in(own[name], self.dtype)
            fixed = name in self.buffers and name not in moving
            if names[0] in found:
                found[name] = found[names[0]]
            elif fixed or not t.is_floating_point() or not t.numel():
                found[name] = t
            else:
                found[name] = self._draw(t, name in self.buffers, gentle)
        return found

    def _draw(self, t: torch.Tensor, buffer: bool, gentle: bool) -> torch.Tensor:
        noise: torch.Tensor = torch.randn(t.shape, generator=self.generator, dtype=torch.float64).to(t)
        if buffer:
            return noise.abs() + 0.5 if (t >= 0).all() and (t > 0).any() else 0.3 * noise
        if gentle:
            return t + 0.1 * noise * (t.std() if t.numel() > 1 and t.std() > 0 else 1)
        if t.ndim > 1:
            return noise * math.sqrt(len(t) / t.numel())
        return 0.3 * noise + (1 if t.mean() > 0.5 else 0)

    def _inputs(self, example: Any) -> Any:
        """Example inputs with floats drawn anew in the dtype of the model."""
        if isinstance(example, torch.Tensor):
            if not example.is_floating_point():
                return example
            fresh = torch.randn(example.shape, generator=self.generator, dtype=torch.float64)
            return fresh.to(example.device, self.dtype)
        if isinstance(example, Mapping):
            return {k: self._inputs(v) for k, v in example.items()}
        if isinstance(example, list | tuple):
            return type(example)(self._inputs(v) for v in example)
        return example

    def run(self, state: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """All floating outputs of the model under a state dict."""
        own = {
            n: t.clone() if n in self.buffers else t for n, t in state.items()
        }  # a call may change buffers
        out = call(self.model, own, self.args, self.kwargs)
        return [t for t in _tensors(out) if t.is_floating_point() or t.is_complex()]

    def error(self, state: Mapping[str, torch.Tensor]) -> float:
        """Largest change of an output, relative to its largest value."""
        return max((_change(a, b) for a, b in zip(self.reference, self.run(state), strict=True)), default=0.0)

    def noise(self) -> float:
        """Change of the outputs when the weights change by one rounding step of the model's arithmetic."""
        worst = 0.0
        tiny = torch.finfo(self._narrowest()).eps
        for _ in range(3):
            state = {
                n: t * (1 + tiny * torch.randn(t.shape, generator=self.generator).to(t))
                if t.is_floating_point()
                else t
                for n, t in self.state.items()
            }
            worst = max(worst, self.error(self._tie(state)))
        return worst

    def _narrowest(self) -> torch.dtype:
        """The narrowest floating type that the model computes in; with subgraphs it cannot be watched."""
        targets = (n.target for n in self.graph.program.graph.graph.nodes)
        if any(isinstance(t, torch._ops.HigherOrderOperator) for t in targets):
            return torch.float32
        seen = _Narrowest()
        with seen:
            self.run(self.state)
        return seen.dtype

    def _tie(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Give all names of a tied tensor the value of the first."""
        return {n: state.get(self.graph.names.get(n, n), t) for n, t in state.items()}

    def control(self, group: SymmetryGroup, seed: int, tolerance: float) -> float:
        """Change of the outputs when one side of the group moves alone; the first that shows.

        A side is one tensor, or, where a tensor holds several sides of the group (queries and keys
        of one matrix), the first position of every unit in it.
        """
        transform = self.graph.random_transform(seed, [group.name])
        largest = 0.0
        for name in dict.fromkeys(self.graph.structure.stands_in(n) for n, _ in group.members):
            for first in (False, True):
                moved = transform.side(name, self.state, first)
                largest = max(largest, self.error(self._tie({**self.state, **moved})))
                if largest > _CONTROL_FACTOR * tolerance:
                    return largest
        return largest


class _Narrowest(TorchDispatchMode):
    """Watches a run for the narrowest floating type that it computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype = torch.float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        depends = any(isinstance(x, torch.Tensor) and x.is_floating_point() for x in args)
        for t in _tensors(out):
            if depends and t.is_floating_point() and torch.finfo(t.dtype).eps > torch.finfo(self.dtype).eps:
                self.dtype = t.dtype
        return out


def _in(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Floating tensors in ``dtype``, others as they are."""
    return t.to(dtype) if t.is_floating_point() else t


def _tensors(x: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested outputs, those of data classes included."""
    for leaf in pytree.tree_leaves(x):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            yield from _tensors([getattr(leaf, f.name) for f in fields(leaf)])


def _change(before: torch.Tensor, after: torch.Tensor) -> float:
    scale = before.abs().max().item() if before.numel() else 0.0
    change = (before - after).abs().max().item() if before.numel() else 0.0
    return (change / scale if scale else change) if math.isfinite(change) else math.inf
