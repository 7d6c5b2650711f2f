"""What symmetry groups are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Place = tuple[str, int]


def own_names(members: Sequence[Place], outer: bool) -> tuple[str, str]:
    """The module that makes the units, the owner of the first parameter whose rows they are; and that."""
    rows = [n for n, d in members if d == 0]
    name = (rows or [members[0][0]])[0]
    end = ".blocks" if outer else ""
    return (name.rpartition(".")[0] or name) + end, name + end


def distinct(names: Sequence[tuple[str, str]]) -> list[str]:
    """Short names where no two are alike, else long ones, else short ones with a number."""
    shorts, longs = (Counter(n[k] for n in names) for k in (0, 1))
    unclear = {short for short, long in names if longs[long] > 1}
    seen: Counter[str] = Counter()
    chosen: list[str] = []
    for short, long in names:
        base = short if shorts[short] == 1 or short in unclear else long
        seen[base] += 1
        chosen.append(f"{base}#{seen[base]}" if seen[base] > 1 else base)
    return chosen
