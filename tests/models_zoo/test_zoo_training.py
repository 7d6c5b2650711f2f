"""Training is reproducible, resumes where it stopped, and augments images as its recipe says."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models_zoo import training
from models_zoo.data import shipped_fashion
from models_zoo.training import RECIPES, augment, evaluate, learning_rate, train


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = shipped_fashion("train")
    monkeypatch.setattr(training, "full_fashion", lambda _split: (images[:512], labels[:512]))


def weights_after(tmp_path: Path, seed: int = 0, stop_at: int | None = None) -> dict[str, Tensor]:
    def stop(done: int, _loss: float) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    state_file = tmp_path / "state.pt"
    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            train("vgg", seed, 2, state_file, stop)
    model, _ = train("vgg", seed, 2, state_file, lambda _done, _loss: None)
    return model.state_dict()


@pytest.mark.usefixtures("few_images")
def test_interrupted_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    through = weights_after(tmp_path / "a")
    resumed = weights_after(tmp_path / "b", stop_at=1)
    for key, value in through.items():
        assert torch.allclose(value, resumed[key], atol=1e-6), key


def test_learning_rate_rises_then_falls_to_zero() -> None:
    recipe = RECIPES["vgg"]
    rates = [learning_rate(recipe, step / 100) for step in range(101)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 20
    assert max(rates) == recipe.peak_rate
    assert rates[-1] == pytest.approx(0)


def test_augmentation_only_moves_and_mirrors() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 2] = 1.0
    images = image.expand(200, 1, 8, 8)
    recipe = dataclasses.replace(RECIPES["vgg"], shift=1, flip=True)
    changed = augment(images, recipe, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    places = {tuple(place) for place in changed[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (2, 3, 4) for column in (1, 2, 3, 4, 5, 6)}


def test_evaluate_counts_every_prediction() -> None:
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    batches = [(logits[:2], torch.tensor([0, 1])), (logits[2:], torch.tensor([1]))]
    accuracy, loss = evaluate(torch.nn.Identity(), batches)
    assert accuracy == pytest.approx(2 / 3)
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1]))))
