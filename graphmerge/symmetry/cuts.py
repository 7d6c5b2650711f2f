"""Units that stay because an operator gives each of them a use of its own."""

from __future__ import annotations

import numpy as np

from graphmerge.axes.units import Where, Whole
from graphmerge.symmetry.propagate import Facts
from graphmerge.symmetry.structure import Structure


def first_cut(structure: Structure, facts: Facts, name: str, dim: int) -> Where | None:
    """The first operator that singled out units of a parameter's dimension which no group moves."""
    own = facts.parameters.get(name)  # a stack of parallel branches is none of them
    labels = (own.labels or [])[dim:][:1] if own else []
    if not labels or isinstance(labels[0], Whole):
        return None
    classes = np.unique(structure.classes[labels[0]])
    still = classes[structure.sort_of[classes] < 0]
    for units, where in zip(facts.universe.marks, facts.universe.cuts, strict=True):
        if np.isin(structure.classes[units[units >= 0]], still).any():
            return where
    return None
