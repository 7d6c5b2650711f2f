"""The shipped images and text, and the full set behind them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from models_zoo import data


def test_shipped_images_have_the_stated_statistics() -> None:
    images = torch.cat([x for x, _ in data.fashion_test()])
    assert images.shape == (10_000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02


def test_batches_are_cut_to_size_and_limit() -> None:
    found = data.batches("train", batch_size=400, limit=1_000)
    assert [len(x) for x, _ in found] == [400, 400, 200]
    assert [y.dtype for _, y in found] == [torch.int64] * 3
    assert sum(len(y) for _, y in data.fashion_train()) == 5_000


def test_shipped_data_stays_small() -> None:
    assert data.IMAGES_FILE.stat().st_size < 8e6
    assert data.TEXT_FILE.stat().st_size < 4e5


def test_text_targets_are_the_following_characters() -> None:
    for batches in (data.text_train(), data.text_test()):
        x, y = batches[0]
        assert x.shape == y.shape == (64, data.CONTEXT)
        assert torch.equal(x[:, 1:], y[:, :-1])


def test_held_out_text_is_apart_from_the_training_text() -> None:
    train, test = data.text_windows("train")[0], data.text_windows("test")[0]
    assert 0.08 < len(test) / (len(train) + len(test)) < 0.11
    text = data.TEXT_FILE.read_text(encoding="utf-8")
    decoded = "".join(data.vocabulary()[token] for token in test[0].tolist())
    start = (data.TEST_EVERY - 1) * data.TEXT_BLOCK
    assert text[start : start + data.CONTEXT] == decoded


def test_full_set_reads_idx_files(tmp_path: Path) -> None:
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8)
    images, labels = bytes(16) + pixels.tobytes(), bytes(8) + bytes([3, 9])
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    found, classes = data.full_fashion("test", tmp_path)
    assert found.shape == (2, 28, 28)
    assert found[0, 0, 5] == 5
    assert classes.tolist() == [3, 9]


def test_missing_full_set_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(data.IDX_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        data.full_fashion("train")
