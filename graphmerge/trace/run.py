"""Run a traced graph under a state dict, and look at, or replace, what its nodes return."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphmerge.errors import InputError, UsageError
from graphmerge.trace.export import export_program, quiet_eval
from graphmerge.trace.program import Program

State = Mapping[str, torch.Tensor]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Visit:
    """A node, the arguments that it was called with, and what it returned."""

    node: fx.Node
    args: tuple[Any, ...]
    value: Any


def state_of(model: nn.Module | State) -> State:
    """The state dict of a module; a state dict is returned as it is. UsageError for anything else."""
    if isinstance(model, nn.Module):
        return model.state_dict()
    if not isinstance(model, Mapping):
        seen = type(model).__name__
        raise UsageError(
            f"a model is a module or a state dict; seen: {seen} (gm.load_checkpoint reads a file)"
        )
    return model


def inputs_of(data: Iterable[Any]) -> Iterator[Inputs]:
    """The inputs of each batch as (args, kwargs); targets, which come second in a pair, are dropped."""
    yield from map(split_batch, readable_again(data))


def readable(data: Iterable[Any]) -> Iterable[Any]:
    """The data itself; UsageError where it holds no batches."""
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        seen = "a function: call it" if callable(data) else type(data).__name__
        raise UsageError(f"data are batches (inputs, targets) in a list or a DataLoader; seen: {seen}")
    return data


def readable_again(data: Iterable[Any]) -> Iterable[Any]:
    """The data itself; UsageError where it holds no batches, or could be read only once."""
    if iter(readable(data)) is data:
        raise UsageError(
            "the data is a one-shot iterator and is read more than once: give a list or a DataLoader"
        )
    return data


def split_batch(batch: Any) -> Inputs:
    """The inputs of one batch as (args, kwargs)."""
    x = batch[0] if isinstance(batch, list | tuple) else batch
    if isinstance(x, Mapping):
        return (), dict(x)
    return (tuple(x), {}) if isinstance(x, list | tuple) else ((x,), {})


def call(model: nn.Module, state: State, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What ``model`` returns in evaluation mode under ``state``; its own weights and mode stay the same."""
    with quiet_eval(model):
        return functional(model, state, args, kwargs)


def functional(model: nn.Module, state: State, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What ``model`` returns under ``state`` in the mode that it is in; to be differentiated.

    Each parameter slot is replaced under one name: torch would restore a module that is registered
    under two names to the weights that were put in.
    """
    slots = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in (*module._parameters, *module._buffers)
    }
    given = {name: t for name, t in state.items() if name in slots}
    return torch.func.functional_call(model, given, tuple(args), dict(kwargs), tie_weights=False)


def tied(program: Program, state: State) -> dict[str, torch.Tensor]:
    """``state`` with every name of a tensor bound to the value of the name that the graph uses."""
    first = {alias: t.name for t in program.tensors.values() for alias in t.names}
    return {name: state.get(first.get(name, name), t) for name, t in state.items()}


def to_device(x: Any, device: torch.device) -> Any:
    """Every tensor in nested inputs on ``device``."""
    return pytree.tree_map(lambda t: t.to(device) if isinstance(t, torch.Tensor) else t, x)


def device_of(state: State) -> torch.device:
    """Where the weights are."""
    return next((t.device for t in state.values()), torch.device("cpu"))


def program_for(model: nn.Module, data: Iterable[Any], known: Program | None = None) -> Program:
    """The model traced at the shapes of the first batch, so that the static graph itself can run.

    ``known`` is a trace of it, taken where it has those shapes.
    """
    first = next(inputs_of(data), None)
    if first is None:
        raise InputError("the data holds no batch")
    if known is not None and _shapes(known.example) == _shapes(first):
        return known
    args, kwargs = to_device(first, device_of(model.state_dict()))
    return export_program(model, args, kwargs)


def fitting(program: Program, data: Iterable[Any], device: torch.device) -> Iterator[Inputs | None]:
    """Inputs of each batch on ``device``; None for a batch of other shapes (a shorter last one)."""
    expected = _shapes(program.example)
    for inputs in inputs_of(data):
        yield to_device(inputs, device) if _shapes(inputs) == expected else None


def left_out(data: Iterable[Any]) -> int:
    """How many batches have other shapes than the first: activations are measured without them."""
    shapes = [_shapes(inputs) for inputs in inputs_of(data)]
    return sum(shape != shapes[0] for shape in shapes)


def _shapes(x: Any) -> tuple[list[Any], pytree.TreeSpec]:
    """The inputs with shapes in place of tensors, to be compared."""
    leaves, spec = pytree.tree_flatten(x)
    return [tuple(t.shape) if isinstance(t, torch.Tensor) else t for t in leaves], spec


def visit(
    program: Program, state: State, inputs: Inputs, wanted: Collection[str]
) -> Generator[Visit, Any, None]:
    """Run the graph; yields each node of ``wanted`` after it ran. A value sent back takes its place.

    Values are dropped as soon as no later node needs them.
    """
    module = program.graph
    nodes = list(module.graph.nodes)
    last = {n: k for k, node in enumerate(nodes) for n in node.all_input_nodes}
    given = iter(pytree.tree_leaves(inputs))
    found: dict[fx.Node, Any] = {}
    remaining = len(set(wanted))
    for k, node in enumerate(nodes):
        if node.op == "output" or not remaining:
            return
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: found[n])
        found[node] = _value(program, node, args, kwargs, state, given)
        if node.name in wanted:
            remaining -= 1
            replaced = yield Visit(node, args, found[node])
            if replaced is not None:
                found[node] = replaced
        for done in {n for n in (*node.all_input_nodes, node) if last.get(n, k) <= k}:
            found.pop(done, None)


def run_together(
    program: Program,
    runs: Sequence[tuple[State, Inputs]],
    wanted: Collection[str],
    handle: Callable[[list[Visit]], Sequence[Any] | None],
) -> None:
    """Run the graph on all weights and batches at once, node by node: what is seen of a node is all of it.

    ``handle`` is called at every node of ``wanted`` with one visit per run; the values that it returns
    (None: none) take their places before the graph runs on. Memory is that of one large batch.
    """
    going = [visit(program, state, inputs, wanted) for state, inputs in runs]
    answers: Sequence[Any] = [None] * len(going)
    with contextlib.suppress(StopIteration):
        while going:
            visits = [run.send(answer) for run, answer in zip(going, answers, strict=True)]
            answers = handle(visits) or [None] * len(going)


def _value(
    program: Program,
    node: fx.Node,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    state: State,
    given: Iterator[Any],
) -> Any:
    if node.op == "placeholder":
        if node.name in program.inputs:
            return next(given)
        if node.name in program.constants:
            return program.constants[node.name].to(device_of(state))
        tensor = program.tensors.get(node.name)
        return state[next(n for n in tensor.names if n in state)].detach() if tensor else None
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(program.graph)
    return node.target(*args, **kwargs)  # type: ignore[operator]
