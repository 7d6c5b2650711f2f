"""Rows of tensors that do not fit their model, or are of a kind that has no average."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typed import MODEL, Pair, Refused, Run, text

State = dict[str, torch.Tensor]
BAD = ("merge", "a.safetensors", "bad.safetensors", *MODEL)


@pytest.fixture
def edit(run: Run, tmp_path: Path) -> Callable[..., None]:  # noqa: ARG001 - the folder to be in
    """Write a changed copy of a checkpoint."""

    def change(how: Callable[[State], Any], source: str = "b", target: str = "bad") -> None:
        state = load_file(tmp_path / f"{source}.safetensors")
        how(state)
        save_file(state, str(tmp_path / f"{target}.safetensors"))

    return change


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_row_07_values_that_are_not_finite(value: float, edit: Any, refused: Refused) -> None:
    edit(lambda s: s["fc1.weight"][0].fill_(value))
    refused(3, *BAD, says=("bad.safetensors", "'fc1.weight'", "--allow-nonfinite"))


def test_row_07_allowed_they_are_copied_and_never_matched(edit: Any, run: Run, tmp_path: Path) -> None:
    edit(lambda s: s.update({"fc1.weight": torch.full((12, 32), torch.nan)}))
    words = ("merge", "bad.safetensors", "b.safetensors", *MODEL, "--no-onnx", "--allow-nonfinite")
    result = run(*words, "--out", "out")
    assert result.exit_code == 0, text(result)
    assert "hold NaN or infinity: fc1.weight" in text(result)
    bad, b, merged = (
        load_file(tmp_path / p) for p in ("bad.safetensors", "b.safetensors", "out/model.safetensors")
    )
    assert merged["fc1.weight"].isnan().all()
    assert torch.allclose(merged["fc2.weight"], (bad["fc2.weight"] + b["fc2.weight"]) / 2)


@pytest.mark.parametrize("command", ["merge", "plan"])
def test_row_08_a_shape_that_differs_is_seen_by_plan_too(command: str, edit: Any, refused: Refused) -> None:
    edit(lambda s: s.update({"fc1.bias": torch.ones(5)}))
    refused(3, command, *BAD[1:], says=("bad.safetensors", "'fc1.bias'", "(12,)", "(5,)"))


@pytest.mark.parametrize("command", ["merge", "plan"])
def test_row_09_missing_names(command: str, edit: Any, refused: Refused) -> None:
    """No policy per key: what is missing is refused, a tied name that its twin gives is filled in."""
    edit(lambda s: s.pop("fc2.bias"))
    refused(3, command, *BAD[1:], says=("bad.safetensors", "1 missing: 'fc2.bias'"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "ema."])
def test_row_10_extra_names_of_a_wrapper_are_never_stripped_but_pointed_out(
    prefix: str, edit: Any, refused: Refused
) -> None:
    edit(lambda s: [s.update({prefix + n: s.pop(n)}) for n in list(s)])
    refused(3, *BAD, says=("bad.safetensors", f"k.removeprefix('{prefix}')"))


def test_row_10_a_second_copy_such_as_an_ema(edit: Any, refused: Refused) -> None:
    edit(lambda s: s.update({f"ema.{n}": t.clone() for n, t in s.items()}))
    refused(3, *BAD, says=("bad.safetensors", "a second copy of the model", "'ema.'"))


def test_row_11_tied_in_one_file_and_untied_in_the_other(
    pair: Pair, run: Run, refused: Refused, tmp_path: Path
) -> None:
    words = pair("Tied")
    file = tmp_path / words[2]
    state = load_file(file)
    save_file({"up.weight": state["up.weight"]}, str(file))
    result = run(*words, "--out", "new")
    assert result.exit_code == 0, text(result)
    assert "'down.weight' filled in from its tied twin" in text(result)
    save_file({**state, "down.weight": state["down.weight"] + 1}, str(file))
    says = (words[2], "'up.weight' and 'down.weight' differ", "build the model untied")
    refused(3, *words, says=says)


def test_row_12_mixed_and_half_precision_is_computed_in_float32_and_said(
    edit: Any, run: Run, tmp_path: Path
) -> None:
    edit(lambda s: s.update({n: t.half() for n, t in s.items() if n.startswith("fc")}), "a", "half")
    words = ("merge", "half.safetensors", "b.safetensors", *MODEL, "--no-onnx")
    result = run(*words, "--out", "one")
    assert result.exit_code == 0
    assert "mixed float dtypes" in text(result)
    assert "torch.float16 as torch.float32" in text(result)
    assert load_file(tmp_path / "one" / "model.safetensors")["fc1.weight"].dtype == torch.float16
    assert run(*words, "--dtype", "float32", "--out", "two").exit_code == 0
    merged = load_file(tmp_path / "two" / "model.safetensors")
    assert merged["fc1.weight"].dtype == torch.float32
    assert merged["norm.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("command", ["merge", "plan"])
def test_row_13_integers_and_complex_values_where_floats_belong(
    command: str, dtype: torch.dtype, edit: Any, refused: Refused
) -> None:
    edit(lambda s: s.update({"fc2.bias": s["fc2.bias"].to(dtype)}))
    refused(3, command, *BAD[1:], says=("bad.safetensors", "'fc2.bias'", str(dtype)))


def test_row_14_a_head_for_other_classes_is_refused_with_what_can_be_done(
    edit: Any, refused: Refused
) -> None:
    """The choice between keeping a, b, both or the union is made in Python: the result of both and union is
    another architecture than that of the inputs, which no --model names."""
    edit(lambda s: s.update({"fc2.weight": torch.ones(5, 12), "fc2.bias": torch.ones(5)}))
    refused(3, *BAD, says=("bad.safetensors", "'fc2.weight'", "merge_heads", "both or union"))


def labelled(tmp_path: Path, name: str, *labels: str) -> Path:
    """A checkpoint in a folder with a config that names its classes."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((tmp_path / f"{name[0]}.safetensors").read_bytes())
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))} if labels else {}))
    return folder


def test_row_15_the_same_classes_in_another_order(run: Run, refused: Refused, tmp_path: Path) -> None:
    one, other = labelled(tmp_path, "a1", "cat", "dog", "fox"), labelled(tmp_path, "b1", "dog", "cat", "fox")
    refused(3, "merge", one, other, *MODEL, says=("id2label[0]", "'cat'", "'dog'", "mixes classes up"))
    silent = labelled(tmp_path, "b2")
    result = run("merge", one, silent, *MODEL, "--no-onnx", "--out", "new")
    assert result.exit_code == 0, text(result)
    assert "their order was not compared" in text(result)


def test_row_16_counters_of_batches_take_the_maximum(edit: Any, run: Run, tmp_path: Path) -> None:
    edit(lambda s: s["norm.num_batches_tracked"].fill_(7), "a", "seven")
    edit(lambda s: s["norm.num_batches_tracked"].fill_(9), "b", "nine")
    words = ("merge", "seven.safetensors", "nine.safetensors", *MODEL, "--no-onnx", "--out", "out")
    assert run(*words).exit_code == 0
    assert load_file(tmp_path / "out" / "model.safetensors")["norm.num_batches_tracked"] == 9


def test_row_17_other_integers_must_be_equal(pair: Pair, run: Run, refused: Refused, tmp_path: Path) -> None:
    words = pair("Table")
    assert run(*words, "--out", "new").exit_code == 0
    state = load_file(tmp_path / words[2])
    save_file({**state, "order": state["order"].flip(0)}, str(tmp_path / words[2]))
    refused(3, *words, says=("tensor order (torch.int64) differs", "integers have no average"))


def test_row_40_complex_parameters_are_refused_until_matching_them_is_tested(
    pair: Pair, refused: Refused
) -> None:
    """Averages of the two parts are refused with it: a merge that cannot align is no merge of ours."""
    refused(4, *pair("Complex"), says=("complex parameters", "'w'", "as two parameters"))


def test_row_41_quantised_weights(edit: Any, refused: Refused, tmp_path: Path) -> None:
    edit(lambda _: None)
    state = load_file(tmp_path / "b.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state["fc2.weight"] = torch.quantize_per_tensor(state["fc2.weight"], 0.1, 0, torch.qint8)
        torch.save(state, tmp_path / "bad.pt")
        words = ("merge", "a.safetensors", "bad.pt", *MODEL)
        refused(3, *words, says=("bad.pt", "'fc2.weight'", "give the float originals"))


def test_row_41_codes_of_eight_bits_in_place_of_floats(edit: Any, refused: Refused) -> None:
    codes = torch.from_numpy(np.zeros((3, 12), np.int8))
    edit(lambda s: s.update({"fc2.weight": codes}))
    refused(3, *BAD, says=("bad.safetensors", "'fc2.weight'", "give the float originals"))
