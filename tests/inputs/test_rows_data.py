"""Rows of data: dead and twin units, and data that are absent, too few, strange or of one class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typed import MERGE, Pair, Refused, Run, contents, text


def test_row_29_units_that_never_vary_are_left_alone_and_counted(
    pair: Pair, run: Run, tmp_path: Path
) -> None:
    words = pair("Mlp")
    for file in words[1:3]:
        state = load_file(tmp_path / file)
        state["fc1.weight"][2], state["fc1.bias"][2] = 0, -1
        save_file(state, str(tmp_path / file))
    result = run(*words, "--data", "nets:batches", "--repair", "repair", "--points", 0, "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "units that never vary" in text(result)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert all(bool(t.isfinite().all()) for t in merged.values())


@pytest.mark.parametrize("fill", ["zero", "twin"])
def test_row_30_units_that_cannot_be_told_apart_are_placed_the_same_each_time_and_reported(
    fill: str, pair: Pair, run: Run, tmp_path: Path
) -> None:
    words = pair("Mlp")
    for file in words[1:3]:
        state = load_file(tmp_path / file)
        for name, dim in (("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)):
            rows = state[name].movedim(dim, 0)
            rows[5] = 0 if fill == "zero" else rows[4]
            rows[6] = 0 if fill == "zero" else rows[4]
        save_file(state, str(tmp_path / file))
    first, second = run(*words, "--out", "one"), run(*words, "--out", "two")
    assert first.exit_code == second.exit_code == 0, text(first)
    assert "units with a twin" in text(first)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one["model.safetensors"] == two["model.safetensors"]


def test_row_31_without_data_weights_are_matched_and_repair_is_refused(
    run: Run, refused: Refused, tmp_path: Path
) -> None:
    refused(2, *MERGE, "--repair", "repair", says=("repair needs data", "--data"))
    refused(2, *MERGE, "--method", "activation", says=("activation matching needs data", "--data"))
    assert run(*MERGE, "--no-onnx", "--out", "new").exit_code == 0
    assert json.loads((tmp_path / "new" / "report.json").read_text())["matching"] == "weight"


def test_row_32_too_few_samples_for_a_statistic(refused: Refused) -> None:
    few = ("--data", "tinynet:batches(n=2, size=4)")
    says = ("Seen: 4, and 4 that are held out", "at least 32", "give more data", "--repair none")
    printed = refused(3, *MERGE, *few, says=says)
    assert "matching by" not in printed, "hours of matching come after what can be refused at once"
    refused(3, *MERGE, "--data", "tinynet:batches(n=1)", says=("holds 1 batch;", "smaller batches"))
    refused(3, *MERGE, "--data", "tinynet:batches(n=0)", says="no batch")


def test_row_32_batches_of_other_shapes_are_counted_in_a_warning(pair: Pair, run: Run) -> None:
    result = run(*pair("Mlp"), "--data", "nets:ragged", "--points", 0, "--no-onnx", "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "5 of 6 batches have other shapes than the first" in text(result)


@pytest.mark.parametrize("role", ["--data", "--test"])
def test_row_31_a_data_file_that_is_not_there_is_told_as_that(role: str, refused: Refused) -> None:
    refused(3, *MERGE, role, "no.npz", says=("'no.npz' gives no data", "no file of that name"))
    refused(3, *MERGE, role, "batches", says=("'batches' gives no data", "module:loader"))
    Path("table.csv").write_text("1,2")
    refused(3, *MERGE, role, "table.csv", says=("a file .csv", ".npz"))


@pytest.mark.parametrize("role", ["--data", "--test"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("nets:batches(width=5)", ("does not run on the data", "(2, 4) float32", "(40, 5) float32")),
        (
            "nets:doubles",
            ("does not run on the data", "float64", "convert the inputs of the data to float32"),
        ),
        ("nets:from_one", ("no classes of the model", "from 0 to 2", "3")),
        ("nets:fractions", ("cross-entropy does not take these targets", "float32 (40,)", "--loss mse")),
        ("nets:fewer", ("40 predictions for 39 targets",)),
        ("nets:without_targets", ("no targets", "(inputs, targets)", "without --data")),
        ("nets:bare", ("gives no data", "a Tensor as a batch", "(inputs, targets)")),
        ("nets:Mlp", ("'nets:Mlp' gives no data", "the call failed", "TypeError")),
        ("nets:nothing", ("'nets:nothing' gives no data", "the call failed", "NoneType")),
        ("nets:batches(n=0)", ("'nets:batches(n=0)' gives no data", "no batch at all")),
    ],
)
def test_row_33_data_of_another_shape_or_kind(
    role: str, data: str, says: tuple[str, ...], pair: Pair, refused: Refused
) -> None:
    """One batch is run, and all targets are looked at, before anything long begins."""
    more = ("--data", "nets:batches") if role == "--test" else ()
    assert "tracing" not in refused(3, *pair("Mlp"), *more, role, data, says=says)


def test_row_33_data_of_one_model_are_looked_at_too(pair: Pair, refused: Refused) -> None:
    own = ("--own-data", "nets:batches", "--own-data", "nets:batches(width=5)")
    printed = refused(3, *pair("Mlp"), "--merge", "regmean", *own, says="(40, 5) float32")
    assert "tracing" not in printed
    own = ("--own-data", "nets:without_targets") * 2
    for method in (("fisher", "--option", "labels=empirical"), ("ode-m",)):
        assert "tracing" not in refused(3, *pair("Mlp"), "--merge", *method, *own, says="no targets")


@pytest.mark.parametrize("command", ["evaluate", "match"])
@pytest.mark.parametrize(
    ("data", "says"),
    [("nets:batches(width=5)", "does not run"), ("nets:without_targets", "targets"), ("nets:from_one", "3")],
)
def test_row_33_other_commands_look_at_their_data_first(
    command: str, data: str, says: str, pair: Pair, run: Run
) -> None:
    words = [command, *pair("Mlp")[1:-1], "--data", data]
    more = ["--method", "learned", "--out", "m.safetensors"] if command == "match" else []
    result = run(*words, *more)
    assert result.exit_code == 3, text(result)
    assert says in text(result)
    assert "tracing" not in text(result)


@pytest.mark.parametrize("role", ["--data", "--test"])
def test_row_34_nan_in_the_data(role: str, pair: Pair, refused: Refused) -> None:
    more = ("--data", "nets:batches") if role == "--test" else ()
    says = ("batch 4 of 4", "NaN", "leave those samples out")
    assert "tracing" not in refused(3, *pair("Mlp"), *more, role, "nets:batches(nan=True)", says=says)


def test_row_34_data_of_a_single_class_are_used_with_a_warning(pair: Pair, run: Run) -> None:
    quick = ("--repair", "none", "--method", "weight", "--points", 0)
    result = run(*pair("Mlp"), "--data", "nets:batches(one=True)", *quick, "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "all targets of the data are class 2" in text(result)
    assert "tracing" in text(result)  # which is not, where data are refused
