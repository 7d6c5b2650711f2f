"""Merge pairs of the zoo by every matching and every repair, and write the tables of results.

    python tools/merge_zoo.py [--only mlp resnet20] [--methods auto learned] [--merges least-squares]

Every pair of an entry's first three checkpoints is merged; `auto` is what `graphmerge merge` does, other
methods run on the first pair only. Averages are repaired in every way, other merges are taken as they are.
What was measured is kept in the log: a second call goes on from there, and the tables are made of all of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import torch
from sections import write_section
from zoo_tables import Found, Measured, measured, merges_table, methods_table, pairs_table, repairs_table

from graphmerge.match import METHODS
from graphmerge.pipeline import MergeResult, merge_models
from graphmerge.recipe import How
from graphmerge.sources import load_data
from models_zoo.registry import ZOO, load

SLOW = ("annealing",)
"""Methods for tiny networks only."""

MERGED = ("average", "least-squares")
"""Ways of merging that need no base."""


def merge_pair(name: str, seeds: tuple[int, int], method: str, merge: str, samples: tuple[int, int]) -> Found:
    """Merge one pair, an average with every repair that applies."""
    entry = ZOO[name]
    a, b = (load(name, s) for s in seeds)
    data, test = load_data(entry.train_loader), load_data(entry.test_loader)
    data, test = (d[: max(1, n // len(d[0][0]))] for d, n in zip((data, test), samples, strict=True))
    repair = "all" if merge == "average" else "none"
    how = How.model_validate({"match": {"method": method}, "merge": {"method": merge}, "repair": repair})
    start = time.perf_counter()
    states = [a.state_dict(), b.state_dict()]
    result = merge_models(a, states, (data[0][0][:3],), how=how, data=data, test=test)
    return found(result, name, seeds, how, samples, time.perf_counter() - start)


def found(
    result: MergeResult, name: str, seeds: tuple[int, int], how: How, samples: tuple[int, int], s: float
) -> Found:
    """The result of a merge as it is logged."""
    midpoints: dict[str, dict[str, Measured]] = {}
    for c in result.candidates:
        midpoints.setdefault(c.matching, {})[c.repair] = measured(c.score)
    return {
        "name": name,
        "seeds": seeds,
        "method": how.match.method,
        "merge": how.merge.method,
        "samples": samples,
        "endpoints": [measured(e) for e in result.endpoints],
        "ensemble": measured(result.ensemble),
        "midpoints": midpoints,
        "kept": (result.kept.matching, result.kept.repair),
        "matching_seconds": {m: round(of_one[0].seconds, 2) for m, of_one in result.alignments.items()},
        "seconds": round(s, 1),
    }


def read_log(log: Path) -> list[Found]:
    """All that was measured so far."""
    lines = log.read_text().splitlines() if log.exists() else []
    rows: list[Found] = [json.loads(line) for line in lines]
    for row in rows:
        row.setdefault("merge", "average")
        row["endpoints"] = [Measured(*e) for e in row["endpoints"]]
        row["ensemble"] = Measured(*row["ensemble"])
        row["midpoints"] = {
            m: {r: Measured(*v) for r, v in of_one.items()} for m, of_one in row["midpoints"].items()
        }
    return rows


def run(options: argparse.Namespace) -> list[Found]:
    """Measure what is not in the log yet."""
    samples = (options.train_samples, options.test_samples)
    done = {
        (r["name"], tuple(r["seeds"]), r["method"], r["merge"], tuple(r["samples"]))
        for r in read_log(options.log)
    }
    for name, merge, method in itertools.product(options.only, options.merges, options.methods):
        pairs = list(itertools.combinations(ZOO[name].seeds[:3], 2))
        for seeds in pairs if method == "auto" else pairs[:1]:
            if (name, seeds, method, merge, samples) not in done:
                row = merge_pair(name, seeds, method, merge, samples)
                options.log.parent.mkdir(parents=True, exist_ok=True)
                with options.log.open("a") as log:
                    log.write(json.dumps(row) + "\n")
                print(f"{name} {seeds} {method} {merge}: {row['seconds']} s", flush=True)
    return [r for r in read_log(options.log) if tuple(r["samples"]) == samples]


PAIRS = """
Test accuracy in % (loss in nats) at the midpoint of independently trained pairs (other seeds for
initialisation and data order); *+ repair* is the best of all repairs. *kept* is what the pipeline chose on a
held-out part of the training data, which flatters repair: both models were trained on it. *barrier gone* is
the part of the naive midpoint's loss barrier that is gone in what was kept (over 100: below the endpoints).
The ensemble runs both. Means are over pairs, ± their standard deviation; pairs of three models share models.
"""

PUBLISHED = """
For scale, as published for Fashion-MNIST (REPAIR, Jordan et al. 2022, arXiv 2211.08403; midpoint, activation
matching, without and with the statistics reset): ResNet20 11.2 and 78.2 % of 94.7 %, at four times its width
92.8 % of 95.4; MLP of 10 x 512 14.9 and 73.5 % of 89.5. In loss, ResNet20: 0.839 of 0.217 nats.
"""

REPAIRS = """
Test accuracy in % (loss in nats) at the midpoint after every repair that applies to a network, the mean over
its pairs ± their standard deviation.
"""

MERGES = """
Test accuracy in % (loss in nats) at the midpoint, the mean over pairs ± their standard deviation: the average
of the weights, with its best repair, and what least squares on the same training data gives as it is. No
gradient is taken and no label is read.
"""

SIDE_BY_SIDE = """
Test accuracy in % (loss in nats) at the midpoint of the first pair of each network, and the seconds of
matching. Methods run with their defaults; other work ran on the machine beside it: seconds are upper bounds.
"""


def main() -> None:
    """Merge what is missing, and write the sections."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several = [n for n in ZOO if len(ZOO[n].seeds) > 1]
    parser.add_argument("--only", nargs="*", choices=several, default=several)
    methods = ["auto", *(m for m in METHODS if m not in SLOW)]
    parser.add_argument("--methods", nargs="*", choices=methods, default=["auto"])
    parser.add_argument("--merges", nargs="*", choices=MERGED, default=list(MERGED))
    parser.add_argument("--train-samples", type=int, default=2000, help="for matching and repair")
    parser.add_argument("--test-samples", type=int, default=10000)
    parser.add_argument("--log", type=Path, default=Path("runs/merge_zoo.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    everything = run(options)
    rows = [r for r in everything if r["merge"] == "average"]
    settings = f"--train-samples {options.train_samples} --test-samples {options.test_samples}"
    machine = f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads"
    usual = f"Made by `python tools/merge_zoo.py {settings}`, {machine}.\n"
    write_section(options.out, "Merging the zoo", f"{PAIRS}\n{pairs_table(rows)}{PUBLISHED}\n{usual}")
    write_section(options.out, "Repairs", f"{REPAIRS}\n{repairs_table(rows)}\n{usual}")
    write_section(options.out, "Least squares", f"{MERGES}\n{merges_table(everything)}\n{usual}")
    others = [r for r in rows if r["method"] != "auto"]
    if others:
        names = " ".join(dict.fromkeys(r["name"] for r in others))
        tried = " ".join(dict.fromkeys(r["method"] for r in others))
        command = f"--only {names} --methods auto {tried} {settings}"
        made = f"Made by `python tools/merge_zoo.py {command}`, {machine}.\n"
        write_section(options.out, "Matching methods", f"{SIDE_BY_SIDE}\n{methods_table(rows)}\n{made}")


if __name__ == "__main__":
    main()
