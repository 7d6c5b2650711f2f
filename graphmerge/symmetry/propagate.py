"""Read a traced graph once, in order, and let every operator state its facts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphmerge.axes import FIXED, RULES, Call, Registry, Universe, Value, Where, constant_value, fixed_value
from graphmerge.errors import TraceError
from graphmerge.symmetry.branches import Branches, Layout, lay_out
from graphmerge.symmetry.higher import enter
from graphmerge.symmetry.probe import probe
from graphmerge.trace import Program
from graphmerge.trace.program import module_path, op_name, shape_of

NO_BRANCHES = Layout()


class Reader:
    """Walks the nodes of a graph; ``values`` holds what each node returned."""

    def __init__(
        self, u: Universe, registry: Registry, prefix: str = "", layout: Layout = NO_BRANCHES
    ) -> None:
        self.u = u
        self.registry = registry
        self.layout = layout
        self.prefix = prefix
        self.values: dict[fx.Node, Any] = {}
        self.first: dict[fx.Node, fx.Node] = {}
        self.seen: dict[tuple[object, ...], fx.Node] = {}
        self.entered = 0

    def read(self, graph: fx.GraphModule, placeholders: Mapping[str, Any]) -> Any:
        """Read every node; returns what the graph returns."""
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = placeholders[node.name]
            elif node.op == "get_attr":
                self.values[node] = self._attribute(graph, node)
            elif node.op == "output":
                return self._resolve(node.args[0])
            else:
                self.u.where = Where(op_name(node.target), self.prefix + node.name, module_path(node))
                twin = self._twin(node)
                self.values[node] = self._call(node) if twin is None else self.values[twin]
        return None

    def _twin(self, node: fx.Node) -> fx.Node | None:
        """An earlier node that computes the same; its facts need not be stated twice."""
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.first.get(n, n))
        key = (node.target, str(args), str(kwargs))
        self.first[node] = self.seen.setdefault(key, node)
        return None if self.first[node] is node else self.first[node]

    def _attribute(self, graph: fx.GraphModule, node: fx.Node) -> Any:
        found: Any = graph
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return constant_value(node.name, found) if isinstance(found, torch.Tensor) else found

    def _resolve(self, x: Any) -> Any:
        return fx.map_arg(x, lambda n: self.values[n])

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source, index = self._resolve(node.args)
            return source[index]
        if node in self.layout.inner:
            return None  # read with the whole sum; a part of it changes as branches change places
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return enter(self, node, self._resolve(node.args))
        outputs = [(f"{self.prefix}{node.name}", s) for s in shape_of(node)]
        if not isinstance(node.target, torch._ops.OpOverload):
            return None  # arithmetic on sizes
        call = Call(
            op_name(node.target), self._arguments(node, self.values.__getitem__), tuple(outputs), self.u
        )
        if node in self.layout.operands:
            call.args = {"operands": [self.values[n] for n in self.layout.operands[node]]}
        call.evenly = node.name in self.layout.joins
        result = self._apply(node, call, torch.Tag.pointwise in node.target.tags)
        several = isinstance(node.meta.get("val"), list | tuple)
        for value, dtype in zip(result, _dtypes(node), strict=True):
            value.dtype = dtype
        return self._with_gaps(node, result) if several else (result[0] if result else None)

    def _with_gaps(self, node: fx.Node, result: Sequence[Value]) -> list[Value | None]:
        """Results in the places of the tensors among what the node returns."""
        values = iter(result)
        return [next(values) if isinstance(v, torch.Tensor) else None for v in node.meta["val"]]

    def _apply(self, node: fx.Node, call: Call, pointwise: bool) -> list[Value]:
        numbers = torch.SymInt | torch.SymFloat | torch.SymBool  # what ``item`` reads: known to no rule
        if not pointwise and any(isinstance(n.meta.get("val"), numbers) for n in node.all_input_nodes):
            return call.fix_all("positions are told by a number that is read from a tensor")
        result = self.registry.apply(call, pointwise)
        if result is not None:
            return result
        meta = self._arguments(node, lambda n: n.meta.get("val"))
        found = probe(node.target, meta)  # type: ignore[arg-type]
        if not found.text:
            return self.unknown(call, found.why)
        for value in call.tensors():
            call.settle(value)
        self.u.probed.append((self.u.where, found.text))
        return found.rule(call)

    def unknown(self, call: Call, why: str = "") -> list[Value]:
        """Fix all that an operator touches of which nothing is known."""
        reason = f"unknown operator {call.op}"
        if any(v.rank for v in call.tensors()):
            self.u.pin(f"{reason}: {why}" if why else reason)
        return call.fix_all(reason)

    def _arguments(self, node: fx.Node, look_up: Callable[[fx.Node], Any]) -> dict[str, Any]:
        """Arguments by schema name, nodes looked up, defaults filled in."""
        schema = node.target._schema  # type: ignore[union-attr]
        given, kwargs = fx.map_arg((node.args, node.kwargs), look_up)
        named: dict[str, Any] = {}
        for k, argument in enumerate(schema.arguments):
            if k < len(given) and not argument.kwarg_only:
                named[argument.name] = given[k]
            elif argument.name in kwargs:
                named[argument.name] = kwargs[argument.name]
            else:
                named[argument.name] = argument.default_value if argument.has_default_value() else None
        return named

    def enter(self, node: fx.Node, body: fx.GraphModule, operands: Sequence[Any]) -> Any:
        """Read the subgraph of a higher-order operator."""
        inputs = [n.name for n in body.graph.nodes if n.op == "placeholder"]
        self.entered += 1
        inner = Reader(self.u, self.registry, f"{self.prefix}{node.name}.{self.entered}/")
        return inner.read(body, dict(zip(inputs, operands, strict=False)))


def _dtypes(node: fx.Node) -> list[torch.dtype]:
    """The types of the tensors that a node returns."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return [v.dtype for v in values if isinstance(v, torch.Tensor)]


@dataclass(frozen=True)
class Facts:
    """What the operators of a graph stated.

    ``parameters`` are the labelled parameters and moving buffers, ``values`` what every node of
    the graph returned.
    """

    universe: Universe
    parameters: Mapping[str, Value]
    values: Mapping[str, Value]
    branches: tuple[Branches, ...] = ()


def propagate(program: Program, registry: Registry = RULES) -> Facts:
    """Read a traced model."""
    u = Universe()
    placeholders: dict[str, Any] = {}
    parameters: dict[str, Value] = {}
    for node_name, t in program.tensors.items():
        held = next((program.held[n] for n in t.names if n in program.held), None)
        if t.is_buffer and not t.dtype.is_floating_point:
            value = _still(u, fixed_value(t.name, t.shape), Where("buffer", t.name), "buffer of no floats")
        elif held is None:
            value = parameters[t.name] = Value(t.name, t.shape, None)
        else:
            reason, other = held
            value = _still(u, fixed_value(t.name, t.shape), Where("tensor", other), reason)
            parameters[t.name] = value
        placeholders[node_name] = value
    for name, constant in program.constants.items():
        value = constant_value(name, constant)
        placeholders[name] = _still(u, value, Where("constant", name), "constant of the model")
    meta = {n.name: n.meta.get("val") for n in program.graph.graph.nodes if n.op == "placeholder"}
    for name in program.inputs:
        placeholders[name] = _input(u, name, meta.get(name))
    layout = lay_out(program)
    reader = Reader(u, registry, layout=layout)
    result = reader.read(program.graph, {**dict.fromkeys(meta), **placeholders})
    u.where = Where("output", "output", "")
    _fix_outputs(u, result)
    values = {n.name: v for n, v in reader.values.items() if isinstance(v, Value) and n.op == "call_function"}
    return Facts(u, parameters, values, layout.sets)


def _input(u: Universe, name: str, example: Any) -> Any:
    if not isinstance(example, torch.Tensor):
        return example
    shape = tuple(example.shape)
    if not all(isinstance(n, int) for n in shape):
        raise TraceError(f"input {name} has a symbolic shape {shape}; graphmerge traces static shapes")
    return _still(u, fixed_value(name, shape), Where("input", name), "input")


def _still(u: Universe, value: Value, where: Where, reason: str) -> Value:
    """The value, with a record for people of why dimensions of it are fixed."""
    u.where = where
    for axis, x in enumerate(value.labels or ()):
        if x is FIXED:
            u.fix((value.name, axis), reason)
    return value


def _fix_outputs(u: Universe, result: Any) -> None:
    for value in result if isinstance(result, list | tuple) else [result]:
        if isinstance(value, Value):
            Call("output", {"value": value}, (), u).fix_all("output")
