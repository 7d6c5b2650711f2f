"""Merge every pair of the zoo and write the table of results.

    python tools/merge_zoo.py [--repairs] [--only mlp resnet20] [--train-samples 2000] [--test-samples 10000]

For each pair: test accuracy and loss (nats) of the endpoints, of the naive midpoint, of the midpoint
after each way of matching with the best repair, and of the ensemble of the two.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch
from sections import write_section

from graphmerge.evaluate import Score
from graphmerge.pipeline import MergeResult, merge_models
from graphmerge.recipe import How
from graphmerge.sources import load_data
from models_zoo.registry import ZOO, load

COLUMNS = (
    "pair", "a", "b", "naive", "weight", "weight + repair", "activation", "activation + repair", "ensemble",
    "kept", "seconds",
)  # fmt: skip

REPAIRED = (
    "none", "bn-reset", "repair", "rescale", "reshift", "closed-form", "temperature", "bn-reset+temperature",
    "repair+temperature", "reshift+temperature",
)  # fmt: skip
"""Repairs and what follows them, as in the table of repairs."""


def cell(score: Score | None) -> str:
    """Accuracy in percent and loss in nats."""
    return f"{100 * score.accuracy:.2f} ({score.loss:.3f})" if score else "-"


def best(result: MergeResult, matching: str, repaired: bool) -> Score | None:
    """The best score of a way of matching, with or without repair."""
    found = [
        c.score for c in result.candidates if c.matching == matching and (c.repair != "none") == repaired
    ]
    scores = [s for s in found if s is not None]
    return min(scores, key=lambda s: s.loss) if scores else None


def by_repair(name: str, seeds: tuple[int, int], result: MergeResult) -> str:
    """A row for each way of matching, with the score after each repair."""
    lines = ""
    for matching in ("none", *result.alignments):
        found = {c.repair: c for c in result.candidates if c.matching == matching}
        cells = [cell(found[r].score if r in found else None) for r in REPAIRED]
        lines += f"| {name} {seeds[0]}-{seeds[1]} | {'naive' if matching == 'none' else matching} | "
        lines += " | ".join(
            f"**{text}**" if found.get(r) is result.kept else text
            for r, text in zip(REPAIRED, cells, strict=True)
        )
        lines += " |\n"
    return lines


def merged(
    name: str, seeds: tuple[int, int], train: int, test: int, repair: str = "auto"
) -> tuple[MergeResult, float]:
    """Merge one pair; the seconds that it took."""
    entry = ZOO[name]
    a, b = (load(name, s) for s in seeds)
    data, held = load_data(entry.train_loader), load_data(entry.test_loader)
    size = len(data[0][0])
    data, held = data[: max(1, train // size)], held[: max(1, test // len(held[0][0]))]
    how = How.model_validate({"repair": repair})
    start = time.perf_counter()
    result = merge_models(
        a, [a.state_dict(), b.state_dict()], (data[0][0][:3],), how=how, data=data, test=held
    )
    return result, time.perf_counter() - start


def row(name: str, seeds: tuple[int, int], train: int, test: int) -> str:
    """Merge one pair and format its row."""
    result, seconds = merged(name, seeds, train, test)
    cells = [cell(s) for s in result.endpoints]
    cells += [cell(best(result, "none", False))]
    cells += [cell(best(result, m, r)) for m in ("weight", "activation") for r in (False, True)]
    cells += [cell(result.ensemble), result.kept.name, f"{seconds:.0f}"]
    return f"| {name} {seeds[0]}-{seeds[1]} | " + " | ".join(cells) + " |\n"


def write_repairs(options: argparse.Namespace) -> None:
    """Run the first pair of each network with every repair and write the table."""
    head = ("pair", "matching", *(r.replace("+", " + ") for r in REPAIRED))
    table = "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|\n"
    for name in options.only:
        seeds = ZOO[name].seeds[:2]
        result, _ = merged(name, seeds, options.train_samples, options.test_samples, "all")
        lines = by_repair(name, seeds, result)
        print(lines, end="", flush=True)
        table += lines
    settings = (
        f"--repairs --only {' '.join(options.only)} --train-samples {options.train_samples}"
        f" --test-samples {options.test_samples}"
    )
    text = (
        "Test accuracy in % (loss in nats) at the midpoint after every repair that applies. Bold is what\n"
        "was kept, by the loss on a quarter of the training data given, which repairs did not see. What\n"
        "follows a + was tried only with the matching of the best candidate so far.\n\n"
        f"{table}\nMade by `python tools/merge_zoo.py {settings}`, torch {torch.__version__}.\n"
    )
    write_section(options.out, "Repairs", text)


def main() -> None:
    """Read the options and write one of the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(ZOO), default=[n for n in ZOO if len(ZOO[n].seeds) > 1]
    )
    parser.add_argument("--train-samples", type=int, default=2000, help="for matching and repair")
    parser.add_argument("--test-samples", type=int, default=10000, help="for choosing and for the table")
    parser.add_argument("--repairs", action="store_true", help="a table of every repair instead")
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    if options.repairs:
        write_repairs(options)
    else:
        write_pairs(options)


def write_pairs(options: argparse.Namespace) -> None:
    """Run all pairs of each network and write the table."""
    table = "| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|\n"
    for name in options.only:
        for seeds in itertools.combinations(ZOO[name].seeds[:3], 2):
            line = row(name, seeds, options.train_samples, options.test_samples)
            print(line, end="", flush=True)
            table += line
    published = (
        "For scale, as published: the authors of REPAIR (Jordan et al. 2022, arXiv 2211.08403) reach\n"
        "78.2 % with ResNet20 on Fashion-MNIST at the midpoint (endpoints 94.7 %), 92.8 % at four times its\n"
        "width.\n"
    )
    settings = f"--train-samples {options.train_samples} --test-samples {options.test_samples}"
    text = (
        "Test accuracy in % (loss in nats) at the midpoint of independently trained pairs (other seeds for\n"
        "initialisation and data order). *kept* is what the pipeline chose on a held-out part of the\n"
        "training data, which flatters repair: both models were trained on it. The ensemble runs both.\n\n"
        f"{table}\n{published}\nMade by `python tools/merge_zoo.py {settings}`, torch {torch.__version__},"
        f" {torch.get_num_threads()} CPU threads.\n"
    )
    write_section(options.out, "Merging the zoo", text)


if __name__ == "__main__":
    main()
