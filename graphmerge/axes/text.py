"""Rules as text: which dimensions of an operator's tensors are the same axis.

    "n i h w, o i p q, o? -> n o y x | h w p q y x"

One term per tensor, one letter per dimension; the same letter is the same axis, a letter missing
on the right is contracted, ``?`` marks a tensor that may be absent, letters behind ``|`` are fixed.
``(g i)`` is a dimension made of g blocks of i units, a number is a factor that is fixed, ``1`` is
broadcast, and ``...`` stands for leading dimensions shared by all terms that have it.

The order of a letter may differ from position to position of another letter (each head has its own
order inside) only where *every* tensor with the first has the second too: else the operator would
mix units that have been ordered differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

Dim = tuple[str, ...]
"""The letters of one dimension, outermost first; numbers are fixed factors."""


@dataclass(frozen=True)
class Rule:
    """A parsed rule text."""

    inputs: tuple[tuple[Dim, ...], ...]
    optional: tuple[bool, ...]
    outputs: tuple[tuple[Dim, ...], ...]
    fixed: frozenset[str]


def _term(text: str) -> tuple[Dim, ...]:
    tokens = re.findall(r"\([^)]*\)|\.\.\.|\w+", text)
    return tuple(tuple(t.strip("()").split()) for t in tokens)


@lru_cache(maxsize=4096)
def parse(text: str) -> Rule:
    """Read a rule text."""
    body, _, fixed = text.partition("|")
    left, arrow, right = body.partition("->")
    assert arrow, f"rule {text!r} has no '->'"
    terms = [t.strip() for t in left.split(",")] if left.strip() else []
    return Rule(
        tuple(_term(t.rstrip("?")) for t in terms),
        tuple(t.endswith("?") for t in terms),
        tuple(_term(t) for t in right.split(",")),
        frozenset(fixed.split()),
    )
