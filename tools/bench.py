"""Measure speed: tracing a 7B-parameter model, matching ResNet50, recovering a planted symmetry.

    python tools/bench.py [--only llama deep resnet50 planted] [--threads 2] [--repeats 3]

``llama``: tracing and inference of a model of Llama-7B's shape on the meta device, in a process of its own.
``deep``: inference after tracing of a Llama-shaped model with 50 and with 100 layers.
``resnet50``: weight matching of two random initialisations to convergence, by one descent and with the
restarts of pairs that are the default, against plain coordinate descent (Git Re-Basin as published: one
full matrix product per tensor of a group in every sweep) in the same process.
``planted``: weight matching of ResNet50 with a randomly permuted copy.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

import graphmerge as gm
from graphmerge.symmetry.graph import infer
from graphmerge.trace import export_program
from models_zoo.architectures.vision import torchvision_models

Row = tuple[str, str, str, str]
State = dict[str, torch.Tensor]

LLAMA_7B = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "use_cache": False,
}  # fmt: skip


def trace_llama() -> tuple[float, float, int]:
    """Seconds, peak resident memory in GB and number of groups; for a fresh process."""
    torchvision_models()  # transformers imports it where it is installed
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_7B)).eval()
        ids = torch.zeros(3, 11, dtype=torch.int64)
    start = time.perf_counter()
    groups = len(gm.trace(model, (), {"input_ids": ids}).groups)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, groups


def llama(options: argparse.Namespace) -> list[Row]:
    """Run ``trace_llama`` in processes of their own, so that memory is that of tracing alone."""
    command = [sys.executable, __file__, "--inside", "llama", "--threads", str(options.threads)]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(options.repeats)
    ]
    values = [[float(x) for x in r.stdout.split()[-3:]] for r in runs]
    seconds, peak = (statistics.median(v[k] for v in values) for k in (0, 1))
    groups = f"{values[0][2]:.0f} groups"
    return [
        ("Llama-7B shape, meta device: trace and infer", f"{seconds:.1f} s", "under 45 s", groups),
        ("the same: peak resident memory", f"{peak:.2f} GB", "under 1.5 GB", "the whole process"),
    ]  # fmt: skip


def infer_llama(layers: int) -> tuple[float, int, int]:
    """Seconds of inference after tracing, operators and groups, for a Llama-shaped model of many layers."""
    torchvision_models()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000, hidden_size=512, intermediate_size=1408, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
        ids = torch.zeros(3, 11, dtype=torch.int64)
    program = export_program(model, (), {"input_ids": ids})
    start = time.perf_counter()
    graph = infer(model, program)
    groups = len(graph.groups), len(graph.fixed)
    return time.perf_counter() - start, len(program.graph.graph.nodes), groups[0]


def deep(options: argparse.Namespace) -> list[Row]:
    """Inference alone, at two depths."""
    rows = []
    for layers, target in ((50, ""), (100, "under 3 s")):
        runs = [infer_llama(layers) for _ in range(options.repeats)]
        name = f"Llama shape of {layers} layers, meta device: infer after tracing"
        note = f"{runs[0][1]} operators, {runs[0][2]} groups"
        rows.append((name, f"{statistics.median(r[0] for r in runs):.2f} s", target, note))
    return rows


def rows_of(t: torch.Tensor, dim: int) -> torch.Tensor:
    """A tensor as [units along ``dim``, everything else]."""
    return t.transpose(0, dim).reshape(t.shape[dim], -1)


def plain_descent(graph: gm.ModelGraph, a: State, b: State, seed: int) -> tuple[float, float]:
    """Git Re-Basin's weight matching as published, for plain groups; seconds and objective."""
    start = time.perf_counter()
    a, moved = {n: a[n].detach() for n in graph.structure.labels}, {n: b[n] for n in graph.structure.labels}
    buffers = {n for n, _ in graph.model.named_buffers()}
    rng = np.random.default_rng(seed)
    better = True
    while better:
        better = False
        for k in rng.permutation(len(graph.groups)):
            group = graph.groups[k]
            members = [(n, d) for n, d in group.members if n not in buffers]
            total = sum((rows_of(a[n], d) @ rows_of(moved[n], d).T for n, d in members), torch.zeros(()))
            columns = torch.from_numpy(linear_sum_assignment(total.numpy(), maximize=True)[1])
            gain = total.gather(1, columns[:, None]).double().sum() - total.diagonal().double().sum()
            if gain > 1e-8 * total.diagonal().double().abs().sum():
                better = True
                for n, d in group.members:
                    moved[n] = moved[n].index_select(d, columns)
    objective = sum(float((a[n].double() * moved[n].double()).sum()) for n in a if n not in buffers)
    return time.perf_counter() - start, objective


def resnets() -> tuple[gm.ModelGraph, State, State]:
    """The graph of ResNet50 and two random initialisations."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(torchvision_models().resnet50().eval())
    states = [{n: t.detach() for n, t in m.state_dict().items()} for m in models]
    return gm.trace(models[0], (torch.randn(2, 3, 64, 64),)), states[0], states[1]


def resnet50(options: argparse.Namespace) -> list[Row]:
    """Both ways of matching, in turn, in this process."""
    graph, a, b = resnets()
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(options.repeats):
        seconds, objective = plain_descent(graph, a, b, seed)
        found["plain"].append(seconds)
        found["plain objective"].append(objective)
        for starts in (1, 2):
            alignment = gm.match(graph, a, b, seed=seed, restarts=starts)
            assert alignment.converged
            found[f"{starts}"].append(alignment.seconds)
            found[f"{starts} objective"].append(alignment.objective)
            found[f"{starts} faster"].append(seconds / alignment.seconds)
            found[f"{starts} ratio"].append(alignment.objective / objective)
    m = {k: statistics.median(v) for k, v in found.items()}
    rows = [
        (
            "ResNet50, two initialisations: plain coordinate descent",
            f"{m['plain']:.1f} s",
            "",
            f"objective {m['plain objective']:.1f}",
        )
    ]
    for starts, target, least in (("1", "", ""), ("2", "under 33 s", "at least 1")):
        name = "weight matching, " + (
            "one descent" if starts == "1" else "pairs restarted once (the default)"
        )
        rows += [
            (name, f"{m[starts]:.1f} s", target, f"objective {m[f'{starts} objective']:.1f}"),
            ("plain / that, seconds", f"{m[f'{starts} faster']:.2f}", "", _spread(found[f"{starts} faster"])),
            (
                "that / plain, objective",
                f"{m[f'{starts} ratio']:.5f}",
                least,
                _spread(found[f"{starts} ratio"], 5),
            ),
        ]
    return rows


def _spread(values: list[float], digits: int = 2) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def planted(options: argparse.Namespace) -> list[Row]:
    """Recover random transforms of one ResNet50."""
    graph, a, _ = resnets()
    seconds, exact = [], 0
    for seed in range(options.repeats):
        transform = graph.random_transform(seed)
        alignment = gm.match(graph, a, transform.inverse().apply(a), seed=seed, restarts=1)
        seconds.append(alignment.seconds)
        exact += alignment.transform == transform
    note = f"{exact} of {options.repeats} recovered exactly"
    return [("ResNet50, planted symmetry: weight matching", f"{statistics.median(seconds):.1f} s", "", note)]


BENCHES = {"llama": llama, "deep": deep, "resnet50": resnet50, "planted": planted}


def machine(threads: int, load: float) -> str:
    """Hardware and versions in one paragraph."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")] or [platform.machine()]
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "scipy", "torchvision", "transformers"))
    busy = f"Load average at the start: {load:.1f}" + (" (other work was running)." if load > 0.5 else ".")
    python = platform.python_version()
    return f"{names[0]}, {os.cpu_count()} cores, {threads} threads; Python {python}, {packages}. {busy}"


def main() -> None:
    """Run the benchmarks and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(BENCHES), default=list(BENCHES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the table quotes medians")
    parser.add_argument("--out", type=Path, default=Path("BENCHMARKS.md"))
    parser.add_argument("--inside", choices=["llama"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.inside:
        print(*trace_llama())
        return
    load = os.getloadavg()[0]
    table = "| what | measured | target | notes |\n|---|---|---|---|\n"
    for name in options.only:
        for row in BENCHES[name](options):
            line = "| " + " | ".join(row) + " |\n"
            print(line, end="", flush=True)
            table += line
    settings = f"--only {' '.join(options.only)} --threads {options.threads} --repeats {options.repeats}"
    options.out.write_text(
        f"# Benchmarks\n\nMade by `python tools/bench.py {settings}`. Medians of {options.repeats} runs;"
        " for ratios, of the ratio within each run.\n"
        f"{machine(options.threads, load)}\n\n{table}"
    )


if __name__ == "__main__":
    main()
