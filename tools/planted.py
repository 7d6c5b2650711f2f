"""Plant random symmetries under noise, recover them by weight matching, and write the table.

    python tools/planted.py [--only resnet20 llama] [--runs 3] [--residual-runs 100] [--noise 0.05]

For each network the share of units recovered, the runs in which all were, and the seconds of matching.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from sections import write_section
from torch import nn

import graphmerge as gm
from models_zoo.architectures import ARCHITECTURES
from models_zoo.planting import JITTER, Planted, jitter, plant
from models_zoo.registry import ZOO, load
from models_zoo.resnet import resnet20, resnet20_layernorm

RESIDUAL = (
    "resnet20", "resnet20_layernorm", "groupnorm_resnet", "trained resnet20", "trained resnet20_layernorm",
)  # fmt: skip
"""Residual networks, which others recover in 10 of 100 runs."""

EXPLAINED = f"""
A random symmetry of each network, with gaussian noise on every parameter (a share of the standard deviation
of its tensor), recovered by weight matching. A unit is recovered where it is back in its place, or where
units of exactly the same weights changed places. Fresh networks are first jittered by {100 * JITTER:g} %, so
that zeros and ones of the initialisation tell units apart. Seconds are those of matching, the mean of all
runs; other work ran on the machine beside it, so they are upper bounds.
"""


def made(name: str) -> tuple[nn.Module, gm.ModelGraph]:
    """A fresh network of which no two units are alike, or (``trained ...``) one of the zoo; and its graph."""
    torch.manual_seed(0)
    if name.startswith("trained "):
        model = load(name.removeprefix("trained "), 0)
        entry = ZOO[name.removeprefix("trained ")]
        shape = (2, *entry.input_shape)
        x = torch.randn(shape) if entry.input_dtype == "float32" else torch.randint(0, 60, shape)
        return model, gm.trace(model, (x,))
    own: dict[str, Callable[[], nn.Module]] = {"resnet20": resnet20, "resnet20_layernorm": resnet20_layernorm}
    model = own[name]() if name in own else ARCHITECTURES[name].build()
    args, kwargs = ((torch.randn(2, 1, 28, 28),), {}) if name in own else ARCHITECTURES[name].inputs()
    graph = gm.trace(model.eval(), args, kwargs)
    jitter(model)
    return model, graph


def row(name: str, runs: Sequence[Planted]) -> str:
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
    parser.add_argument("--only", nargs="*", choices=every, default=every)
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
