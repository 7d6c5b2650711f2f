"""Measure weight matching: seconds, objective and memory, beside a plain implementation and a peer.

    python tools/bench_matching.py [--only mlp resnet50] [--kinds planted] [--peer PYTHON] [--threads 2]

Every row is one pair of models, matched by graphmerge with its defaults and by plain coordinate descent
(Git Re-Basin as published: every product of every sweep in full, scipy's dense solver) in one process.
``--peer`` is the interpreter of an environment that has the PyPI package rebasin; it is run by
``tools/bench_peer.py`` in a process of its own, on the same weights. Seconds are processor seconds of the
process, so that other work on the machine counts little. Rows are kept in ``--rows`` and not measured
again unless asked (what the peer took is then kept); the section of ``--out`` is written anew from all.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from matching_cases import CASES, KINDS, State, models, trained_like
from scipy.optimize import linear_sum_assignment
from sections import write_section

import graphmerge as gm
from graphmerge.match.layout import plans
from graphmerge.match.task import Task
from graphmerge.match.weights import rows
from graphmerge.symmetry.structure import reorder
from graphmerge.zoo.cost import peak_bytes

PAGE = 4096
SMALL = 1 << 24
RISE = 1e-8
REPEATS, BRIEF = 5, 1 << 25
SAME = 1e-6

Course = list[tuple[float, float]]


def make(name: str, kind: str, seed: int) -> tuple[gm.ModelGraph, State, State, gm.Transform | None]:
    """The graph, models a and b, and the transform that was planted (None: there is none)."""
    pair = models(name, seed)
    graph = gm.trace(pair[0], CASES[name].inputs())
    a, b = ({n: t.detach() for n, t in m.state_dict().items()} for m in pair)
    if kind == "planted":
        planted = graph.random_transform(seed)
        return graph, a, planted.inverse().apply(a), planted
    if kind == "trained-like":
        a, b = trained_like(a, 2 * seed), trained_like(b, 2 * seed + 1)
    return graph, a, b, None


class Peak:
    """The most resident memory beyond that at the start, sampled a hundred times a second (bytes)."""

    def __enter__(self) -> Peak:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but not given back would hide what is taken
        self.before, self.most, self._on = self._now(), 0, True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join()

    def _watch(self) -> None:
        while self._on:
            self.most = max(self.most, self._now() - self.before)
            time.sleep(0.01)

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def parameters(graph: gm.ModelGraph, state: State) -> State:
    """The parameters that groups move, by names of the structure."""
    buffers = {n for n, _ in graph.model.named_buffers()}
    gathered = graph.structure.gather(state)
    return {n: gathered[n].float() for n in graph.structure.labels if n not in buffers}


def objective(graph: gm.ModelGraph, a: State, b: State) -> float:
    """The inner product of the parameters that groups move."""
    first, second = parameters(graph, a), parameters(graph, b)
    return sum(float((t.double() * second[n].double()).sum()) for n, t in first.items())


def plain_descent(
    graph: gm.ModelGraph, a: State, b: State, seed: int, limit: float
) -> tuple[float, float | None]:
    """Git Re-Basin's weight matching as published; processor seconds and objective.

    Units that contain others (heads) are assigned with their inner order as it stands. It is stopped after
    ``limit`` seconds: there is no objective then.
    """
    since = time.process_time()
    first, moved = parameters(graph, a), parameters(graph, b)
    structure = graph.structure
    work = plans(graph, structure, {n: structure.labels[n] for n in first})
    rng = np.random.default_rng(seed)
    better = True
    while better:
        better = False
        for group in rng.permutation(sorted(work)):
            if time.process_time() - since > limit:
                return limit, None
            plan = work[group]
            total = sum(
                (
                    rows(s, first[s.name]).flatten(2) @ rows(s, moved[s.name]).flatten(2).mT
                    for s in plan.sites
                ),
                torch.zeros(()),
            )
            columns = np.stack([linear_sum_assignment(t.numpy(), maximize=True)[1] for t in total])
            chosen = total.gather(-1, torch.from_numpy(columns)[..., None])[..., 0]
            own = total.diagonal(dim1=-2, dim2=-1)
            if (chosen.double() - own.double()).sum() > RISE * own.double().abs().sum():
                better = True
                delta = structure.extend({plan.atom: columns.argsort(-1)})
                for n in {s.name for s in plan.sites}:
                    moved[n] = reorder(moved[n], structure.sources(n, delta))
    found = sum(float((t.double() * moved[n].double()).sum()) for n, t in first.items())
    return time.process_time() - since, found


def peer(python: str, name: str, a: State, b: State, limit: int, threads: int) -> dict[str, Any]:
    """rebasin in its own environment: processor seconds and state dict, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save((a, b), Path(folder) / "pair.pt")
        command = [python, str(Path(__file__).with_name("bench_peer.py")), name, folder, str(threads)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return {"why": f"over {limit} s"}
        if run.returncode:
            return {"why": run.stderr.strip().splitlines()[-1][:60]}
        return {"seconds": float(run.stdout.split()[-1]), "state": torch.load(Path(folder) / "moved.pt")}


def resident(name: str, kind: str, options: argparse.Namespace) -> float:
    """Peak memory in sizes of one model, in a process of its own.

    Its glibc gives every larger block back when it is freed: what it would hoard is not held.
    """
    given = {"threads": options.threads, "seed": options.seed, "only": name, "kinds": kind}
    flags = [str(x) for key, value in given.items() for x in (f"--{key}", value)]
    command = [sys.executable, __file__, "--memory", *flags]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def taken(name: str, kind: str, seed: int) -> float:
    """Both models and the most that matching takes beyond them, in sizes of one."""
    graph, a, b, _ = make(name, kind, seed)
    with Peak() as peak:
        gm.match(graph, a, b, seed=seed)
    return 2 + peak.most / sum(t.nbytes for t in parameters(graph, a).values())


def ours(graph: gm.ModelGraph, a: State, b: State, seed: int) -> tuple[gm.Alignment, float, Course]:
    """The alignment, its processor seconds, and after how many of them it was how far."""
    course: Course = []
    since = time.process_time()

    def note(_: Task, __: gm.Transform, reached: float) -> None:
        course.append((time.process_time() - since, reached))

    with mock.patch.object(Task, "keep", note):
        alignment = gm.match(graph, a, b, seed=seed)
    return alignment, time.process_time() - since, course


def until(course: Course, reached: float | None) -> float | None:
    """The seconds until an objective was reached (to six digits); None if it was not."""
    if reached is None:
        return None
    return next((s for s, x in course if x >= reached - abs(reached) * SAME), None)


def wall(graph: gm.ModelGraph, a: State, b: State, options: argparse.Namespace) -> float:
    """Seconds by the clock on all cores."""
    torch.set_num_threads(os.cpu_count() or 1)
    since = time.perf_counter()
    gm.match(graph, a, b, seed=options.seed)
    seconds = time.perf_counter() - since
    torch.set_num_threads(options.threads)
    return seconds


def measure(name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    graph, a, b, planted = make(name, kind, options.seed)
    size = sum(t.nbytes for t in parameters(graph, a).values())
    runs = []
    for _ in range(REPEATS if size < BRIEF else 1):
        alignment, seconds, course = ours(graph, a, b, options.seed)
        plain = plain_descent(graph, a, b, options.seed, options.plain_limit)
        runs.append((seconds, *plain, until(course, plain[1])))
    row: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "size": size,
        "seconds": median(run[0] for run in runs),
        "plain seconds": median(run[1] for run in runs),
        "plain objective": runs[0][2],
        "seconds to plain": median(met) if (met := [x for *_, x in runs if x is not None]) else None,
        "objective": alignment.objective,
        "start": alignment.start,
        "certified": alignment.certified,
        "exact": None if planted is None else alignment.transform == planted,
    }
    row["wall"] = wall(graph, a, b, options)
    row["held"] = peak_bytes(lambda: gm.match(graph, a, b, seed=options.seed))[0] / size
    if size > SMALL:
        row["memory"] = resident(name, kind, options)
    if options.peer:
        other = peer(options.peer, name, a, b, options.limit, options.threads)
        if "state" in other:
            other["objective"] = objective(graph, a, other.pop("state"))
        row["peer"] = other
    return row


def line(row: dict[str, Any]) -> str:
    """A row as Markdown."""
    other = row.get("peer", {})
    shown = other.get("why", "")
    if "seconds" in other:
        shown = f"{other['seconds']:.1f}, {other['objective'] / row['objective'] - 1:+.1%}"
    above, over = row["plain objective"], "over " * (row["plain objective"] is None)
    exact = {None: "", True: "exact", False: "not found"}[row["exact"]]
    cells = [
        row["name"],
        row["kind"],
        f"{row['size'] / 2**20:.0f}",
        f"{row['seconds']:.2f}",
        f"{row['wall']:.2f}" if "wall" in row else "",
        f"{over}{row['plain seconds']:.2f}",
        f"{over}{row['plain seconds'] / row['seconds']:.1f}",
        f"{row['plain seconds'] / met:.1f}" if (met := row.get("seconds to plain")) else "",
        "" if above is None else f"{row['objective'] / above - 1:+.2%}",
        shown,
        " / ".join(f"{x:.1f}" for x in (row.get("held"), row.get("memory")) if x),
        ", ".join(filter(None, [exact, "certified" if row["certified"] else ""])),
    ]
    return "| " + " | ".join(cells) + " |\n"


HEAD = (
    "| network | weights | MB | seconds | by the clock | plain | plain / ours | to plain's objective"
    " | objective over plain | rebasin: seconds, objective over ours | memory | |\n" + "|---" * 12 + "|\n"
)
NOTE = """
Made by `python tools/bench_matching.py --threads {threads}`. Of networks below 32 MB both are run five
times in turn, and the medians shown.

- Weights: *planted*: the same in a random order; *independent*: two initialisations; *trained-like*:
  random, with singular values that decay.
- Seconds are processor seconds; *by the clock*: of one more run on all {cores} cores.
- Plain is Git Re-Basin's weight matching as published, on the same weights in the same process, heads with
  their inner order as it stands; over: it was stopped then.
- *To plain's objective*: plain's seconds over ours until its objective was reached. The rest of ours goes
  into a better one and its proof.
- Memory is the most that tensors hold at one time, both models included, in sizes of one; second, above 16
  MB, the peak of a process of its own, less what glibc keeps of freed blocks (libraries' buffers weigh on
  small networks).

What bounds the rows below 3: on ResNet20 x1, whose matrices are tiny, the Python around them; on wider
residual networks and ViT with independent weights, that plain has converged (to less) after 3 or 4 sweeps,
while every similarity is needed in full once to place units and once to prove them; on the others, that
both the placement and the given order are tried for a few sweeps.

"""


def main() -> None:
    """Measure the rows that are missing, and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--peer", help="a Python interpreter that can import rebasin")
    parser.add_argument("--limit", type=int, default=1800, help="seconds after which the peer is stopped")
    parser.add_argument("--plain-limit", type=float, default=math.inf, help="seconds until plain is stopped")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure rows anew")
    parser.add_argument(
        "--clock", action="store_true", help="measure seconds by the clock anew: wants an idle machine"
    )
    parser.add_argument("--rows", type=Path, default=Path("BENCHMARKS.json"))
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"))
    parser.add_argument("--memory", action="store_true", help="print the peak memory of one row, no more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        sys.stdout.write(f"{taken(options.only[0], options.kinds[0], options.seed)}\n")
        return
    kept = json.loads(options.rows.read_text()) if options.rows.exists() else {}
    for name in options.only:
        for kind in options.kinds:
            key = f"{name} {kind}"
            if key not in kept or options.again:
                old = {"peer": kept[key]["peer"]} if "peer" in kept.get(key, {}) else {}
                kept[key] = old | measure(name, kind, options)
            elif options.clock:
                graph, a, b, _ = make(name, kind, options.seed)
                kept[key]["wall"] = wall(graph, a, b, options)
            options.rows.write_text(json.dumps(kept, indent=1) + "\n")
            sys.stdout.write(line(kept[key]))
            sys.stdout.flush()
    table = "".join(line(kept[f"{n} {k}"]) for n in CASES for k in KINDS if f"{n} {k}" in kept)
    write_section(
        options.out,
        "Weight matching",
        NOTE.format(threads=options.threads, cores=os.cpu_count()) + HEAD + table,
    )


if __name__ == "__main__":
    main()
