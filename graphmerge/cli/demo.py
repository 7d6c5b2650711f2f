"""The demo: merge two independently trained ResNet20 of the zoo."""

from __future__ import annotations

from typing import Annotated

import typer

from graphmerge.cli import options
from graphmerge.cli.console import Talk
from graphmerge.cli.merging import run_and_show
from graphmerge.cli.shared import talking
from graphmerge.recipe import recipe_from
from graphmerge.sources import import_object


@talking
def demo(
    target: Annotated[str, typer.Option("--out", "-o", help="Output folder.")] = "demo",
    points: Annotated[int, typer.Option("--points", min=0, help="Points of the barrier curves.")] = 9,
    force: options.Force = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    *,
    talk: Talk,
) -> None:
    """Merge two networks of the zoo; show what each step is worth.

    They are ResNet20 trained apart on Fashion-MNIST.
    """
    checkpoint = import_object("models_zoo.registry:checkpoint")[0]
    a, b = (str(checkpoint("resnet20", s)) for s in (0, 1))
    recipe = recipe_from(
        {
            "model": "models_zoo.resnet:resnet20",
            "inputs": [a, b],
            "example_inputs": "2x1x28x28",
            "data": "models_zoo.data:batches(split='train', limit=2000)",
            "test": "models_zoo.data:batches(split='test', limit=5000)",
            "points": points,
            "seed": seed,
            "device": device,
            "out": target,
        },
        "the demo",
    )
    run_and_show(recipe, force, talk)
