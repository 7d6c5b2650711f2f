"""Average random initialisations, permuted as the networks that were trained from them are aligned.

    python tools/merged_initialisations.py [--only mlp vgg] [--samples 2000]

For each network of the zoo the accuracy of averages of 2, 3, ... networks that nobody has trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from sections import write_section

import graphmerge as gm
from graphmerge.merge import average
from graphmerge.repair import available
from graphmerge.trace.run import State
from models_zoo.data import Batches, fashion_test, fashion_train
from models_zoo.registry import ZOO, load, untrained

NAMES = ("mlp", "mlp_deep", "vgg")

EXPLAINED = """
Networks are trained from random weights, and aligned by weight matching. The same permutations are then put
on the *initial* weights, and these are averaged: no network in the average was ever trained. The permutation
found in the end is largely decided in the beginning where such an average tells classes apart better than
chance, 10 % (Benzing et al. 2022, arXiv 2209.07509). Beside it are averages of the initial weights as they
are, and aligned by themselves. BatchNorm is measured anew on 2,000 training images in each column. Accuracy
on test images in %: the mean with each network as the frame once, and the least to the largest.
Three wide layers show it clearly, the more so the more are averaged; VGG hardly, for chance reaches 15 %
elsewhere in the table; ten layers not at all.
"""


def averaged(graph: gm.ModelGraph, states: Sequence[State], train: Batches) -> dict[str, torch.Tensor]:
    """The plain average, with BatchNorm measured anew where there is one."""
    merged = average(states, [1 / len(states)] * len(states))
    if "bn-reset" not in available(graph):
        return merged
    return gm.repair(graph, merged, states, train, method="bn-reset")


def in_one_frame(graph: gm.ModelGraph, states: Sequence[State], by: Sequence[State]) -> list[State]:
    """The models moved as others, ``by``, are aligned to the first of them."""
    moves = [gm.match(graph, by[0], other) for other in by[1:]]
    return [states[0], *(m.apply(s) for m, s in zip(moves, states[1:], strict=True))]


def rows(name: str, samples: int) -> str:
    """The lines of one network."""
    test, train = fashion_test(samples), fashion_train(2000)
    seeds = ZOO[name].seeds
    model = load(name, seeds[0])
    graph = gm.trace(model, (test[0][0][:2],))
    found: dict[int, list[list[float]]] = {k: [] for k in range(2, len(seeds) + 1)}
    for first in range(len(seeds)):
        order = seeds[first:] + seeds[:first]
        trained = [load(name, s).state_dict() for s in order]
        initial = [untrained(name, s).state_dict() for s in order]
        made = (
            in_one_frame(graph, trained, trained), initial, in_one_frame(graph, initial, initial),
            in_one_frame(graph, initial, trained),
        )  # fmt: skip
        for models, row in found.items():
            merged = [averaged(graph, states[:models], train) for states in made]
            row.append([100 * gm.evaluate(model, state, test).accuracy for state in merged])
    lines = ""
    for models, runs in found.items():
        columns = zip(*runs, strict=True)
        cells = [f"{fmean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in columns]
        lines += f"| {name} | {models} | {' | '.join(cells)} |\n"
    print(lines, end="", flush=True)
    return lines


def main() -> None:
    """Measure the networks and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--samples", type=int, default=2000, help="test images")
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    table = "| network | averaged | trained, aligned | initial, as they are | aligned by themselves |"
    table += " permuted as the trained ones |\n|---|---|---|---|---|---|\n"
    table += "".join(rows(name, options.samples) for name in options.only)
    command = f"python tools/merged_initialisations.py --samples {options.samples}"
    write_section(
        options.out,
        "Averages of networks that were never trained",
        f"{EXPLAINED}\n{table}\nMade by `{command}`, torch {torch.__version__}.\n",
    )


if __name__ == "__main__":
    main()
