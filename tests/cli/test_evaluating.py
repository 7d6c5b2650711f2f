"""The command that measures, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typed import Run, fingerprint, text
from typer.testing import Result

from graphmerge.evaluate.measures import MEASURES

PAIR = ["evaluate", "a.safetensors", "b.safetensors", "--model", "tinynet:Net"]
DATA = ["--data", "tinynet:batches(n=2, size=40)"]


def found(result: Result) -> dict:  # type: ignore[type-arg]
    assert result.exit_code == 0, text(result)
    data: dict = json.loads(result.stdout)  # type: ignore[type-arg]
    return data


def test_scores_of_every_checkpoint(run: Run) -> None:
    scores = found(run(*PAIR, *DATA, "--json"))["score"]
    assert list(scores) == ["a", "b", "merged"]
    alone = found(run(PAIR[0], PAIR[1], *PAIR[3:], *DATA, "--json"))["score"]
    assert alone == {"a": scores["a"]}
    naive = found(run(*PAIR, *DATA, "--align", "none", "--json"))["score"]["merged"]
    assert naive["loss"] != scores["merged"]["loss"]
    assert scores["a"]["samples"] == 80
    assert "loss (nats)" in text(run(*PAIR, *DATA))


def test_models_are_aligned_by_a_kept_trace_of_which_nothing_frozen_moves(run: Run, tmp_path: Path) -> None:
    words = (*PAIR, *DATA, "--json", "--strict", "--cache", "kept")
    aligned = found(run(*words))["score"]["merged"]
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert found(run(*words))["score"]["merged"] == aligned
    frozen = found(run(*PAIR, *DATA, "--json", "--freeze", "*"))["score"]["merged"]
    assert frozen == found(run(*PAIR, *DATA, "--json", "--align", "none"))["score"]["merged"]


def test_data_from_all_kinds_of_files_are_the_same(run: Run, tmp_path: Path) -> None:
    import tinynet  # type: ignore[import-not-found]

    x, y = (torch.cat(t) for t in zip(*tinynet.batches(), strict=True))
    np.savez(tmp_path / "data.npz", inputs=x.numpy(), targets=y.numpy())
    save_file({"inputs": x, "targets": y}, str(tmp_path / "data.safetensors"))
    words = [*PAIR[:2], *PAIR[3:], "--json", "--data"]
    first, *others = (
        found(run(*words, d))["score"]["a"] for d in ("tinynet:batches", "data.npz", "data.safetensors")
    )
    assert others == [pytest.approx(first)] * 2
    save_file({"inputs": x, "labels": y}, str(tmp_path / "bad.safetensors"))
    refused = run(*words, "bad.safetensors")
    assert refused.exit_code == 3
    assert "expected inputs and targets" in text(refused)


def test_metrics_of_ones_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def margin(outputs, targets, power=1):\n"
        "    top = outputs.softmax(-1).topk(2).values\n"
        "    return (top[:, 0] - top[:, 1]) ** power\n"
        "class Count:\n"
        "    def __init__(self): self.n = 0\n"
        "    def reset(self): self.n = 0\n"
        "    def update(self, outputs, targets): self.n += len(targets)\n"
        "    def compute(self): return self.n\n"
    )
    scores = found(run(*PAIR, *DATA, "--json", "--metric", "mine:margin(power=2)", "--metric", "mine:Count"))
    for score in scores["score"].values():
        assert score["Count"] == 80
        assert 0 < score["margin"] < 1


def test_every_measure_of_a_pair_is_plain_data(run: Run) -> None:
    names = [n for n, m in MEASURES.items() if m.models[0] <= 2]
    words = [w for n in names for w in ("--measure", n)]
    data = found(
        run(*PAIR, *DATA, *words, "--train", "tinynet:batches(n=1, size=40)", "--repair", "repair",
            "--option", "points=3", "--layers", "fc*", "--layers", "norm", "--layers", "conv", "--json")
    )  # fmt: skip
    assert set(names) <= set(data)
    assert data["align"] == "weight"
    assert list(data["barrier"]["test"]) == ["aligned", "aligned + repair", "as is", "ensemble"]
    assert len(data["barrier"]["train"]["as is"]["mean"]["at"]) == 3
    assert [r["layer"] for r in data["llfc"]["aligned"]["layers"]] == ["conv", "norm", "fc1", "fc2"]
    assert data["distance"]["total"]["gain"] > 0
    assert list(data["calibration"]) == ["a", "b", "merged"]
    assert data["score"]["a"]["loss"] == pytest.approx(data["barrier"]["test"]["as is"]["mean"]["loss"][0])


def test_three_models_span_a_plane_and_give_a_spread(run: Run, tmp_path: Path) -> None:
    import tinynet

    torch.manual_seed(2)
    save_file(tinynet.Net().state_dict(), str(tmp_path / "c.safetensors"))
    words = ["evaluate", "a.safetensors", "b.safetensors", "c.safetensors", *PAIR[3:], *DATA,
             "--measure", "plane", "--measure", "barrier", "--option", "points=3",
             "--out", "out"]  # fmt: skip
    data = found(run(*words, "--json"))
    assert list(data["plane"]["as is"]["marks"]) == ["a", "b", "c"]
    assert data["barrier"]["test"]["as is"]["seeds"] == 2
    files = fingerprint(tmp_path / "out")
    drawn = ("barrier-test", "plane-as-is", "plane-aligned")
    texts = {"evaluation.json", "evaluation.html"}
    assert set(files) == {f"{n}.{e}" for n in drawn for e in ("svg", "png")} | texts
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == data


def test_one_model_is_measured_alone_and_reruns_are_the_same(run: Run, tmp_path: Path) -> None:
    words = [*PAIR[:2], *PAIR[3:], *DATA, "--measure", "calibration", "--measure", "robustness",
             "--measure", "random-plane", "--option", "kind=fgsm", "--option", "steps=2",
             "--option", "points=3", "--out", "out"]  # fmt: skip
    assert run(*words).exit_code == 0
    first = fingerprint(tmp_path / "out")
    assert {"calibration.svg", "robustness-fgsm.png", "random-plane-a.svg"} <= set(first)
    assert run(*words).exit_code == 2
    assert run(*words, "--force").exit_code == 0
    assert fingerprint(tmp_path / "out") == first


@pytest.mark.parametrize(
    ("words", "code", "fragment"),
    [
        (["--measure", "magic"], 2, "there are: score, barrier"),
        (["--measure", "plane"], 2, "takes 3 models, got 2"),
        (["--measure", "score", "--option", "points=3"], 2, "no measure asked for has option 'points'"),
        (["--measure", "barrier", "--option", "points=1"], 2, "at least 2"),
        (["--measure", "barrier", "--align", "magic"], 2, "unknown --align"),
        (["--measure", "barrier", "--repair", "bn-reset"], 2, "needs --train"),
        (["--measure", "barrier", "--align", "activation"], 2, "needs --train"),
        (["--measure", "barrier", "--repair", "magic", "--train", "tinynet:batches"], 2, "unknown repair"),
        (["--measure", "llfc", "--layers", "nothing*"], 2, "no layer fits nothing*"),
        (["--metric", "tinynet:nothing"], 2, "cannot import"),
        (["--measure", "barrier", "--data", "tinynet:batches(n=0)"], 3, "no batch at all"),
    ],
)
def test_bad_calls_are_refused(run: Run, words: list[str], code: int, fragment: str) -> None:
    result = run(*PAIR, *DATA, *words)
    assert result.exit_code == code
    assert fragment in text(result)


def test_help_lists_every_measure_with_its_source(run: Run) -> None:
    shown = text(run("evaluate", "--help"))
    for name, m in MEASURES.items():
        assert f"{name}:" in shown
        assert all(o in shown for o in m.options)
    assert "2307.08286" in shown
