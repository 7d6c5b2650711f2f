"""The table of repairs: what each needs, its options with their bounds, and its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graphmerge.errors import TraceError
from graphmerge.options import Option
from graphmerge.repair.batchnorm import reset
from graphmerge.repair.closed_form import closed_form
from graphmerge.repair.finetune import finetune
from graphmerge.repair.renormalise import repair, rescale, reshift
from graphmerge.repair.scaling import scales_of_output
from graphmerge.repair.sites import norms, sites
from graphmerge.repair.task import Repaired
from graphmerge.repair.temperature import temperature
from graphmerge.trace import Program


@dataclass(frozen=True)
class Method:
    """A repair, as data.

    ``run`` takes a task, a merged state dict, the weights and the options by name. ``lacks`` says what a
    network lacks for it, nothing where it applies. ``classes`` says that it needs logits and class numbers.
    ``tried`` says when: unasked ("auto"), among "all", or only by its name.
    """

    run: Callable[..., Repaired]
    meaning: str
    source: str
    lacks: Callable[[Program, Mapping[str, Any]], str]
    options: Mapping[str, Option] = field(default_factory=dict)
    classes: bool = False
    tried: Literal["auto", "all", "by name"] = "all"


def _sites(program: Program, options: Mapping[str, Any]) -> str:
    if sites(program, options["gains"] == "yes")[0]:
        return ""
    return "no operator whose result its own weights could correct" + "; use bn-reset" * bool(norms(program))


def _shiftable(program: Program, options: Mapping[str, Any]) -> str:
    found = sites(program, options["gains"] == "yes")[0]
    return "" if any(s.bias for s in found) else "no such operator with a bias"


def _norms(program: Program, _: Mapping[str, Any]) -> str:
    return "" if norms(program) else "no BatchNorm with running statistics"


def _either(program: Program, options: Mapping[str, Any]) -> str:
    return _norms(program, options) and _sites(program, options)


def _scalable(program: Program, _: Mapping[str, Any]) -> str:
    try:
        scales_of_output(program)
    except TraceError as error:
        return str(error)
    return ""


_REPAIR = "Jordan et al. 2022, arXiv 2211.08403, section 3"
_PARTS = "Qu and Horvath 2024, arXiv 2402.05966"
_GAINS = Option("yes", "weights of norms, and gains, are corrected too", choices=("no", "yes"))
_SUMS = Option("no", "branches are corrected for what they are added to", choices=("no", "yes"))

METHODS: dict[str, Method] = {
    "bn-reset": Method(reset, "BatchNorm statistics measured anew", _REPAIR, _norms, tried="auto"),
    "repair": Method(
        repair,
        "mean and spread of every unit as between the endpoints",
        _REPAIR,
        _sites,
        {"gains": _GAINS, "sums": _SUMS},
        tried="auto",
    ),
    "rescale": Method(rescale, "the spread alone", _PARTS, _sites, {"gains": _GAINS, "sums": _SUMS}),
    "reshift": Method(
        reshift,
        "the mean alone",
        _PARTS,
        _shiftable,
        {"gains": _GAINS, "sums": _SUMS},
        tried="auto",
    ),
    "closed-form": Method(
        closed_form,
        "the same by statistics told from the endpoints, without running the merged network",
        _REPAIR,
        _either,
        {"gains": replace(_GAINS, default="no")},
    ),
    "temperature": Method(
        temperature,
        "logits divided by one number, of least loss",
        "Guo et al. 2017, arXiv 1706.04599; for merged networks Ito et al. 2025, arXiv 2510.08023",
        _scalable,
        {
            "reference": Option(
                "endpoints",
                "calibrated as the endpoints are on the same data, or by itself",
                choices=("endpoints", "none"),
            )
        },
        tried="auto",
        classes=True,
    ),
    "finetune": Method(
        finetune,
        "a few steps of gradient descent",
        "Adam, Kingma and Ba 2014, arXiv 1412.6980",
        lambda *_: "",
        {
            "steps": Option(100, "steps, a batch each", 1),
            "rate": Option(0.001, "learning rate", 0),
            "seed": Option(0, "fixes the order of the batches"),
        },
        tried="by name",
    ),
}
