"""Every way of matching many models, side by side on the multilayer perceptrons of the zoo.

    python tools/many_zoo.py [--counts 3 5] [--train-samples 2000] [--test-samples 10000]

For each number of models and each way: test accuracy and loss (nats) of the uniform mean of all models,
without and with REPAIR (whose endpoints are the aligned models), the mean accuracy of the midpoints of
all pairs, the all-pairs objective, and the seconds of matching.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sections import write_section
from torch import nn
from zoo_tables import cell, measured

import graphmerge as gm
from graphmerge.match import WAYS
from graphmerge.pipeline import Batches, State
from graphmerge.sources import load_data
from models_zoo.registry import ZOO, load

COLUMNS = ("models", "way", "mean of all", "with REPAIR", "midpoints of pairs", "objective", "seconds")

RUNS: dict[str, dict[str, Any]] = {
    **{way: {} for way in WAYS},
    "reference, activation": {"pairwise": "activation"},
    "hierarchical, activation": {"pairwise": "activation"},
}
"""For each row the options of its way, which is the first word."""


def midpoints(model: nn.Module, graph: gm.ModelGraph, states: Sequence[State], test: Batches) -> str:
    """The mean test accuracy, in percent, half way between every two of the models."""
    pairs = list(itertools.combinations(states, 2))
    total = sum(gm.evaluate(model, gm.merge(graph, list(pair)), test).accuracy for pair in pairs)
    return f"{100 * total / len(pairs):.2f}"


def rows(models: list[nn.Module], data: Batches, test: Batches) -> list[str]:
    """A row for each way, after one for the models as they are."""
    first = models[0]
    graph, _ = gm.prove(gm.trace(first, (data[0][0][:3],)), first)
    states: list[State] = [m.state_dict() for m in models]
    ends = [gm.evaluate(first, s, test) for s in states]
    accuracy, loss = (sum(getattr(e, n) for e in ends) / len(ends) for n in ("accuracy", "loss"))
    found = [f"| {len(models)} | *endpoints, mean* | {100 * accuracy:.2f} ({loss:.3f}) | | | | |\n"]

    def add(way: str, aligned: Sequence[State], objective: float, seconds: str) -> None:
        mean = gm.merge(graph, aligned)
        repaired = gm.repair(graph, mean, aligned, data)
        cells = [cell(measured(gm.evaluate(first, s, test))) for s in (mean, repaired)]
        cells += [midpoints(first, graph, aligned, test), f"{objective:.2f}", seconds]
        found.append(f"| {len(models)} | {way} | " + " | ".join(cells) + " |\n")
        print(found[-1], end="", flush=True)

    for title, options in RUNS.items():
        way = title.partition(",")[0]
        result = gm.match_many(graph, states, way, data if options else None, **options)
        if len(found) == 1:
            add("none", states, result.start, "")
        add(title, result.apply(states), result.objective, f"{result.seconds:.0f}")
    return found


def main() -> None:
    """Match, and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry = ZOO["mlp"]
    parser.add_argument("--counts", nargs="*", type=int, default=[3, len(entry.seeds)])
    parser.add_argument("--train-samples", type=int, default=2000, help="for REPAIR and activations")
    parser.add_argument("--test-samples", type=int, default=10000)
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    models = [load("mlp", seed) for seed in entry.seeds]
    data, test = load_data(entry.train_loader), load_data(entry.test_loader)
    data = data[: max(1, options.train_samples // len(data[0][0]))]
    test = test[: max(1, options.test_samples // len(test[0][0]))]
    table = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|\n"
    for count in options.counts:
        table += "".join(rows(models[:count], data, test))
    command = (
        f"--counts {' '.join(map(str, options.counts))} --train-samples {options.train_samples}"
        f" --test-samples {options.test_samples}"
    )
    text = (
        "Test accuracy in % (loss in nats) of the uniform mean of independently trained MLPs on\n"
        "Fashion-MNIST, matched in every way, by weights unless the row says otherwise; the midpoints of\n"
        "pairs are accuracies without repair. The objective is the sum over all pairs of models of the\n"
        "inner product of their parameters. Other work ran beside it: seconds compare the rows.\n"
        "The standard error of an accuracy is 0.3 points.\n\n"
        f"{table}\nMade by `python tools/many_zoo.py {command}`, torch {torch.__version__},"
        f" {torch.get_num_threads()} CPU threads.\n"
    )
    write_section(options.out, "Many models", text)


if __name__ == "__main__":
    main()
