"""Imports run one way: what stands on the left never imports what stands on the right."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphmerge

ORDER = (
    "errors",
    "progress",
    "options",
    "precision",
    "axes",
    "trace",
    "losses",
    "metrics",
    "files",
    "symmetry",
    "match",
    "merge",
    "repair",
    "evaluate",
    "report",
    "export",
    "sources",
    "recipe",
    "candidates",
    "pipeline",
    "run",
    "zoo",
    "cli",
)
FOREIGN = {"models_zoo", "tools", "tests", "torchvision", "timm", "transformers"}
ROOT = Path(graphmerge.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage(module: str) -> str | None:
    """The stage of ``graphmerge.stage.more``; None for the package itself and for others."""
    parts = module.split(".")
    return parts[1] if parts[0] == "graphmerge" and len(parts) > 1 and parts[1] in ORDER else None


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_imports_to_its_right(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own not in ORDER:
        assert own in {"__init__", "__main__"}, f"{own} has no place in the order"
        return
    used = {s for s in map(stage, imports(path)) if s is not None}
    assert [s for s in used if ORDER.index(s) > ORDER.index(own)] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_imports_the_package_as_a_whole_but_its_front(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own not in {"__init__", "__main__", "cli", "pipeline"}:
        whole = [m for m in imports(path) if m.partition(".")[0] == "graphmerge" and stage(m) is None]
        assert whole == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_package_imports_nothing_that_only_tests_and_tools_need(path: Path) -> None:
    assert {m.partition(".")[0] for m in imports(path)} & FOREIGN == set()


def test_axes_know_nothing_of_graphs() -> None:
    used = {m for path in (ROOT / "axes").rglob("*.py") for m in imports(path)}
    assert not [m for m in used if m.startswith(("torch.fx", "torch.export"))]
