"""Every matching method side by side on pairs of the zoo, and a table of the results.

    python tools/match_zoo.py [--only lstm vit] [--methods weight learned] [--train-samples 2000]

For each pair and method: test accuracy and loss (nats) of the midpoint without and with the best repair,
and the seconds that matching took. Methods run with their defaults.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from merge_zoo import best, cell
from sections import write_section

from graphmerge.match import METHODS
from graphmerge.pipeline import merge_models
from graphmerge.recipe import How, Match
from graphmerge.sources import load_data
from models_zoo.registry import ZOO, load

SLOW = ("annealing",)
"""Methods for tiny networks only."""


def rows(name: str, methods: list[str], train: int, test: int) -> list[str]:
    """Match the first pair of an entry by every method, and format a row each."""
    entry = ZOO[name]
    a, b = (load(name, s) for s in entry.seeds[:2])
    data, held = load_data(entry.train_loader), load_data(entry.test_loader)
    data, held = data[: max(1, train // len(data[0][0]))], held[: max(1, test // len(held[0][0]))]
    found = []
    for method in methods:
        states = [a.state_dict(), b.state_dict()]
        how = How(match=Match(method=method))
        result = merge_models(a, states, (data[0][0][:3],), data=data, test=held, how=how)
        (alignment,) = result.alignments[method]
        cells = [cell(best(result, method, repaired)) for repaired in (False, True)]
        found.append(f"| {name} | {method} | {' | '.join(cells)} | {alignment.seconds:.1f} |\n")
        print(found[-1], end="", flush=True)
    ends = " / ".join(cell(s) for s in result.endpoints)
    return [f"| {name} | *endpoints* | {ends} | | |\n", *found]


def main() -> None:
    """Run the pairs and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pairs = [n for n in ZOO if len(ZOO[n].seeds) > 1]
    parser.add_argument("--only", nargs="*", choices=pairs, default=pairs)
    usual = [m for m in METHODS if m not in SLOW]
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=usual)
    parser.add_argument("--train-samples", type=int, default=2000, help="for matching and repair")
    parser.add_argument("--test-samples", type=int, default=10000)
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    table = "| pair | matching | midpoint | with the best repair | seconds |\n|---|---|---|---|---|\n"
    for name in options.only:
        table += "".join(rows(name, options.methods, options.train_samples, options.test_samples))
    command = (
        f"--only {' '.join(options.only)} --methods {' '.join(options.methods)}"
        f" --train-samples {options.train_samples} --test-samples {options.test_samples}"
    )
    text = (
        "Test accuracy in % (loss in nats) at the midpoint of one pair each, and the seconds of matching.\n\n"
        f"{table}\nMade by `python tools/match_zoo.py {command}`, torch {torch.__version__},"
        f" {torch.get_num_threads()} CPU threads.\n"
    )
    write_section(options.out, "Matching methods", text)


if __name__ == "__main__":
    main()
