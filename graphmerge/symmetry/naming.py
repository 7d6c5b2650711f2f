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
    counts = [Counter(n[k] for n in names) for k in (0, 1)]
    clear = {short: all(counts[1][b] == 1 for a, b in names if a == short) for short, _ in names}
    chosen: list[str] = []
    for short, long in names:
        base = short if counts[0][short] == 1 or not clear[short] else long
        same = sum(n.partition("#")[0] == base for n in chosen)
        chosen.append(f"{base}#{same + 1}" if same else base)
    return chosen
