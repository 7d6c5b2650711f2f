"""`graphmerge zoo`: what each command writes, prints and exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Zoo

from graphmerge.errors import InputError, UsageError
from graphmerge.zoo import read_baseline, read_zoo, run, select
from graphmerge.zoo.kept import measured as kept
from graphmerge.zoo.subject import Subject


def test_list_names_entries_and_their_checks(zoo: Zoo, measured: Path) -> None:
    found = json.loads(zoo("list", measured, "--json").stdout)
    assert list(found) == ["exported", "pair", "turned"]
    assert found["turned"]["checks"] == ["trace", "groups", "invariance", "planted", "time", "memory"]
    assert set(found["pair"]["checks"]) > {"weights", "accuracy", "match", "merged", "barrier"}
    assert found["pair"]["baseline"] is True


def test_an_entry_without_a_baseline_fails_until_there_is_one(zoo: Zoo, folder: Path) -> None:
    (folder / "baseline.json").unlink()
    done = zoo("check", folder, "-k", "turned", "--quiet")
    assert done.exit_code == 1
    assert "run `graphmerge zoo update`" in done.stdout
    assert not (folder / "baseline.json").exists()
    made = zoo("update", folder, "-k", "turned", "--quiet")
    assert "turned: new, 6 measurements" in made.stdout
    assert list(read_baseline(folder)) == ["turned"]


def test_update_prints_what_moved_and_keeps_the_rest(zoo: Zoo, folder: Path) -> None:
    baseline = json.loads((folder / "baseline.json").read_text())
    was = json.dumps(baseline, sort_keys=True)
    (moved,) = baseline["models"]["turned"]["groups"]["groups"]
    moved["size"] = 13
    baseline["models"]["gone"] = {}
    (folder / "baseline.json").write_text(json.dumps(baseline))
    checked = zoo("check", folder, "-k", "turned", "--quiet")
    assert checked.exit_code == 1
    assert "group one: 13 units before, now 12" in checked.stdout
    done = zoo("update", folder, "-k", "turned", "--quiet")
    assert done.exit_code == 0
    told = "gone: no longer in the zoo\nturned  groups: group one: 13 units before, now 12\n"
    assert done.stdout == told
    assert json.dumps(json.loads((folder / "baseline.json").read_text()), sort_keys=True) == was


def test_update_refuses_what_no_baseline_can_excuse(zoo: Zoo, folder: Path) -> None:
    before = (folder / "baseline.json").read_text()
    (folder / "pair-0.safetensors").unlink()
    done = zoo("update", folder, "-k", "pair", "--quiet")
    assert done.exit_code == 1
    assert "No baseline was written" in done.stderr
    assert (folder / "baseline.json").read_text() == before


def test_an_entry_that_left_the_zoo_is_missed(zoo: Zoo, folder: Path) -> None:
    text = (folder / "zoo.yml").read_text()
    start = text.index("  pair:")
    (folder / "zoo.yml").write_text(text[:start] + text[text.index("  turned:") : text.index("  exported:")])
    done = zoo("check", folder, "--quiet")
    assert done.exit_code == 1
    assert "zoo/exported  listed      no such entry  FAIL" in done.stdout
    assert "zoo/pair  listed" in done.stdout
    assert "6 passed, 2 failed" in done.stdout
    shards = [zoo("check", folder, "--quiet", "--shard", f"{k}/3").stdout for k in (1, 2, 3)]
    assert [text.count("no such entry  FAIL") for text in shards] == [1, 1, 0]


def test_where_reports_cannot_go_is_told_before_anything_is_measured(zoo: Zoo, folder: Path) -> None:
    for words in (["--out", folder], ["--out", folder, "--force"], ["--out", folder.parent, "--force"]):
        done = zoo("check", folder, *words)
        assert done.exit_code == 2
        assert done.stdout == ""
    assert (folder / "zoo.yml").exists()


def test_what_cannot_be_made_fails_its_check_with_a_cache_too(zoo: Zoo, folder: Path) -> None:
    (folder / "zoo.yml").write_text(
        "version: 1\nmodels:\n  lost: {model: 'toynets:lost', example_inputs: 3x6}\n"
    )
    (folder / "baseline.json").unlink()
    done = zoo("check", folder, "--quiet", "--cache", folder / "kept")
    assert done.exit_code == 1
    assert "zoo/lost  trace       cannot import 'toynets:lost'" in done.stdout


def test_add_appends_an_entry_and_its_hashes(zoo: Zoo, folder: Path) -> None:
    before = (folder / "zoo.yml").read_text()
    words = ["--model", "toynets:net", "--input", "3x6", "--data", "toynets:batches"]
    done = zoo("add", "more", "--zoo", folder, *words, "-w", "pair-0.safetensors")
    assert done.exit_code == 0, done.output
    assert (folder / "zoo.yml").read_text().startswith(before)
    entries = read_zoo(folder).entries
    assert entries["more"].inputs[0] == entries["pair"].inputs[0]
    assert entries["more"].data == "toynets:batches"
    assert zoo("add", "more", "--zoo", folder, *words).exit_code == 2
    assert zoo("add", "other", "--zoo", folder, *words, "-w", "none.safetensors").exit_code == 3


@pytest.mark.parametrize("head", ["version: 1\nmodels:\n", "version: 1\nmodels: {}\n"])
def test_the_first_entry_is_added_or_shown(zoo: Zoo, tmp_path: Path, head: str) -> None:
    (tmp_path / "zoo.yml").write_text(head)
    done = zoo("add", "1e3", "--zoo", tmp_path, "--model", "toynets:net", "--input", "3x6")
    if "{}" in head:
        assert done.exit_code == 2
        assert "put this there yourself" in done.stderr
    else:
        assert done.exit_code == 0, done.output
        assert list(read_zoo(tmp_path).entries) == ["1e3"]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("no-such-program-here", 1, "No such file"),
        ("python -c 'raise SystemExit(3)'", 1, "exit code 3"),
        ("python 'open", 2, "No closing quotation"),
        ("python -c 'print({1: 2}, {})'", 0, "as before"),
    ],
)
def test_a_command_of_training_that_fails(zoo: Zoo, folder: Path, command: str, code: int, said: str) -> None:
    text = (folder / "zoo.yml").read_text()
    start, end = text.index("train: "), text.index("    inputs:")
    (folder / "zoo.yml").write_text(f"{text[:start]}train: |-\n      {command}\n{text[end:]}")
    done = zoo("train", "pair", "--zoo", folder, "--quiet")
    assert done.exit_code == code, done.output
    assert said in done.output


def test_add_begins_a_zoo_in_a_folder_without_one(zoo: Zoo, folder: Path) -> None:
    (folder / "zoo.yml").unlink()
    words = ["--model", "toynets:net", "--input", "3x6"]
    done = zoo("add", "first", "--zoo", folder, *words, "-w", "pair-0.safetensors")
    assert done.exit_code == 0, done.output
    assert list(read_zoo(folder).entries) == ["first"]
    assert zoo("add", "second", "--zoo", folder, *words).exit_code == 0
    assert list(read_zoo(folder).entries) == ["first", "second"]
    assert zoo("add", "first", "--zoo", folder / "nowhere", *words).exit_code == 3


def test_train_runs_the_command_and_renews_the_hashes(zoo: Zoo, folder: Path) -> None:
    was = read_zoo(folder).entries["pair"].inputs
    text = (folder / "zoo.yml").read_text()
    fake = "import pathlib, sys; pathlib.Path(sys.argv[2]).write_text(sys.argv[1])"
    (folder / "fake.py").write_text(fake)
    start, end = text.index("python "), text.index(" {index}")
    (folder / "zoo.yml").write_text(text[:start] + f"python {folder}/fake.py" + text[end:])
    done = zoo("train", "pair", "--zoo", folder, "--quiet")
    assert done.exit_code == 0, done.output
    assert [(folder / w.path).read_text() for w in was] == ["0", "1"]
    now = read_zoo(folder).entries["pair"].inputs
    assert all(a.sha256 != b.sha256 for a, b in zip(was, now, strict=True))
    assert Subject(read_zoo(folder), read_zoo(folder).entries["pair"]).require_hashes() == 2
    assert zoo("train", "turned", "--zoo", folder).exit_code == 2
    assert zoo("train", "nobody", "--zoo", folder).exit_code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [(["-k", "nobody"], 2), (["--shard", "3/2"], 2), (["--shard", "x"], 2), (["--jobs", "0"], 2)],
)
def test_wrong_calls(zoo: Zoo, measured: Path, words: list[str], code: int) -> None:
    assert zoo("check", measured, *words).exit_code == code


def test_bad_files_have_codes_of_their_own(zoo: Zoo, folder: Path, tmp_path: Path) -> None:
    assert zoo("check", tmp_path / "nowhere").exit_code == 3
    (folder / "baseline.json").write_text("{")
    assert zoo("check", folder).exit_code == 3
    (folder / "zoo.yml").write_text("version: 1\nmodel: {}\n")
    done = zoo("check", folder)
    assert done.exit_code == 2
    assert "did you mean 'models'?" in done.stderr


def test_a_zoo_without_entries_is_no_success(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "zoo.yml").write_text("version: 1\nmodels: {}\n")
    for command in ("check", "update"):
        done = zoo(command, tmp_path)
        assert done.exit_code == 2
        assert "has no entries" in done.stderr


def test_shards_are_a_partition(measured: Path) -> None:
    zoo = read_zoo(measured)
    parts = [select(zoo, shard=f"{k}/2") for k in (1, 2)]
    assert sorted(parts[0] + parts[1]) == sorted(zoo.entries)
    assert select(zoo, ["turn*", "pai"]) == ["pair", "turned"]
    with pytest.raises(UsageError, match="no entry fits"):
        select(zoo, ["pair*x"])


def test_what_is_kept_is_not_measured_again_until_something_changes(folder: Path, tmp_path: Path) -> None:
    """Code, settings, weights and data: whatever of them changes, the entry is measured anew."""

    def said(name: str = "turned") -> list[str]:
        zoo, lines = read_zoo(folder), list[str]()
        kept(name, Subject(zoo, zoo.entries[name]), tmp_path / "kept", lines.append)
        return lines

    assert "turned: trace" in said()
    assert ["kept in" in line for line in said()] == [True]
    (file,) = (tmp_path / "kept").iterdir()
    file.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        said()
    text = (folder / "zoo.yml").read_text()
    (folder / "zoo.yml").write_text(text.replace("toynets:Turned\n", "toynets:Turned\n    seed: 5\n"))
    assert "turned: trace" in said()


@pytest.mark.slow
def test_entries_in_processes_of_their_own_come_in_order(
    measured: Path,
) -> None:
    """Time and memory are noise; all else is as in one process."""
    zoo = read_zoo(measured)
    found = list(run(zoo, ["turned", "turned"], jobs=2))
    assert [m.entry for m in found] == ["turned", "turned"]
    assert [m.errors for m in found] == [{}, {}]
    assert all(m.facts["groups"] == read_baseline(measured)[m.entry]["groups"] for m in found)


def test_every_check_is_a_test_of_pytest(folder: Path) -> None:
    baseline = json.loads((folder / "baseline.json").read_text())
    baseline["models"] = {"turned": baseline["models"]["turned"]}
    baseline["models"]["turned"]["groups"]["groups"] = []
    baseline["models"]["gone"] = {}
    (folder / "baseline.json").write_text(json.dumps(baseline))
    command = [sys.executable, "-m", "pytest", "-p", "pytest_graphmerge", "--graphmerge-zoo", str(folder)]
    done = subprocess.run(
        [*command, "-k", "turned or gone", "-v", "-p", "no:cacheprovider", "-c", "/dev/null",
         "--rootdir", folder],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "zoo.yml::turned::invariance PASSED" in done.stdout
    assert "zoo.yml::turned::groups FAILED" in done.stdout
    assert "zoo.yml::gone::listed FAILED" in done.stdout
    assert "group one: 12 more units now move" in done.stdout
    assert "Traceback" not in done.stdout
    assert "5 passed" in done.stdout
    assert "2 failed" in done.stdout
