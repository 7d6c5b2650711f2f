"""Measure the speed of tracing and inference (that of matching: ``tools/bench_matching.py``).

    python tools/bench.py [--only llama deep] [--threads 2] [--repeats 3]

``llama``: tracing and inference of a model of Llama-7B's shape on the meta device, in a process of its own.
``deep``: inference after tracing of a Llama-shaped model with 50 and with 100 layers.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sections import write_section

import graphmerge as gm
from graphmerge.symmetry.graph import infer
from graphmerge.trace import export_program
from models_zoo.architectures.vision import torchvision_models

Row = tuple[str, str, str, str]

LLAMA_7B: dict[str, Any] = {
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


BENCHES = {"llama": llama, "deep": deep}


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
    text = (
        f"Made by `python tools/bench.py {settings}`. Medians of {options.repeats} runs.\n"
        f"{machine(options.threads, load)}\n\n{table}"
    )
    write_section(options.out, "Benchmarks", text)


if __name__ == "__main__":
    main()
