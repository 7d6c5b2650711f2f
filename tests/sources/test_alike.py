"""Whether models in Hugging Face folders go together, from their side files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from graphmerge.errors import InputError, TraceError
from graphmerge.sources.huggingface import require_alike

WORDS = {"model": {"vocab": {"a": 0, "b": 1}}}
CLASSES = {"id2label": {"0": "cat", "1": "dog"}}


def folder(path: Path, config: Any = CLASSES, **files: Any) -> Path:
    path.mkdir()
    for name, content in {"config": config, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_how_a_text_is_cut_or_padded_makes_no_other_tokens(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", tokenizer={**WORDS, "padding": None})
    other = folder(tmp_path / "b", tokenizer={**WORDS, "padding": {"length": 7}})
    assert require_alike([one, other]) == []


def test_a_folder_without_a_tokenizer_says_nothing(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "a", vocab={"a": 0}), folder(tmp_path / "b")
    assert require_alike([one, other]) == require_alike([other, one]) == []


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"vocab": {"a": 0}}, {"vocab": {"a": 1}}, "another vocab.json"),
        ({"vocab": {}, "tokenizer": WORDS}, {"tokenizer": WORDS}, "vocab.json missing"),
        ({"tokenizer": WORDS}, {"vocab": {}, "tokenizer": WORDS}, "vocab.json there"),
        ({"tokenizer": [1]}, {"tokenizer": [1]}, "tokenizer.json': expected keys and values, seen a list"),
        ({"config": [1]}, {}, "config.json': expected keys and values, seen a list"),
        ({"config": {"id2label": ["cat"]}}, {}, "expected keys and values, seen a list"),
        ({"config": {"id2label": {"0": "dog", "1": "cat"}}}, {}, "id2label[0] = 'dog'"),
    ],
)
def test_folders_that_do_not_go_together(tmp_path: Path, one: Any, other: Any, said: str) -> None:
    folders = [folder(tmp_path / "a", **one), folder(tmp_path / "b", **other)]
    with pytest.raises(InputError) as refused:
        require_alike(folders)
    assert said in str(refused.value)


def test_labels_that_were_made_up_are_not_compared_and_that_is_told(tmp_path: Path) -> None:
    one = folder(tmp_path / "a")
    other = folder(tmp_path / "b", {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}})
    (note,) = require_alike([one, other])
    assert "order was not compared" in note


def test_settings_of_another_network(tmp_path: Path) -> None:
    one, other = folder(tmp_path / "a", {"act": "gelu"}), folder(tmp_path / "b", {"act": "relu"})
    with pytest.raises(TraceError, match="act: 'relu'"):
        require_alike([one, other])
