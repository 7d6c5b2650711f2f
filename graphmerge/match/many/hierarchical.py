"""Pairwise matches up a tree: two models become their mean, two means the mean of four.

Source: Franke et al. 2025, arXiv 2510.09174 (2^n models). Here any number: at every level the last of an
odd number waits, and a mean counts for as many models as are in it, so that the root is the mean of all.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphmerge.match.many.job import Job, Placed, mean
from graphmerge.symmetry import Transform
from graphmerge.trace.run import State


@dataclass(frozen=True)
class Node:
    """The mean of some models, and the symmetries that brought each into its frame."""

    state: State
    transforms: tuple[Transform, ...]


def up_a_tree(job: Job) -> Placed:
    """Neighbours in the order given are matched, level by level; transforms compose on the way down."""
    level = [Node(s, (job.graph.identity(),)) for s in job.states]
    while len(level) > 1:
        waiting = level[len(level) // 2 * 2 :]
        level = [_joined(job, a, b) for a, b in zip(level[::2], level[1::2], strict=False)] + waiting
    return Placed(level[0].transforms)


def _joined(job: Job, a: Node, b: Node) -> Node:
    """``b`` moved into the frame of ``a``, and the mean of all models in both."""
    found = job.match(a.state, b.state).transform
    sizes = [float(len(x.transforms)) for x in (a, b)]
    state = mean([a.state, found.apply(b.state)], sizes)
    return Node(state, (*a.transforms, *(found @ t for t in b.transforms)))
