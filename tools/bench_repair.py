"""Time the statistics of one endpoint, and a BatchNorm reset, against plain inference.

    python tools/bench_repair.py [--model resnet50] [--batch 16] [--batches 2] [--rounds 3]

The statistics are those of what every convolution and linear layer returns, in one pass over the data.
Of each the fastest round counts, the rounds taking turns; on a CPU it is the processor time, of all
threads, so that other work on the machine tells less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from graphmerge.repair.batchnorm import reset_on
from graphmerge.repair.task import Task
from graphmerge.symmetry import trace
from graphmerge.trace.affine import AFFINE, op_name
from models_zoo.architectures.vision import torchvision_models


def main() -> None:
    """Time the three, and print them with their ratios to inference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet50", help="a constructor of torchvision.models")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = getattr(torchvision_models(), options.model)().eval().to(options.device)
    data = [torch.randn(options.batch, 3, 224, 224, device=options.device) for _ in range(options.batches)]
    graph, state = trace(model, (data[0],)), model.state_dict()
    program = graph.program
    nodes = [n for n in program.graph.graph.nodes if n.op == "call_function" and op_name(n) in AFFINE]
    points = [(n.name, AFFINE[op_name(n)].unit_dim) for n in nodes]

    def inference() -> None:
        for x in data:
            model(x)

    def statistics() -> None:
        Task(graph, (state,), data).goals(points, (1.0,))

    def reset() -> None:
        reset_on(program, state, [((x,), {}) for x in data])

    with torch.no_grad():
        fastest = measure(
            {"inference": inference, "statistics": statistics, "reset": reset}, options.rounds, options.device
        )
    print(f"{options.model}: {options.batches} batches of {options.batch}, {len(points)} operators measured")
    for name, seconds in fastest.items():
        print(f"{name}: {seconds:.2f} s, {seconds / fastest['inference']:.2f} of inference")


def measure(ways: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """The seconds of the fastest round of each, after one that does not count."""
    fastest = dict.fromkeys(ways, float("inf"))
    for k in range(rounds + 1):
        for name, way in ways.items():
            start = clock(device)
            way()
            if k:
                fastest[name] = min(fastest[name], clock(device) - start)
    return fastest


def clock(device: str) -> float:
    """Seconds: of the processor, or of the wall when all work on a GPU is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
