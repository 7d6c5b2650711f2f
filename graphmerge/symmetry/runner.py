"""The model as the gate runs it: with weights drawn anew, and how much its outputs change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphmerge.errors import UsageError, out_of_memory, refusal
from graphmerge.symmetry.graph import ModelGraph
from graphmerge.symmetry.groups import SymmetryGroup
from graphmerge.trace.memory import ties
from graphmerge.trace.run import call, functional


class Runner:
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
        except Exception as error:  # a foreign module may raise anything
            if self.dtype == torch.float32 or not isinstance(error, RuntimeError):
                if out_of_memory(error):
                    raise
                raise UsageError(_does_not_run(self.model, error)) from error
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

    def run(self, state: Mapping[str, torch.Tensor], differentiable: bool = False) -> list[torch.Tensor]:
        """All floating outputs of the model under a state dict."""
        own = {
            n: t.clone() if n in self.buffers else t for n, t in state.items()
        }  # a call may change buffers
        out = (functional if differentiable else call)(self.model, own, self.args, self.kwargs)
        return [t for t in _tensors(out) if t.is_floating_point() or t.is_complex()]

    def error(self, state: Mapping[str, torch.Tensor]) -> float:
        """Largest change of an output, relative to its largest value."""
        return max((_change(a, b) for a, b in zip(self.reference, self.run(state), strict=True)), default=0.0)

    def unsteadiness(self) -> float:
        """Change of the outputs when nothing changes."""
        return self.error(self.state)

    def noise(self) -> float:
        """Change of the outputs when the weights change by one rounding step of the model's arithmetic."""
        tiny = torch.finfo(self._narrowest()).eps
        worst = 0.0
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

    def control(self, group: SymmetryGroup, seed: int, enough: float) -> float:
        """Change of the outputs when one side of the group moves alone; the first above ``enough``.

        A side is one tensor, or, where a tensor holds several sides of the group (queries and keys
        of one matrix), the first position of every unit in it. Units that are merely summed may stand
        in any order on each side alone: then the same changes count with their signs drawn anew, for
        what is asked is whether a change of these weights would be seen.

        One pass backwards tells for all groups at once how the outputs start to change on the way to
        each side moved; only what does not show there is run.
        """
        sides = self._sides(group, seed)
        shaken = [{n: change * self._signs(change) for n, change in side.items()} for side in sides]
        largest = 0.0
        for measure in (self._slope, self._moved):
            for side in (*sides, *shaken):
                largest = max(largest, measure(side))
                if largest > enough:
                    return largest
        return largest

    def alive(self, group: SymmetryGroup, seed: int) -> bool:
        """Whether the outputs change at all, to first order, with some weight that the group moves."""
        changes = [(self._slopes.get(n), c) for side in self._sides(group, seed) for n, c in side.items()]
        return not self._slopes or any(g is not None and bool((g * c).any()) for g, c in changes)

    def _sides(self, group: SymmetryGroup, seed: int) -> list[dict[str, torch.Tensor]]:
        """The change of the tensors on each side of the group when that side moves."""
        transform = self.graph.random_transform(seed, [group.name])
        return [
            {n: t - self.state[n] for n, t in transform.side(name, self.state, first).items()}
            for name in dict.fromkeys(self.graph.structure.stands_in(n) for n, _ in group.members)
            for first in (False, True)
        ]

    def _signs(self, like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=self.generator).sign().to(like)

    def _moved(self, side: Mapping[str, torch.Tensor]) -> float:
        return self.error(self._tie(self.state | {n: self.state[n] + change for n, change in side.items()}))

    def _slope(self, side: Mapping[str, torch.Tensor]) -> float:
        """The effect of changes by the derivative: the outputs change at least so much, to first order."""
        effects = [(self._slopes[n] * change).sum() for n, change in side.items() if n in self._slopes]
        effect = float(torch.stack(effects).sum().abs()) if effects else 0.0
        return effect if math.isfinite(effect) else 0.0

    @cached_property
    def _slopes(self) -> Mapping[str, torch.Tensor]:
        """Derivative by every weight of the outputs' mean, each with a random sign and relative to the
        largest: no output changes by less than this mean does. Empty where the model has no derivative."""
        names = [n for n in self.graph.structure.tensors if n not in self.buffers]
        leaves = {n: self.state[n].detach().requires_grad_() for n in names}
        state = {n: leaves.get(self.graph.names.get(n, n), t) for n, t in self.state.items()}
        try:
            with torch.enable_grad():
                mean = self._signed_mean(self.run(state, differentiable=True))
            found = torch.autograd.grad(mean, list(leaves.values()), allow_unused=True)
        except RuntimeError:  # an operator without a derivative: every control is run
            return {}
        return {n: g for n, g in zip(leaves, found, strict=True) if g is not None}

    def _signed_mean(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        means = []
        for t in map(_real, outputs):
            means.append((self._signs(t) * t).mean() / t.detach().abs().max().clamp_min(1e-30))
        return torch.stack(means).mean()


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


def _real(t: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs."""
    return torch.view_as_real(t) if t.is_complex() else t


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


def _does_not_run(model: nn.Module, error: Exception) -> str:
    return refusal(
        f"{type(model).__name__} does not run on its example inputs, though it could be traced with them.",
        expected="inputs that the model takes",
        seen=f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}",
        means="it looks at their values where tracing does not (for tokens of images, say), so that nothing"
        " can be proved",
        fix="give inputs with real values: args in Python, or a .pt2, which holds its example",
    )
