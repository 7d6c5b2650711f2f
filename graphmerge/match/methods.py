"""The table of matching methods: how each is run, what it needs, its options, its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphmerge.errors import UsageError
from graphmerge.match.annealing import match_annealing
from graphmerge.match.coordinate import match_activations, match_weights
from graphmerge.match.costs import COSTS
from graphmerge.match.dual import match_dual
from graphmerge.match.learned import match_learned, match_sinkhorn
from graphmerge.match.straight_through import match_straight_through
from graphmerge.match.task import Found, Task

Setting = int | float | str | None


@dataclass(frozen=True)
class Option:
    """One option of a method: a number from ``least`` to ``most``, or one of ``choices``.

    ``kind`` is int, float or str. A default of None stands for what ``meaning`` says of it.
    """

    name: str
    default: Setting
    meaning: str
    kind: type = int
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What values there are, for people."""
        if self.choices:
            return " or ".join(self.choices)
        word = "whole number" if self.kind is int else "number"
        bounds = [f"at least {self.least:g}"] * (self.least > -math.inf)
        bounds += [f"at most {self.most:g}"] * (self.most < math.inf)
        return " ".join([word, " and ".join(bounds)]).strip()

    def read(self, value: Any) -> Setting:
        """A value, or the text of one, checked; UsageError where it is none."""
        if value is None and self.default is None:
            return None
        try:
            found: Setting = self.kind(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        fits = isinstance(found, (int, float) if self.kind is float else self.kind)
        if fits and self.choices:
            fits = found in self.choices
        elif fits:
            fits = not isinstance(found, bool | str) and self.least <= found <= self.most  # type: ignore[operator]
        if not fits:
            raise UsageError(f"option {self.name} is {value!r}; expected {self.expected}")
        return found


@dataclass(frozen=True)
class Method:
    """A way of matching two models, as data: the function, what it needs, where it comes from."""

    run: Callable[[Task], Found]
    meaning: str
    source: str
    needs_data: bool = False
    without_data: Mapping[str, Setting] = field(default_factory=dict)
    options: tuple[Option, ...] = ()

    def lacks(self, data: object, settings: Mapping[str, Any]) -> bool:
        """Data are needed, and there are none; ``without_data`` are settings under which they are not."""
        spared = any(settings[name] == value for name, value in self.without_data.items())
        return self.needs_data and data is None and not spared


_COST = "parameters as they are, each tensor scaled to norm 1, or norms folded into their neighbours"

_BEGIN = Option("begin", "weight", "where to begin", str, choices=("weight", "identity"))
_STEPS = Option("steps", 200, "steps of gradient descent, a batch each", least=1)

_DATA = "Git Re-Basin, section 3.1, with the correlation of REPAIR, Jordan et al. 2022, arXiv 2211.08403"

METHODS: dict[str, Method] = {
    "weight": Method(
        match_weights,
        "coordinate descent on the inner product of parameters",
        "Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2",
        options=(
            Option("cost", "plain", _COST, str, choices=tuple(COSTS)),
            Option("restarts", 2, "1 is one descent; each further round places every pair anew", least=1),
            Option(
                "seconds", None, "no restart begins later than this; the time of day then counts", float, 0
            ),
        ),
    ),
    "activation": Method(
        match_activations,
        "coordinate descent on the correlation of activations",
        _DATA,
        needs_data=True,
    ),
    "dual": Method(
        match_dual,
        "coordinate descent on weights and activations, mixed",
        "MuDSC, Xu et al. 2024, arXiv 2403.01753",
        needs_data=True,
        options=(
            Option("cost", "plain", _COST, str, choices=tuple(COSTS)),
            Option(
                "gamma",
                None,
                "share of the activations (none: chosen by the loss of the midpoint on a"
                " quarter of the batches, which is held out)",
                float,
                0,
                1,
            ),
        ),
    ),
    "straight-through": Method(
        match_straight_through,
        "gradient descent on copies of the weights of a, towards which b is matched at every step",
        "Git Re-Basin, section 3.3, arXiv 2209.04836",
        needs_data=True,
        options=(
            _BEGIN,
            _STEPS,
            Option("rate", 0.01, "learning rate (SGD)", float, 0),
            Option("momentum", 0.9, "momentum (SGD)", float, 0, 1),
        ),
    ),
    "sinkhorn": Method(
        match_sinkhorn,
        "gradient descent on doubly stochastic matrices",
        "Re-basin via implicit Sinkhorn differentiation, Pena et al. 2022, arXiv 2212.12042",
        needs_data=True,
        without_data={"criterion": "l2"},
        options=(
            Option(
                "criterion",
                "rnd",
                "distance of the weights, loss at the midpoint, or at random places on the path",
                str,
                choices=("l2", "mid", "rnd"),
            ),
            _BEGIN,
            _STEPS,
            Option("rate", 0.1, "learning rate (Adam)", float, 0),
            Option("temperature", 1.0, "of the Sinkhorn scaling", float, 1e-6),
            Option("iterations", 20, "of the Sinkhorn scaling", least=1),
            Option("trust", 0.5, "how much of each unit is first where the method begins", float, 0.01, 0.99),
        ),
    ),
    "learned": Method(
        match_learned,
        "gradient descent on the loss near the midpoint, straight through permutations",
        "Generalized linear mode connectivity for transformers, Theus et al. 2025, arXiv 2506.22712",
        needs_data=True,
        options=(
            _BEGIN,
            _STEPS,
            Option("rate", 0.02, "learning rate (Adam)", float, 0),
            Option("spread", 0.1, "places are drawn within this of the midpoint", float, 0, 0.5),
        ),
    ),
    "annealing": Method(
        match_annealing,
        "random exchanges of two units, accepted by the loss at the midpoint; for tiny networks",
        "Entezari et al. 2021, The role of permutation invariance, arXiv 2110.06296, section 4",
        needs_data=True,
        options=(
            _BEGIN,
            Option("steps", 2000, "exchanges that are tried", least=1),
            Option("hot", 0.1, "first temperature, in units of the loss", float, 1e-12),
            Option("cold", 1e-4, "last temperature, in units of the loss", float, 1e-12),
        ),
    ),
}


def method_of(name: str) -> Method:
    """The method of that name; UsageError where there is none."""
    if name not in METHODS:
        raise UsageError(f"unknown matching method {name!r}; there are: {', '.join(METHODS)}")
    return METHODS[name]


def settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method, those not given at their defaults; UsageError for one that it lacks."""
    options = {o.name: o for o in method_of(name).options}
    strange = sorted(given.keys() - options.keys())
    if strange:
        known = ", ".join(options) or "no options"
        raise UsageError(f"method {name} has no option {strange[0]!r}; there are: {known}")
    return {n: o.read(given[n]) if n in given else o.default for n, o in options.items()}


def described() -> list[str]:
    """The table for people: a paragraph for each method, with its options."""
    found = []
    for name, method in METHODS.items():
        options = "; ".join(f"{o.name}={o.default}: {o.meaning} ({o.expected})" for o in method.options)
        data = ", needs data" * method.needs_data
        found.append(f"{name}: {method.meaning}{data}. {options}".strip())
    return found
