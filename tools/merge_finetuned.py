"""Merge the networks that were fine-tuned from one base by every method, and write the table of results.

    python tools/merge_finetuned.py [--only vit] [--test-images 10000]

For each base: test accuracy on the tasks of the fine-tuned networks. Methods with a scale are shown with
its default and with the one that is best on held-out images of both tasks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from sections import write_section

import graphmerge as gm
from graphmerge.evaluate import ensemble, evaluate
from graphmerge.merge import METHODS
from graphmerge.repair import available
from models_zoo.data import Batches, batches
from models_zoo.finetuning import TUNING_IMAGES
from models_zoo.registry import TUNED, load, load_tuned

State = Mapping[str, torch.Tensor]

SCALES = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Factors on the task vectors that are tried on held-out images."""

MEASURED = 500
"""Images of each task for Fisher information, Gram matrices, the losses of ODE-M, BatchNorm statistics."""

FURTHER: dict[str, dict[str, float]] = {"ode-m": {"descent": 0.0}}
"""Options under which methods are shown once more: ODE-M as a path alone, that does not descend."""

WITH_BASE = ("least-squares",)
"""Methods that are shown once more with the base as one of the models, so that its task is kept."""

HELD_OUT = 5000 - TUNING_IMAGES
"""Shipped images of each task that no fine-tuning saw."""


class Pair:
    """A base, the networks fine-tuned from it, and the images of their tasks."""

    def __init__(self, base: str, test_images: int) -> None:
        self.tuned = [t for t in TUNED if t.base == base]
        self.tasks = [t.task for t in self.tuned]
        self.model = load(base, self.tuned[0].seed)
        self.base = {n: t.clone() for n, t in self.model.state_dict().items()}
        self.states = [load_tuned(t).state_dict() for t in self.tuned]
        self.data = [batches("train", 250, MEASURED, task=t) for t in self.tasks]
        self.held_out = [batches("train", start=TUNING_IMAGES, task=t) for t in self.tasks]
        self.test = [batches("test", limit=test_images, task=t) for t in [*self.tasks, "upright"]]
        self.graph = gm.trace(self.model, (self.data[0][0][0],))
        self.reset = "bn-reset" in available(self.graph)

    def accuracies(self, state: State, data: list[Batches]) -> list[float]:
        return [evaluate(self.model, state, task).accuracy for task in data]

    def merge(self, method: str, **options: Any) -> State:
        """Merged, and BatchNorm measured anew on images of all tasks."""
        facts = METHODS[method]
        state: State = gm.merge(
            self.graph, self.states, method, base=self.base, data=joined(self.held_out),
            own_data=None if facts.data in ("", "held-out") else self.data, **options,
        )  # fmt: skip
        return gm.reset_batchnorm(self.model, state, joined(self.data)) if self.reset else state

    def merge_with_base(self, method: str) -> State:
        """Merged with the base as one more model, and images of its task."""
        data = [batches("train", 250, MEASURED, task="upright"), *self.data]
        state: State = gm.merge(self.graph, [self.base, *self.states], method, own_data=data)
        return gm.reset_batchnorm(self.model, state, joined(data)) if self.reset else state


def joined(parts: list[Batches]) -> Batches:
    """The batches of all tasks."""
    return [batch for part in parts for batch in part]


def rows(pair: Pair) -> Iterator[tuple[str, list[float]]]:
    """What is merged, and its accuracy on each task and on the upright images."""
    yield "base", pair.accuracies(pair.base, pair.test)
    for tuned, state in zip(pair.tuned, pair.states, strict=True):
        yield f"fine-tuned: {tuned.task}", pair.accuracies(state, pair.test)
    yield "ensemble", [ensemble(pair.model, pair.states, task).accuracy for task in pair.test]
    for method in WITH_BASE:
        yield f"{method}, the base too", pair.accuracies(pair.merge_with_base(method), pair.test)
    for method, facts in METHODS.items():
        if "scale" not in facts.options:
            yield method, pair.accuracies(pair.merge(method), pair.test)
            for name, value in FURTHER.get(method, {}).items():
                found = pair.accuracies(pair.merge(method, **{name: value}), pair.test)
                yield f"{method}, {name} {value:g}", found
            continue
        usual = float(facts.options["scale"].default or 0)
        yield f"{method}, scale {usual:g}", pair.accuracies(pair.merge(method), pair.test)
        best = max(SCALES, key=lambda s: sum(pair.accuracies(pair.merge(method, scale=s), pair.held_out)))
        if best != usual:
            found = pair.accuracies(pair.merge(method, scale=best), pair.test)
            yield f"{method}, scale {best:g} (held out)", found


def table(pair: Pair) -> str:
    """The rows as Markdown, printed as they come."""
    heads = ["", *pair.tasks, "mean of the two", "upright"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, (*tasks, upright) in rows(pair):
        cells = [*tasks, sum(tasks) / len(tasks), upright]
        lines.append(f"| {name} | " + " | ".join(f"{100 * a:.2f}" for a in cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def section(base: str, found: str, reset: bool, test_images: int) -> str:
    """The table of one base, with how it was made."""
    tuned = [t for t in TUNED if t.base == base]
    made = [json.loads(t.path.with_suffix(".json").read_text())["command"] for t in tuned]
    before = (
        f"Test accuracy in % of the zoo's {base}, fine-tuned on Fashion-MNIST in negative (*inverted*) and"
        f" turned by a quarter (*rotated*), {TUNING_IMAGES} images each, and merged by every method without"
        f" matching; *upright* is the base's own task, which none was to keep. {MEASURED} training images"
        " of each model's own task gave Fisher information and Gram matrices, and with their labels the"
        " losses of ODE-M; *the base too* means that it is a third model to merge, with as many images."
        " The ingredients of the soup, and scales where it says so"
        f" (of {', '.join(f'{x:g}' for x in SCALES)}), were chosen on {HELD_OUT} images of each task that no"
        " fine-tuning saw."
        + (" BatchNorm is reset after every merge, on the same training images." if reset else "")
    )
    after = (
        f"Fine-tuned by `{made[0]}` and `{made[1]}`. Made by `python tools/merge_finetuned.py --only {base}"
        f" --test-images {test_images}`, torch {torch.__version__}."
    )
    return "\n\n".join((fill(before, 110), found, fill(after, 110, break_on_hyphens=False)))


def main() -> None:
    """Run the bases and write a section for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    bases = list(dict.fromkeys(t.base for t in TUNED))
    parser.add_argument("--only", nargs="*", choices=bases, default=bases)
    parser.add_argument("--test-images", type=int, default=10_000, help="of each task")
    parser.add_argument("--out", type=Path, default=Path("RESULTS.md"))
    options = parser.parse_args()
    for base in options.only:
        pair = Pair(base, options.test_images)
        text = section(base, table(pair), pair.reset, options.test_images)
        write_section(options.out, f"Fine-tuned from one {base}", text)


if __name__ == "__main__":
    main()
