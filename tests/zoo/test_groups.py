"""What moved between two records of groups, by hand: groups are compared by their members."""

from __future__ import annotations

from typing import Any

import pytest

from graphmerge.zoo.groups import Record, difference


def group(name: str, size: int, members: str, within: str = "", copies: int = 1) -> dict[str, Any]:
    found = {"name": name, "size": size, "copies": copies}
    return found | {"members": members.split(), "within": within.split()}


def record(*groups: dict[str, Any], **fixed: tuple[int, str]) -> Record:
    return {"groups": list(groups), "fixed": {k.replace("_", ":"): list(v) for k, v in fixed.items()}}


OLD = record(group("mlp", 512, "a:0 b:1"), group("heads", 4, "q:0 k:0"))


def test_the_same_groups_in_another_order_are_the_same() -> None:
    assert difference(OLD, record(*reversed(OLD["groups"]))) == []


def test_a_group_that_is_gone_is_told_with_the_reason() -> None:
    new = record(OLD["groups"][1], a_0=(512, "the order of positions counts (aten.roll at blocks.3)"))
    assert difference(OLD, new) == [
        "group mlp: 512 units now fixed by aten.roll at blocks.3 (the order of positions counts)"
    ]


def test_what_was_fixed_before_is_no_reason() -> None:
    fixed = (3, "in part: position in space (aten.conv2d at stem)")
    old = record(*OLD["groups"], a_0=fixed)
    assert difference(old, record(OLD["groups"][1], a_0=fixed)) == ["group mlp: its 512 units no longer move"]


def test_a_group_that_shrank_is_followed_by_its_members() -> None:
    new = record(
        group("mlp", 500, "a:0 b:1"), OLD["groups"][1], a_0=(12, "in part: its units go separate ways")
    )
    assert difference(OLD, new) == [
        "group mlp: 12 units now fixed: in part: its units go separate ways",
        "group mlp: 512 units before, now 500",
    ]


def test_members_that_come_and_go() -> None:
    new = record(group("mlp", 512, "a:0 c:1"), OLD["groups"][1])
    assert difference(OLD, new) == ["group mlp: no longer moves 'b:1'", "group mlp: now also moves 'c:1'"]


def test_a_group_that_came_is_told_with_why_it_was_fixed() -> None:
    old = record(*OLD["groups"], n_0=(7, "no other unit is used like them"))
    new = record(*OLD["groups"], group("norm", 7, "n:0"))
    assert difference(old, new) == [
        "group norm: 7 more units now move: 'n:0'; fixed before: 'no other unit is used like them'"
    ]


def test_a_new_name_alone_is_told() -> None:
    new = record(group("hidden", 512, "a:0 b:1"), OLD["groups"][1])
    assert difference(OLD, new) == ["group mlp: now called hidden"]


def test_a_group_within_another_is_another_group() -> None:
    inner = group("heads.inner", 16, "q:1", within="heads", copies=4)
    outside = group("heads.inner", 16, "q:1", copies=4)
    (line,) = difference(record(*OLD["groups"], inner), record(*OLD["groups"], outside))
    assert line == "group heads.inner: was within 'heads', now none"


@pytest.mark.parametrize("count", [1, 2])
def test_groups_alike_are_counted(count: int) -> None:
    """Two groups may move the same dimensions, each a part of the units."""
    twin = [group("x", 5, "a:0"), group("y", 5, "a:0")]
    found = difference(record(*twin), record(*twin[:count]))
    assert found == ([] if count == 2 else ["group y: its 5 units no longer move"])
