"""zoo.yml: what is read, and what is refused with a word on what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphmerge.errors import InputError, UsageError
from graphmerge.zoo import read_zoo

TWO = "    inputs: [a.safetensors, b.safetensors]\n"
ENTRY = "    model: nets:net\n    example_inputs: [2x3]\n"


def written(folder: Path, models: str, head: str = "version: 1\n") -> Path:
    (folder / "zoo.yml").write_text(f"{head}models:\n{models}")
    return folder


def test_an_entry_has_defaults_and_shares_keys_by_anchors(tmp_path: Path) -> None:
    text = f"  a: &all\n{ENTRY}    tolerances: {{barrier: 1e-3}}\n  b:\n    <<: *all\n    model: nets:other\n"
    a, b = read_zoo(written(tmp_path, text)).entries.values()
    assert (a.model, b.model) == ("nets:net", "nets:other")
    assert b.tolerances == a.tolerances
    assert a.tolerances.barrier == 0.001
    assert a.match.method == "weight"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (f"  a:\n{ENTRY}    toleranses: {{}}\n", "unknown key 'models.a.toleranses'"),
        (f"  a:\n{ENTRY}    toleranses: {{}}\n", "did you mean 'tolerances'?"),
        (f"  a:\n{ENTRY}    match: {{methd: weight}}\n", "unknown key 'models.a.match.methd'"),
        (f"  merge:\n{ENTRY}    match: {{methd: weight}}\n", "did you mean 'method'?"),
        (f"  a:\n{ENTRY}    match: auto\n", "unknown matching 'auto'; there are: weight"),
        (f"  a:\n{ENTRY}    barrier: 0.1\n", "did you mean 'tolerances.barrier'?"),
        ("  a: {}\n", "'models.a.model' is missing"),
        (f"  a:\n{ENTRY}    match: {{method: wieght}}\n", "'wieght'"),
        (f"  a:\n{ENTRY}    match: {{options: {{restart: 1}}}}\n", "no option 'restart'"),
        (f"  a:\n{ENTRY}    merge: {{method: avrage}}\n", "unknown merge method 'avrage'"),
        (f"  a:\n{ENTRY}    model: nets:other\n", "'model'"),
        ("  a:\n    model: nets:net\n    example_inputs: [2y3]\n", "input '2y3'"),
        (f"  a:\n{ENTRY}    inputs: [{{path: a, sha256: abc}}]\n", "models.a.inputs[0].sha256"),
        (f"  a:\n{ENTRY}    tolerances: {{time: 0.5}}\n", "greater than or equal to 1"),
        ("  a: !!python/object:os.system {}\n", "python/object"),
        ("  a: [", "zoo.yml"),
        (f"  a:\n{ENTRY}{TWO}    merge: ties\n", "ties needs the model that all were fine-tuned from"),
        (f"  a:\n{ENTRY}{TWO}    merge: regmean\n", "regmean needs data"),
        (f"  a:\n{ENTRY}{TWO}    merge: {{weights: [1, 2, 3]}}\n", "2 models but 3 weights"),
        (f"  a:\n{ENTRY}{TWO}    match: activation\n", "activation matching needs data"),
        (f"  a:\n{ENTRY}{TWO}    repair: bn-reset\n", "repair by bn-reset needs data"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, models: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_zoo(written(tmp_path, models))
    assert said in str(refused.value)


def test_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="version"):
        read_zoo(written(tmp_path, "", head="version: 2\n"))


def test_a_folder_without_a_zoo_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"zoo\.yml"):
        read_zoo(tmp_path)
