"""Traces kept on disk: found while nothing changed, equal to fresh ones, and never trusted when damaged."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphmerge as gm
from graphmerge.files import cached_program
from graphmerge.files.traced import ARCHIVE, SEAL
from graphmerge.trace import Program, export_program
from graphmerge.trace.fingerprint import content_hash, fingerprint
from graphmerge.trace.program import first_difference

CODE = """
import torch
from torch import nn
from helper_of_kept import scaled

class Kept(nn.Module):
    def __init__(self, gain=2.0):
        super().__init__()
        self.gain = gain
        self.table, self.up, self.down = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.table.weight
        self.unread = nn.Parameter(torch.ones(3))
        self.register_buffer("ramp", torch.arange(6.0), persistent=False)

    def forward(self, ids, scale=None):
        h = self.table(ids) + self.ramp
        h = h + scaled(self.down(torch.relu(self.up(h))), self.gain)
        h = self.norm(h.transpose(1, 2)).transpose(1, 2)
        return self.head(h if scale is None else h * scale)
"""
HELPER = "def scaled(x, gain):\n    return x * gain\n"
IDS = torch.tensor([[1, 2, 3, 4], [0, 5, 6, 7]])


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that is imported from a folder of its own, where it can be edited."""
    (tmp_path / "kept_net.py").write_text(CODE)
    (tmp_path / "helper_of_kept.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("kept_net")
    for name in ("kept_net", "helper_of_kept"):
        del sys.modules[name]


def said_by(model: nn.Module, cache: Path, *args: Any, **kwargs: Any) -> tuple[Program, str]:
    said: list[str] = []
    program = cached_program(model, args or (IDS,), kwargs, cache, said.append)
    return program, "\n".join(said)


def test_the_second_trace_is_read_and_is_the_first(kept: Any, tmp_path: Path) -> None:
    model = kept.Kept().eval()
    first, said = said_by(model, tmp_path / "cache")
    assert "exporting Kept" in said
    assert "keeping the trace" in said
    second, said = said_by(model, tmp_path / "cache")
    assert "exporting" not in said
    fresh = export_program(model, (IDS,))
    for program in (first, second):
        assert first_difference(fresh, program) is None
        assert program.tensors == fresh.tensors
        assert program.unused == fresh.unused
        assert program.inputs == fresh.inputs
        assert program.constants.keys() == fresh.constants.keys()
        assert all(torch.equal(t, fresh.constants[n]) for n, t in program.constants.items())
    assert {"table.weight", "head.weight"} in [set(t.names) for t in second.tensors.values()]


def test_a_read_trace_has_the_same_groups_reasons_and_lines_and_passes_the_gate(
    kept: Any, tmp_path: Path
) -> None:
    model = kept.Kept().eval()
    graphs = [gm.trace(model, (IDS,), cache=tmp_path / "cache") for _ in range(2)]
    fresh = gm.trace(model, (IDS,))
    for graph in graphs:
        assert graph.groups == fresh.groups
        assert graph.fixed == fresh.fixed
        assert graph.explain("up.weight", 0) == fresh.explain("up.weight", 0)
        assert "kept_net.py:19" in graph.explain("up.weight", 0)
    assert gm.verify(graphs[1], model).passed


def test_weights_are_not_kept_nor_looked_at(kept: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    one = kept.Kept().eval()
    said_by(one, tmp_path / "cache")
    _, said = said_by(kept.Kept().eval(), tmp_path / "cache")
    assert "exporting" not in said
    (archive,) = (tmp_path / "cache").glob(f"*/{ARCHIVE}")
    assert one.up.weight.detach().numpy().tobytes() not in archive.read_bytes()


CHANGES: dict[str, Callable[[Any], tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]] = {
    "a setting": lambda m: (m.Kept(gain=3.0), (IDS,), {}),
    "the shape of an input": lambda m: (m.Kept(), (IDS[:, :3],), {}),
    "the values of whole numbers": lambda m: (m.Kept(), (IDS + 1,), {}),
    "a keyword": lambda m: (m.Kept(), (IDS,), {"scale": torch.ones(6)}),
    "the dtype of weights": lambda m: (m.Kept().double(), (IDS,), {}),
    "the values of a buffer that is no part of the state": lambda m: (ramped(m.Kept()), (IDS,), {}),
    "ties": lambda m: (untied(m.Kept()), (IDS,), {}),
    "a module": lambda m: (widened(m.Kept()), (IDS,), {}),
}


def ramped(model: Any) -> nn.Module:
    model.ramp += 1
    return model


def untied(model: Any) -> nn.Module:
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    return model


def widened(model: Any) -> nn.Module:
    model.up, model.down = nn.Linear(6, 10), nn.Linear(10, 6)
    return model


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_graph_depends_on_is_in_the_hash(change: str, kept: Any) -> None:
    model, args, kwargs = CHANGES[change](kept)
    assert fingerprint(model.eval(), args, kwargs) != fingerprint(kept.Kept().eval(), (IDS,), {})
    assert fingerprint(kept.Kept().eval(), (IDS,), {}) == fingerprint(kept.Kept().train(), (IDS,), {})


def test_a_lambda_and_a_class_without_a_file_are_told_by_their_instructions() -> None:
    class Applied(nn.Module):
        def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.act = act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x)

    x = (torch.ones(2),)
    doubled = [fingerprint(Applied(lambda v: v * 2), x, {}) for _ in range(2)]
    assert doubled[0] == doubled[1]
    assert fingerprint(Applied(lambda v: v * 3), x, {}) != doubled[0]


@pytest.mark.parametrize("file", ["kept_net.py", "helper_of_kept.py"])
def test_code_that_was_edited_is_traced_anew(file: str, kept: Any, tmp_path: Path) -> None:
    said_by(kept.Kept().eval(), tmp_path / "cache")
    with (tmp_path / file).open("a") as handle:
        handle.write("# edited\n")
    _, said = said_by(kept.Kept().eval(), tmp_path / "cache")
    assert "exporting Kept" in said
    _, said = said_by(kept.Kept().eval(), tmp_path / "cache")
    assert "exporting" not in said


@pytest.mark.parametrize("file", [ARCHIVE, SEAL])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_trace_is_refused(file: str, damage: str, kept: Any, tmp_path: Path) -> None:
    model = kept.Kept().eval()
    said_by(model, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"*/{file}")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-20] if damage == "cut" else b"{}" + content[2:])
    with pytest.raises(gm.InputError, match="is damaged"):
        said_by(model, tmp_path / "cache")


def test_progress_tells_what_is_being_done(kept: Any) -> None:
    said: list[str] = []
    gm.trace(kept.Kept().eval(), (IDS,), progress=said.append)
    assert [x.split()[0] for x in said] == ["exporting", "decomposing", "reading", "solving"]


def test_contents_differ_where_a_value_does_however_large_they_are() -> None:
    """Of a large array numpy shows the ends alone."""

    def batches(at: int | None) -> object:
        x = np.zeros((50, 50))
        x.flat[at or 0] = at is not None
        return [(x, {"y": torch.arange(3), "names": ["a", "b"]})]

    hashes = [content_hash(batches(at)) for at in (None, 0, 1200, 1300, 1300)]
    assert len(set(hashes)) == 4
    assert hashes[3] == hashes[4]
    assert content_hash([torch.ones(2), "a"]) != content_hash([torch.ones(2), "b"])
