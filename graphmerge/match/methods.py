"""The table of matching methods: how each is run, what it needs, its options, its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphmerge.errors import UsageError, meant
from graphmerge.match.annealing import match_annealing
from graphmerge.match.coordinate import match_activations, match_weights
from graphmerge.match.costs import COSTS
from graphmerge.match.dual import match_dual
from graphmerge.match.frank_wolfe import match_frank_wolfe
from graphmerge.match.learned import match_learned, match_sinkhorn
from graphmerge.match.moments import STATISTICS
from graphmerge.match.straight_through import match_straight_through
from graphmerge.match.task import Found, Task
from graphmerge.options import Option, Value, read_options


@dataclass(frozen=True)
class Method:
    """A way of matching two models, as data: the function, what it needs, where it comes from.

    ``targets`` says that it lowers a loss, which needs targets beside the inputs.
    """

    run: Callable[[Task], Found]
    meaning: str
    source: str
    needs_data: bool = False
    targets: bool = False
    without_data: Mapping[str, Value] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)

    def lacks(self, data: object, settings: Mapping[str, Any]) -> bool:
        """Data are needed, and there are none; ``without_data`` are settings under which they are not."""
        spared = any(settings[name] == value for name, value in self.without_data.items())
        return self.needs_data and data is None and not spared


_COST = Option(
    "plain",
    "parameters as they are, each tensor scaled to norm 1, or norms folded into their neighbours",
    choices=tuple(COSTS),
)

_STATISTIC = Option(
    "correlation",
    "of activations: centred (correlation, covariance) or not, each unit scaled to size 1 (correlation,"
    " cosine) or a layer as a whole",
    choices=tuple(STATISTICS),
)

_BEGIN = Option("weight", "where to begin", choices=("weight", "identity"))
_STEPS = Option(200, "steps of gradient descent, a batch each", 1)

_TRUST = Option(0.0, "how much of each unit is first in its place; the rest is spread over all", 0, 1)

_DATA = "Git Re-Basin, section 3.1, with the correlation of REPAIR, Jordan et al. 2022, arXiv 2211.08403"

METHODS: dict[str, Method] = {
    "weight": Method(
        match_weights,
        "coordinate descent on the inner product of parameters",
        "Git Re-Basin, Ainsworth et al. 2022, arXiv 2209.04836, section 3.2",
        options={
            "cost": _COST,
            "restarts": Option(
                2,
                "1 is one descent; 2, where it gains over 1 %, try a few sweeps from the given order too, and"
                " place pairs anew; more descend again with groups in other orders, and keep the best",
                1,
            ),
            "seconds": Option(None, "no restart begins later than this; the time of day then counts"),
        },
    ),
    "activation": Method(
        match_activations,
        "coordinate descent on the correlation of activations",
        _DATA,
        needs_data=True,
        options={"statistic": _STATISTIC},
    ),
    "dual": Method(
        match_dual,
        "coordinate descent on weights and activations, mixed",
        "MuDSC, Xu et al. 2024, arXiv 2403.01753",
        needs_data=True,
        targets=True,
        options={
            "cost": _COST,
            "statistic": _STATISTIC,
            "gamma": Option(
                None,
                "share of the activations (none: chosen by the loss of the midpoint on a"
                " quarter of the batches, which is held out)",
                0,
                1,
            ),
        },
    ),
    "frank-wolfe": Method(
        match_frank_wolfe,
        "all groups at once on doubly stochastic matrices, by the inner product of parameters",
        "C2M3, Crisostomi et al. 2024, arXiv 2405.17897, section 3",
        options={
            "cost": _COST,
            "begin": Option("identity", _BEGIN.text, choices=_BEGIN.choices),
            "trust": _TRUST,
            "steps": Option(100, "steps of Frank-Wolfe at most", 1),
            "finish": Option(
                "descent", "what follows: coordinate descent or nothing", choices=("descent", "none")
            ),
            "restarts": Option(2, "of the descent; as with weight", 1),
        },
    ),
    "straight-through": Method(
        match_straight_through,
        "gradient descent on copies of the weights of a, towards which b is matched at every step",
        "Git Re-Basin, section 3.3, arXiv 2209.04836",
        needs_data=True,
        targets=True,
        options={
            "begin": _BEGIN,
            "steps": _STEPS,
            "rate": Option(0.01, "learning rate (SGD)", 0),
            "momentum": Option(0.9, "momentum (SGD)", 0, 1),
        },
    ),
    "sinkhorn": Method(
        match_sinkhorn,
        "gradient descent on doubly stochastic matrices",
        "Re-basin via implicit Sinkhorn differentiation, Pena et al. 2022, arXiv 2212.12042",
        needs_data=True,
        targets=True,
        without_data={"criterion": "l2"},
        options={
            "criterion": Option(
                "rnd",
                "distance of the weights, loss at the midpoint, or at random places on the path",
                choices=("l2", "mid", "rnd"),
            ),
            "begin": _BEGIN,
            "steps": _STEPS,
            "rate": Option(0.1, "learning rate (Adam)", 0),
            "temperature": Option(1.0, "of the Sinkhorn scaling", 1e-6),
            "iterations": Option(20, "of the Sinkhorn scaling", 1),
            "trust": Option(0.5, "how much of each unit is first where the method begins", 0.01, 0.99),
        },
    ),
    "learned": Method(
        match_learned,
        "gradient descent on the loss near the midpoint, straight through permutations",
        "Generalized linear mode connectivity for transformers, Theus et al. 2025, arXiv 2506.22712",
        needs_data=True,
        targets=True,
        options={
            "begin": _BEGIN,
            "steps": _STEPS,
            "rate": Option(0.02, "learning rate (Adam)", 0),
            "spread": Option(0.1, "places are drawn within this of the midpoint", 0, 0.5),
        },
    ),
    "annealing": Method(
        match_annealing,
        "random exchanges of two units, accepted by the loss at the midpoint; for tiny networks",
        "Entezari et al. 2021, The role of permutation invariance, arXiv 2110.06296, section 4",
        needs_data=True,
        targets=True,
        options={
            "begin": _BEGIN,
            "steps": Option(2000, "exchanges that are tried", 1),
            "hot": Option(0.1, "first temperature, in units of the loss", 1e-12),
            "cold": Option(1e-4, "last temperature, in units of the loss", 1e-12),
        },
    ),
}


def method_of(name: str) -> Method:
    """The method of that name; UsageError where there is none."""
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise UsageError(f"unknown matching method {name!r}; there are: {known}{meant(name, METHODS)}")
    return METHODS[name]


def settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method, those not given at their defaults; UsageError for one that it lacks."""
    return read_options(name, method_of(name).options, given)


def described() -> list[str]:
    """The table for people: a paragraph for each method, with its options."""
    found = []
    for name, method in METHODS.items():
        options = "; ".join(f"{n}={o.default}: {o.text} ({o.expected})" for n, o in method.options.items())
        data = ", needs data" * method.needs_data
        found.append(f"{name}: {method.meaning}{data}. {options}".strip())
    return found
