"""A traced model: its fx graph, and what each placeholder of the graph is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from graphmerge.errors import TraceError, refusal


@dataclass(frozen=True)
class Tensor:
    """A parameter or buffer: every name it has in the state dict, the one the graph uses first."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_buffer: bool

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Program:
    """A functional graph of ATen operators with static shapes.

    ``tensors`` maps placeholders to the parameters and persistent buffers they stand for,
    ``constants`` to tensors that are no part of the state dict, ``inputs`` to the names of the
    model's inputs. ``unused`` are state dict entries that the graph never reads; ``held`` are those
    whose units cannot be moved in the state dict alone: why, and the tensor that stands in the way.
    """

    graph: fx.GraphModule
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, torch.Tensor]
    inputs: Mapping[str, str]
    unused: tuple[str, ...]
    example: tuple[tuple[object, ...], Mapping[str, object]]
    held: Mapping[str, tuple[str, str]]


def module_path(node: fx.Node) -> str:
    """The module whose forward made this node, such as ``layer1.0.conv1``; empty at the top."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if isinstance(path, str)]
    return paths[-1].removeprefix("L['self'].").removeprefix("L['self']") if paths else ""


def op_name(target: Any) -> str:
    """``aten.linear`` for the overload ``aten::linear``."""
    if isinstance(target, torch._ops.OpOverload):
        return f"{target.namespace}.{target._schema.name.split('::')[1]}"
    return getattr(target, "__name__", str(target))


def shape_of(node: fx.Node) -> list[tuple[int, ...]]:
    """Shapes of the tensors that a node returns; TraceError where a size depends on the data."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    shapes = [tuple(v.shape) for v in values if isinstance(v, torch.Tensor)]
    if any(not isinstance(n, int) for shape in shapes for n in shape):
        raise TraceError(
            refusal(
                f"{node.target} in {module_path(node) or 'the model itself'} makes a tensor of a size that"
                " depends on the data.",
                expected="the same shapes for all data",
                seen=", ".join(map(str, shapes)),
                means="which positions belong together cannot be told before the data is there",
                fix="use a form of fixed size: torch.where or one_hot instead of nonzero or a mask as index;"
                ' in Hugging Face models experts_implementation="batched_mm" or "grouped_mm"',
            )
        )
    return shapes


def first_difference(ours: Program, theirs: Program) -> str | None:
    """Where two traces part: the first node that computes something else; None where they are alike."""
    for (a, means), (b, other) in itertools.zip_longest(_nodes(ours), _nodes(theirs), fillvalue=(None, None)):
        if means != other:
            node = a or b
            assert node is not None
            place = module_path(node) or "the model itself"
            return f"{_call(a)} in {place}, where the other has {_call(b)}"
    return None


def _nodes(program: Program) -> Iterator[tuple[fx.Node | None, object]]:
    """Every node with what it computes, said without names that tracing makes up."""
    number: dict[fx.Node, int] = {}
    for node in program.graph.graph.nodes:
        number[node] = len(number)
        if node.op == "placeholder":
            tensor, constant = program.tensors.get(node.name), program.constants.get(node.name)
            yield node, (tensor and (tensor.names, tensor.is_buffer), content(constant), shape_of(node))
        else:
            inputs = fx.map_arg((node.args, node.kwargs), lambda n: number[n])
            yield node, (str(node.target), str(inputs), shape_of(node))


def content(constant: torch.Tensor | None) -> bytes | None:
    """The content of a constant, by which NaN equals NaN; nothing of one that has no data."""
    if constant is None or constant.device.type == "meta":
        return None
    return constant.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _call(node: fx.Node | None) -> str:
    if node is None:
        return "nothing"
    shapes = shape_of(node)
    return f"{node.target} of shape {', '.join(map(str, shapes))}" if shapes else str(node.target)
