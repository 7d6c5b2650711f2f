"""Networks fine-tuned on other tasks: what the tasks show, and what the checkpoints have learned."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from models_zoo import finetuning
from models_zoo.data import TASKS, batches
from models_zoo.finetuning import TUNING_IMAGES, finetune
from models_zoo.registry import FINETUNED, TUNED, Tuned, checkpoint, load, load_tuned
from models_zoo.training import evaluate

NAMES = [t.path.stem for t in TUNED]


def test_tasks_show_the_same_images_in_other_ways() -> None:
    pixels = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    assert torch.equal(TASKS["upright"](pixels), pixels)
    assert torch.equal(TASKS["inverted"](TASKS["inverted"](pixels)), pixels)
    turned = pixels
    for _ in range(4):
        turned = TASKS["rotated"](turned)
    assert torch.equal(turned, pixels)
    assert torch.equal(TASKS["rotated"](pixels)[0, -1], pixels[0, :, 0])


def test_held_out_images_are_none_of_those_tuned_on() -> None:
    rest = torch.cat([y for _, y in batches("train", start=TUNING_IMAGES)])
    every = torch.cat([y for _, y in batches("train")])
    assert len(rest) == 1000
    assert torch.equal(rest, every[TUNING_IMAGES:])


def test_the_table_lists_exactly_the_saved_checkpoints() -> None:
    assert {path.stem for path in FINETUNED.glob("*.safetensors")} == set(NAMES)


@pytest.mark.parametrize("tuned", TUNED, ids=NAMES)
def test_a_checkpoint_has_learned_its_task_and_left_the_base(tuned: Tuned) -> None:
    report = json.loads(tuned.path.with_suffix(".json").read_text())
    quick = batches("test", limit=500, task=tuned.task)
    accuracy, before = (evaluate(m, quick)[0] for m in (load_tuned(tuned), load(tuned.base, tuned.seed)))
    assert accuracy == pytest.approx(report["test_accuracy"][tuned.task], abs=0.05)
    assert before == pytest.approx(report["test_accuracy_before"][tuned.task], abs=0.05)
    assert accuracy > before + 0.4
    own, base = load_file(tuned.path), load_file(checkpoint(tuned.base, tuned.seed))
    distance = sum(float((own[n] - t).square().sum()) for n, t in base.items() if t.ndim > 1)
    size = sum(float(t.square().sum()) for t in base.values() if t.ndim > 1)
    assert 0 < distance < size  # nearer to the base than the base is to nothing


def test_fine_tuning_again_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "TUNING_IMAGES", 256)
    losses: list[float] = []
    first, again = (finetune(TUNED[0], 2, lambda _, loss: losses.append(loss))[0] for _ in range(2))
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in first.state_dict().items())
    assert losses[:2] == losses[2:]
    assert losses[1] < losses[0]
