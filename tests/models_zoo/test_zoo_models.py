"""Every architecture of the zoo builds and runs; every checkpoint reaches what its report says."""

import importlib
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from models_zoo.data import Batches, vocabulary
from models_zoo.registry import CHECKPOINTS, ZOO, Entry, build, checkpoint, load
from models_zoo.resnet import ChannelLayerNorm, resnet20
from models_zoo.training import evaluate

QUICK_BATCHES = 2
PAIRS = [name for name, entry in ZOO.items() if len(entry.seeds) > 1]
SAVED = [(name, seed) for name, entry in ZOO.items() for seed in entry.seeds]


def example(entry: Entry, count: int = 2) -> Tensor:
    return torch.ones((count, *entry.input_shape), dtype=getattr(torch, entry.input_dtype))


def quick_test_batches(entry: Entry) -> Batches:
    module, function = entry.test_loader.split(":")
    batches: Batches = getattr(importlib.import_module(module), function)()
    return batches[:QUICK_BATCHES]


def report(name: str, seed: int) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(checkpoint(name, seed).with_suffix(".json").read_text())
    return values


@pytest.mark.parametrize("name", ZOO)
def test_entry_maps_its_input_shape_to_logits(name: str) -> None:
    entry = ZOO[name]
    logits = build(name).eval()(example(entry))
    is_text = entry.input_dtype == "int64"
    expected = (2, *entry.input_shape, len(vocabulary())) if is_text else (2, 10)
    assert logits.shape == expected
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "seed"), SAVED)
def test_checkpoint_reaches_its_recorded_accuracy(name: str, seed: int) -> None:
    accuracy, loss = evaluate(load(name, seed), quick_test_batches(ZOO[name]))
    recorded = report(name, seed)
    assert accuracy == pytest.approx(recorded["quick_test_accuracy"], abs=0.002)
    assert loss == pytest.approx(recorded["quick_test_loss"], abs=0.002)


@pytest.mark.parametrize("name", PAIRS)
def test_seeds_start_from_different_weights(name: str) -> None:
    first, second = (load(name, seed).state_dict() for seed in ZOO[name].seeds[:2])
    matrices = [key for key, value in first.items() if value.dim() >= 2]
    assert matrices
    for key in matrices:
        a, b = first[key].flatten(), second[key].flatten()
        assert torch.cosine_similarity(a, b, dim=0) < 0.9, key


def test_registry_lists_exactly_the_saved_checkpoints() -> None:
    assert {path.stem for path in CHECKPOINTS.glob("*.safetensors")} == {f"{n}-s{s}" for n, s in SAVED}


def test_gpt_does_not_see_the_future() -> None:
    model = build("gpt").eval()
    text = torch.randint(0, len(vocabulary()), (1, 64), generator=torch.Generator().manual_seed(0))
    changed = text.clone()
    changed[0, 40:] = 0
    assert torch.allclose(model(text)[:, :40], model(changed)[:, :40], atol=1e-5)


def test_channel_layer_norm_is_the_norm_over_dim_1() -> None:
    norm = ChannelLayerNorm(6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 5, 4)
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = scaled * norm.weight.view(1, 6, 1, 1) + norm.bias.view(1, 6, 1, 1)
    assert torch.allclose(norm(x), expected, atol=1e-5)


def test_resnet20_has_twenty_weighted_layers_and_widens() -> None:
    weights = [value for value in resnet20(width=2).state_dict().values() if value.dim() >= 2]
    shortcuts = 2
    assert len(weights) == 20 + shortcuts
    assert weights[-1].shape == (10, 128)
