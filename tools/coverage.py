"""Trace, infer and verify every architecture at hand, and write COVERAGE.md and coverage.json.

    python tools/coverage.py [--family timm transformers] [--match llama] [--workers 2] [--limit 300]

Every model is built with random weights, run, traced, and put through the gate with its control, in a
worker process with a time limit. Results are appended to a file as they come: a second call goes on
where the first stopped, or from the committed table (``--fresh`` starts over, ``--again failed
refused`` redoes these).

Outcomes: *verified*; *failed* (a symmetry that does not hold, or a crash: a defect); *unseen* (a group
whose control changes nothing, so that nothing was proved of it); *refused* (torch.export cannot trace
it, or it cannot be verified, and why); *late* (over the time limit); *not built* (does not run eagerly
at this size or on this machine: says nothing of graphmerge).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import multiprocessing.connection
import re
import signal
import time
import traceback
import warnings
from collections import Counter
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Record = dict[str, Any]
PATIENCE = 20
"""Seconds on the clock for one of the limit: others may use the machine."""
ORDER = ("failed", "unseen", "refused", "late", "not built", "verified")


class LateError(BaseException):
    """The time of the processor is up; no library's ``except Exception`` may swallow it."""


def late(*_: object) -> None:
    raise LateError


def work(channel: Connection, threads: int, limit: float) -> None:
    """A worker: names in, records out, until the pipe closes."""
    import torch

    from models_zoo.sweep import FAMILIES

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    known: dict[str, dict[str, Any]] = {}
    signal.signal(signal.SIGPROF, late)
    while True:
        try:
            family, name = channel.recv()
        except EOFError:
            return
        if family not in known:
            known[family] = {a.name: a for a in FAMILIES[family]()}
        try:
            signal.setitimer(signal.ITIMER_PROF, limit)
            record = examine(known[family][name])
        except LateError:
            record = {"outcome": "late", "reason": f"over {limit:.0f} s"}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        channel.send({"name": name, "family": family, **record})


def examine(architecture: Any) -> Record:
    """Everything about one architecture, as plain data."""
    import torch

    import graphmerge as gm

    torch.manual_seed(0)
    try:
        model = architecture.build().eval()
        args, kwargs = architecture.inputs()
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - whatever a library raises at sizes that it does not like
        return {"outcome": "not built", "reason": _first_line(error)}
    try:
        return _examine(model, args, kwargs)
    except gm.GraphMergeError as error:
        return {"outcome": "refused", "reason": _first_line(error)}
    except Exception:  # noqa: BLE001 - a crash of ours is what the sweep is looking for
        return {"outcome": "failed", "reason": _portable(traceback.format_exc().strip().splitlines()[-1])}


def _examine(model: Any, args: Any, kwargs: Any) -> Record:
    import graphmerge as gm
    from graphmerge.cli.data import operators
    from graphmerge.symmetry.build import build
    from graphmerge.symmetry.propagate import propagate

    times = [time.process_time()]
    graph = gm.trace(model, args, kwargs)
    times.append(time.process_time())
    facts = propagate(graph.program)
    build(facts.universe, facts.parameters, facts.branches)
    times.append(time.process_time())
    result = gm.verify(graph, model)
    times.append(time.process_time())
    traced, inferred, verified = (round(b - a, 2) for a, b in zip(times, times[1:], strict=False))
    fixed: Counter[str] = Counter()
    for f in graph.fixed:
        fixed[f.cause] += f.units
    seen = "unseen" if result.unobservable else "verified"
    return {
        "outcome": seen if result.passed else "failed",
        "reason": ", ".join((result.failed or result.unobservable)[:5]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "groups": len(graph.groups), "units": sum(g.units for g in graph.groups),
        "frozen": len(graph.structure.frozen),
        "operators": sorted(operators(graph.program.graph)),
        "fixed": dict(fixed.most_common()), "unknown": sorted({reason for _, reason in graph.pinned}),
        "trace_s": round(traced - inferred, 2), "infer_s": inferred, "verify_s": verified,
        "error": result.max_error, "tolerance": result.tolerance,
    }  # fmt: skip


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _portable(f"{type(error).__name__}: {' '.join(lines[:2])}")


def _portable(text: str) -> str:
    """Without the folders of this machine."""
    return re.sub(r"/\S*/site-packages/", "", text)[:300]


class Worker:
    """One process and what it is busy with."""

    def __init__(self, threads: int, limit: float) -> None:
        self.threads, self.limit = threads, limit
        self.task: tuple[str, str] | None = None
        self._start()

    def _start(self) -> None:
        context = mp.get_context("spawn")
        self.channel, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, self.threads, self.limit), daemon=True)
        self.process.start()
        other.close()

    def give(self, task: tuple[str, str]) -> None:
        self.task, self.since = task, time.monotonic()
        self.channel.send(task)

    def collect(self) -> Record | None:
        """The record of a finished task, of one that hangs, or of a worker that died."""
        assert self.task is not None
        family, name = self.task
        if self.channel.poll():
            try:
                record: Record = self.channel.recv()
            except EOFError:
                died = {"outcome": "failed", "reason": "the process died (out of memory?)"}
                return self._replace(died, family, name)
            self.task = None
            return record
        if time.monotonic() - self.since > PATIENCE * self.limit:
            return self._replace({"outcome": "late", "reason": f"over {self.limit:.0f} s"}, family, name)
        return None

    def _replace(self, outcome: Record, family: str, name: str) -> Record:
        self.process.kill()
        self.process.join()
        self.task = None
        self._start()
        return {"name": name, "family": family, **outcome}


def sweep(tasks: list[tuple[str, str]], log: Path, workers: int, threads: int, limit: float) -> None:
    """Work through ``tasks``, appending a record each."""
    crew = [Worker(threads, limit) for _ in range(min(workers, len(tasks)))]
    waiting, total, done, start = list(reversed(tasks)), len(tasks), 0, time.monotonic()
    with log.open("a") as file:
        while waiting or any(w.task for w in crew):
            for w in crew:
                if w.task is None and waiting:
                    w.give(waiting.pop())
            busy = [w for w in crew if w.task]
            multiprocessing.connection.wait([w.channel for w in busy], timeout=1.0)
            for record in filter(None, [w.collect() for w in busy]):
                done += 1
                file.write(json.dumps(record) + "\n")
                file.flush()
                progress = f"{time.monotonic() - start:6.0f} s  {done}/{total}"
                outcome = f"{record['outcome']:<9} {record['name']}  {record.get('reason', '')[:120]}"
                print(f"{progress}  {outcome}", flush=True)


def summary(records: list[Record]) -> str:
    """Counts by family, the reasons of what stays fixed, then one row for each architecture."""
    return "\n\n".join((_families(records), _reasons(records), _rows(records))) + "\n"


def _families(records: list[Record]) -> str:
    lines = [
        "| family | " + " | ".join(reversed(ORDER)) + " | of what can be traced, verified |",
        "|---" * (len(ORDER) + 2) + "|",
    ]
    for family in [*dict.fromkeys(r["family"] for r in records), "all"]:
        counts = Counter(r["outcome"] for r in records if family in (r["family"], "all"))
        judged = sum(counts[o] for o in ("verified", "failed", "unseen"))
        share = f"{100 * counts['verified'] / judged:.1f} %" if judged else ""
        lines.append(f"| {family} | " + " | ".join(str(counts[o]) for o in reversed(ORDER)) + f" | {share} |")
    return "\n".join(lines)


def _reasons(records: list[Record]) -> str:
    """Why units stay where they are, over all architectures."""
    units: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for r in records:
        for why, n in r.get("fixed", {}).items():
            units[why] += n
            models[why] += 1
    lines = ["## What stays fixed, and why", "", "| reason | architectures | units |", "|---|---|---|"]
    lines += [f"| {why} | {models[why]} | {n} |" for why, n in units.most_common()]
    return "\n".join(lines)


def _rows(records: list[Record]) -> str:
    columns = (
        "architecture",
        "outcome",
        "groups",
        "units",
        "fixed",
        "trace s",
        "infer s",
        "verify s",
        "error",
    )
    lines = [
        "## Every architecture", "",
        "Units that stay are given with the two commonest reasons; COVERAGE.json has all of them.",
        "Seconds are those of one processor.", "",
        "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|",
    ]  # fmt: skip
    for r in sorted(records, key=lambda r: (ORDER.index(r["outcome"]), r["name"])):
        what = r["outcome"] + (f": {r['reason']}" if r.get("reason") else "")
        fixed = r.get("fixed", {})
        most = [f"{n} {why}" for why, n in list(fixed.items())[:2]] + ["..."] * (len(fixed) > 2)
        numbers = [str(r.get(k, "")) for k in ("groups", "units")]
        seconds = [str(r.get(k, "")) for k in ("trace_s", "infer_s", "verify_s")]
        worst = f"{r['error']:.0e}" if "error" in r else ""
        cells = [r["name"], _cut(what), *numbers, _cut(", ".join(most)), *seconds, worst]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cut(text: str, length: int = 160) -> str:
    """A cell of the table on one line, of limited length."""
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) <= length else text[: length - 3] + "..."


def main() -> None:
    """Sweep what is asked for, then write the table of all that is on record."""
    from models_zoo.sweep import FAMILIES

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--match", default="", help="only names that hold this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument(
        "--limit", type=float, default=300, help="seconds of the processor for one architecture"
    )
    parser.add_argument("--log", type=Path, default=Path("runs/coverage.jsonl"))
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--again", nargs="*", choices=ORDER, default=[], help="outcomes to redo")
    parser.add_argument("--out", type=Path, default=Path("COVERAGE.md"))
    options = parser.parse_args()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        options.log.unlink(missing_ok=True)
    elif (
        not options.log.exists() and options.out.with_suffix(".json").exists()
    ):  # go on from what is committed
        committed = json.loads(options.out.with_suffix(".json").read_text())
        options.log.write_text("".join(json.dumps(r) + "\n" for r in committed))
    known = _read(options.log)
    tasks = [(f, a.name) for f in options.family for a in FAMILIES[f]() if options.match in a.name]
    sweep(
        [t for t in tasks if t[1] not in known or known[t[1]]["outcome"] in options.again],
        options.log,
        options.workers,
        options.threads,
        options.limit,
    )
    listed = {a.name: k for k, a in enumerate(a for f in FAMILIES.values() for a in f())}
    known = _read(options.log)
    records = sorted((r for n, r in known.items() if n in listed), key=lambda r: listed[r["name"]])
    options.out.write_text(
        "# Coverage\n\nMade by `python tools/coverage.py`, torch "
        + f"{version('torch')}, timm {version('timm')}, transformers {version('transformers')}, torchvision "
        + f"{version('torchvision')}. {len(records)} architectures.\n\n"
        + (__doc__ or "").split("\n\n")[-1]
        + "\n"
        + summary(records)
    )
    options.out.with_suffix(".json").write_text(
        json.dumps(sorted(records, key=lambda r: r["name"]), indent=1) + "\n"
    )


def _read(log: Path) -> dict[str, Record]:
    """The last record of every architecture."""
    lines = log.read_text().splitlines() if log.exists() else []
    return {r["name"]: r for r in map(json.loads, lines)}


if __name__ == "__main__":
    main()
