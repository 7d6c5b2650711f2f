"""Networks that tell no classes apart, merged and measured from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typed import Run, text

NETS = """
import torch
from torch import nn

def net(outputs=1):
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, outputs))

def sums(n=4, size=40):
    torch.manual_seed(1)
    x = torch.randn(n, size, 3)
    return [(b, b.relu().sum(1)) for b in x]

def labels(n=4, size=40):
    torch.manual_seed(1)
    x = torch.randn(n, size, 3)
    return [(b, (b > 0).float()) for b in x]

def cubed(outputs, targets):
    return (outputs[:, 0] - targets).abs() ** 3
"""


@pytest.fixture
def trained(run: Run, tmp_path: Path) -> Run:
    """The command in a folder with two networks trained to give a sum, and two with three labels."""
    (tmp_path / "numbered.py").write_text(NETS)
    import numbered  # type: ignore[import-not-found]

    lost = {
        "sums": torch.nn.functional.mse_loss,
        "labels": torch.nn.functional.binary_cross_entropy_with_logits,
    }
    for kind, loss in lost.items():
        for seed in (0, 1):
            torch.manual_seed(seed)
            model = numbered.net(1 if kind == "sums" else 3)
            optimiser = torch.optim.Adam(model.parameters(), 0.02)
            for _ in range(50):
                for x, y in getattr(numbered, kind)():
                    optimiser.zero_grad()
                    loss(model(x).reshape(y.shape), y).backward()
                    optimiser.step()
            save_file(model.state_dict(), str(tmp_path / f"{kind}{seed}.safetensors"))
    return run


def words(command: str, kind: str) -> list[str]:
    model = f"numbered:net(outputs={1 if kind == 'sums' else 3})"
    return [
        command,
        f"{kind}0.safetensors",
        f"{kind}1.safetensors",
        "--model",
        model,
        "--data",
        f"numbered:{kind}",
    ]


def test_a_regression_is_merged_by_its_loss(trained: Run, tmp_path: Path) -> None:
    quick = ("--input", "2x3", "--points", 5, "--no-onnx", "--out", "out")
    result = trained(*words("merge", "sums"), *quick, "--loss", "mse", "--measure", "robustness")
    assert result.exit_code == 0, text(result)
    assert "loss (mse)" in text(result)
    assert "accuracy" not in text(result)
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {r["name"]: r for r in told["rows"]}
    kept = next(r for r in told["rows"] if r["kept"])
    assert told["loss"] == told["recipe"]["loss"] == "mse"
    assert rows["model a"]["loss"] < 0.1 < rows["naive"]["loss"]
    assert kept["loss"] < rows["naive"]["loss"] / 2
    assert kept["accuracy"] is None
    barrier = told["barrier"]
    naive, aligned = (barrier[n]["loss barrier"]["max above line"] for n in ("naive", "aligned"))
    assert aligned < naive
    assert barrier["aligned"]["loss"][0] == pytest.approx(rows["model a"]["loss"], rel=1e-4)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "by mse" in page
    assert "nats" not in page
    assert "nan" not in page.replace("dominant", "")
    again = trained("merge", "out/recipe.lock.yaml", "--out", "again")
    assert "the same bytes" in text(again), text(again)


def test_labels_are_told_one_by_one(trained: Run, tmp_path: Path) -> None:
    quick = ("--input", "2x3", "--points", 3, "--no-onnx", "--out", "out")
    result = trained(*words("merge", "labels"), *quick, "--loss", "bce")
    assert result.exit_code == 0, text(result)
    rows = {r["name"]: r for r in json.loads((tmp_path / "out" / "report.json").read_text())["rows"]}
    assert rows["model a"]["accuracy"] > 0.95
    assert rows["model a"]["samples"] == 3 * 40
    assert rows["ensemble of a and b"]["accuracy"] > 0.95


def test_measures_go_by_the_loss_and_those_of_classes_are_refused(trained: Run) -> None:
    names = ["score", "barrier", "path", "robustness", "random-plane", "matrix"]
    quick = ["--option", "points=3", *(w for n in names for w in ("--measure", n))]
    result = trained(
        *words("evaluate", "sums"), *quick, "--loss", "numbered:cubed", "--train", "numbered:sums"
    )
    assert result.exit_code == 0, text(result)
    assert "loss (cubed)" in text(result)
    assert "nats" not in text(result)
    for name in ("calibration", "agreement"):
        refused = trained(*words("evaluate", "sums"), "--loss", "mse", "--measure", name)
        assert refused.exit_code == 2
        assert f"--measure {name} is of classes" in text(refused)


def test_matching_by_a_loss(trained: Run) -> None:
    more = ("--input", "2x3", "--method", "straight-through", "--option", "steps=3", "--out", "m.safetensors")
    assert trained(*words("match", "sums"), *more, "--loss", "mse").exit_code == 0
    refused = trained(*words("match", "sums"), *more[:-1], "n.safetensors")
    assert refused.exit_code == 3
    assert "--loss mse" in text(refused)


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ((), 3, "--loss mse for numbers"),
        (("--loss", "mes"), 2, "unknown loss 'mes'"),
        (("--loss", "numbered:nothing"), 2, "nothing"),
        (("--loss", "bce"), 3, "bce takes labels from 0 to 1"),
        (("--loss", "mse", "--repair", "temperature"), 2, "temperature takes logits and class numbers"),
        (("--loss", "l1", "--merge", "fisher"), 2, "no distribution for the loss l1"),
        (("--loss", "mse", "--measure", "calibration"), 2, "--measure calibration is of classes"),
        (("--loss", "torch:cat"), 3, "does not take what the model gives"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_traced(
    more: tuple[str, ...], code: int, says: str, trained: Run
) -> None:
    result = trained(*words("merge", "sums"), "--input", "2x3", "--out", "out", *more)
    assert result.exit_code == code, text(result)
    assert says in text(result)
    assert "tracing" not in text(result)
