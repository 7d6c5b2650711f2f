"""The model of a recipe, and its weights, read into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphmerge.errors import UsageError
from graphmerge.progress import Progress, silent
from graphmerge.recipe import Recipe
from graphmerge.sources import build_model, build_on_meta, example_inputs, pick_device
from graphmerge.sources.huggingface import is_folder
from graphmerge.sources.weights import load_weights
from graphmerge.trace.run import State


@dataclass(frozen=True)
class Opened:
    """What a recipe names, read: the model, its example inputs, the state dicts by path.

    ``recipe`` is the one that was opened, with the model, the example inputs and the device put in where
    they followed from the rest. ``stored`` are the names and dtypes that the first file has.
    """

    recipe: Recipe
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    states: dict[str, State]
    stored: Mapping[str, torch.dtype]


def open_recipe(recipe: Recipe, paths: Sequence[str], say: Progress = silent) -> Opened:
    """Build the model and read the checkpoints at ``paths``."""
    full, module = open_model(recipe, pick_device(recipe.device))
    args, kwargs = example_inputs(full.example_inputs, pick_device(recipe.device), recipe.seed)
    weights = [load_weights(module, path, say, recipe.allow_nonfinite) for path in paths]
    states: dict[str, State] = {path: w.state for path, w in zip(paths, weights, strict=True)}
    return Opened(full, module, args, kwargs, states, weights[0].stored)


def open_model(recipe: Recipe, device: torch.device) -> tuple[Recipe, nn.Module]:
    """The recipe with all that its model says of itself, and the model on ``device``."""
    spec = architecture(recipe)
    torch.manual_seed(recipe.seed)
    meta = device.type == "meta"
    built = build_on_meta(spec, recipe.trust) if meta else build_model(spec, device, recipe.trust)
    known = {"model": spec, "example_inputs": recipe.example_inputs or built.examples}
    place = {} if meta else {"device": device.type}
    return recipe.model_copy(update={**known, **place}), built.module


def architecture(recipe: Recipe) -> str:
    """What the recipe names as its model; the first input where that is a folder with a config.json."""
    first = recipe.steps[0][1].inputs[0].path
    if recipe.model is None and not is_folder(first):
        raise UsageError(
            "tell the architecture: --model module:factory, a folder with a config.json, or a .pt2"
        )
    return recipe.model or first


def described_by(recipe: Recipe) -> Path | None:
    """The folder whose config, tokenizer and other side files belong to the result; None without."""
    first = recipe.steps[0][1].inputs[0].path
    found = [p for p in (first, recipe.model) if p is not None and is_folder(p)]
    return Path(found[0]) if found else None
