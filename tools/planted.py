"""Plant random symmetries under noise, recover them by weight matching, and write the table.

    python tools/planted.py [--only resnet20 llama] [--runs 3] [--residual-runs 100] [--noise 0.05]

Model b is model a in a random order with gaussian noise on every parameter, of a share of the tensor's own
standard deviation. A unit is recovered where it came back to its place, or where it stands for another of
exactly the same weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sections import write_section
from torch import nn

import graphmerge as gm
from graphmerge.match.layout import plans
from graphmerge.match.weights import rows
from models_zoo.architectures import ARCHITECTURES
from models_zoo.registry import ZOO, load
from models_zoo.resnet import resnet20, resnet20_layernorm

State = dict[str, torch.Tensor]

JITTER = 0.1
"""Noise on fresh networks, so that zeros and ones of the initialisation tell units apart."""

RESIDUAL = (
    "resnet20", "resnet20_layernorm", "groupnorm_resnet", "trained resnet20", "trained resnet20_layernorm",
)  # fmt: skip
"""Residual networks, which others recover in 10 of 100 runs."""

LARGE = (
    "alexnet", "convnext_tiny", "densenet121", "googlenet", "inception_v3", "maxvit_t", "regnet_y_400mf",
    "resnet50", "resnext50_32x4d", "swin_t", "vgg11_bn", "vit_b_16", "wide_resnet50_2",
)  # fmt: skip
"""Left out unless asked for: they take minutes a run."""


EXPLAINED = f"""
A random symmetry of each network, with gaussian noise on every parameter (a share of the standard deviation
of its tensor), recovered by weight matching. A unit is recovered where it is back in its place, or where
units of exactly the same weights changed places. Fresh networks are first jittered by {100 * JITTER:g} %, so that
zeros and ones of the initialisation tell units apart. Seconds are those of matching, the mean of all runs;
other work ran on the machine beside it, so they are upper bounds.
"""


@dataclass(frozen=True)
class Run:
    """What came of one planted symmetry: the share of units recovered, and the seconds of matching."""

    share: float
    seconds: float


def noisy(state: State, parameters: set[str], share: float, seed: int) -> State:
    """Gaussian noise on every parameter, of ``share`` of the standard deviation of its tensor."""
    generator = torch.Generator().manual_seed(seed)

    def noise(t: torch.Tensor) -> torch.Tensor:
        return share * t.std(correction=0) * torch.randn(t.shape, generator=generator)

    return {n: t + noise(t) if n in parameters else t for n, t in state.items()}


def recovered(graph: gm.ModelGraph, state: State, left: gm.Transform) -> float:
    """The share of units that ``left``, what remains of a planted symmetry, leaves as they were."""
    structure = graph.structure
    before = structure.gather({n: state[n] for n in structure.tensors})
    after = {n: left.apply_to(n, t) for n, t in before.items()}
    good, count = 0, 0
    for plan in plans(graph, structure, structure.labels).values():
        units = structure.sorts[plan.atom].units
        same = torch.from_numpy(left.phi[units] == units)
        alike = torch.ones_like(same)
        for site in plan.sites:
            pair = (rows(site, x[site.name]).flatten(2).flatten(0, 1) for x in (before, after))
            alike &= torch.eq(*pair).all(1)
        good, count = good + int((same | alike).sum()), count + len(units)
    return good / count


def plant(graph: gm.ModelGraph, model: nn.Module, noise: float, seed: int) -> Run:
    """Plant the symmetry of a seed, and match."""
    state, planted = model.state_dict(), graph.random_transform(seed=seed)
    moved = planted.inverse().apply(noisy(state, {n for n, _ in model.named_parameters()}, noise, seed))
    start = time.perf_counter()
    found = gm.match(graph, state, moved, seed=seed).transform
    seconds = time.perf_counter() - start
    return Run(recovered(graph, state, found @ planted.inverse()), seconds)


def made(name: str) -> tuple[nn.Module, gm.ModelGraph]:
    """A fresh network of which no two units are alike, or (``trained ...``) one of the zoo; and its graph."""
    torch.manual_seed(0)
    if name.startswith("trained "):
        model = load(name.removeprefix("trained "), 0)
        entry = ZOO[name.removeprefix("trained ")]
        shape = (2, *entry.input_shape)
        x = torch.randn(shape) if entry.input_dtype == "float32" else torch.randint(0, 60, shape)
        return model, gm.trace(model, (x,))
    own = {"resnet20": resnet20, "resnet20_layernorm": resnet20_layernorm}
    if name in own:
        model, args, kwargs = own[name](), (torch.randn(2, 1, 28, 28),), {}
    else:
        model, (args, kwargs) = ARCHITECTURES[name].build(), ARCHITECTURES[name].inputs()
    graph = gm.trace(model.eval(), args, kwargs)
    with torch.no_grad():
        for p in model.parameters():
            scale = p.std() if p.numel() > 1 and p.std() > 0 else 1
            p.add_(JITTER * torch.randn_like(p) * scale)
    return model, graph


def row(name: str, runs: Sequence[Run]) -> str:
    """One line of the table."""
    shares = [100 * r.share for r in runs]
    exact = sum(s == 100 for s in shares)
    mean, seconds = sum(shares) / len(runs), sum(r.seconds for r in runs) / len(runs)
    return f"| {name} | {len(runs)} | {mean:.2f} | {min(shares):.2f} | {exact} | {seconds:.2f} |\n"


def main() -> None:
    """Run the architectures and write the section."""
    every = ["resnet20", "resnet20_layernorm", *ARCHITECTURES, *(f"trained {n}" for n in ZOO)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=every, default=[n for n in every if n not in LARGE])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--residual-runs", type=int, default=100, help="for " + ", ".join(RESIDUAL))
    parser.add_argument("--noise", type=float, default=0.05, help="as a share of each tensor's own deviation")
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    table = "| network | runs | units recovered, mean % | least % | exactly | seconds |\n"
    table += "|---|---|---|---|---|---|\n"
    for name in options.only:
        if name in ARCHITECTURES and importlib.util.find_spec(ARCHITECTURES[name].needs) is None:
            print(f"{name} left out: {ARCHITECTURES[name].needs} is not installed")
            continue
        model, graph = made(name)
        count = options.residual_runs if name in RESIDUAL else options.runs
        line = row(name, [plant(graph, model, options.noise, seed) for seed in range(count)])
        print(line, end="", flush=True)
        table += line
    command = f"--runs {options.runs} --residual-runs {options.residual_runs} --noise {options.noise:g}"
    text = (
        f"{EXPLAINED}\n{table}\nMade by `python tools/planted.py {command}`, torch {torch.__version__},"
        f" {torch.get_num_threads()} CPU threads.\n"
    )
    write_section(options.out, "Planted symmetries under noise", text)


if __name__ == "__main__":
    main()
