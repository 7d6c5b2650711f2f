"""What most commands take, given to each by a decorator: a model, a way to talk, refusals as exit codes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphmerge.cli import options
from graphmerge.cli.console import Talk, exit_codes
from graphmerge.sources import build_model, example_inputs, pick_device
from graphmerge.sources.weights import load_weights, put_weights
from graphmerge.symmetry import ModelGraph, trace

Command = Callable[..., None]

Values = dict[str, Any]
"""What was typed, by the name of the parameter."""


@dataclass(frozen=True)
class Net:
    """The model that a command is about, as it was typed."""

    model: str
    inputs: Sequence[str] | None
    seed: int
    device: str
    trust: bool

    def module(self) -> nn.Module:
        """The network on its device, with the weights that it is made with."""
        return build_model(self.model, pick_device(self.device), self.trust).module

    def load(
        self, talk: Talk, weights: str | None = None
    ) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """The network with the weights of a checkpoint, and its example inputs."""
        place = pick_device(self.device)
        torch.manual_seed(self.seed)
        built = build_model(self.model, place, self.trust)
        if weights:
            put_weights(built.module, load_weights(built.module, weights, talk.say).state)
        args, kwargs = example_inputs(self.inputs or built.examples, place, self.seed)
        return built.module, args, kwargs


@dataclass(frozen=True)
class Tracing:
    """How a model is to be traced, as it was typed."""

    strict: bool
    freeze: Sequence[str] | None
    cache: Path | None

    def graph(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], talk: Talk
    ) -> ModelGraph:
        """The symmetries of a network at such inputs."""
        return trace(
            module, args, kwargs, strict=self.strict, freeze=self.freeze or (), cache=self.cache,
            progress=talk.tick,
        )  # fmt: skip


def replacing(
    name: str,
    added: Mapping[str, inspect.Parameter],
    made: Callable[[Values], Any],
    within: Callable[[Values], AbstractContextManager[object]] = lambda _: nullcontext(),
) -> Callable[[Command], Command]:
    """Give a command options in place of its parameter ``name``, which is ``made`` from what was typed.

    The command runs ``within`` a context.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        all_of: list[inspect.Parameter] = []
        for n, p in own.items():
            all_of += added.values() if n == name else [p]

        @wraps(command)
        def typed(**values: Any) -> None:
            given = {n: values.pop(n) for n in added}
            with within(given):
                command(**{name: made(given)}, **values)

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in all_of]
        typed.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        typed.__annotations__ = {p.name: p.annotation for p in all_of} | {"return": None}
        return typed

    return decorate


def parameters(**given: tuple[Any, Any]) -> dict[str, inspect.Parameter]:
    """Options by their names, from what typer is told of each, and its default."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return {n: inspect.Parameter(n, kind, default=d, annotation=a) for n, (a, d) in given.items()}


talking = replacing(
    "talk",
    parameters(as_json=(options.Json, False), quiet=(options.Quiet, False), debug=(options.Debug, False)),
    lambda typed: Talk(typed["quiet"], typed["as_json"]),
    lambda typed: exit_codes(typed["debug"]),
)
"""Give ``command(..., talk)`` the options of what is printed; a refusal ends in its exit code."""

on_model = replacing(
    "net",
    parameters(
        model=(options.Model, inspect.Parameter.empty),
        inputs=(options.Inputs, None),
        seed=(options.Seed, 0),
        device=(options.Device, "auto"),
        trust=(options.Trust, False),
    ),
    lambda typed: Net(**typed),
)
"""Give ``command(net, ...)`` the options that name the model and how to run it."""

traced = replacing(
    "tracing",
    parameters(
        strict=(options.Strict, False),
        freeze=(options.Freeze, None),
        cache=(options.Cache, None),
    ),
    lambda typed: Tracing(**typed),
)
"""Give ``command(..., tracing, ...)`` the options of how the model is traced."""
