"""The table of merge methods: what each needs, its options with their bounds, and its source."""

from __future__ import annotations

import math

from graphmerge.merge.arithmetic import dare, dare_ties, task_arithmetic, ties
from graphmerge.merge.average import linear
from graphmerge.merge.fisher import fisher_average
from graphmerge.merge.fisher import refuses as fisher_refuses
from graphmerge.merge.least_squares import least_squares
from graphmerge.merge.method import Method
from graphmerge.merge.ode import ode_merge
from graphmerge.merge.regmean import regmean, regmean_plus
from graphmerge.merge.slerp import slerp
from graphmerge.merge.soup import greedy_soup
from graphmerge.merge.spectral import iso_c, tsv_m
from graphmerge.merge.stock import model_stock
from graphmerge.options import Option

_SEED = Option(0, "fixes what is random")
_ALPHA = Option(0.9, "factor on the off-diagonals of the Gram matrices", 0, 1)


def _scale(default: float) -> Option:
    return Option(default, "factor on the summed task vectors", -10, 10)


METHODS: dict[str, Method] = {
    "average": Method(
        linear,
        "weighted sum of the parameters; equal shares make a uniform soup",
        "Wortsman et al. 2022, arXiv 2203.05482",
        weights="any",
        options={"normalize": Option(0, "1: divide the weights by their sum", 0, 1)},
    ),
    "greedy-soup": Method(
        greedy_soup,
        "average of the models that do not make it worse on held-out data",
        "Wortsman et al. 2022, arXiv 2203.05482",
        weights="none",
        data="held-out",
    ),
    "slerp": Method(
        slerp,
        "along the arc between two models",
        "Shoemake 1985",
        options={"scope": Option("tensor", "what has one angle", choices=("tensor", "model"))},
        models=(2, 2),
    ),
    "fisher": Method(
        fisher_average,
        "entries weighted by the Fisher information that each model has of them",
        "Matena and Raffel 2022, arXiv 2111.09832",
        options={
            "labels": Option("exact", "labels in the expectation", choices=("exact", "sampled", "empirical")),
            "floor": Option(1e-10, "added to the Fisher information", 1e-30, 1e6),
            "seed": _SEED,
        },
        data="inputs",
        refuses=fisher_refuses,
    ),
    "regmean": Method(
        regmean,
        "weights solved for, so that operators answer as the models did",
        "Jin et al. 2023, arXiv 2212.09849",
        options={"alpha": _ALPHA},
        data="inputs",
    ),
    "regmean++": Method(
        regmean_plus,
        "RegMean through the layers merged so far",
        "Nguyen et al. 2025, arXiv 2508.03121",
        options={"alpha": _ALPHA},
        data="own",
    ),
    "least-squares": Method(
        least_squares,
        "weights solved for, so that operators answer as the models do on average",
        "Nasery et al. 2024 (PLeaS), arXiv 2407.02447",
        options={
            "inputs": Option("merged", "what operators are given", choices=("merged", "averaged")),
            "ridge": Option(0.001, "how much a solution is drawn to the average", 1e-10, 1e6),
        },
        data="inputs",
    ),
    "ode-m": Method(
        ode_merge,
        "models come in one by one, along a path on which the loss of no task may rise",
        "Lin and Kang 2026, arXiv 2605.19409",
        options={
            "step": Option(0.01, "length of a step, of the way to the next model", 0.001, 1),
            "budget": Option(0.08, "loss allowed above the line between the ends of a path", 0, 1e6),
            "descent": Option(0.24, "length of the pull down the losses, of the velocity's", 0, 10),
        },
        data="targets",
    ),
    "task-arithmetic": Method(
        task_arithmetic,
        "base plus the sum of what each model moved from it",
        "Ilharco et al. 2023, arXiv 2212.04089",
        weights="sum",
        options={"scale": _scale(0.4)},
        base=True,
    ),
    "ties": Method(
        ties,
        "task vectors trimmed, a sign elected, those that have it averaged",
        "Yadav et al. 2023, arXiv 2306.01708",
        weights="sum",
        options={"density": Option(0.2, "share of the entries kept", 0, 1), "scale": _scale(1.0)},
        base=True,
    ),
    "dare": Method(
        dare,
        "task arithmetic with entries dropped at random, the others scaled up",
        "Yu et al. 2024, arXiv 2311.03099",
        weights="sum",
        options={
            "density": Option(0.5, "probability to keep an entry", 0.001, 1),
            "scale": _scale(0.4),
            "seed": _SEED,
        },
        base=True,
    ),
    "dare-ties": Method(
        dare_ties,
        "entries dropped at random, then sign election and mean",
        "Yu et al. 2024, arXiv 2311.03099",
        weights="sum",
        options={
            "density": Option(0.5, "probability to keep an entry", 0.001, 1),
            "scale": _scale(1.0),
            "seed": _SEED,
        },
        base=True,
    ),
    "model-stock": Method(
        model_stock,
        "average drawn to the base by the angles between the models",
        "Jang et al. 2024, arXiv 2403.19522",
        weights="none",
        base=True,
        models=(2, math.inf),
    ),
    "tsv-m": Method(
        tsv_m,
        "first singular vectors of each task matrix, whitened apart",
        "Gargiulo et al. 2025, arXiv 2412.00081",
        weights="none",
        options={"scale": _scale(1.0)},
        base=True,
    ),
    "iso-c": Method(
        iso_c,
        "summed task matrices with all singular values equal",
        "Marczak et al. 2025, arXiv 2502.04959",
        weights="none",
        options={"scale": _scale(1.0)},
        base=True,
    ),
}
"""All merge methods."""
