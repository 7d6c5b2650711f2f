"""A traced network run node by node in float64, under weights of one's own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

import graphmerge as gm
from graphmerge.trace.run import call

TOLERANCE = 1e-9

State = dict[str, torch.Tensor]


@dataclass
class Network:
    """A traced module with float64 weights, and what every node of its graph returns."""

    model: nn.Module
    graph: gm.ModelGraph
    state: State
    args: tuple[Any, ...]

    @classmethod
    def of(cls, model: nn.Module, args: Sequence[Any], **options: Any) -> Network:
        model = model.double().eval()
        inputs = tuple(drawn_inputs(x, 0) for x in args)
        graph = gm.trace(model, inputs, **options)
        drawings = (cls(model, graph, drawn(model, graph, seed), inputs) for seed in range(5))
        return min(drawings, key=lambda net: len(net.dead))

    @cached_property
    def nodes(self) -> list[fx.Node]:
        return list(self.graph.program.graph.graph.nodes)

    @cached_property
    def parameters(self) -> dict[str, fx.Node]:
        """The placeholder of each parameter that the graph reads."""
        tensors = self.graph.program.tensors
        return {
            tensors[n.name].name: n
            for n in self.nodes
            if n.name in tensors and tensors[n.name].name in self.graph.structure.labels
        }

    @cached_property
    def place(self) -> dict[fx.Node, int]:
        return {n: k for k, n in enumerate(self.nodes)}

    @cached_property
    def first_reader(self) -> dict[str, int]:
        return {
            name: min((self.place[r] for r in n.users), default=len(self.nodes))
            for name, n in self.parameters.items()
        }

    @cached_property
    def values(self) -> dict[fx.Node, Any]:
        """What every node returns under the weights as they are."""
        program = self.graph.program
        given = iter(torch.utils._pytree.tree_leaves(self.args))
        found: dict[fx.Node, Any] = {}
        for node in self.nodes:
            if node.op == "placeholder" and node.name in program.tensors:
                found[node] = self.state[program.tensors[node.name].name]
            elif node.op == "placeholder" and node.name in program.constants:
                found[node] = program.constants[node.name]
            elif node.op == "placeholder":
                found[node] = next(given) if node.name in program.inputs else None
            else:
                found[node] = _run(node, found.__getitem__)
        return found

    def run(self, node: fx.Node, changed: Mapping[fx.Node, Any]) -> Any:
        return _run(node, lambda n: changed[n] if n in changed else self.values[n])

    @cached_property
    def dead(self) -> set[str]:
        """Parameters that no output depends on (the bias of keys): no exchange of them can be told."""
        before = outputs(self.model, self.state, self.args)
        found = set()
        for name in self.parameters:
            noise = torch.randn(self.state[name].shape, dtype=torch.float64)
            after = outputs(self.model, self.tied({name: self.state[name] + 0.1 * noise}), self.args)
            if torch.allclose(before, after, rtol=0, atol=TOLERANCE):
                found.add(name)
        return found

    def tied(self, moved: State, state: State | None = None) -> State:
        """All names of the state dict, those of a moved tensor with its new value."""
        base = self.state if state is None else state
        names = self.graph.names
        return {n: moved.get(names.get(n, n), base[names.get(n, n)]) for n in self.model.state_dict()}


def _run(node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), value)
    found = args[0] if node.op == "output" else node.target(*args, **kwargs)  # type: ignore[operator]
    if not isinstance(found, tuple | list) or any(r.target is not operator.getitem for r in node.users):
        return found
    read = {r.args[1] for r in node.users}
    return [x if k in read or node.op == "output" else None for k, x in enumerate(found)]


def drawn_inputs(x: Any, seed: int) -> Any:
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x


def drawn(model: nn.Module, graph: gm.ModelGraph, seed: int) -> State:
    """Weights of which no two are alike, statistics positive; tied tensors under their first name."""
    generator = torch.Generator().manual_seed(seed)
    found: State = {}
    for name, t in model.state_dict().items():
        if not t.is_floating_point() or graph.names.get(name) not in graph.structure.labels:
            found[name] = t
        elif graph.names[name] == name:
            noise = torch.randn(t.shape, generator=generator, dtype=torch.float64)
            scale = (t[0].numel() if t.ndim > 1 else 1) ** -0.5
            found[name] = noise.abs() + 0.5 if "running_var" in name else scale * noise + (t.mean() > 0.5)
    return found


def outputs(model: nn.Module, state: State, args: Sequence[Any]) -> torch.Tensor:
    """All floating outputs of the module in one vector."""
    found = leaves(call(model, state, args, {}))
    return torch.cat([t.detach().ravel() for t in found if t.is_floating_point()])


def leaves(x: Any) -> list[torch.Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(x) if isinstance(t, torch.Tensor)]


def close(x: torch.Tensor, y: torch.Tensor) -> bool:
    return bool(close_rows(x.reshape(1, -1), y.ravel()))


def close_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Which rows of x [n, m] equal y [m]."""
    if not x.is_floating_point():
        return (x == y).all(-1)
    return ((x - y).abs() <= TOLERANCE).logical_or(x == y).all(-1)


def rearranged_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Which rows of x [n, m] hold the numbers of y [m]; sums tell most of those that do not."""
    alike = torch.ones(len(x), dtype=torch.bool)
    if x.is_floating_point():
        alike = torch.stack(
            [((f(x).sum(-1) - f(y).sum()).abs() < 1e-6) for f in (torch.square, torch.sin)]
        ).all(0)
    good = alike.nonzero().ravel()
    alike[good] = close_rows(x[good].sort(-1)[0], y.sort()[0])
    return alike


def same(a: Any, b: Any) -> bool:
    return all(map(close, leaves(a), leaves(b)))


def rearranged(a: Any, b: Any) -> bool:
    """Whether the same numbers occur in both."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(bool(rearranged_rows(x.reshape(1, -1), y.ravel())) for x, y in pairs)
