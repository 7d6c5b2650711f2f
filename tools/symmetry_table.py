"""Derive and prove the symmetries of every reference architecture, and write the table.

    python tools/symmetry_table.py [--only mlp llama]

*moving* counts units over all groups (dimensions within heads count once for each head); *fixed* counts
positions of parameter dimensions that stay, by the nearest reason. *error* is the largest relative change of
an output under random symmetries, *noise* the change under one rounding step of the weights.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import torch

import graphmerge as gm
from graphmerge.symmetry.propagate import propagate
from graphmerge.symmetry.structure import build
from models_zoo.architectures import ARCHITECTURES, Architecture

COLUMNS = (
    "architecture", "groups", "moving", "fixed", "error", "noise", "trace s", "infer s", "verify s",
)  # fmt: skip

REASONS = {
    "input": "input",
    "output": "output",
    "position in space": "kernel position",
    "rows are named by number": "table rows (vocabulary, positions)",
    "rows are chosen by number": "table rows (vocabulary, positions)",
    "positions are numbered": "numbered positions",
    "positions in a bag": "numbered positions",
    "the router names experts by number": "experts that a router numbers",
    "constant of the model": "constant table (rotary, mask, ...)",
    "its positions are told apart": "positions that an operator tells apart",
    "units of this dimension are singled out one by one": "units singled out one by one",
}
"""The engine's reasons in the words of the table; an unknown operator keeps its name."""


def in_words(reason: str) -> str:
    """A reason without its place."""
    text = reason.removeprefix("in part: ")
    known = [words for start, words in REASONS.items() if text.startswith(start)]
    return known[0] if known else text.partition(" (")[0]


def fixed(graph: gm.ModelGraph) -> str:
    """Positions that do not move, counted by reason; the most frequent first."""
    counts: Counter[str] = Counter()
    for f in graph.fixed:
        counts[in_words(f.reason)] += f.units
    return ", ".join(f"{n} {words}" for words, n in counts.most_common())


def row(architecture: Architecture) -> tuple[str, bool]:
    """One row, and whether the gate passed with every group observed."""
    torch.manual_seed(0)
    model = architecture.build().eval()
    args, kwargs = architecture.inputs()
    times = [time.perf_counter()]
    graph = gm.trace(model, args, kwargs)
    times.append(time.perf_counter())
    facts = propagate(graph.program)
    build(facts.universe, facts.parameters)
    times.append(time.perf_counter())
    result = gm.verify(graph, model)
    times.append(time.perf_counter())
    traced, inferred, verified = (b - a for a, b in zip(times, times[1:], strict=False))
    good = result.passed and not result.unobservable
    moving = sum(g.units for g in graph.groups)
    cells = [architecture.name, f"{len(graph.groups)}", f"{moving}", fixed(graph)]
    cells += [f"{result.max_error:.0e}" + ("" if good else " **failed**"), f"{result.noise:.0e}"]
    cells += [f"{max(traced - inferred, 0):.1f}", f"{inferred:.2f}", f"{verified:.1f}"]
    return "| " + " | ".join(cells) + " |\n", good


def main() -> None:
    """Work through the architectures and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(ARCHITECTURES), default=list(ARCHITECTURES))
    parser.add_argument("--out", type=Path, default=Path("SYMMETRIES.md"))
    options = parser.parse_args()
    table = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|\n"
    passed = 0
    for name in options.only:
        line, good = row(ARCHITECTURES[name])
        passed += good
        print(line, end="", flush=True)
        table += line
    everything = len(options.only) == len(ARCHITECTURES)
    command = "python tools/symmetry_table.py" + ("" if everything else f" --only {' '.join(options.only)}")
    explanation = (__doc__ or "").split("\n\n")[-1].strip()
    options.out.write_text(
        f"# Symmetries of the reference architectures\n\nMade by `{command}`, torch {torch.__version__},"
        f" {torch.get_num_threads()} CPU threads.\n"
        f"{passed} of {len(options.only)} architectures pass the gate, and no group goes unobserved.\n\n"
        f"{explanation}\n\n{table}"
    )


if __name__ == "__main__":
    main()
