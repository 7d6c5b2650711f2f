"""The symmetry groups of a model as plain data, and what moved between two such records."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphmerge.errors import listing
from graphmerge.symmetry import ModelGraph, SymmetryGroup

Record = Mapping[str, Any]
Group = Mapping[str, Any]
Key = tuple[int, int, frozenset[str], frozenset[frozenset[str]]]

_FIXED = re.compile(r"(?:in part: )?(?P<why>.*) \((?P<where>.*)\)")


def record(graph: ModelGraph) -> Record:
    """Groups with their members as ``parameter:dimension``; fixed dimensions with units and reason."""
    return {
        "groups": [_group(g) for g in graph.groups],
        "fixed": {f"{f.parameter}:{f.dim}": [f.units, f.reason] for f in graph.fixed},
    }


def _group(g: SymmetryGroup) -> Group:
    members = sorted(f"{name}:{dim}" for name, dim in g.members)
    return {"name": g.name, "size": g.size, "copies": g.copies, "members": members, "within": list(g.within)}


def difference(old: Record, new: Record) -> list[str]:
    """What moved, a line each; empty where both are the same.

    Groups are compared by size, copies, members and the groups that they lie in; one that is gone is told
    with the reasons for which its units are now fixed, and with the group that took over its members.
    """
    was, now = _by_key(old["groups"]), _by_key(new["groups"])
    gone = [g for key, groups in was.items() for g in groups[len(now.get(key, ())) :]]
    came = [g for key, groups in now.items() for g in groups[len(was.get(key, ())) :]]
    lines, followed = [], []
    for g in gone:
        heir = max(came, key=lambda c: len(_shared(c, g)), default=None)
        heir = heir if heir is not None and _shared(heir, g) else None
        followed.append(heir)
        lines += [f"group {g['name']}: {text}" for text in _moved(g, heir, old["fixed"], new["fixed"])]
    lines += [
        f"group {g['name']}: {_size(g)} more units now move: {listing(g['members'])}{_freed(g, old['fixed'])}"
        for g in came
        if g not in followed
    ]
    for key in was.keys() & now.keys():
        renamed = [(a["name"], b["name"]) for a, b in zip(was[key], now[key], strict=False)]
        lines += [f"group {a}: now called {b}" for a, b in renamed if a != b]
    return lines


def _by_key(groups: Sequence[Group]) -> dict[Key, list[Group]]:
    """Groups by all that counts but their names."""
    members = {g["name"]: frozenset(g["members"]) for g in groups}
    found: dict[Key, list[Group]] = defaultdict(list)
    for g in groups:
        outer = frozenset(members[name] for name in g["within"])
        found[g["size"], g["copies"], members[g["name"]], outer].append(g)
    return found


def _shared(a: Group, b: Group) -> set[str]:
    return set(a["members"]) & set(b["members"])


def _size(g: Group) -> str:
    return f"{g['copies']} x {g['size']}" if g["copies"] > 1 else str(g["size"])


def _moved(g: Group, heir: Group | None, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[str]:
    """What became of a group that is no longer there as it was."""
    reasons = _reasons(g["members"], was, now)
    yield from reasons
    if heir is None:
        if not reasons:
            yield f"its {_size(g)} units no longer move"
        return
    if _size(heir) != _size(g):
        yield f"{_size(g)} units before, now {_size(heir)}"
    if left := sorted(set(g["members"]) - set(heir["members"])):
        yield f"no longer moves {listing(left)}"
    if added := sorted(set(heir["members"]) - set(g["members"])):
        yield f"now also moves {listing(added)}"
    if heir["within"] != g["within"]:
        yield f"was within {listing(g['within']) or 'none'}, now {listing(heir['within']) or 'none'}"


def _reasons(members: Sequence[str], was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """For each reason the most units that it now fixes of one dimension, and did not fix before."""
    found: dict[str, int] = {}
    for place in members:
        units, reason = now.get(place, (0, ""))
        more = units - was.get(place, (0, ""))[0]
        if more > 0:
            told = _FIXED.fullmatch(reason)
            text = f"fixed by {told['where']} ({told['why']})" if told else f"fixed: {reason}"
            found[text] = max(found.get(text, 0), more)
    return [f"{units} units now {text}" for text, units in found.items()]


def _freed(g: Group, was: Mapping[str, Any]) -> str:
    """Why a group that is new did not move before."""
    reasons = {was[place][1] for place in g["members"] if place in was}
    return f"; fixed before: {listing(sorted(reasons))}" if reasons else ""
