"""How long a merge will take, and how much memory: rough, from sizes and a short measurement."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from graphmerge.match import METHODS as MATCHING
from graphmerge.match.many import way_settings
from graphmerge.recipe import Recipe
from graphmerge.run.inputs import in_memory
from graphmerge.symmetry import ModelGraph
from graphmerge.trace.program import op_name

SWEEPS = 6
"""Sweeps of a descent over all groups, as a rule."""

VISITS = 6
"""How often a model is matched to the mean of the others until none moves, as a rule."""

ASSIGNMENT = 1.2e-10
"""Seconds for the assignment of n units, divided by n cubed."""

OVERHEAD = 3e-3
"""Seconds for a group in a sweep, however small it is."""

MOVING = 2e-8
"""Seconds to move a byte of weights by a random symmetry, in float64."""

WORKING = 16
"""Copies of a model besides those that are merged, at the peak: measured on an MLP and a ResNet18."""

DOUBLE = 2.0
"""How much longer arithmetic in float64 takes, in which symmetries are verified."""

RESTING = 450 << 20
"""Bytes of a process that has imported everything."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of each stage, and the peak of memory in bytes: rough, within a factor of three as a rule.

    ``without`` names what could not be estimated.
    """

    stages: dict[str, float]
    peak_bytes: int
    without: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(self.stages.values())

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self) | {"seconds": self.seconds}


def estimate(recipe: Recipe, graph: ModelGraph, traced: float, output_bytes: int) -> Estimate:
    """What a recipe costs, from a traced model; ``traced`` is how many seconds tracing took."""
    rate = flops_per_second()
    run = forward_flops(graph) / rate
    each = 2 * DOUBLE * run + MOVING * weight_bytes(graph)
    stages = {"trace": traced, "verify": each * (len(graph.groups) + 2)}
    without = []
    for name, step in recipe.steps:
        label = f"{name}: " if recipe.stages else ""
        for method in step.match.tried:
            if method == "weight":
                stages[f"{label}match by weight"] = descents(step) * _descent(graph, rate)
            elif step.data or not MATCHING[method].needs_data:
                without.append(f"{label}matching by {method}")
        without += [f"{label}evaluation and repair"] if step.data or step.test else []
    if recipe.onnx:
        stages["onnx"] = 2 * traced + output_bytes / 1e8
    stages["read and write"] = output_bytes * sum(len(s.inputs) + 2 for _, s in recipe.steps) / 5e8
    models = max(map(len, in_memory(recipe)))
    return Estimate(stages, peak_bytes(graph, models), tuple(without))


def descents(step: Recipe) -> float:
    """How many descents of one model onto another the matching of a step is worth."""
    many, models = step.match.many, len(step.inputs)
    _, own, pair = way_settings(many, step.match.told("weight"))
    each = float(pair["restarts"] or 1)
    if many in ("reference", "hierarchical"):
        return (models - 1) * each
    relaxed = models * own["steps"] / SWEEPS if many == "cycle" else 0.0
    return relaxed + VISITS * models * each


def _descent(graph: ModelGraph, rate: float) -> float:
    """Seconds of weight matching for one pair, from one start."""
    shapes = graph.structure.shapes
    flops = assign = 0.0
    for group in graph.groups:
        entries = sum(torch.Size(shapes[name]).numel() for name, _ in group.members if name in shapes)
        flops += 2.0 * group.size * entries
        assign += ASSIGNMENT * group.size**3 * group.copies
    return SWEEPS * (flops / rate + assign + OVERHEAD * len(graph.groups))


def peak_bytes(graph: ModelGraph, models: int) -> int:
    """Bytes at the peak: models in float32, the working copies of matching, the check in float64."""
    largest = max((g.size for g in graph.groups), default=0)
    return int(RESTING + weight_bytes(graph) * (models + WORKING) + 4 * 8 * largest**2)


def weight_bytes(graph: ModelGraph) -> int:
    """Bytes of the model's tensors, tied ones once, at least four an entry."""
    tensors = graph.program.tensors.values()
    state = graph.model.state_dict()
    return sum(state[t.name].numel() * max(state[t.name].element_size(), 4) for t in tensors)


def forward_flops(graph: ModelGraph) -> float:
    """Operations of one run on the example inputs: those of products and convolutions, which dominate."""
    total = 0.0
    for node in graph.program.graph.graph.nodes:
        name = op_name(node.target).removeprefix("aten.") if node.op == "call_function" else ""
        which = next((k for k, start in CONTRACTED.items() if name.startswith(start)), None)
        out = node.meta.get("val")
        if which is None or not isinstance(out, torch.Tensor):
            continue
        operand = node.args[which].meta["val"]
        length = operand[0].numel() if name.startswith("conv") else operand.shape[-1]
        total += 2.0 * out.numel() * length
    return total


CONTRACTED = {0: ("matmul", "mm", "bmm", "mv"), 1: ("linear", "conv", "addmm", "baddbmm")}
"""Which operand tells over how many entries an operator sums."""


def flops_per_second() -> float:
    """What this machine does in a product of matrices, float32, on the processor."""
    a = torch.ones(512, 512)
    a @ a
    since = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * 512**3 / (time.perf_counter() - since)
