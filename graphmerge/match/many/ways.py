"""The table of ways to match many models: how each is run, its options, its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphmerge.errors import UsageError
from graphmerge.match.many.cycle import cycle_consistent
from graphmerge.match.many.hierarchical import up_a_tree
from graphmerge.match.many.job import Job, Placed
from graphmerge.match.many.merge_many import merge_many
from graphmerge.match.many.reference import to_reference
from graphmerge.match.methods import METHODS, settings
from graphmerge.options import Option, Value, read_options


@dataclass(frozen=True)
class Way:
    """A way of matching many models, as data.

    One that is ``any_pairwise`` takes an option ``pairwise``, a method of matching two models, with the
    options of that; the others match two models by weights. ``pair_options`` are where its own defaults
    for the pairwise method differ.
    """

    run: Callable[[Job], Placed]
    meaning: str
    source: str
    any_pairwise: bool = True
    options: Mapping[str, Option] = field(default_factory=dict)
    pair_options: Mapping[str, Value] = field(default_factory=dict)


_PAIRWISE = Option("weight", "how two models are matched, with its options", choices=tuple(METHODS))
_ONE_DESCENT: Mapping[str, Value] = {"restarts": 1}
"""Ways that match the same model again and again are slowed by restarts, and no better for them."""

_ROUNDS = Option(20, "rounds over all models at most", 1)

WAYS: dict[str, Way] = {
    "reference": Way(
        to_reference,
        "each model to one of them",
        "Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3",
        options={"reference": Option(0, "the model that the others are matched to, counted from 0")},
    ),
    "merge-many": Way(
        merge_many,
        "each model in turn to the mean of the others, until none moves",
        "Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, algorithm 3",
        options={"rounds": _ROUNDS},
        pair_options=_ONE_DESCENT,
    ),
    "cycle": Way(
        cycle_consistent,
        "all models into one frame at once, by weights: Frank-Wolfe, then descent",
        "C2M3, Crisostomi et al. 2024, arXiv 2405.17897, section 3",
        any_pairwise=False,
        options={
            "trust": Option(
                0.0, "how much of each unit begins in its place; the rest is spread over all", 0, 1
            ),
            "steps": Option(100, "steps of Frank-Wolfe at most", 1),
            "rounds": _ROUNDS,
        },
        pair_options=_ONE_DESCENT,
    ),
    "hierarchical": Way(
        up_a_tree,
        "pairs, then their means, up a tree",
        "Franke et al. 2025, arXiv 2510.09174",
    ),
}


def way_of(name: str) -> Way:
    """The way of that name; UsageError where there is none."""
    if name not in WAYS:
        raise UsageError(f"unknown way of matching many models {name!r}; there are: {', '.join(WAYS)}")
    return WAYS[name]


def fitting_methods(name: str, methods: Sequence[str]) -> tuple[str, ...]:
    """Those of ``methods`` by which a way can match; UsageError where it can by none of them."""
    fit = tuple(m for m in methods if way_of(name).any_pairwise or m == "weight")
    if methods and not fit:
        raise UsageError(f"{name} matches by weight only, not by {', '.join(methods)}")
    return fit


def described_ways() -> str:
    """The table for people."""
    return "; ".join(f"{name}: {way.meaning}" for name, way in WAYS.items())


def way_settings(name: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The pairwise method, all options of the way, and all of the pairwise method; UsageError if wrong."""
    way, rest = way_of(name), dict(given)
    chosen = str(_PAIRWISE.read("pairwise", rest.pop("pairwise"))) if _takes(way, rest) else "weight"
    known = METHODS[chosen].options
    pair_options = settings(chosen, {n: v for n, v in way.pair_options.items() if n in known})
    values = read_options(name, {**way.options, **(known if way.any_pairwise else {})}, rest)
    pair_options |= {n: values[n] for n in rest if n in known}
    return chosen, {n: values[n] for n in way.options}, pair_options


def _takes(way: Way, given: Mapping[str, Any]) -> bool:
    return way.any_pairwise and "pairwise" in given
